//! The seam to whatever keeps key and value on disk: get, scan, an atomic batch across tables, sync. Nothing
//! more, so that one engine can take the place of another.
//!
//! Writes become durable in the order they were made: what survives a power cut is everything before the last
//! finished [`Engine::sync`], and of what came later a prefix.

mod forgetful;
mod redb;
mod sled;

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

pub use self::redb::RedbEngine;
pub use self::sled::SledEngine;
pub use forgetful::{Forgetful, Unsynced};

/// Where a record lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// The format, the vote and the purged mark, by name.
    Meta,
    /// The pieces of log entries.
    Log,
}

/// Writes that all happen or none.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub writes: Vec<Write>,
}

#[derive(Clone, Debug)]
pub struct Write {
    pub table: Table,
    pub key: Vec<u8>,
    /// `None` deletes.
    pub value: Option<Vec<u8>>,
}

impl Batch {
    pub fn put(&mut self, table: Table, key: impl Into<Vec<u8>>, value: Vec<u8>) {
        self.writes.push(Write { table, key: key.into(), value: Some(value) });
    }

    pub fn delete(&mut self, table: Table, key: Vec<u8>) {
        self.writes.push(Write { table, key, value: None });
    }
}

/// Sees one key and value, and says whether to go on.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> io::Result<ControlFlow<()>> + 'a;

/// An ordered key-value store. Errors of the kinds `InvalidData` and `UnexpectedEof` mean that it is damaged.
pub trait Engine: Send + Sync + 'static {
    fn get(&self, table: Table, key: &[u8]) -> io::Result<Option<Vec<u8>>>;
    /// Visits the table in ascending order of keys from `from` on, which is included.
    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> io::Result<()>;
    /// Readable when it returns; durable after the next [`Engine::sync`].
    fn write(&self, batch: &Batch) -> io::Result<()>;
    /// Everything written before the call is durable when it returns. Never call it again after it failed:
    /// what the kernel could not write it may have forgotten.
    fn sync(&self) -> io::Result<()>;
}

/// Which engine.
#[derive(Clone, Debug)]
pub enum EngineKind {
    Sled,
    Redb,
    /// In memory: forgets what was not synced, for simulation.
    Forgetful(Forgetful),
}

impl EngineKind {
    /// As it is written in configuration and on disk.
    pub fn name(&self) -> &'static str {
        match self {
            EngineKind::Sled => "sled",
            EngineKind::Redb => "redb",
            EngineKind::Forgetful(_) => "forgetful",
        }
    }

    /// Whether `dir` holds files of any engine.
    pub fn left(dir: &Path) -> bool {
        ["sled", "sled.new", "redb"].iter().any(|name| dir.join(name).exists())
    }

    /// Removes this engine's files under `dir`.
    pub fn remove(&self, dir: &Path) -> io::Result<()> {
        match self {
            EngineKind::Sled | EngineKind::Redb => match fs::remove_dir_all(dir.join(self.name())) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other,
            },
            EngineKind::Forgetful(_) => Ok(()),
        }
    }

    /// Opens the engine's files under `dir`, and makes them when there are none.
    pub fn open(&self, dir: &Path) -> io::Result<Arc<dyn Engine>> {
        Ok(match self {
            EngineKind::Sled => Arc::new(SledEngine::open(&dir.join("sled"))?),
            EngineKind::Redb => Arc::new(RedbEngine::open(&dir.join("redb"))?),
            EngineKind::Forgetful(memory) => Arc::new(memory.engine()),
        })
    }
}

/// A damaged store, in the words of whoever found it.
pub(crate) fn damaged(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
