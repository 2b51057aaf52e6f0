//! The cluster's state as the committed log makes it. It lives in memory; durable are the log and the
//! snapshots. Each batch of entries is published as one new state, and only then answered, so that whoever
//! proposed finds it there.

use std::io;
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
        Ok(StateMachine { machine: Arc::new(Machine { files, mode, failure, state, applied }) })
    }

    pub(crate) fn state(&self) -> watch::Receiver<Arc<ClusterState>> {
        self.machine.state.subscribe()
    }
}

impl Machine {
    fn applied(&self) -> MutexGuard<'_, Applied> {
        self.applied.lock().expect("no holder of this lock panics")
    }

    /// Runs `write` where it holds up nobody.
    async fn aside<T: Send + 'static>(
        self: &Arc<Machine>,
        what: &'static str,
        write: impl FnOnce(&Machine) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let machine = self.clone();
        let guarded = move || machine.failure.guard(what, || write(&machine));
        match self.mode {
            FlushMode::Inline | FlushMode::Slow { .. } => guarded(),
            FlushMode::Thread => tokio::task::spawn_blocking(guarded).await.map_err(io::Error::other)?,
        }
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

    async fn get_snapshot_builder(&mut self) -> Builder {
        let Applied { id, membership } = self.machine.applied().clone();
        let meta = SnapshotMeta { last_log_id: id, last_membership: membership };
        let state = self.machine.state.borrow().clone();
        Builder { machine: self.machine.clone(), state, meta }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> io::Result<()> {
        let state = read(meta, &snapshot)?;
        let file_meta = meta.clone();
        self.machine
            .aside("writing a received snapshot", move |machine| {
                snapshot_file::write(&*machine.files, &file_meta, &snapshot)
            })
            .await?;
        *self.machine.applied() = applied(meta);
        self.machine.state.send_replace(Arc::new(state));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let found =
            self.machine.aside("reading the snapshot", |machine| snapshot_file::find(&*machine.files));
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
            .aside("writing a snapshot", move |machine| {
                let snapshot = codec::encode(&*state)?;
                snapshot_file::write(&*machine.files, &meta, &snapshot)?;
                Ok(Snapshot { meta, snapshot })
            })
            .await
    }
}
