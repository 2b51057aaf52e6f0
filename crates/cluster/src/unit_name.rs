//! Unit names: fleet's rules and texts, which are systemd's names plus one list of types for everybody.

use std::borrow::Borrow;
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

    /// Replaces the four specifiers that fleet knew: `%n` the name, `%N` the name without its type, `%p` what
    /// stands before the `@`, `%i` what stands behind it. A `%` before anything else is left alone.
    pub fn fill_in(&self, text: &str) -> String {
        if !text.contains('%') {
            return text.into();
        }
        let filled = text.replace("%n", self.as_str()).replace("%N", self.stem());
        filled.replace("%p", self.prefix()).replace("%i", self.instance().unwrap_or(""))
    }

    /// The same name with another type: the `.socket` of a `.service`.
    pub fn with_suffix(&self, suffix: &str) -> Result<UnitName, UnitNameError> {
        UnitName::new(&format!("{}.{suffix}", self.stem()))
    }

    fn dot(&self) -> usize {
        self.0.rfind('.').expect("a unit name has a dot, which new() checked")
    }
}

/// Units are looked up by the beginning of their names.
impl Borrow<str> for UnitName {
    fn borrow(&self) -> &str {
        &self.0
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_names_as_fleet_did() {
        let check = |name: &str, expected: &str| {
            let got = UnitName::new(name).map_or_else(|error| error.to_string(), |_| "good".into());
            assert_eq!(got, expected, "{name:?}");
        };
        for name in [
            "foo.service",
            "hello.mount",
            "foo@123.service",
            "foo@.service",
            "yo.yo.service",
            "hello@world.path",
            "hello:world.service",
            "yes@no\\.service",
            "foo-bar.mount",
            "jalapano_chips.service",
            "..service",
            &format!("{}.service", "x".repeat(248)),
        ] {
            check(name, "good");
        }
        for suffix in TYPES {
            check(&format!("a.{suffix}"), "good");
            let fits = TYPES_WITH_TEMPLATES.contains(&suffix);
            let refused = format!("invalid unit type for template: \"{suffix}\"");
            check(&format!("foo@1.{suffix}"), if fits { "good" } else { &refused });
        }
        check("", "unit name cannot be empty");
        check(&format!("{}.service", "x".repeat(249)), "unit name exceeds maximum length (256)");
        check(&"%".repeat(512), "unit name exceeds maximum length (256)");
        check("foo", "unit name must contain \".\"");
        check("%foo", "unit name must contain \".\"");
        check("foo.", "unit name cannot end in \".\"");
        check("foo.bar", "invalid unit type: \"bar\"");
        check("foo.servICE", "invalid unit type: \"servICE\"");
        check("foo.service\n", "invalid unit type: \"service\n\"");
        check("%@.mount", "invalid unit type for template: \"mount\"");
        for bad in ['%', '$', '#', '/', '+', '=', ' ', '\0', 'ü', '{'] {
            check(&format!("a{bad}b.service"), &format!("invalid character '{bad}' in unit name"));
        }
        check("../../etc/passwd.service", "invalid character '/' in unit name");
        check("/etc/a.service", "invalid character '/' in unit name");
        check("@foo.service", "unit name cannot start in \"@\"");
        check("@%.service", "invalid character '%' in unit name");
        check("@.service", "unit name cannot start in \"@\"");
    }

    #[test]
    fn takes_names_apart() {
        let check = |name: &str, expected: [&str; 4]| {
            let name = UnitName::new(name).expect("a good name");
            let template = name.template().map_or("-".into(), |template| template.to_string());
            let parts = [name.stem(), name.prefix(), name.instance().unwrap_or("-"), &template];
            assert_eq!(parts, expected);
            assert_eq!(name.is_template(), expected[2].is_empty());
        };
        check("foo.service", ["foo", "foo", "-", "-"]);
        check("foo@.service", ["foo@", "foo", "", "-"]);
        check("foo@bar.service", ["foo@bar", "foo", "bar", "foo@.service"]);
        check("foo@bar@baz.service", ["foo@bar@baz", "foo", "bar@baz", "foo@.service"]);
        check("foo.1@.service", ["foo.1@", "foo.1", "", "-"]);
        check("foo.1@2.service", ["foo.1@2", "foo.1", "2", "foo.1@.service"]);
        check("ssh@1.socket", ["ssh@1", "ssh", "1", "ssh@.socket"]);
    }
}
