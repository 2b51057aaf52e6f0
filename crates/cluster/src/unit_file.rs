//! Unit files: the user's text, byte for byte, beside its options, canonical text and hash.
//!
//! The hash decides whether a unit was changed, on every replica: how options are read and written out again
//! can only be changed together with the cluster's feature level.

mod reader;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

use crate::UnitName;
use crate::need::is_limit;

/// The largest unit file that is taken, in bytes. Files of tens of kilobytes exist; a megabyte is a mistake.
pub const UNIT_FILE_BYTES_MAX: usize = 1 << 20;

/// A unit file that systemd's rules can read. Two are equal when their texts are.
#[derive(Clone, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct UnitFile(Arc<Parsed>);

#[derive(Debug)]
struct Parsed {
    text: String,
    options: Vec<UnitOption>,
    hash: UnitHash,
    /// Some section speaks to us rather than to systemd.
    asks: bool,
    /// Some option of these sections is called `Global`.
    may_be_global: bool,
    /// Some option may limit the memory or the processors that the unit takes.
    has_limits: bool,
}

/// One assignment, in file order, without the blanks around its parts. A value that is continued on further
/// lines keeps its backslashes and line breaks here, as in fleet's API; [`UnitOption::joined`] is what it
/// means.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnitOption {
    pub section: String,
    pub name: String,
    pub value: String,
}

/// SHA-1 of the canonical text: fleet's unit hash. Shown as 40 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UnitHash(pub [u8; 20]);

/// Why a text is no unit file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitFileError {
    #[error("unit file is {bytes} bytes long, more than the {UNIT_FILE_BYTES_MAX} allowed")]
    TooLong { bytes: usize },
    #[error("line {line}: {reason}")]
    Line { line: usize, reason: String },
    /// Of options that came one by one, such as through fleet's API; the first is number 1.
    #[error("option {number}, {name:?} in section {section:?}, cannot be written into a unit file: {reason}")]
    Option { number: usize, section: String, name: String, reason: String },
}

/// The sections that speak to the cluster, in all spellings that its predecessors had.
pub(crate) const OUR_SECTIONS: [&str; 3] = ["X-Fleet", "X-Coreinit", "X-Flt"];

impl UnitFile {
    /// Reads a unit file as systemd does. `text` is kept as it is.
    pub fn parse(text: &str) -> Result<UnitFile, UnitFileError> {
        if text.len() > UNIT_FILE_BYTES_MAX {
            return Err(UnitFileError::TooLong { bytes: text.len() });
        }
        Ok(UnitFile::from_parts(text.into(), reader::read(text)?))
    }

    /// A unit file from its options, as fleet's API carries it; its text is the canonical one.
    pub fn from_options(options: Vec<UnitOption>) -> Result<UnitFile, UnitFileError> {
        for (option, number) in options.iter().zip(1..) {
            option.check().map_err(|reason| {
                let (section, name) = (option.section.clone(), option.name.clone());
                UnitFileError::Option { number, section, name, reason }
            })?;
        }
        UnitFile::parse(&canonical(&options))
    }

    /// A text that some version of this program accepted once. It must never be refused again, whatever this
    /// version thinks of it: the cluster's history holds it.
    fn stored(text: String) -> UnitFile {
        let options = reader::read(&text).unwrap_or_default();
        UnitFile::from_parts(text, options)
    }

    fn from_parts(text: String, options: Vec<UnitOption>) -> UnitFile {
        let hash = UnitHash(Sha1::digest(canonical(&options)).into());
        let ours = |option: &&UnitOption| OUR_SECTIONS.contains(&&*option.section);
        let asks = options.iter().any(|option| ours(&option));
        let may_be_global = asks && options.iter().filter(ours).any(|option| option.name == "Global");
        let has_limits = options.iter().any(|option| is_limit(&option.name));
        UnitFile(Arc::new(Parsed { text, options, hash, asks, may_be_global, has_limits }))
    }

    pub fn text(&self) -> &str {
        &self.0.text
    }

    pub fn options(&self) -> &[UnitOption] {
        &self.0.options
    }

    pub fn hash(&self) -> UnitHash {
        self.0.hash
    }

    /// Sections in the order of their first appearance, each with all its options: what fleet printed and
    /// hashed.
    pub fn canonical(&self) -> String {
        canonical(&self.0.options)
    }

    /// Every value of that option, in order, as systemd understands it: continued lines are joined. An empty
    /// value, which takes back the ones before it, is among them.
    pub fn values<'a>(&'a self, section: &'a str, name: &'a str) -> impl Iterator<Item = Cow<'a, str>> {
        let wanted = move |option: &&UnitOption| option.section == section && option.name == name;
        self.0.options.iter().filter(wanted).map(UnitOption::joined)
    }

    /// The options of these sections in the order of the canonical text: files of one hash mean the same,
    /// also where a section is begun twice.
    pub(crate) fn options_of(&self, sections: &[&str]) -> Vec<&UnitOption> {
        let wanted = self.0.options.iter().filter(|option| sections.contains(&&*option.section));
        let mut options: Vec<&UnitOption> = wanted.collect();
        let mut order: Vec<&str> = Vec::new();
        for option in &options {
            if !order.contains(&&*option.section) {
                order.push(&option.section);
            }
        }
        options.sort_by_key(|option| order.iter().position(|section| *section == option.section));
        options
    }

    /// The first `Description=`, as fleet showed it, with the unit's name filled in; empty without one.
    pub fn description(&self, name: &UnitName) -> String {
        name.fill_in(&self.values("Unit", "Description").next().unwrap_or_default())
    }

    /// Whether the file asks anything of the cluster, well or badly.
    pub(crate) fn asks(&self) -> bool {
        self.0.asks
    }

    pub(crate) fn may_be_global(&self) -> bool {
        self.0.may_be_global
    }

    pub(crate) fn has_limits(&self) -> bool {
        self.0.has_limits
    }
}

impl UnitOption {
    /// The value as systemd understands it.
    pub fn joined(&self) -> Cow<'_, str> {
        match self.value.contains('\n') {
            true => reader::joined(&self.value).into(),
            false => reader::trim(&self.value).into(),
        }
    }

    /// Whether the option can be written down and read again as the same; if not, why not.
    fn check(&self) -> Result<(), String> {
        let UnitOption { section, name, value } = self;
        for (what, text) in [("section", section), ("name", name)] {
            if text.is_empty() || text.contains(['\n', '\r']) || reader::trim(text) != text && what == "name"
            {
                return Err(format!("its {what} must be one line of text without blanks around it"));
            }
        }
        let text = canonical(std::slice::from_ref(self));
        let read = reader::read(&text).map_err(|error| match error {
            UnitFileError::Line { reason, .. } => reason,
            other => other.to_string(),
        })?;
        if let [option] = &*read
            && option == self
        {
            return Ok(());
        }
        let reason = if value.contains('\r') {
            "its value holds a carriage return"
        } else if value.ends_with('\\') {
            "its value ends in a backslash, which would make the next line part of it"
        } else if reader::trim(value) != value && !value.ends_with("\\\n") {
            "its value has blanks at its ends, which systemd would cut off"
        } else if value.contains('\n') {
            "its value holds a line break with no backslash before it"
        } else {
            "it would not be read back as it is"
        };
        Err(reason.into())
    }
}

/// Sections in the order of their first appearance, with their options in the order they came in.
fn canonical(options: &[UnitOption]) -> String {
    let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
    let mut sections: Vec<(&str, Vec<&UnitOption>)> = Vec::new();
    for option in options {
        let number = *numbers.entry(&option.section).or_insert(sections.len());
        if number == sections.len() {
            sections.push((&option.section, Vec::new()));
        }
        sections[number].1.push(option);
    }
    let mut text = String::new();
    for (section, options) in sections {
        if !text.is_empty() {
            text.push('\n');
        }
        text.extend(["[", section, "]\n"]);
        for option in options {
            text.extend([&option.name, "=", &option.value, "\n"]);
        }
    }
    text
}

impl PartialEq for UnitFile {
    fn eq(&self, other: &UnitFile) -> bool {
        self.0.text == other.0.text
    }
}

impl Eq for UnitFile {}

impl From<String> for UnitFile {
    fn from(text: String) -> UnitFile {
        UnitFile::stored(text)
    }
}

impl From<UnitFile> for String {
    fn from(file: UnitFile) -> String {
        file.0.text.clone()
    }
}

impl fmt::Debug for UnitFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UnitFile({} bytes, {})", self.0.text.len(), self.0.hash)
    }
}

impl UnitHash {
    /// From 40 hex digits.
    pub fn from_hex(text: &str) -> Option<UnitHash> {
        let mut hash = [0; 20];
        if text.len() != 40 || !text.is_ascii() {
            return None;
        }
        for (i, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
        }
        Some(UnitHash(hash))
    }
}

impl fmt::Display for UnitHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for UnitHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests;
