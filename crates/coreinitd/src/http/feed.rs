//! What the event streams are fed from: one task follows the store's state, finds what changed between one
//! state and the next, writes each change down once as the bytes that go to the wire, and keeps the last of
//! them, so that a stream can be resumed. Streams take from here at their own pace; a slow one holds up
//! nobody.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::v1::{Event, Told};
use axum::body::Bytes;
use cluster::{ClusterState, MachineId, Revision, UnitName, differences};
use tokio::sync::{Semaphore, watch};

use super::view::{Placement, Snapshot};

/// Changes that are remembered: some ten for each of several hundred units that start at once. At about a
/// kilobyte each, it is some megabytes.
pub(super) const CHANGES_MAX: usize = 8192;

/// Streams at a time: each is a waiting person or program, and there is no sense in thousands.
pub(super) const STREAMS_MAX: usize = 256;

/// The newest state, and the changes that led to it.
pub(super) struct Feed {
    ring: Mutex<Ring>,
    newest: watch::Receiver<Snapshot>,
    pub(super) streams: Arc<Semaphore>,
}

/// The task behind the feed.
pub struct Follower {
    feed: Arc<Feed>,
    states: watch::Receiver<Arc<ClusterState>>,
    placement: Arc<Placement>,
    newest: watch::Sender<Snapshot>,
    /// Kept up with every change, because counting anew for each would cost the square of a large start.
    unit_counts: BTreeMap<MachineId, usize>,
}

/// All that changed from the entry before to the state at `to`.
pub(super) struct Entry {
    pub(super) to: Revision,
    pub(super) changes: Vec<Change>,
}

pub(super) struct Change {
    /// `None`: the change is about a machine.
    pub(super) unit: Option<UnitName>,
    pub(super) message: Bytes,
}

struct Ring {
    entries: VecDeque<Arc<Entry>>,
    /// Of all entries together.
    changes: usize,
    /// Whatever changed after this is in the entries.
    floor: Revision,
}

/// A feed that begins with what the store holds now.
pub(super) fn follow(
    mut states: watch::Receiver<Arc<ClusterState>>,
    placement: Arc<Placement>,
) -> (Arc<Feed>, Follower) {
    let snapshot = placement.of(&states.borrow_and_update().clone());
    let unit_counts = snapshot.unit_counts();
    let ring = Ring { entries: VecDeque::new(), changes: 0, floor: snapshot.state.revision };
    let (newest, receiver) = watch::channel(snapshot);
    let feed =
        Feed { ring: Mutex::new(ring), newest: receiver, streams: Arc::new(Semaphore::new(STREAMS_MAX)) };
    let feed = Arc::new(feed);
    (feed.clone(), Follower { feed, states, placement, newest, unit_counts })
}

impl Feed {
    /// The newest state, now and from now on; it ends with the follower.
    pub(super) fn newest(&self) -> watch::Receiver<Snapshot> {
        self.newest.clone()
    }

    /// The first of the entries after that revision, at most `max`; `None` when some have been forgotten.
    pub(super) fn after(&self, revision: Revision, max: usize) -> Option<Vec<Arc<Entry>>> {
        let ring = self.ring();
        if revision < ring.floor {
            return None;
        }
        let from = ring.entries.partition_point(|entry| entry.to <= revision);
        Some(ring.entries.range(from..).take(max).cloned().collect())
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn push(&mut self, entry: Entry) {
        self.changes += entry.changes.len();
        self.entries.push_back(Arc::new(entry));
        while self.changes > CHANGES_MAX {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.changes -= oldest.changes.len();
            self.floor = oldest.to;
        }
    }
}

impl Follower {
    /// Runs until `shutdown`, or until the store is gone.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        let mut shutdown = pin!(shutdown);
        loop {
            // Both arms are cancel-safe: the change is taken only afterwards.
            tokio::select! {
                () = &mut shutdown => return,
                changed = self.states.changed() => if changed.is_err() { return },
            }
            let state = self.states.borrow_and_update().clone();
            self.advance(&state);
        }
    }

    fn advance(&mut self, state: &Arc<ClusterState>) {
        let old = self.newest.borrow().clone();
        let new = self.placement.of(state);
        let changed = Changed::between(&old, &new, &mut self.unit_counts);
        let to = new.state.revision;
        let units = changed.units.iter().map(|name| Change {
            unit: Some(name.clone()),
            message: message(to, new.unit_event(name), false),
        });
        let counts = &self.unit_counts;
        let machines = changed.machines.iter().map(|id| Change {
            unit: None,
            message: message(to, new.machine_event(id, counts.get(id).copied().unwrap_or(0)), false),
        });
        let entry = Entry { to, changes: units.chain(machines).collect() };
        // First the entry: whoever sees the new state must find how it came about.
        self.feed.ring().push(entry);
        self.newest.send_replace(new);
    }
}

/// One server-sent event. With `id`, everything up to that revision has been told.
pub(super) fn message(revision: Revision, event: Event, id: bool) -> Bytes {
    let told = Told { revision, event };
    let json = serde_json::to_string(&told).expect("the API's types have string keys only");
    let id = if id { format!("id: {revision}\n") } else { String::new() };
    format!("{id}data: {json}\n\n").into()
}

/// The units and machines whose views differ.
#[derive(Default)]
struct Changed {
    units: BTreeSet<UnitName>,
    machines: BTreeSet<MachineId>,
}

impl Changed {
    fn between(old: &Snapshot, new: &Snapshot, unit_counts: &mut BTreeMap<MachineId, usize>) -> Changed {
        let mut changed = Changed::default();
        for (name, _, _) in differences(&old.state.units, &new.state.units) {
            changed.units.insert(name.clone());
        }
        for ((name, _), _, _) in differences(&old.state.observed, &new.state.observed) {
            changed.units.insert(name.clone());
        }
        for (name, from, to) in differences(&old.state.assignments, &new.state.assignments) {
            changed.units.insert(name.clone());
            if from.map(|home| &home.machine) == to.map(|home| &home.machine) {
                continue;
            }
            if let Some(home) = from {
                unit_counts.entry(home.machine.clone()).and_modify(|count| *count = count.saturating_sub(1));
                changed.machines.insert(home.machine.clone());
            }
            if let Some(home) = to {
                *unit_counts.entry(home.machine.clone()).or_default() += 1;
                changed.machines.insert(home.machine.clone());
            }
        }
        let mut lost_or_found = BTreeSet::new();
        for (id, from, to) in differences(&old.state.machines, &new.state.machines) {
            changed.machines.insert(id.clone());
            if from.map(|machine| machine.liveness) != to.map(|machine| machine.liveness) {
                lost_or_found.insert(id);
            }
        }
        if !lost_or_found.is_empty() {
            let held = new.state.observed.keys().filter(|(_, machine)| lost_or_found.contains(machine));
            changed.units.extend(held.map(|(name, _)| name.clone()));
        }
        changed.units.extend(reasons_changed(&old.unplaced, &new.unplaced));
        changed
    }
}

/// The units that lack a home for another reason than before, or do so only in one of the two.
fn reasons_changed<T: PartialEq>(
    old: &Arc<BTreeMap<UnitName, T>>,
    new: &Arc<BTreeMap<UnitName, T>>,
) -> Vec<UnitName> {
    if Arc::ptr_eq(old, new) {
        return Vec::new();
    }
    let new_or_other = new.iter().filter(|(name, why)| old.get(*name) != Some(*why));
    let over = old.keys().filter(|name| !new.contains_key(*name));
    new_or_other.map(|(name, _)| name).chain(over).cloned().collect()
}
