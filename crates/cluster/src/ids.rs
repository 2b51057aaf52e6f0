//! Names of machines and positions in the cluster's history. Each is known good once it exists.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A machine's identity, as in `/etc/machine-id`: 1 to 64 of `[0-9a-zA-Z_.-]`. systemd writes 32 hex digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MachineId(Arc<str>);

/// Why a text is no machine id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("machine id {0:?} is not 1 to 64 of the characters 0-9 a-z A-Z _ . -")]
    Machine(String),
}

impl MachineId {
    pub fn new(text: &str) -> Result<MachineId, IdError> {
        let good = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-');
        if text.is_empty() || text.len() > 64 || !text.bytes().all(good) {
            return Err(IdError::Machine(text.chars().take(80).collect()));
        }
        Ok(MachineId(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Sorts before every machine id; only for the start of a range.
    pub(crate) fn least() -> MachineId {
        MachineId("".into())
    }

    /// The first eight characters, as fleet and its users write it.
    pub fn short(&self) -> &str {
        &self.0[..self.0.len().min(8)]
    }
}

/// Machines are looked up by the beginning of their ids.
impl Borrow<str> for MachineId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for MachineId {
    type Error = IdError;
    fn try_from(text: String) -> Result<MachineId, IdError> {
        MachineId::new(&text)
    }
}

impl From<MachineId> for String {
    fn from(id: MachineId) -> String {
        id.0.to_string()
    }
}

impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A position in the store's history: the log index in the raft store, the store's own index with etcd. It
/// only grows, and every replica gives the same change the same revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Revision(pub u64);

/// Which of a unit's wishes is meant: the revision at which its file or its desired state was last changed.
/// It grows with every change and is never used twice for one unit name, not even across destroy and create.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Generation(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
