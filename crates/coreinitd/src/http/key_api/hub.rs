//! Who watches which key on this machine. One task follows the state and tells each event to those whom it
//! concerns: they are found by the key's own path and the directories above it, so that a write costs nothing
//! for those who watch elsewhere.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use cluster::{ClusterState, KeyEvent, KeyPath, KeySpace};
use tokio::sync::{mpsc, watch};

use super::answer::{Code, Fault, line};
use super::ask::Watch;

/// Those who watch at a time: each holds a connection.
pub const WATCHES_MAX: usize = 4096;
/// Events that one who streams may be behind; then the stream ends, as etcd's does.
const BEHIND_MAX: usize = 100;

pub(super) struct Hub {
    states: watch::Receiver<Arc<ClusterState>>,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    next: u64,
    count: usize,
    /// By the path that is watched, and a number of their own.
    watches: BTreeMap<String, BTreeMap<u64, Waiting>>,
    /// The keys as of the last event that was told.
    told: KeySpace,
    closed: bool,
}

struct Waiting {
    recursive: bool,
    stream: bool,
    since: u64,
    sender: mpsc::Sender<Bytes>,
}

/// Somebody who watches. They are forgotten when this is dropped.
pub(super) struct Watching {
    hub: Arc<Hub>,
    path: KeyPath,
    number: u64,
    events: mpsc::Receiver<Bytes>,
    /// How far the keys were when it began, and the state's revision.
    pub began: (u64, u64),
}

impl Hub {
    pub fn new(states: watch::Receiver<Arc<ClusterState>>) -> Hub {
        let told = states.borrow().keys.clone();
        Hub { states, table: Mutex::new(Table { told, ..Table::default() }) }
    }

    pub fn count(&self) -> usize {
        self.table().count
    }

    /// Begins with what has happened since `watch.since`.
    pub fn watch(self: &Arc<Hub>, watch: &Watch) -> Result<Watching, Fault> {
        let mut table = self.table();
        // Under the lock: the task cannot have told anything that is not in it.
        let state = self.states.borrow().clone();
        let keys = &state.keys;
        let began = (keys.index(), state.revision.0);
        if table.closed || WATCHES_MAX <= table.count {
            let cause = format!("{} watches are open, which is the limit", table.count);
            return Err(Fault::of_form(Code::Busy, cause));
        }
        let (sender, events) = mpsc::channel(BEHIND_MAX);
        let next = keys.index() + 1;
        let since = if watch.since == 0 { next } else { watch.since };
        let mut is_done = false;
        let mut from = since;
        while from < next {
            let Some(event) = keys.event_since(&watch.path, watch.recursive, from)? else { break };
            // Whoever is that far behind gets what fits, and then the end.
            is_done = sender.try_send(line(event, false).into()).is_err() || !watch.stream;
            if is_done {
                break;
            }
            from = event.index() + 1;
        }
        table.next += 1;
        let number = table.next;
        let watching = Watching { hub: self.clone(), path: watch.path.clone(), number, events, began };
        if !is_done {
            let Watch { recursive, stream, .. } = *watch;
            let waiting = Waiting { recursive, stream, since: since.max(next), sender };
            let path = watch.path.as_str().to_string();
            table.watches.entry(path).or_default().insert(number, waiting);
            table.count += 1;
        }
        Ok(watching)
    }

    /// Tells what happens, until `shutdown`; then everybody is let go.
    pub async fn follow(self: Arc<Hub>, shutdown: impl Future<Output = ()>) {
        let mut shutdown = pin!(shutdown);
        let mut states = self.states.clone();
        loop {
            let keys = states.borrow_and_update().keys.clone();
            self.table().advance(keys);
            tokio::select! {
                // Cancel-safe: both only wait.
                changed = states.changed() => if changed.is_err() { break },
                () = &mut shutdown => break,
            }
        }
        let mut table = self.table();
        table.closed = true;
        table.let_all_go();
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watching {
    /// `None`: nothing more will come.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.events.recv().await
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.hub.table().remove(self.path.as_str(), self.number);
    }
}

impl Table {
    fn advance(&mut self, keys: KeySpace) {
        let from = self.told.index() + 1;
        let before = std::mem::replace(&mut self.told, keys.clone());
        if 0 < self.count && from != keys.index() + 1 {
            match keys.events_since(from).filter(|_| from <= keys.index()) {
                Some(events) => events.for_each(|event| self.tell(event, &before)),
                // It has missed some, or this is another cluster's history. Whoever asks again is told.
                None => self.let_all_go(),
            }
        }
    }

    /// Their channels close, and their answers end.
    fn let_all_go(&mut self) {
        self.watches.clear();
        self.count = 0;
    }

    fn tell(&mut self, event: &KeyEvent, before: &KeySpace) {
        if event.is_refresh {
            return;
        }
        let mut written = None;
        for path in event.path.upwards() {
            let is_own = path == event.path.as_str();
            if !is_own && event.path.is_hidden_from(path) {
                continue;
            }
            self.tell_at(path, event, &mut written, |waiting| is_own || waiting.recursive);
        }
        if event.removes_directory() {
            let prefix = format!("{}/", event.path);
            let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
            let below = self.watches.range::<str, _>(from).map(|(path, _)| path);
            let below: Vec<String> = below.take_while(|path| path.starts_with(&prefix)).cloned().collect();
            // A key that came and went between two looks of this task is not known to have been there.
            let was = |path: &String| KeyPath::new(path).is_ok_and(|path| before.get(&path).is_ok());
            for path in below.into_iter().filter(was) {
                self.tell_at(&path, event, &mut written, |_| true);
            }
        }
    }

    fn tell_at(
        &mut self,
        path: &str,
        event: &KeyEvent,
        written: &mut Option<Bytes>,
        concerns: impl Fn(&Waiting) -> bool,
    ) {
        let Some(waiting) = self.watches.get_mut(path) else { return };
        let had = waiting.len();
        waiting.retain(|_, waiting| {
            if event.index() < waiting.since || !concerns(waiting) {
                return true;
            }
            let bytes = written.get_or_insert_with(|| line(event, false).into()).clone();
            waiting.sender.try_send(bytes).is_ok() && waiting.stream
        });
        self.count -= had - waiting.len();
        if waiting.is_empty() {
            self.watches.remove(path);
        }
    }

    fn remove(&mut self, path: &str, number: u64) {
        let Some(waiting) = self.watches.get_mut(path) else { return };
        if waiting.remove(&number).is_some() {
            self.count -= 1;
        }
        if waiting.is_empty() {
            self.watches.remove(path);
        }
    }
}
