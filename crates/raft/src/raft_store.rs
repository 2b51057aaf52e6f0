//! The store that the daemon sees: the seam's verbs over one Raft node, before, while and after it joins a
//! cluster.

mod belonging;
mod options;
mod succession;
#[cfg(test)]
mod tests;
mod verbs;

use std::io;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use cluster::{Command, MachineId};
use openraft::{Config, SnapshotPolicy};
use store::Role;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::batch::{Batches, First};
use crate::disk::{Disk, Identity};
use crate::liveness::Liveness;
use crate::message::{self, Asked, Envelope, Formed, Hello, Refusal};
use crate::network::{Moved, Network};
use crate::node::{Node, Raft};
use crate::peers::Peers;
use crate::question::{self, Answerer, AskError, Pieces, Questions};
use crate::runtime::Runtime;
use crate::server::{Handler, serve};
use crate::transport::{Caller, Transport};
use crate::twin::Told;

pub use options::{InitError, Options, Timing};
pub use verbs::PROPOSAL_BYTES_MAX;

/// How often a role is looked at between openraft's own announcements.
const ROLE_INTERVAL: Duration = Duration::from_millis(500);
/// Short, because a voter without a store is one that the cluster cannot spare.
const MEMBERSHIP_INTERVAL: Duration = Duration::from_millis(500);

/// The store on Raft. Cheap to clone.
#[derive(Clone)]
pub struct RaftStore(Arc<Shared>);

struct Shared {
    options: Options,
    address: String,
    nonce: String,
    disk: Disk,
    peers: Arc<Peers>,
    node: OnceLock<Arc<Node>>,
    role: watch::Sender<Role>,
    init: mpsc::Sender<(String, oneshot::Sender<Result<(), String>>)>,
    cluster_name: Mutex<String>,
    questions: Questions,
    /// Machines with this one's id that were told of in the log.
    told: Told,
    /// The leader has said that this machine was removed.
    expelled: watch::Sender<bool>,
    /// Says where the cluster went on without this machine.
    succeeded: Mutex<Option<String>>,
}

impl RaftStore {
    /// Opens the door to peers and begins: as the member it was, or by forming or joining a cluster. The
    /// future that comes with the store does all its work; it ends, with the node shut down, after `stop`.
    pub async fn start(
        options: Options,
        disk: Disk,
        transport: Arc<dyn Transport>,
        stop: watch::Receiver<bool>,
    ) -> io::Result<(RaftStore, impl Future<Output = ()> + Send)> {
        let listener = transport.listen(&options.listen).await?;
        let address = match &options.advertise {
            Some(address) => address.clone(),
            None => listener.address()?,
        };
        let (init, inits) = mpsc::channel(1);
        let shared = Arc::new(Shared {
            nonce: disk.nonce()?,
            cluster_name: Mutex::new(options.cluster_name.clone()),
            address,
            peers: Peers::new(transport),
            node: OnceLock::new(),
            role: watch::Sender::new(Role::Unformed { hint: "it is starting".into() }),
            init,
            options,
            disk,
            questions: Questions::default(),
            told: Told::default(),
            expelled: watch::Sender::new(false),
            succeeded: Mutex::default(),
        });
        let store = RaftStore(shared.clone());
        let seed = shared.options.seed;
        let run = async move {
            let mut tasks = JoinSet::new();
            tasks.spawn(serve(listener, shared.clone(), stop.clone()));
            let lifetime = shared.clone().live(inits, stop);
            Runtime::seeded(seed, lifetime).await;
            tasks.join_all().await;
        };
        Ok((store, run))
    }

    /// Where peers reach this machine.
    pub fn address(&self) -> &str {
        &self.0.address
    }

    /// Where the other members listen.
    pub fn member_addresses(&self) -> Vec<String> {
        self.0.node.get().map(|node| node.other_addresses()).unwrap_or_default()
    }

    /// Turns true when the leader says that this machine was removed from the cluster: it is a member no
    /// more, and its store is worth nothing.
    pub fn expelled(&self) -> watch::Receiver<bool> {
        self.0.expelled.subscribe()
    }

    /// Makes this machine a cluster by itself.
    pub async fn init(&self, name: Option<String>) -> Result<(), InitError> {
        if let Some(node) = self.0.node.get() {
            return Err(InitError::Exists { id: node.identity.cluster_id.clone() });
        }
        if !self.0.options.join.is_empty() {
            let reason = "its configuration names machines to form a cluster with; take `join` out of it to \
                          make a cluster of this machine alone";
            return Err(InitError::Failed { reason: reason.into() });
        }
        let (answer, answered) = oneshot::channel();
        let name = name.unwrap_or_else(|| self.0.options.cluster_name.clone());
        let failed = |reason: &str| InitError::Failed { reason: reason.into() };
        self.0.init.send((name, answer)).await.map_err(|_| failed("the daemon is stopping"))?;
        let kept = answered.await.map_err(|_| failed("the daemon is stopping"))?;
        kept.map_err(|reason| InitError::Failed { reason })
    }

    /// Who answers the questions that other machines' daemons ask this one; the first counts.
    pub fn answer_with(&self, answerer: Answerer) {
        self.0.questions.answer_with(answerer);
    }

    /// Asks the daemon of another machine of this cluster. The stream ends when either side ends it.
    pub async fn ask(&self, machine: &MachineId, question: Vec<u8>) -> Result<Pieces, AskError> {
        let node = self.0.node.get().ok_or(AskError::NotMember)?;
        let address = node.address_of(machine).ok_or(AskError::NotMember)?;
        let asked = Asked { cluster: node.identity.cluster_id.clone(), question };
        question::ask(&self.0.peers, &address, &asked).await
    }

    /// Hands the lead to another voter, if this node has it: before a planned stop.
    pub async fn give_up_lead(&self, timeout: Duration) {
        let Some(node) = self.0.node.get() else { return };
        let Role::Leader { .. } = node.role() else { return };
        let metrics = node.metrics();
        let caught_up = metrics.replication.iter().flatten();
        let voters: Vec<_> = metrics.membership_config.membership().voter_ids().collect();
        let best = caught_up
            .filter(|(id, _)| **id != node.identity.node && voters.contains(id))
            .max_by_key(|(_, matched)| matched.as_ref().map(|id| id.index));
        let Some((target, _)) = best else { return };
        if node.raft.trigger().transfer_leader(*target).await.is_ok() {
            let wait = node.raft.wait(Some(timeout));
            let _ = wait.metrics(|m| m.current_leader != Some(m.id), "another leads").await;
        }
    }
}

impl Shared {
    async fn live(
        self: Arc<Self>,
        inits: mpsc::Receiver<(String, oneshot::Sender<Result<(), String>>)>,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut stopping = stop.clone();
        let identity = tokio::select! {
            // Not resumed when cancelled: the daemon is stopping.
            identity = self.be_somebody(inits) => identity,
            _ = stopping.wait_for(|stop| *stop) => return,
        };
        match self.start_node(identity).await {
            Ok((node, batches)) => {
                let mut tasks = JoinSet::new();
                tasks.spawn(batches);
                tokio::select! {
                    // Not resumed when cancelled: the daemon is stopping.
                    () = self.watch_role(&node) => {}
                    () = self.mend(&node) => {}
                    () = self.watch_place(&node) => {}
                    () = self.look_for_successor(&node) => {}
                    _ = stop.wait_for(|stop| *stop) => {}
                }
                if !*stop.borrow() {
                    // openraft ends over anything that it cannot read. A daemon that went on without it would
                    // say that it is there, and do nothing any more.
                    let why = node.metrics().running_state.err().map_or("?".into(), |why| why.to_string());
                    tracing::error!(why, "the Raft node has ended by itself");
                    self.role.send_replace(Role::Leaderless);
                    self.disk.fail(format!("the Raft node has ended: {why}"));
                }
                if let Err(error) = node.raft.shutdown().await {
                    tracing::warn!(%error, "the Raft node did not stop in order");
                }
            }
            Err(reason) => {
                tracing::error!(reason, "the Raft node does not start");
                self.role.send_replace(Role::Unformed { hint: reason });
                let _ = stop.wait_for(|stop| *stop).await;
            }
        }
    }

    async fn start_node(
        &self,
        identity: Identity,
    ) -> Result<(Arc<Node>, impl Future<Output = ()> + Send + use<>), String> {
        if identity.machine != self.options.machine.as_str() {
            return Err(format!(
                "the store belongs to machine {}, but this is {}; move it away to join as this machine",
                identity.machine, self.options.machine
            ));
        }
        let timing = self.options.timing;
        let config = Config {
            cluster_name: identity.cluster_id.clone(),
            heartbeat_interval: timing.heartbeat_ms,
            election_timeout_min: timing.election_ms_min,
            election_timeout_max: timing.election_ms_max,
            enable_pre_vote: Some(true),
            // A leader's followers may hold and commit an entry before its own disk does. One that resumed
            // its term after a crash would give that entry's place to another.
            enable_leader_restore: Some(false),
            snapshot_policy: SnapshotPolicy::LogsSinceLast(timing.snapshot_entries),
            max_in_snapshot_log_to_keep: timing.log_entries_kept,
            replication_lag_threshold: timing.snapshot_entries + timing.log_entries_kept,
            install_snapshot_timeout: 60_000,
            ..Config::default()
        };
        let config = config.validate().map_err(|error| error.to_string())?;
        let (peers, moved) = (self.peers.clone(), Moved::default());
        let network = Network { peers, cluster: identity.cluster_id.clone(), moved: moved.clone() };
        let raft = Raft::new(
            identity.node,
            Arc::new(config),
            network,
            self.disk.log_store(),
            self.disk.state_machine(),
        )
        .await
        .map_err(|error| error.to_string())?;
        let (batches, serving) = Batches::new(raft.clone(), self.first_record(&identity));
        let node = Arc::new(Node {
            raft,
            batches,
            liveness: Arc::new(Liveness::new()),
            lease: Duration::from_millis(2 * timing.election_ms_max),
            voter_grace: Duration::from_millis(timing.voter_grace_ms),
            identity,
            peers: self.peers.clone(),
            told: Told::default(),
            state: self.disk.state(),
            moved,
        });
        if !node.identity.founders.is_empty() {
            node.initialize().await?;
        }
        self.role.send_replace(Role::Leaderless);
        let _ = self.node.set(node.clone());
        Ok((node, serving))
    }

    /// What is in the log before all else: a state without it belongs to no cluster.
    fn first_record(&self, identity: &Identity) -> First {
        let name = self.cluster_name.lock().expect("no holder of this lock panics").clone();
        let init = Command::InitCluster { id: identity.cluster_id.clone(), name };
        let state = self.disk.state();
        Box::new(move || state.borrow().cluster.is_none().then(|| init.clone()))
    }

    /// Publishes this node's role, and keeps the leader's ear honest: what it did not hear without a quorum
    /// proves nothing.
    async fn watch_role(&self, node: &Node) {
        use openraft::async_runtime::WatchReceiver;
        let mut metrics = node.raft.server_metrics();
        let mut tick = tokio::time::interval(ROLE_INTERVAL);
        loop {
            let role = match (node.role(), node.settled()) {
                // A machine that lost its store may be elected in the middle of the change that gives it its
                // former place: then it is this leader who has to finish it.
                (role @ Role::Leader { .. }, _) | (role, Ok(())) => role,
                (_, Err(hint)) => Role::Unformed { hint },
            };
            match role {
                Role::Leader { .. } => node.liveness.awake(),
                _ => node.liveness.deaf(),
            }
            self.role.send_if_modified(|now| {
                let changed = *now != role;
                if changed {
                    tracing::info!("this machine was {now:?} and is {role:?}");
                    *now = role;
                }
                changed
            });
            tokio::select! {
                // Cancel-safe: both only wait.
                changed = metrics.changed() => if changed.is_err() { return },
                _ = tick.tick() => {}
            }
        }
    }

    /// While this node leads: the cluster's first record, and a membership without dead nodes.
    async fn mend(&self, node: &Node) {
        let mut roles = self.role.subscribe();
        loop {
            if roles.wait_for(|role| matches!(role, Role::Leader { .. })).await.is_err() {
                return;
            }
            if self.disk.state().borrow().cluster.is_none()
                && let Err(refusal) = node.batches.propose(Vec::new()).await
            {
                tracing::debug!(%refusal, "the cluster's first record was not written");
            }
            node.mend_membership().await;
            tokio::time::sleep(MEMBERSHIP_INTERVAL).await;
        }
    }
}

impl Handler for Shared {
    async fn answer(&self, asked: Asked) -> Result<Pieces, String> {
        let cluster = self.node.get().map(|node| node.identity.cluster_id.as_str());
        if cluster != Some(asked.cluster.as_str()) {
            return Err("this daemon is not a member of that cluster".into());
        }
        self.questions.answer(asked.question).await
    }

    fn hello(&self, asker: Option<Hello>) -> Hello {
        if let Some(asker) = asker {
            self.look_at(&asker);
        }
        let identity = match self.node.get() {
            Some(node) => Some(node.identity.clone()),
            None => self.disk.identity().ok().flatten(),
        };
        let leader = self.node.get().and_then(|node| match node.role() {
            Role::Leader { .. } => Some(self.address.clone()),
            Role::Follower { .. } => node.leader().map(|(_, member)| member.address),
            Role::Leaderless | Role::Unformed { .. } => None,
        });
        Hello {
            machine: self.options.machine.to_string(),
            address: self.address.clone(),
            nonce: self.nonce.clone(),
            version: self.options.version.clone(),
            expects: self.options.bootstrap_expect,
            formed: identity.map(|identity| {
                let state = self.disk.state().borrow().clone();
                let record = state.cluster.as_deref().filter(|record| record.id == identity.cluster_id);
                Formed {
                    former: record.map(|record| record.former.clone()).unwrap_or_default(),
                    feature_level: record.map_or(0, |record| record.feature_level),
                    cluster: identity.cluster_id,
                    founders: identity.founders,
                    leader,
                }
            }),
        }
    }

    async fn handle(&self, caller: &Caller, envelope: Envelope) -> Result<message::Response, Refusal> {
        let node = self.node.get().ok_or(Refusal::Stranger)?;
        let addressed = envelope.to.is_none_or(|to| to == node.identity.node);
        if envelope.cluster != node.identity.cluster_id || !addressed {
            return Err(Refusal::Stranger);
        }
        node.handle(caller, envelope.request).await
    }
}
