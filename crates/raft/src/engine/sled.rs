//! sled 0.34.7, contained. As shipped it loses acknowledged data when the power goes, and can refuse to open after a kill.
//! What is done about each:
//!
//! * Its flush is `sync_file_range`, which neither flushes the disk's cache nor commits the file's size: after each flush
//!   we call `fdatasync` on the file ourselves.
//! * A kill while it writes its index snapshot leaves `snap.X.generating`, which the next start takes for the snapshot:
//!   such files are removed first. An index snapshot that cannot be read is removed too; the index is then read from the log.
//! * It never syncs `conf`: all files and folders are synced once after the start.
//! * A page larger than a quarter of a segment goes to an own file under `blobs`, which is never synced. A page holds up to
//!   20 values, so values are limited to [`VALUE_BYTES_MAX`].
//! * It has no timer of its own here: what is durable when is our decision alone.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use super::{Batch, Engine, Table, Visit, damaged};

/// Fixed at creation. sled holds a few buffers of this size in memory.
const SEGMENT_BYTES: usize = 512 << 10;
/// 20 values of this size, with keys, stay below a quarter of a segment.
pub const VALUE_BYTES_MAX: usize = 5 << 10;
const CACHE_BYTES: u64 = 4 << 20;
/// How long the threads of an earlier sled in this process may take to let go of its files.
const LOCK_TRIES: u32 = 200;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

pub struct SledEngine {
    db: sled::Db,
    /// The same file that sled writes.
    file: File,
}

impl SledEngine {
    pub fn open(dir: &Path) -> io::Result<SledEngine> {
        fs::create_dir_all(dir)?;
        remove_snapshots(dir, |name| name.ends_with(".generating"))?;
        let db = match open_unlocked(dir) {
            Err(error) if !matches!(error, sled::Error::Io(_)) => {
                tracing::warn!(%error, "sled cannot open its files; trying again without its index snapshots");
                remove_snapshots(dir, |_| true)?;
                open_unlocked(dir)
            }
            opened => opened,
        }
        .map_err(from_sled)?;
        sync_all(dir)?;
        let file = OpenOptions::new().read(true).write(true).open(dir.join("db"))?;
        Ok(SledEngine { db, file })
    }
}

fn open_unlocked(dir: &Path) -> Result<sled::Db, sled::Error> {
    let mut tries = 0;
    loop {
        let opened = sled::Config::new()
            .path(dir)
            .segment_size(SEGMENT_BYTES)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None)
            .mode(sled::Mode::HighThroughput)
            .open();
        match opened {
            Err(sled::Error::Io(error)) if error.to_string().contains("could not acquire lock") => {
                if tries == LOCK_TRIES {
                    return Err(sled::Error::Io(error));
                }
                tries += 1;
                std::thread::sleep(LOCK_PAUSE);
            }
            opened => return opened,
        }
    }
}

fn remove_snapshots(dir: &Path, which: impl Fn(&str) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && which(&name) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Every file under `dir`, `dir` itself and its parent.
fn sync_all(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        match File::open(entry?.path()) {
            Ok(file) => file.sync_all()?,
            // sled's own threads put an index snapshot in the place of another.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    File::open(dir)?.sync_all()?;
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

fn from_sled(error: sled::Error) -> io::Error {
    match error {
        sled::Error::Io(error) => error,
        error => damaged(error),
    }
}

/// Both tables share one sled tree, because a batch is atomic only within one.
fn prefixed(table: Table, key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + key.len());
    bytes.push(prefix(table));
    bytes.extend_from_slice(key);
    bytes
}

fn prefix(table: Table) -> u8 {
    match table {
        Table::Meta => b'm',
        Table::Log => b'l',
    }
}

impl Engine for SledEngine {
    fn get(&self, table: Table, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let found = self.db.get(prefixed(table, key)).map_err(from_sled)?;
        Ok(found.map(|value| value.to_vec()))
    }

    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> io::Result<()> {
        for found in self.db.range(prefixed(table, from)..vec![prefix(table) + 1]) {
            let (key, value) = found.map_err(from_sled)?;
            if let ControlFlow::Break(()) = visit(&key[1..], &value)? {
                break;
            }
        }
        Ok(())
    }

    fn write(&self, batch: &Batch) -> io::Result<()> {
        let mut writes = sled::Batch::default();
        for write in &batch.writes {
            let key = prefixed(write.table, &write.key);
            match &write.value {
                Some(value) => {
                    assert!(
                        value.len() <= VALUE_BYTES_MAX,
                        "Small Values: sled would put {} bytes elsewhere",
                        value.len()
                    );
                    writes.insert(key, value.as_slice());
                }
                None => writes.remove(key),
            }
        }
        self.db.apply_batch(writes).map_err(from_sled)
    }

    fn sync(&self) -> io::Result<()> {
        self.db.flush().map_err(from_sled)?;
        self.file.sync_data()
    }
}
