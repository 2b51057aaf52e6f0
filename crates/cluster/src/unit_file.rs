//! Unit files: the user's text, byte for byte, beside its options, canonical text and hash.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

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
}

/// One assignment, in file order.
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
}

impl UnitFile {
    /// Reads a unit file as systemd does. `text` is kept as it is.
    pub fn parse(text: &str) -> Result<UnitFile, UnitFileError> {
        if text.len() > UNIT_FILE_BYTES_MAX {
            return Err(UnitFileError::TooLong { bytes: text.len() });
        }
        Ok(UnitFile::from_parts(text.into(), parse_options(text)?))
    }

    /// A unit file from its options, as fleet's API carries it; its text is the canonical one.
    pub fn from_options(options: Vec<UnitOption>) -> Result<UnitFile, UnitFileError> {
        UnitFile::parse(&canonical(&options))
    }

    /// A text that some version of this program accepted once. It must never be refused again, whatever this version thinks
    /// of it: the cluster's history holds it.
    fn stored(text: String) -> UnitFile {
        let options = parse_options(&text).unwrap_or_default();
        UnitFile::from_parts(text, options)
    }

    fn from_parts(text: String, options: Vec<UnitOption>) -> UnitFile {
        let hash = UnitHash(Sha1::digest(canonical(&options)).into());
        UnitFile(Arc::new(Parsed { text, options, hash }))
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

    /// Sections in the order of their first appearance, each with all its options: what fleet printed and hashed.
    pub fn canonical(&self) -> String {
        canonical(&self.0.options)
    }

    /// Every value of that option, in order.
    pub fn values<'a>(&'a self, section: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
        let wanted = move |option: &&UnitOption| option.section == section && option.name == name;
        self.0.options.iter().filter(wanted).map(|option| option.value.as_str())
    }
}

fn canonical(options: &[UnitOption]) -> String {
    let mut sections: Vec<&str> = Vec::new();
    for option in options {
        if !sections.contains(&option.section.as_str()) {
            sections.push(&option.section);
        }
    }
    let mut text = String::new();
    for section in sections {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&format!("[{section}]\n"));
        for option in options.iter().filter(|option| option.section == section) {
            text.push_str(&format!("{}={}\n", option.name, option.value));
        }
    }
    text
}

fn parse_options(text: &str) -> Result<Vec<UnitOption>, UnitFileError> {
    let mut options = Vec::new();
    let mut section: Option<String> = None;
    for (number, line) in text.lines().enumerate() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = trimmed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = Some(name.into());
            continue;
        }
        let Some(section) = &section else { continue };
        let Some((name, value)) = trimmed.split_once('=') else {
            return Err(UnitFileError::Line { line: number + 1, reason: "expected NAME=VALUE".into() });
        };
        let (name, value) = (name.trim().into(), value.trim().into());
        options.push(UnitOption { section: section.clone(), name, value });
    }
    Ok(options)
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
