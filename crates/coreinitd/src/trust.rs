//! What this machine keeps of the cluster that it was made a member of by hand: the cluster's secret, and
//! where the other members are. It stands beside the store, and outlives one that is set aside.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// In the data folder.
pub const FILE: &str = "trust.json";
const MODE: u32 = 0o600;

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
}

impl Trust {
    /// `None` when this machine was made no member by hand.
    pub fn read(dir: &Path) -> anyhow::Result<Option<Trust>> {
        let path = path(dir);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let trust = serde_json::from_str(&text).map_err(|error| {
            // The text of the error could quote the secret.
            let (line, column) = (error.line(), error.column());
            anyhow::anyhow!("{} cannot be used: line {line}, column {column}", path.display())
        })?;
        Ok(Some(trust))
    }

    /// Durable when it returns; a crash leaves the old file or the new one.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let new = dir.join("trust.json.new");
        // One that a crash left may have another mode.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = File::options().write(true).create_new(true).mode(MODE).open(&new)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_all()?;
        fs::rename(&new, path(dir))?;
        File::open(dir)?.sync_all()
    }

    pub fn remove(dir: &Path) -> io::Result<()> {
        match fs::remove_file(path(dir)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => File::open(dir)?.sync_all(),
        }
    }

    /// The secret itself; `None` when the text is not one.
    pub fn secret_bytes(&self) -> Option<Vec<u8>> {
        let digits = self.secret.as_bytes();
        let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
        digits.len().is_multiple_of(2).then(|| digits.chunks(2).map(byte).collect()).flatten()
    }
}

/// As [`Trust::secret`] has it.
pub fn hex(secret: &[u8]) -> String {
    secret.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn path(dir: &Path) -> PathBuf {
    dir.join(FILE)
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Trust {{ join: {:?}, init: {:?}, .. }}", self.join, self.init)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn what_is_written_is_read_by_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Trust::read(dir.path()).unwrap(), None);
        let trust = Trust { secret: hex(b"\x00secret\xff"), join: vec!["a:1".into()], init: None };
        trust.write(dir.path()).unwrap();
        assert_eq!(Trust::read(dir.path()).unwrap(), Some(trust.clone()));
        assert_eq!(fs::metadata(path(dir.path())).unwrap().mode() & 0o777, MODE);
        assert_eq!(trust.secret_bytes().as_deref(), Some(&b"\x00secret\xff"[..]));
        assert!(!format!("{trust:?}").contains(&trust.secret));
        for odd in ["0", "zz", "é"] {
            assert_eq!(Trust { secret: odd.into(), ..trust.clone() }.secret_bytes(), None, "{odd}");
        }
        fs::write(path(dir.path()), "{\"secret\": \"5e\", \"jion\": []}").unwrap();
        let error = Trust::read(dir.path()).unwrap_err().to_string();
        assert!(error.contains("trust.json cannot be used: line 1") && !error.contains("5e"), "{error}");
        Trust::remove(dir.path()).unwrap();
        Trust::remove(dir.path()).unwrap();
        assert_eq!(Trust::read(dir.path()).unwrap(), None);
    }
}
