//! One machine's systemd, as the agent sees it: unit files of ours, made known under their names, and jobs
//! whose ends are awaited. `DBus` drives the real one; `Memory` is one for tests and simulation.
//!
//! It carries out and tells; what should be done is decided elsewhere. Called by the agent alone.

mod dbus;
mod host;
mod memory;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use cluster::{Failure, UnitFile, UnitName};
use futures::future::BoxFuture;
use tokio::sync::watch;

pub use dbus::DBus;
pub use host::Host;
pub use memory::{Behaviour, Memory, Start};

/// The machine's systemd, and the directory of our unit files.
#[async_trait]
pub trait UnitManager: Send + Sync + 'static {
    /// The unit files in our directory. A file that cannot be read as text is there too, and differs from any
    /// that is wanted.
    async fn held(&self) -> Result<BTreeMap<UnitName, UnitFile>, UnitError>;

    /// What systemd says of each of these units. A unit of that name which is not ours is shown as not found.
    async fn observe(&self, units: &BTreeSet<UnitName>) -> Result<BTreeMap<UnitName, Seen>, UnitError>;

    /// Puts the text into our directory under the unit's name, whole or not at all.
    async fn write(&self, unit: &UnitName, file: &UnitFile) -> Result<(), UnitError>;

    /// Makes systemd know the files of these units; says which of them were refused. A unit that the machine
    /// has by itself is refused, never overridden.
    async fn link(&self, units: &[UnitName]) -> Result<BTreeMap<UnitName, UnitError>, UnitError>;

    /// Makes systemd read all unit files again.
    async fn reload(&self) -> Result<(), UnitError>;

    /// Asks for the unit to be started; the future gives the job's end. Requests reach systemd in the order
    /// of the calls, whether or not the futures are polled in that order.
    fn start(&self, unit: &UnitName) -> BoxFuture<'static, JobEnd>;

    /// Asks for the unit to be stopped; as with [`UnitManager::start`].
    fn stop(&self, unit: &UnitName) -> BoxFuture<'static, JobEnd>;

    /// Makes systemd forget these stopped units and deletes their files; says for which of them that failed.
    async fn remove(&self, units: &[UnitName]) -> Result<BTreeMap<UnitName, UnitError>, UnitError>;

    /// Why a unit failed, with the last lines of its journal.
    async fn failure(&self, unit: &UnitName) -> Failure;

    /// Changes whenever something may have changed. A hint: it may come often, for nothing, or, rarely, not
    /// at all.
    fn changed(&self) -> watch::Receiver<u64>;
}

/// What systemd says of one unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// LoadState, ActiveState and SubState, in systemd's spelling.
    pub load: Arc<str>,
    pub active: Arc<str>,
    pub sub: Arc<str>,
    /// systemd finds our file under the unit's name.
    pub linked: bool,
    /// systemd holds an older text than the file's.
    pub needs_reload: bool,
}

impl Seen {
    /// A unit that systemd does not know.
    pub fn nothing() -> Seen {
        Seen {
            load: "not-found".into(),
            active: "inactive".into(),
            sub: "dead".into(),
            linked: false,
            needs_reload: false,
        }
    }
}

/// How a start or a stop ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobEnd {
    Done,
    /// In systemd's words, such as `dependency`; the unit itself may say more.
    Failed {
        reason: String,
    },
    /// Another job took its place.
    Replaced,
    /// Nobody knows: systemd could not be reached. Ask again.
    Lost {
        reason: String,
    },
}

/// What could not be done with a unit, or with systemd as a whole.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UnitError {
    /// Nothing can be done now, with any unit.
    #[error("systemd cannot be reached: {reason}")]
    Unreachable { reason: String },
    #[error("systemd refused {call}: {reason}")]
    Refused { call: &'static str, reason: String },
    #[error(
        "this machine has a unit of this name already, {path}, which is left as it is; choose another name, \
         or remove it there"
    )]
    Foreign { path: String },
    #[error("cannot {verb} {path}: {source}")]
    File {
        verb: &'static str,
        path: String,
        #[source]
        source: Arc<std::io::Error>,
    },
}
