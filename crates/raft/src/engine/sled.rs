//! sled 0.34.7, contained. As shipped it loses acknowledged data when the power goes, and can refuse to open
//! after a kill. What is done about each:
//!
//! * Its flush is `sync_file_range`, which neither flushes the disk's cache nor commits the file's size:
//!   after each flush we call `fdatasync` on the file ourselves.
//! * A kill while it writes its index snapshot leaves `snap.X.generating`, which the next start takes for the
//!   snapshot: such files are removed first. An index snapshot that cannot be read is removed too; the index
//!   is then read from the log.
//! * It never syncs `conf`: all files and folders are synced once after the start.
//! * A page larger than a quarter of a segment goes to an own file under `blobs`, which is never synced. A
//!   page holds up to 20 values, so values are limited to [`VALUE_BYTES_MAX`].
//! * Its file grows far beyond what it holds: a start that finds it so copies what is there into a new one.
//! * It has no timer of its own here: what is durable when is our decision alone.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
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

/// When to copy: the files take so many bytes, and so many times what they hold.
#[derive(Clone, Copy)]
struct Sparse {
    bytes: u64,
    times: u64,
}

const SPARSE: Sparse = Sparse { bytes: 64 << 20, times: 20 };
/// Says that a copy is whole.
const WHOLE: &str = "WHOLE";
const COPY_BATCH: usize = 256;

impl SledEngine {
    pub fn open(dir: &Path) -> io::Result<SledEngine> {
        SledEngine::open_compact(dir, SPARSE)
    }

    /// Copies `DIR` to `DIR.new`, moves `DIR` to `DIR.old` and the copy to `DIR`. A start in between goes on
    /// from there.
    fn open_compact(dir: &Path, sparse: Sparse) -> io::Result<SledEngine> {
        let (old, new) = (dir.with_added_extension("old"), dir.with_added_extension("new"));
        if !dir.exists() && new.join(WHOLE).exists() {
            rename(&new, dir)?;
        }
        remove_folder(&new)?;
        remove_folder(&old)?;
        let engine = SledEngine::open_as_is(dir)?;
        let bytes = bytes_in(dir)?;
        if bytes <= sparse.bytes || bytes <= sparse.times * engine.live_bytes()? {
            return Ok(engine);
        }
        tracing::info!(bytes, "sled's files have grown far beyond what they hold; copying");
        let copy = SledEngine::open_as_is(&new)?;
        engine.copy_to(&copy)?;
        copy.sync()?;
        drop((engine, copy));
        File::create(new.join(WHOLE))?.sync_all()?;
        sync_all(&new)?;
        rename(dir, &old)?;
        rename(&new, dir)?;
        remove_folder(&old)?;
        SledEngine::open_as_is(dir)
    }

    fn live_bytes(&self) -> io::Result<u64> {
        let mut bytes = 0;
        for found in self.db.iter() {
            let (key, value) = found.map_err(from_sled)?;
            bytes += (key.len() + value.len()) as u64;
        }
        Ok(bytes)
    }

    fn copy_to(&self, copy: &SledEngine) -> io::Result<()> {
        let mut batch = sled::Batch::default();
        for (number, found) in self.db.iter().enumerate() {
            let (key, value) = found.map_err(from_sled)?;
            batch.insert(key, value);
            if number % COPY_BATCH == COPY_BATCH - 1 {
                copy.db.apply_batch(std::mem::take(&mut batch)).map_err(from_sled)?;
            }
        }
        copy.db.apply_batch(batch).map_err(from_sled)
    }

    fn open_as_is(dir: &Path) -> io::Result<SledEngine> {
        fs::create_dir_all(dir)?;
        remove_snapshots(dir, |name| name.ends_with(".generating"))?;
        let db = match open_unlocked(dir) {
            Err(error) if !matches!(error, sled::Error::Io(_)) => {
                tracing::warn!(%error, "sled cannot open; trying again without its index snapshots");
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

/// Durable when it returns.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    match to.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

fn remove_folder(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn bytes_in(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        match entry?.metadata() {
            Ok(metadata) => bytes += metadata.blocks() * 512,
            // An index snapshot that sled has replaced meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
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
        for value in batch.writes.iter().filter_map(|write| write.value.as_ref()) {
            let length = value.len();
            assert!(length <= VALUE_BYTES_MAX, "Small Values: sled would put {length} bytes elsewhere");
        }
        // One write is atomic by itself, and a batch costs sled two writes to the disk before it even begins.
        if let [write] = &batch.writes[..] {
            let key = prefixed(write.table, &write.key);
            let done = match &write.value {
                Some(value) => self.db.insert(key, value.as_slice()),
                None => self.db.remove(key),
            };
            return done.map(drop).map_err(from_sled);
        }
        let mut writes = sled::Batch::default();
        for write in &batch.writes {
            let key = prefixed(write.table, &write.key);
            match &write.value {
                Some(value) => writes.insert(key, value.as_slice()),
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

#[cfg(test)]
mod tests {
    use super::*;

    const ALWAYS: Sparse = Sparse { bytes: 0, times: 2 };

    /// A store that holds little in a large file; what it holds.
    fn sparse(dir: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
        let engine = SledEngine::open(dir).unwrap();
        for round in 0..40u64 {
            let mut batch = Batch::default();
            for key in 0..64u64 {
                batch.put(Table::Log, key.to_be_bytes(), vec![round as u8; 4096]);
            }
            engine.write(&batch).unwrap();
            engine.sync().unwrap();
        }
        let mut batch = Batch::default();
        (4..64u64).for_each(|key| batch.delete(Table::Log, key.to_be_bytes().into()));
        engine.write(&batch).unwrap();
        engine.sync().unwrap();
        held(&engine)
    }

    fn held(engine: &SledEngine) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut held = Vec::new();
        let mut visit = |key: &[u8], value: &[u8]| {
            held.push((key.to_vec(), value.to_vec()));
            Ok(ControlFlow::Continue(()))
        };
        engine.scan(Table::Log, &[], &mut visit).unwrap();
        held
    }

    #[test]
    fn a_sparse_file_is_copied() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("sled");
        let expected = sparse(&dir);
        let before = bytes_in(&dir).unwrap();
        let engine = SledEngine::open_compact(&dir, ALWAYS).unwrap();
        assert_eq!(held(&engine), expected);
        let after = bytes_in(&dir).unwrap();
        assert!(after * 2 < before, "{before} bytes before, {after} after");
        let around: Vec<_> =
            fs::read_dir(dir.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(around, ["sled"]);
    }

    /// Given `DIR`, `DIR.new` and `DIR.old`, brings about a moment of the copying.
    type Interrupt = fn(&Path, &Path, &Path);

    /// Wherever the power goes while it copies, the next start finds all.
    #[test]
    fn an_interrupted_copy_loses_nothing() {
        let interruptions: [(&str, Interrupt); 4] = [
            ("half a copy", |_, new, _| fs::write(new.join("db"), "half").unwrap()),
            ("a whole copy", |_, new, _| fs::write(new.join(WHOLE), "").unwrap()),
            ("the old one moved away", |dir, new, old| {
                fs::write(new.join(WHOLE), "").unwrap();
                fs::rename(dir, old).unwrap();
            }),
            ("the new one moved in", |dir, new, old| {
                fs::rename(dir, old).unwrap();
                fs::rename(new, dir).unwrap();
            }),
        ];
        for (name, interrupt) in interruptions {
            let parent = tempfile::tempdir().unwrap();
            let dir = parent.path().join("sled");
            let (new, old) = (parent.path().join("sled.new"), parent.path().join("sled.old"));
            let expected = sparse(&dir);
            let engine = SledEngine::open(&dir).unwrap();
            let copy = SledEngine::open(&new).unwrap();
            engine.copy_to(&copy).unwrap();
            copy.sync().unwrap();
            drop((engine, copy));
            interrupt(&dir, &new, &old);
            let engine = SledEngine::open_compact(&dir, ALWAYS).unwrap();
            assert_eq!(held(&engine), expected, "{name}");
            assert!(!new.exists() && !old.exists(), "{name}");
        }
    }

    #[test]
    fn a_snapshot_that_was_cut_off_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let expected = sparse(dir.path());
        fs::write(dir.path().join("snap.00000000000F0000.generating"), "").unwrap();
        fs::write(dir.path().join("snap.00000000000F0000"), "rubbish").unwrap();
        assert_eq!(held(&SledEngine::open(dir.path()).unwrap()), expected);
    }
}
