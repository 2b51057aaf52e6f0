//! The cluster's state as the committed log makes it. It lives in memory; durable are the log and the
//! snapshots. Each batch of entries is published as one new state, and only then answered, so that whoever
//! proposed finds it there.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use cluster::{ClusterState, Revision};
use futures::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, alias};
use tokio::sync::watch;

use crate::codec;
use crate::disk::Failure;
use crate::files::Files;
use crate::flusher::FlushMode;
use crate::snapshot_file;
use crate::types::{LogId, Reply, SnapshotMeta, StoredMembership, TypeConfig};

/// A snapshot has to fit into one call to a peer, with its head.
const SNAPSHOT_BYTES_MAX: usize = codec::RECORD_BYTES_MAX - (1 << 20);
/// After a state that was too large, so many entries until the next try: to find out costs as much as a
/// snapshot.
const RETRY_ENTRIES: u64 = 1000;

/// The state's record, as `codec` writes it.
pub type SnapshotData = Vec<u8>;
pub type Snapshot = alias::SnapshotOf<TypeConfig, SnapshotData>;

/// Clones are the same state machine.
#[derive(Clone)]
pub struct StateMachine {
    machine: Arc<Machine>,
}

struct Machine {
    files: Arc<dyn Files>,
    mode: FlushMode,
    failure: Failure,
    state: watch::Sender<Arc<ClusterState>>,
    applied: Mutex<Applied>,
    bytes_max: usize,
    /// No snapshot is made before that entry.
    next_snapshot: AtomicU64,
}

/// Up to where the log is applied, and what it said of the members.
#[derive(Clone, Default)]
struct Applied {
    id: Option<LogId>,
    membership: StoredMembership,
}

impl StateMachine {
    /// Begins where `snapshot` ends.
    pub(crate) fn new(
        files: Arc<dyn Files>,
        mode: FlushMode,
        failure: Failure,
        snapshot: Option<Snapshot>,
    ) -> io::Result<StateMachine> {
        let (state, applied) = match snapshot {
            Some(Snapshot { meta, snapshot }) => (read(&meta, &snapshot)?, applied(&meta)),
            None => Default::default(),
        };
        let (state, applied) = (watch::Sender::new(Arc::new(state)), Mutex::new(applied));
        let (bytes_max, next_snapshot) = (SNAPSHOT_BYTES_MAX, AtomicU64::new(0));
        let machine = Machine { files, mode, failure, state, applied, bytes_max, next_snapshot };
        Ok(StateMachine { machine: Arc::new(machine) })
    }

    pub(crate) fn state(&self) -> watch::Receiver<Arc<ClusterState>> {
        self.machine.state.subscribe()
    }
}

impl Machine {
    fn applied(&self) -> MutexGuard<'_, Applied> {
        self.applied.lock().expect("no holder of this lock panics")
    }

    /// Runs `work` where it holds up nobody.
    async fn aside<T: Send + 'static>(
        self: &Arc<Machine>,
        work: impl FnOnce(&Machine) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let machine = self.clone();
        let work = move || work(&machine);
        match self.mode {
            FlushMode::Inline | FlushMode::Slow { .. } => work(),
            FlushMode::Thread => tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?,
        }
    }

    /// The state's record; `None` when it is too large for any. The log holds all of it still, so that is
    /// said, and no reason to end: the next process would be no wiser.
    fn record(&self, state: &ClusterState, meta: &SnapshotMeta) -> Option<Vec<u8>> {
        let record = codec::encode(state).and_then(|record| match self.bytes_max < record.len() {
            true => Err(io::Error::other(format!("{} bytes are too many", record.len()))),
            false => Ok(record),
        });
        record
            .inspect_err(|error| {
                tracing::error!(
                    %error,
                    limit = self.bytes_max,
                    "no snapshot is made, and the log grows: the state is too large; `corectl destroy` units \
                     that nobody needs"
                );
                let index = meta.last_log_id.map_or(0, |id| id.index);
                self.next_snapshot.store(index + RETRY_ENTRIES, Ordering::Relaxed);
            })
            .ok()
    }
}

fn applied(meta: &SnapshotMeta) -> Applied {
    Applied { id: meta.last_log_id, membership: meta.last_membership.clone() }
}

fn read(meta: &SnapshotMeta, data: &[u8]) -> io::Result<ClusterState> {
    let mut state: ClusterState = codec::decode(data)?;
    state.revision = state.revision.max(Revision(meta.last_log_id.map_or(0, |id| id.index)));
    Ok(state)
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let applied = self.machine.applied().clone();
        Ok((applied.id, applied.membership))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        // The clone shares everything with the published state, which nobody else replaces meanwhile.
        let mut state = ClusterState::clone(&self.machine.state.borrow());
        let mut applied = self.machine.applied().clone();
        let mut replies = Vec::new();
        while let Some((entry, responder)) = entries.try_next().await? {
            let id = entry.log_id;
            let commands = match entry.payload {
                EntryPayload::Normal(proposal) => proposal.0,
                EntryPayload::Membership(membership) => {
                    applied.membership = StoredMembership::new(Some(id), membership);
                    Vec::new()
                }
                EntryPayload::Blank => Vec::new(),
            };
            let outcomes = state.apply_all(Revision(id.index), &commands);
            applied.id = Some(id);
            replies.extend(responder.map(|responder| (responder, Reply(outcomes))));
        }
        *self.machine.applied() = applied;
        self.machine.state.send_replace(Arc::new(state));
        for (responder, reply) in replies {
            responder.send(reply);
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Builder> {
        let index = self.machine.applied().id.map_or(0, |id| id.index);
        let is_due = self.machine.next_snapshot.load(Ordering::Relaxed) <= index;
        if force || is_due { Some(self.get_snapshot_builder().await) } else { None }
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let Applied { id, membership } = self.machine.applied().clone();
        let meta = SnapshotMeta { last_log_id: id, last_membership: membership };
        let state = self.machine.state.borrow().clone();
        Builder { machine: self.machine.clone(), state, meta }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> io::Result<()> {
        let state = read(meta, &snapshot)?;
        let file_meta = meta.clone();
        let write = move |machine: &Machine| snapshot_file::write(&*machine.files, &file_meta, &snapshot);
        self.machine
            .aside(move |machine| machine.failure.guard("writing a received snapshot", || write(machine)))
            .await?;
        *self.machine.applied() = applied(meta);
        self.machine.state.send_replace(Arc::new(state));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let find = |machine: &Machine| snapshot_file::find(&*machine.files);
        let found = self
            .machine
            .aside(move |machine| machine.failure.guard("reading the snapshot", || find(machine)));
        Ok(found.await?.newest)
    }
}

/// The state at one moment, on its way into a file.
pub struct Builder {
    machine: Arc<Machine>,
    state: Arc<ClusterState>,
    meta: SnapshotMeta,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let (state, meta) = (self.state.clone(), self.meta.clone());
        self.machine
            .aside(move |machine| {
                let Some(snapshot) = machine.record(&state, &meta) else {
                    // Older than any, which openraft takes for no news.
                    return Ok(Snapshot { meta: SnapshotMeta::default(), snapshot: Vec::new() });
                };
                machine.failure.guard("writing a snapshot", || {
                    snapshot_file::write(&*machine.files, &meta, &snapshot)
                })?;
                Ok(Snapshot { meta, snapshot })
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use cluster::{Command, UnitFile, UnitName};
    use openraft::impls::leader_id_std::LeaderId;
    use openraft::vote::RaftLeaderIdExt;

    use super::*;
    use crate::engine::Forgetful;

    /// A machine whose snapshots may be so large.
    fn machine(bytes_max: usize) -> StateMachine {
        let files = Arc::new(Forgetful::new(1).engine());
        let made = StateMachine::new(files, FlushMode::Inline, Failure::default(), None).unwrap();
        let mut machine = Arc::into_inner(made.machine).unwrap();
        machine.bytes_max = bytes_max;
        StateMachine { machine: Arc::new(machine) }
    }

    /// As if the log were applied up to there, with one unit of so many bytes.
    fn reaches(machine: &StateMachine, index: u64, bytes: usize) {
        let text = format!("[Service]\n# {}\n", "x".repeat(bytes));
        let file = Some(UnitFile::parse(&text).unwrap());
        let name = UnitName::new("large.service").unwrap();
        let mut state = ClusterState::clone(&machine.machine.state.borrow());
        state.apply_all(Revision(index), &[Command::SetUnit { name, file, desired: None }]);
        machine.machine.state.send_replace(Arc::new(state));
        let id = LogId::new(LeaderId::new_committed(1, 1), index);
        machine.machine.applied().id = Some(id);
    }

    /// It would end every daemon at the same entry, and each again after its start.
    #[tokio::test]
    async fn a_state_that_is_too_large_is_no_failure() {
        let mut machine = machine(10_000);
        reaches(&machine, 5, 100);
        let first = machine.try_create_snapshot_builder(false).await.unwrap().build_snapshot().await.unwrap();
        assert_eq!(first.meta.last_log_id.map(|id| id.index), Some(5));

        reaches(&machine, 9, 20_000);
        let none = machine.try_create_snapshot_builder(false).await.unwrap().build_snapshot().await.unwrap();
        assert_eq!(none.meta.last_log_id, None, "no news for openraft");
        let kept = machine.get_current_snapshot().await.unwrap().unwrap();
        assert_eq!((&kept.meta, &kept.snapshot), (&first.meta, &first.snapshot));
        reaches(&machine, 10, 20_000);
        assert!(machine.try_create_snapshot_builder(false).await.is_none(), "not at every entry");

        reaches(&machine, 9 + RETRY_ENTRIES, 100);
        let next = machine.try_create_snapshot_builder(false).await.unwrap().build_snapshot().await.unwrap();
        assert_eq!(next.meta.last_log_id.map(|id| id.index), Some(9 + RETRY_ENTRIES));
        assert_eq!(*machine.machine.failure.failed().borrow(), None);
    }
}
