//! Everything of one node that is on its disk: the log and the vote, the snapshots, who the node is. Opening
//! checks all of it from end to end; a store that is doubted is refused, because a node that forgot its vote
//! or an acknowledged entry endangers the whole cluster.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cluster::ClusterState;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::watch;

use crate::codec;
pub use crate::engine::EngineKind;
use crate::engine::{Engine, damaged};
use crate::files::{Files, Folder};
pub use crate::flusher::FlushMode;
use crate::flusher::Flusher;
use crate::log_store::{self, LogStore};
use crate::snapshot_file;
use crate::state_machine::StateMachine;
use crate::types::NodeId;
use crate::witness::{self, Claim, Witness};

const IDENTITY: &str = "identity.json";

/// An open store. Clones are the same one; when the last is dropped, and with it the last of the
/// [log stores](Disk::log_store) and [state machines](Disk::state_machine), another may open it.
#[derive(Clone)]
pub struct Disk {
    log: LogStore,
    machine: StateMachine,
    witness: Arc<Witness>,
    files: Arc<dyn Files>,
    failure: Failure,
    closed: watch::Receiver<()>,
}

/// Who this node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub cluster_id: String,
    pub node: NodeId,
    /// The machine's id.
    pub machine: String,
    /// Those who formed the cluster, in the order of their node ids.
    pub founders: Vec<Founder>,
    /// Where this store's node was last reached by its peers, `HOST:PORT`; `None` before that was written
    /// down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// A machine that was there when the cluster was formed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Founder {
    pub node: NodeId,
    pub machine: String,
    /// `HOST:PORT`.
    pub address: String,
    pub nonce: String,
}

/// The identity's file: readable, and with a checksum over the identity as JSON writes it without white
/// space.
#[derive(Serialize, Deserialize)]
struct IdentityFile<T> {
    identity: T,
    crc32: u32,
}

/// Why a store was not opened.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// It must not be used: see [`set_aside`].
    #[error("the store in {} is damaged: {what}", path.display())]
    Damaged { path: PathBuf, what: String },
    #[error("the store in {} is in use by another process", path.display())]
    Locked { path: PathBuf },
    /// Not damaged: another version or another configuration can open it.
    #[error("the store in {} cannot be used: {what}", path.display())]
    Version { path: PathBuf, what: String },
    #[error("cannot open the store in {}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl Disk {
    /// Opens the store in `dir`, and makes it when there is none. Blocks while it reads the whole log.
    pub fn open(dir: &Path, kind: EngineKind, mode: FlushMode) -> Result<Disk, DiskError> {
        let path = dir.to_path_buf();
        // sled can panic over damaged files. Where a panic ends the process, `probe` was there before.
        let opened = panic::catch_unwind(AssertUnwindSafe(|| open(dir, &kind, mode)));
        match opened {
            Ok(Ok(disk)) => Ok(disk),
            Ok(Err(error)) => Err(match error.kind() {
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                    DiskError::Damaged { path, what: error.to_string() }
                }
                io::ErrorKind::ResourceBusy => DiskError::Locked { path },
                io::ErrorKind::Unsupported => DiskError::Version { path, what: error.to_string() },
                _ => DiskError::Io { path, source: error },
            }),
            Err(panic) => Err(DiskError::Damaged { path, what: said(&*panic) }),
        }
    }

    pub fn log_store(&self) -> LogStore {
        self.log.clone()
    }

    /// How long it took until the log's writes were durable.
    pub fn syncs(&self) -> Arc<store::Histogram> {
        self.log.syncs()
    }

    pub fn state_machine(&self) -> StateMachine {
        self.machine.clone()
    }

    /// The applied state, published after each batch of entries; its revision is the last one's index.
    pub fn state(&self) -> watch::Receiver<Arc<ClusterState>> {
        self.machine.state()
    }

    /// `None` until [`Disk::set_identity`].
    pub fn identity(&self) -> io::Result<Option<Identity>> {
        identity(&*self.files, &self.witness)
    }

    /// Durable when it returns.
    pub fn set_identity(&self, identity: &Identity) -> io::Result<()> {
        self.failure.guard("writing this node's identity", || {
            let crc32 = crc32fast::hash(&serde_json::to_vec(identity)?);
            let file = IdentityFile { identity, crc32 };
            self.files.replace(IDENTITY, &serde_json::to_vec_pretty(&file)?)?;
            self.witness.set_identified()
        })
    }

    /// Durable when it returns. Only for a store that no node runs on.
    pub(crate) fn write_snapshot(&self, meta: &crate::types::SnapshotMeta, data: &[u8]) -> io::Result<()> {
        self.failure.guard("writing a snapshot", || snapshot_file::write(&*self.files, meta, data))
    }

    /// Random; tells one life of this store from the next.
    pub fn nonce(&self) -> io::Result<String> {
        Ok(self.witness.nonce())
    }

    /// Ends when another may open the store: a node's last tasks may hold on to it after the node has ended.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut closed = self.closed.clone();
        async move {
            // Nothing is ever sent: an error says that the sender is gone.
            while closed.changed().await.is_ok() {}
        }
    }

    /// For what fails above the disk and leaves the store as useless as an I/O error would.
    pub(crate) fn fail(&self, why: String) {
        self.failure.note(|| why);
    }

    /// Says what failed, once an I/O error has happened. Nothing is acknowledged after that: the process has
    /// to end.
    pub fn failed(&self) -> watch::Receiver<Option<String>> {
        self.failure.failed()
    }
}

fn open(dir: &Path, kind: &EngineKind, mode: FlushMode) -> io::Result<Disk> {
    // Whatever writes to the engine holds the files too, and lets go of the engine first.
    let (files, engine, closed): (Arc<dyn Files>, Option<Arc<dyn Engine>>, _) = match kind {
        EngineKind::Forgetful(memory) => {
            let disk = memory.engine();
            (Arc::new(disk.clone()), Some(Arc::new(disk)), watch::channel(()).1)
        }
        EngineKind::Sled | EngineKind::Redb => {
            make_folder(dir)?;
            let folder = Folder::open(dir)?;
            let closed = folder.closed();
            (Arc::new(folder), None, closed)
        }
    };
    let failure = Failure::default();
    let witness = Arc::new(match Witness::open(files.clone())? {
        Some(witness) => witness,
        None if EngineKind::left(dir) => {
            return Err(damaged(format!("the file {:?} is missing", witness::NAME)));
        }
        None => {
            let nonce = match kind {
                EngineKind::Forgetful(memory) => memory.nonce(),
                EngineKind::Sled | EngineKind::Redb => uuid::Uuid::new_v4().simple().to_string(),
            };
            Witness::create(files.clone(), kind.name(), nonce)?
        }
    });
    if witness.engine() != kind.name() {
        let what =
            format!("it was made with the engine {}, and {} is configured", witness.engine(), kind.name());
        return Err(io::Error::new(io::ErrorKind::Unsupported, what));
    }
    if !witness.made() {
        kind.remove(dir)?;
    }
    let engine = match engine {
        Some(engine) => engine,
        None => kind.open(dir)?,
    };
    if !witness.made() {
        failure.guard("making the store", || log_store::make(&*engine).and_then(|()| witness.set_made()))?;
    }
    let now = log_store::check(&*engine, &failure, &witness.claim())?;
    // What was found and not claimed may be what the last process did not see synced.
    failure.guard("syncing the log", || engine.sync().and_then(|()| witness.raise(now.clone())))?;
    identity(&*files, &witness)?;
    let machine = StateMachine::new(files.clone(), mode, failure.clone(), snapshot(&*files, &now)?)?;
    let flusher = Flusher::new(engine.clone(), witness.clone(), failure.clone(), mode)?;
    let log = LogStore::new(engine, witness.clone(), flusher, failure.clone(), now);
    Ok(Disk { log, machine, witness, files, failure, closed })
}

fn identity(files: &dyn Files, witness: &Witness) -> io::Result<Option<Identity>> {
    let Some(bytes) = files.read(IDENTITY)? else {
        return match witness.identified() {
            true => Err(damaged(format!("the file {IDENTITY:?} is missing"))),
            false => Ok(None),
        };
    };
    let wrong = |why: &dyn std::fmt::Display| damaged(format!("the file {IDENTITY:?}: {why}"));
    let file: IdentityFile<Box<RawValue>> = serde_json::from_slice(&bytes).map_err(|error| wrong(&error))?;
    let text = compact(file.identity.get());
    if crc32fast::hash(text.as_bytes()) != file.crc32 {
        return Err(wrong(&"wrong checksum"));
    }
    // Nothing is damaged: who wrote it knew more, or otherwise.
    let newer = |why: &dyn std::fmt::Display| codec::newer(&format!("the file {IDENTITY:?}: {why}"));
    let identity: Identity = serde_json::from_str(&text).map_err(|error| newer(&error))?;
    match says_more(&text, &identity)? {
        true => Err(newer(&"it says more")),
        false => Ok(Some(identity)),
    }
}

/// JSON without the white space between its tokens.
fn compact(json: &str) -> String {
    let (mut in_string, mut is_escaped) = (false, false);
    let keep = |c: &char| {
        let was_in_string = in_string;
        match c {
            '"' if !is_escaped => in_string = !in_string,
            _ => {}
        }
        is_escaped = *c == '\\' && !is_escaped;
        was_in_string || !c.is_ascii_whitespace()
    };
    json.chars().filter(keep).collect()
}

/// Whether an identity has fields that this version does not know.
fn says_more(identity: &str, read: &Identity) -> io::Result<bool> {
    let mut said: serde_json::Value = serde_json::from_str(identity)?;
    // Nothing is said with `null`.
    if let Some(fields) = said.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    Ok(said != serde_json::to_value(read)?)
}

/// The snapshot to begin with. `purged <= snapshot`: what the log has not any more, the snapshot must have.
fn snapshot(files: &dyn Files, now: &Claim) -> io::Result<Option<crate::state_machine::Snapshot>> {
    let found = snapshot_file::find(files)?;
    // What it holds counts, and it stays where it is for who can read it.
    if let Some((name, error)) = found.unread.first() {
        return Err(io::Error::new(io::ErrorKind::Unsupported, format!("snapshot {name}: {error}")));
    }
    let end = found.newest.as_ref().and_then(|snapshot| snapshot.meta.last_log_id);
    if let Some(purged) = &now.purged
        && end.is_none_or(|end| end < purged.id)
    {
        let why = found.damaged.iter().map(|(name, error)| format!("; {name}: {error}")).collect::<String>();
        return Err(damaged(format!("no snapshot up to the purged log entry {}{why}", purged.id.index)));
    }
    for (name, error) in &found.damaged {
        tracing::warn!(snapshot = name, %error, "a snapshot is damaged; the log still has what it held");
        snapshot_file::remove(files, name)?;
    }
    Ok(found.newest)
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("the engine panicked").to_string()
}

/// Moves all that is in the store's folder into a folder of its own in it, `WHAT-1` or the next number that
/// is free, and gives its path. The store's folder itself stays: it may be all that this process can write
/// to. Folders that were set aside before stay, and so do files of these names.
///
/// A crash in between leaves what is taken for a damaged store, never for a sound one that knows less.
pub fn set_aside(dir: &Path, what: &str, keep: &[&str]) -> io::Result<PathBuf> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let text = name.to_string_lossy();
        let is_aside =
            [ASIDE_DAMAGED, ASIDE_REMOVED].iter().any(|what| text.starts_with(&format!("{what}-")));
        // The last is the file system's own.
        if !is_aside && !keep.contains(&&*text) && text != "lost+found" {
            entries.push(name);
        }
    }
    // The store knows of the first that they must be there, and the last is what a store is known by.
    let rank = |name: &OsString| {
        let order = [IDENTITY, snapshot_file::FOLDER, witness::NAME];
        order.iter().position(|first| name == first).unwrap_or(order.len())
    };
    entries.sort_by_key(rank);
    let numbers = (1..).map(|number| dir.join(format!("{what}-{number}")));
    let place = numbers.into_iter().find(|place| !place.exists()).unwrap_or_else(|| dir.join(what));
    make_folder(&place)?;
    for name in entries {
        fs::rename(dir.join(&name), place.join(&name))?;
        File::open(dir)?.sync_all()?;
    }
    File::open(&place)?.sync_all()?;
    Ok(place)
}

/// Moves the whole folder away, to `DIR.WHY-1` or the next number that is free; that place.
pub(crate) fn put_aside(dir: &Path, why: &str) -> io::Result<PathBuf> {
    let mut number = 1;
    loop {
        let mut place = dir.to_path_buf().into_os_string();
        place.push(format!(".{why}-{number}"));
        let place = PathBuf::from(place);
        if place.exists() {
            number += 1;
            continue;
        }
        fs::rename(dir, &place)?;
        let parent = match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        File::open(parent)?.sync_all()?;
        return Ok(place);
    }
}

/// Whether the store in `dir` is of a node that belongs to a cluster.
pub fn has_identity(dir: &Path) -> bool {
    dir.join(IDENTITY).exists()
}

/// What [`set_aside`] calls a damaged store.
pub const ASIDE_DAMAGED: &str = "damaged";
/// What [`set_aside`] calls the store of a machine that was removed from its cluster.
pub const ASIDE_REMOVED: &str = "removed";

/// The state is for nobody's eyes but the owner's: unit files hold passwords.
fn make_folder(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// The first I/O error, kept: after it nothing more is tried.
#[derive(Clone)]
pub(crate) struct Failure {
    failed: watch::Sender<Option<String>>,
}

impl Default for Failure {
    fn default() -> Failure {
        Failure { failed: watch::Sender::new(None) }
    }
}

impl Failure {
    /// Says what failed, once something has.
    pub(crate) fn failed(&self) -> watch::Receiver<Option<String>> {
        self.failed.subscribe()
    }

    /// Does `act` unless something has failed before. `what` is being done, for people.
    pub(crate) fn guard<T>(&self, what: &str, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if let Some(failed) = &*self.failed.borrow() {
            return Err(io::Error::other(format!("the store has failed before: {failed}")));
        }
        act().inspect_err(|error| self.note(|| format!("{what}: {error}")))
    }

    fn note(&self, why: impl FnOnce() -> String) {
        self.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            failed.get_or_insert_with(why);
            first
        });
    }
}
