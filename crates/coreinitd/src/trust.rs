//! What this machine keeps of the cluster that it was made a member of by hand: the cluster's secret, and
//! where the other members are. It stands beside the store, and outlives one that is set aside.

use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::private_file;

/// In the data folder.
pub const FILE: &str = "trust.json";

/// Written at `cluster init` and `cluster join`. Only its owner can read it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    /// The cluster's secret, each byte as two hexadecimal digits: one that was made elsewhere may be any
    /// bytes.
    pub secret: String,
    /// Members of the cluster, `HOST:PORT` each.
    pub join: Vec<String>,
    /// The name of a cluster that is yet to be formed, of this machine alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<String>,
    /// Where the others reach this machine, `HOST:PORT`, if somebody has said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
}

impl Trust {
    /// `None` when this machine was made no member by hand.
    pub fn read(dir: &Path) -> anyhow::Result<Option<Trust>> {
        private_file::read(dir, FILE)
    }

    /// Durable when it returns; a crash leaves the old file or the new one.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        let _alone = writing();
        private_file::write(dir, FILE, self)
    }

    /// Changes what is written down, if something is and `alter` makes a difference.
    pub fn alter(dir: &Path, alter: impl FnOnce(&mut Trust)) -> anyhow::Result<()> {
        let _alone = writing();
        let Some(now) = Trust::read(dir)? else { return Ok(()) };
        let mut next = now.clone();
        alter(&mut next);
        if next != now {
            private_file::write(dir, FILE, &next)?;
        }
        Ok(())
    }

    pub fn remove(dir: &Path) -> io::Result<()> {
        private_file::remove(dir, FILE)
    }

    /// The secret itself; `None` when the text is not one.
    pub fn secret_bytes(&self) -> Option<Vec<u8>> {
        identity::unhex(&self.secret)
    }
}

/// Two parts of the daemon write it.
fn writing() -> MutexGuard<'static, ()> {
    static WRITING: Mutex<()> = Mutex::new(());
    WRITING.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Trust {{ join: {:?}, init: {:?}, .. }}", self.join, self.init)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use identity::hex;

    use super::*;
    use crate::private_file::MODE;

    #[test]
    fn what_is_written_is_read_by_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Trust::read(dir.path()).unwrap(), None);
        let trust =
            Trust { secret: hex(b"\x00secret\xff"), join: vec!["a:1".into()], init: None, advertise: None };
        trust.write(dir.path()).unwrap();
        assert_eq!(Trust::read(dir.path()).unwrap(), Some(trust.clone()));
        assert_eq!(fs::metadata(dir.path().join(FILE)).unwrap().mode() & 0o777, MODE);
        assert_eq!(trust.secret_bytes().as_deref(), Some(&b"\x00secret\xff"[..]));
        assert!(!format!("{trust:?}").contains(&trust.secret));
        for odd in ["0", "zz", "é"] {
            assert_eq!(Trust { secret: odd.into(), ..trust.clone() }.secret_bytes(), None, "{odd}");
        }
        fs::write(dir.path().join(FILE), "{\"secret\": \"5e\", \"jion\": []}").unwrap();
        let error = Trust::read(dir.path()).unwrap_err().to_string();
        assert!(error.contains("trust.json cannot be used: line 1") && !error.contains("5e"), "{error}");
        Trust::remove(dir.path()).unwrap();
        Trust::remove(dir.path()).unwrap();
        assert_eq!(Trust::read(dir.path()).unwrap(), None);
    }
}
