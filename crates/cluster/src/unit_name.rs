//! Unit names: fleet's rules and texts, which are systemd's names plus one list of types for everybody.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A valid unit name such as `web@8000.service`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UnitName(Arc<str>);

/// Why a text is no unit name. The texts are fleet's, which its clients show to people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitNameError {
    #[error("unit name cannot be empty")]
    Empty,
    #[error("unit name exceeds maximum length (256)")]
    TooLong,
    #[error("unit name must contain \".\"")]
    NoDot,
    #[error("unit name cannot end in \".\"")]
    EndsInDot,
    #[error("invalid unit type: \"{0}\"")]
    UnknownType(String),
    #[error("invalid unit type for template: \"{0}\"")]
    TypeWithoutTemplates(String),
    #[error("invalid character '{0}' in unit name")]
    Character(char),
    #[error("unit name cannot start in \"@\"")]
    StartsWithAt,
}

const TYPES: [&str; 13] = [
    "automount",
    "busname",
    "device",
    "mount",
    "path",
    "scope",
    "service",
    "slice",
    "snapshot",
    "socket",
    "swap",
    "target",
    "timer",
];
const TYPES_WITH_TEMPLATES: [&str; 5] = ["path", "service", "socket", "target", "timer"];

impl UnitName {
    /// Checks fleet's rules in fleet's order; the first that fails is reported.
    pub fn new(text: &str) -> Result<UnitName, UnitNameError> {
        if text.is_empty() {
            return Err(UnitNameError::Empty);
        }
        if text.len() > 256 {
            return Err(UnitNameError::TooLong);
        }
        let dot = text.rfind('.').ok_or(UnitNameError::NoDot)?;
        let (stem, suffix) = (&text[..dot], &text[dot + 1..]);
        if suffix.is_empty() {
            return Err(UnitNameError::EndsInDot);
        }
        if !TYPES.contains(&suffix) {
            return Err(UnitNameError::UnknownType(suffix.into()));
        }
        if text.contains('@') && !TYPES_WITH_TEMPLATES.contains(&suffix) {
            return Err(UnitNameError::TypeWithoutTemplates(suffix.into()));
        }
        let good = |c: &char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(*c);
        if let Some(bad) = stem.chars().find(|c| !good(c)) {
            return Err(UnitNameError::Character(bad));
        }
        if text.starts_with('@') {
            return Err(UnitNameError::StartsWithAt);
        }
        Ok(UnitName(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The unit's type, after the last dot: `service`.
    pub fn suffix(&self) -> &str {
        &self.0[self.dot() + 1..]
    }

    /// The name without its type: `web@8000`.
    pub fn stem(&self) -> &str {
        &self.0[..self.dot()]
    }

    /// Up to the first `@`, or the stem: `web`.
    pub fn prefix(&self) -> &str {
        self.stem().split_once('@').map_or(self.stem(), |(prefix, _)| prefix)
    }

    /// Between the first `@` and the type: `8000`; empty for a template, `None` for a plain unit.
    pub fn instance(&self) -> Option<&str> {
        self.stem().split_once('@').map(|(_, instance)| instance)
    }

    pub fn is_template(&self) -> bool {
        self.instance() == Some("")
    }

    /// The template that an instance is made from: `web@.service`.
    pub fn template(&self) -> Option<UnitName> {
        let instance = self.instance()?;
        if instance.is_empty() {
            return None;
        }
        Some(UnitName(format!("{}@.{}", self.prefix(), self.suffix()).into()))
    }

    /// The same name with another type: the `.socket` of a `.service`.
    pub fn with_suffix(&self, suffix: &str) -> Result<UnitName, UnitNameError> {
        UnitName::new(&format!("{}.{suffix}", self.stem()))
    }

    fn dot(&self) -> usize {
        self.0.rfind('.').expect("a unit name has a dot, which new() checked")
    }
}

impl TryFrom<String> for UnitName {
    type Error = UnitNameError;
    fn try_from(text: String) -> Result<UnitName, UnitNameError> {
        UnitName::new(&text)
    }
}

impl From<UnitName> for String {
    fn from(name: UnitName) -> String {
        name.0.to_string()
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
