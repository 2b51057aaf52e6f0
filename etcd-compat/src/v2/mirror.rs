//! This machine's copy: the snapshot, then every entry of the log in its order, each applied by the same rule
//! on every machine. A long poll brings what is new.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluster::{ClusterState, Command, MachineId, Outcome, Revision};
use serde::{Deserialize, Serialize};
use store::Committed;
use tokio::sync::{oneshot, watch};

use super::compact::listed_bytes;
use super::keys::{KeyError, Node};
use super::link::Link;
use super::snapshot;
use crate::shared::{AliveValue, Shared};

pub const FORMAT_VERSION: u32 = 1;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// A poll is asked again after this, so that a member that has gone away is noticed.
const POLL_TIMEOUT: Duration = Duration::from_secs(6);
const PAUSE: Duration = Duration::from_millis(300);

/// `/format`: how the keys are to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Format {
    pub version: u32,
    /// Added to etcd's indexes: records that came from another store have generations of their own.
    pub base: u64,
}

/// `/log/N`.
#[derive(Serialize, Deserialize)]
pub struct Entry {
    pub version: u32,
    /// Of the proposal, for the one who waits for its outcome.
    pub id: String,
    pub commands: Vec<Command>,
}

/// `/lead`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeadValue {
    pub machine: MachineId,
    /// One life of a daemon.
    pub life: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lead {
    pub value: LeadValue,
    /// Grows with every leader.
    pub created: u64,
    pub modified: u64,
}

/// The copy at one moment.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// etcd's index; nothing of ours up to it is missing.
    pub index: u64,
    /// Of the last entry that was applied.
    pub applied: u64,
    pub base: u64,
    pub state: Arc<ClusterState>,
    pub lead: Option<Lead>,
    /// The log's entries that are still there, by index.
    pub log: BTreeMap<u64, Logged>,
    pub snapshot: Option<snapshot::Pointer>,
}

/// An entry that is still there.
#[derive(Clone, Debug)]
pub struct Logged {
    pub key: String,
    /// In a listing of the log.
    pub bytes: usize,
}

impl Logged {
    fn of(node: &Node) -> Logged {
        let bytes = listed_bytes(node.value.as_deref().unwrap_or_default());
        Logged { key: node.key.clone(), bytes }
    }
}

impl View {
    /// How long a listing of the log is, about.
    pub fn log_bytes(&self) -> usize {
        self.log.values().map(|entry| entry.bytes).sum()
    }
}

enum Lost {
    Cleared,
    Doubt(String),
    Failed(u64, KeyError),
}

type Waiting = oneshot::Sender<Committed>;

pub struct Mirror {
    shared: Arc<Shared>,
    link: Arc<Link>,
    /// Without its last slash.
    dir: String,
    view: watch::Sender<Option<Arc<View>>>,
    waiting: Mutex<BTreeMap<String, Waiting>>,
}

impl Mirror {
    pub fn new(shared: Arc<Shared>, link: Arc<Link>) -> Mirror {
        let dir = shared.options.prefix.trim_end_matches('/').to_string();
        Mirror { shared, link, dir, view: watch::Sender::new(None), waiting: Mutex::default() }
    }

    pub fn views(&self) -> watch::Receiver<Option<Arc<View>>> {
        self.view.subscribe()
    }

    pub fn view(&self) -> Option<Arc<View>> {
        let refused = self.shared.refusal.borrow().is_some();
        self.view.borrow().clone().filter(|_| !refused)
    }

    /// What becomes of the entry with that id is told there.
    pub fn wait_for(&self, id: &str) -> oneshot::Receiver<Committed> {
        let (tell, told) = oneshot::channel();
        self.lock().insert(id.into(), tell);
        told
    }

    pub fn forget(&self, id: &str) {
        self.lock().remove(id);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Waiting>> {
        self.waiting.lock().expect("no holder of this lock panics")
    }

    /// Everything there is now, and whose keys say that they are there.
    pub async fn read_once(&self) -> Result<(ClusterState, Vec<MachineId>), String> {
        let view = self.load(None).await.map_err(|lost| match lost {
            Lost::Cleared => "it changed meanwhile".to_string(),
            Lost::Doubt(reason) => reason,
            Lost::Failed(_, error) => error.to_string(),
        })?;
        Ok(((*view.state).clone(), self.shared.presence.present()))
    }

    /// Keeps the copy for as long as it is polled.
    pub async fn run(&self) {
        let mut view: Option<View> = None;
        loop {
            let ended = match self.load(view.take()).await {
                Ok(loaded) => {
                    let loaded = view.insert(loaded);
                    match self.publish(loaded) {
                        Ok(()) => self.follow(loaded).await,
                        Err(lost) => Err(lost),
                    }
                }
                Err(lost) => Err(lost),
            };
            match ended {
                Ok(()) | Err(Lost::Cleared) => {}
                Err(Lost::Doubt(reason)) => {
                    self.shared.presence.deaf();
                    self.shared.set_refusal(Some(reason));
                    view = None;
                    tokio::time::sleep(PAUSE).await;
                }
                Err(Lost::Failed(number, error)) => {
                    self.shared.presence.deaf();
                    self.link.failed(number, &error);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Reads what there is, and goes on from `known` if nothing between is missing.
    async fn load(&self, known: Option<View>) -> Result<View, Lost> {
        let member = self.link.current();
        let failed = |error| Lost::Failed(member.number, error);
        let all = member.get(&self.dir, "recursive=true&quorum=true", ANSWER_TIMEOUT).await;
        let (nodes, index) = match all {
            Ok(all) => (all.node.nodes, all.index),
            Err(KeyError::NotFound(index)) => (Vec::new(), index),
            Err(error) => return Err(failed(error)),
        };
        self.shared.set_trouble(None);
        let named = |name: &str| nodes.iter().find(|node| node.key == format!("{}/{name}", self.dir));
        let base = match named("format").and_then(|node| node.value.as_deref()) {
            Some(text) => format(text)?.base,
            None => 0,
        };
        let pointer = match named("snapshot").and_then(|node| node.value.as_deref()) {
            Some(text) => Some(snapshot::Pointer::read(text).map_err(Lost::Doubt)?),
            None => None,
        };
        // Everything may have been taken away while nobody looked.
        let is_formed = named("format").is_some();
        let goes_on = |known: &View| is_formed && known.base == base && known.index <= index;
        let mut view = known.filter(goes_on).unwrap_or_default();
        (view.base, view.index) = (base, index);
        if let Some(pointer) = &pointer
            && view.applied < pointer.index
        {
            let state = snapshot::load(&member, &self.dir, pointer).await.map_err(|error| match error {
                snapshot::LoadError::Key(error) => failed(error),
                snapshot::LoadError::Doubt(reason) => Lost::Doubt(reason),
            })?;
            (view.state, view.applied) = (Arc::new(state), pointer.index);
        }
        view.snapshot = pointer;
        view.lead = named("lead").map(lead).transpose()?;
        let mut entries: Vec<&Node> = named("log").map_or(&[][..], |log| &log.nodes).iter().collect();
        entries.sort_by_key(|node| node.created_index);
        view.log = entries.iter().map(|node| (node.created_index, Logged::of(node))).collect();
        for entry in entries {
            self.apply(&mut view, entry)?;
        }
        let alive = named("alive").map_or(&[][..], |alive| &alive.nodes);
        let present = alive.iter().filter_map(|node| Some((machine(node)?, peer(node)))).collect();
        self.shared.presence.only(present);
        Ok(view)
    }

    async fn follow(&self, view: &mut View) -> Result<(), Lost> {
        loop {
            let member = self.link.current();
            let aside = self.link.aside().map_err(Lost::Doubt)?;
            loop {
                let query = format!("wait=true&recursive=true&waitIndex={}", view.index + 1);
                match aside.get(&self.dir, &query, POLL_TIMEOUT).await {
                    Ok(event) => {
                        self.take(view, &event.action, &event.node)?;
                        self.publish(view)?;
                    }
                    Err(KeyError::Cleared) => return Err(Lost::Cleared),
                    // A poll that ends without a word: nothing has happened, or the member is gone.
                    Err(KeyError::Unknown(_)) => {
                        let proved = self.link.proves(&format!("{}/format", self.dir)).await;
                        let index = proved.map_err(|error| Lost::Failed(member.number, error))?;
                        // It was restored from an earlier backup: what this waits for comes late, or never.
                        if index < view.index {
                            return Err(Lost::Cleared);
                        }
                        break;
                    }
                    Err(error) => return Err(Lost::Failed(member.number, error)),
                }
                if self.link.current().number != member.number {
                    break;
                }
            }
        }
    }

    /// Takes over one event.
    fn take(&self, view: &mut View, action: &str, node: &Node) -> Result<(), Lost> {
        view.index = view.index.max(node.modified_index);
        let is_gone = matches!(action, "delete" | "expire" | "compareAndDelete");
        let path = node.key.strip_prefix(&self.dir).unwrap_or_default().trim_start_matches('/');
        match path.split_once('/') {
            Some(("log", _)) if is_gone => {
                view.log.retain(|_, entry| entry.key != node.key);
            }
            Some(("log", _)) => {
                view.log.insert(node.created_index, Logged::of(node));
                self.apply(view, node)?;
            }
            Some(("alive", _)) => match machine(node) {
                Some(machine) if is_gone => self.shared.presence.left(machine),
                Some(machine) => self.shared.presence.came(machine, peer(node)),
                None => {}
            },
            None if path == "lead" => view.lead = if is_gone { None } else { Some(lead(node)?) },
            None if path == "snapshot" && !is_gone => {
                let pointer = snapshot::Pointer::read(node.value.as_deref().unwrap_or_default());
                view.snapshot = Some(pointer.map_err(Lost::Doubt)?);
            }
            // Generations are counted from it: everything is read again.
            None if path == "format" => return Err(Lost::Cleared),
            // Somebody took everything away.
            None if path.is_empty() && is_gone => {
                *view = View { index: view.index, ..View::default() };
                return Err(Lost::Cleared);
            }
            _ => {}
        }
        Ok(())
    }

    fn apply(&self, view: &mut View, node: &Node) -> Result<(), Lost> {
        if node.created_index <= view.applied {
            return Ok(());
        }
        let text = node.value.as_deref().unwrap_or_default();
        let unreadable = |why: String| Lost::Doubt(format!("the entry {} cannot be read: {why}", node.key));
        let version: Versioned = serde_json::from_str(text).map_err(|error| unreadable(error.to_string()))?;
        if version.version > FORMAT_VERSION {
            return Err(unreadable(format!(
                "it is of version {}, and this program knows up to {FORMAT_VERSION}",
                version.version
            )));
        }
        let entry: Entry = serde_json::from_str(text).map_err(|error| unreadable(error.to_string()))?;
        let revision = Revision(view.base + node.created_index);
        let mut state = (*view.state).clone();
        let outcomes: Vec<Outcome> = state.apply_all(revision, &entry.commands);
        view.applied = node.created_index;
        view.state = Arc::new(state);
        if let Some(waiting) = self.lock().remove(&entry.id) {
            // Told once everybody can see it.
            self.shared.state.send_replace(view.state.clone());
            let _ = waiting.send(Committed { revision, outcomes });
        }
        Ok(())
    }

    /// Shows the copy to everybody, unless it is not this machine's cluster.
    fn publish(&self, view: &View) -> Result<(), Lost> {
        self.shared.belonging.check(view.state.cluster.as_deref()).map_err(Lost::Doubt)?;
        self.shared.set_refusal(None);
        let state = &self.shared.state;
        state.send_if_modified(|known| {
            let changed = !Arc::ptr_eq(known, &view.state);
            *known = view.state.clone();
            changed
        });
        self.view.send_replace(Some(Arc::new(view.clone())));
        Ok(())
    }
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

fn format(text: &str) -> Result<Format, Lost> {
    let format: Format = serde_json::from_str(text)
        .map_err(|error| Lost::Doubt(format!("the key `format` cannot be read: {error}")))?;
    match format.version > FORMAT_VERSION {
        true => Err(Lost::Doubt(format!(
            "it is kept in format {}, and this program knows up to {FORMAT_VERSION}",
            format.version
        ))),
        false => Ok(format),
    }
}

fn machine(node: &Node) -> Option<MachineId> {
    MachineId::new(node.key.rsplit('/').next()?).ok()
}

fn peer(node: &Node) -> Option<String> {
    AliveValue::read(node.value.as_deref().unwrap_or_default().as_bytes()).peer
}

fn lead(node: &Node) -> Result<Lead, Lost> {
    let value = serde_json::from_str(node.value.as_deref().unwrap_or_default())
        .map_err(|error| Lost::Doubt(format!("the leader's key cannot be read: {error}")))?;
    Ok(Lead { value, created: node.created_index, modified: node.modified_index })
}
