//! The names of all keys, below one prefix.
//!
//! ```text
//! format              {"version":1,"base":0}
//! head                a word for each write, and none twice: its revision is the newest
//! state/...           the records, as `record` names them
//! lead                who leads; goes with its machine's lease
//! alive/MACHINE       goes with the machine's lease
//! ```

use cluster::MachineId;
use serde::{Deserialize, Serialize};

use crate::record::Key;

pub const FORMAT_VERSION: u32 = 1;

/// How the keys are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Format {
    pub version: u32,
    /// Added to etcd's revisions: records that came from another store have generations that this etcd may
    /// not have reached by itself.
    pub base: u64,
}

impl Default for Format {
    fn default() -> Format {
        Format { version: FORMAT_VERSION, base: 0 }
    }
}

/// Who leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeadValue {
    pub machine: MachineId,
}

#[derive(Clone, Debug)]
pub struct Keys {
    prefix: String,
}

/// What a key is for.
pub enum Place {
    Format,
    Head,
    Lead,
    Alive(MachineId),
    Record(Key),
    /// Not ours, though below our prefix.
    Strange,
}

/// What a write leaves at `head`: who made it, and a word by which it is known from every other, also in
/// another history that counts the same revisions.
pub fn head_word(machine: &MachineId) -> String {
    format!("{machine} {}", uuid::Uuid::new_v4().simple())
}

impl Keys {
    pub fn new(prefix: &str) -> Keys {
        Keys { prefix: prefix.into() }
    }

    pub fn all(&self) -> String {
        self.prefix.clone()
    }

    pub fn format(&self) -> String {
        format!("{}format", self.prefix)
    }

    pub fn head(&self) -> String {
        format!("{}head", self.prefix)
    }

    pub fn lead(&self) -> String {
        format!("{}lead", self.prefix)
    }

    pub fn alive(&self, machine: &MachineId) -> String {
        format!("{}alive/{machine}", self.prefix)
    }

    pub fn record(&self, key: &Key) -> String {
        format!("{}state/{}", self.prefix, key.path())
    }

    /// Of all assignments.
    pub fn assignments(&self) -> String {
        format!("{}state/assignments/", self.prefix)
    }

    pub fn machines(&self) -> String {
        format!("{}state/machines/", self.prefix)
    }

    pub fn reboot_groups(&self) -> String {
        format!("{}state/reboot/", self.prefix)
    }

    pub fn place(&self, key: &[u8]) -> Place {
        let path = std::str::from_utf8(key).ok().and_then(|key| key.strip_prefix(&self.prefix));
        let place = path.and_then(|path| match path.split_once('/') {
            None if path == "format" => Some(Place::Format),
            None if path == "head" => Some(Place::Head),
            None if path == "lead" => Some(Place::Lead),
            Some(("alive", id)) => MachineId::new(id).ok().map(Place::Alive),
            Some(("state", path)) => Key::parse(path).map(Place::Record),
            _ => None,
        });
        place.unwrap_or(Place::Strange)
    }
}
