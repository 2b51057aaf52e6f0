//! The store that the daemon sees: the seam's verbs over one Raft node, before, while and after it joins a
//! cluster.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use cluster::{ClusterState, Command, MachineId, Revision};
use openraft::{Config, SnapshotPolicy};
use store::{Committed, ProposeError, ReadError, Role, Store, Voting};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::batch::Batches;
use crate::codec;
use crate::disk::{Disk, Identity};
use crate::forming::{self, Heard, Step};
use crate::liveness::Liveness;
use crate::message::{self, Asked, Envelope, Formed, Hello, Refusal, Request, Response};
use crate::network::Network;
use crate::node::{Node, Raft, remaining};
use crate::peers::{CallError, Peers};
use crate::question::{self, Answerer, AskError, Pieces, Questions};
use crate::runtime::Runtime;
use crate::server::{Handler, serve};
use crate::transport::Transport;
use crate::types::Member;

/// The largest proposal, encoded: a batch of several thousand ordinary unit files.
pub const PROPOSAL_BYTES_MAX: usize = 8 << 20;
/// How often a machine without a cluster asks its peers.
const FORMING_INTERVAL: Duration = Duration::from_millis(300);
const HELLO_TIMEOUT: Duration = Duration::from_secs(1);
const JOIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a role is looked at between openraft's own announcements.
const ROLE_INTERVAL: Duration = Duration::from_millis(500);
/// Short, because a voter without a store is one that the cluster cannot spare.
const MEMBERSHIP_INTERVAL: Duration = Duration::from_millis(500);
/// How soon a proposal that found no leader tries again, when no change of roles wakes it before.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// What a node has to know.
#[derive(Clone, Debug)]
pub struct Options {
    pub machine: MachineId,
    pub version: String,
    /// Where this machine listens for its peers, `HOST:PORT`.
    pub listen: String,
    /// Where its peers reach it; `None`: where it listens.
    pub advertise: Option<String>,
    /// How many machines found the cluster; 0 waits for [`RaftStore::init`] or for a cluster to join.
    pub bootstrap_expect: usize,
    /// The machines to found or join a cluster with, `HOST:PORT`.
    pub join: Vec<String>,
    pub cluster_name: String,
    pub timing: Timing,
    /// Decides all of openraft's chance; for simulations.
    pub seed: Option<u64>,
}

/// Why no cluster was formed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InitError {
    #[error("this machine is part of the cluster {id} already")]
    Exists { id: String },
    #[error("{reason}")]
    Failed { reason: String },
}

/// Raft's clock, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    pub heartbeat_ms: u64,
    pub election_ms_min: u64,
    pub election_ms_max: u64,
    /// Entries between two snapshots.
    pub snapshot_entries: u64,
    /// Entries kept behind a snapshot, for members that lag a little.
    pub log_entries_kept: u64,
}

impl Default for Timing {
    /// A dead leader is replaced in about a second: its lease runs out, then somebody's patience does.
    fn default() -> Timing {
        Timing {
            heartbeat_ms: 200,
            election_ms_min: 350,
            election_ms_max: 550,
            snapshot_entries: 5000,
            log_entries_kept: 1000,
        }
    }
}

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
            peers: Arc::new(Peers::new(transport)),
            node: OnceLock::new(),
            role: watch::Sender::new(Role::Unformed { hint: "it is starting".into() }),
            init,
            options,
            disk,
            questions: Questions::default(),
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
            identity = self.belong(inits) => identity,
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
                    _ = stop.wait_for(|stop| *stop) => {}
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

    /// Waits until this machine belongs to a cluster; at once when it did before.
    async fn belong(
        &self,
        mut inits: mpsc::Receiver<(String, oneshot::Sender<Result<(), String>>)>,
    ) -> Identity {
        loop {
            let known = self.disk.identity();
            match known {
                Ok(Some(identity)) => return identity,
                Ok(None) => {}
                Err(error) => tracing::error!(%error, "cannot read who this node is"),
            }
            if self.options.join.is_empty() {
                self.hint("run `corectl cluster init` here, or set bootstrap_expect and join");
                let Some((name, answer)) = inits.recv().await else { std::future::pending().await };
                let me = self.hello();
                let identity = forming::found(&[&me], &me.machine);
                *self.cluster_name.lock().expect("no holder of this lock panics") = name;
                let kept = self.disk.set_identity(&identity);
                let _ = answer.send(kept.map_err(|error| error.to_string()));
                continue;
            }
            match forming::step(&self.hello(), &self.ask_all().await) {
                Step::Found(identity) => {
                    tracing::info!(cluster = identity.cluster_id, node = identity.node, "founding a cluster");
                    self.keep(&identity);
                }
                Step::Join { cluster, addresses } => {
                    if let Some(identity) = self.join(&cluster, addresses).await {
                        tracing::info!(cluster, node = identity.node, "joined a cluster");
                        self.keep(&identity);
                    } else {
                        self.hint("waiting for the cluster's leader to take this machine in");
                        tokio::time::sleep(FORMING_INTERVAL).await;
                    }
                }
                Step::Wait { why } => {
                    self.hint(&why);
                    tokio::time::sleep(FORMING_INTERVAL).await;
                }
            }
        }
    }

    fn keep(&self, identity: &Identity) {
        if let Err(error) = self.disk.set_identity(identity) {
            tracing::error!(%error, "cannot write down who this node is");
        }
    }

    fn hint(&self, text: &str) {
        self.role.send_if_modified(|role| {
            let new = Role::Unformed { hint: text.into() };
            let changed = *role != new;
            if changed {
                tracing::info!("not part of a cluster: {text}");
                *role = new;
            }
            changed
        });
    }

    async fn ask_all(&self) -> Vec<Heard> {
        let asked = self.options.join.iter().map(|address| async move {
            let hello = self.peers.hello(address, HELLO_TIMEOUT).await;
            let hello = hello.map_err(|error| match error {
                CallError::Unreachable { source, .. } | CallError::NoAnswer { source, .. } => {
                    source.to_string()
                }
                refused @ CallError::Refused { .. } => refused.to_string(),
            });
            Heard { address: address.clone(), hello }
        });
        futures::future::join_all(asked).await
    }

    async fn join(&self, cluster: &str, mut addresses: Vec<String>) -> Option<Identity> {
        let mut next = 0;
        while let Some(address) = addresses.get(next).cloned() {
            next += 1;
            let (machine, nonce) = (self.options.machine.to_string(), self.nonce.clone());
            let request = Request::Join { machine: machine.clone(), address: self.address.clone(), nonce };
            let envelope = Envelope { cluster: cluster.into(), to: None, request };
            match self.peers.call(&address, &envelope, JOIN_TIMEOUT).await {
                Ok(Response::Joined { node }) => {
                    let cluster_id = cluster.to_string();
                    return Some(Identity { cluster_id, node, machine, founders: Vec::new() });
                }
                Err(CallError::Refused { source: Refusal::NotLeader { leader: Some(leader) }, .. })
                    if !addresses.contains(&leader) =>
                {
                    addresses.push(leader);
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "not taken in"),
            }
        }
        None
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
        let network = Network { peers: self.peers.clone(), cluster: identity.cluster_id.clone() };
        let raft = Raft::new(
            identity.node,
            Arc::new(config),
            network,
            self.disk.log_store(),
            self.disk.state_machine(),
        )
        .await
        .map_err(|error| error.to_string())?;
        let (batches, serving) = Batches::new(raft.clone());
        let node = Arc::new(Node {
            raft,
            batches,
            liveness: Arc::new(Liveness::new()),
            lease: Duration::from_millis(2 * timing.election_ms_max),
            identity,
        });
        if !node.identity.founders.is_empty() {
            node.initialize().await?;
        }
        self.role.send_replace(Role::Leaderless);
        let _ = self.node.set(node.clone());
        Ok((node, serving))
    }

    /// Publishes this node's role, and keeps the leader's ear honest: what it did not hear without a quorum
    /// proves nothing.
    async fn watch_role(&self, node: &Node) {
        use openraft::async_runtime::WatchReceiver;
        let mut metrics = node.raft.server_metrics();
        let mut tick = tokio::time::interval(ROLE_INTERVAL);
        loop {
            let role = match node.settled() {
                Ok(()) => node.role(),
                Err(hint) => Role::Unformed { hint },
            };
            if !matches!(role, Role::Leader { .. }) {
                node.liveness.deaf();
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
            if self.disk.state().borrow().cluster.is_none() {
                let name = self.cluster_name.lock().expect("no holder of this lock panics").clone();
                let init = Command::InitCluster { id: node.identity.cluster_id.clone(), name };
                if let Err(refusal) = node.batches.propose(vec![init]).await {
                    tracing::debug!(%refusal, "the cluster's first record was not written");
                }
            }
            node.mend_membership().await;
            tokio::time::sleep(MEMBERSHIP_INTERVAL).await;
        }
    }

    /// Where the leader is to be asked.
    fn target(&self, node: &Node) -> Target {
        match &*self.role.borrow() {
            Role::Leader { .. } => Target::Me,
            Role::Follower { leader } => match node.leader() {
                Some((_, member)) if member.machine == leader.as_str() => Target::Peer(member),
                Some(_) | None => Target::Nobody,
            },
            Role::Leaderless | Role::Unformed { .. } => Target::Nobody,
        }
    }

    /// Asks the leader for as long as it is the leader: one that was cut off would let us wait for ever.
    async fn ask_leader(
        &self,
        node: &Node,
        leader: &Member,
        request: Request,
        deadline: Instant,
    ) -> Result<Response, CallError> {
        let envelope = Envelope { cluster: node.identity.cluster_id.clone(), to: None, request };
        let mut roles = self.role.subscribe();
        let leads =
            |role: &Role| matches!(role, Role::Follower { leader: id } if id.as_str() == leader.machine);
        tokio::select! {
            // Not resumed when cancelled: what became of the request is unknown then, and the caller is told
            // so.
            answer = self.peers.call(&leader.address, &envelope, remaining(deadline)) => answer,
            _ = roles.wait_for(|role| !leads(role)) => {
                let source = io::Error::other("it does not lead any more");
                Err(CallError::NoAnswer { address: leader.address.clone(), source })
            }
        }
    }

    /// Until roles change, or a moment has passed; `false` when the deadline has.
    async fn pause(&self, deadline: Instant) -> bool {
        let mut roles = self.role.subscribe();
        let until = deadline.min(Instant::now() + RETRY_INTERVAL);
        let _ = tokio::time::timeout_at(until, roles.changed()).await;
        Instant::now() < deadline
    }

    fn no_leader(&self) -> String {
        let voters = self.node.get().map_or(0, |node| node.raft.voter_ids().count());
        let majority = voters / 2 + 1;
        format!("{majority} of the {voters} voting machines must be running and reach each other")
    }

    fn unformed(&self) -> String {
        match &*self.role.borrow() {
            Role::Unformed { hint } => hint.clone(),
            _ => "it is starting".into(),
        }
    }
}

enum Target {
    Me,
    Peer(Member),
    Nobody,
}

impl Handler for Shared {
    async fn answer(&self, asked: Asked) -> Result<Pieces, String> {
        let cluster = self.node.get().map(|node| node.identity.cluster_id.as_str());
        if cluster != Some(asked.cluster.as_str()) {
            return Err("this daemon is not a member of that cluster".into());
        }
        self.questions.answer(asked.question).await
    }

    fn hello(&self) -> Hello {
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
            formed: identity.map(|identity| Formed {
                cluster: identity.cluster_id,
                founders: identity.founders,
                leader,
            }),
        }
    }

    async fn handle(&self, envelope: Envelope) -> Result<message::Response, Refusal> {
        let node = self.node.get().ok_or(Refusal::Stranger)?;
        let addressed = envelope.to.is_none_or(|to| to == node.identity.node);
        if envelope.cluster != node.identity.cluster_id || !addressed {
            return Err(Refusal::Stranger);
        }
        node.handle(envelope.request).await
    }
}

#[async_trait]
impl Store for RaftStore {
    async fn propose(&self, commands: Vec<Command>, deadline: Instant) -> Result<Committed, ProposeError> {
        let Some(node) = self.0.node.get() else {
            return Err(ProposeError::Unformed { hint: self.0.unformed() });
        };
        let bytes = codec::encode(&commands).map_or(usize::MAX, |bytes| bytes.len());
        if bytes > PROPOSAL_BYTES_MAX {
            return Err(ProposeError::TooLarge { bytes, max: PROPOSAL_BYTES_MAX });
        }
        loop {
            let answer = match self.0.target(node) {
                Target::Me => {
                    let proposed = node.batches.propose(commands.clone());
                    tokio::time::timeout_at(deadline, proposed).await.unwrap_or(Err(Refusal::Unknown))
                }
                Target::Peer(leader) => {
                    let request = Request::Propose { commands: commands.clone() };
                    match self.0.ask_leader(node, &leader, request, deadline).await {
                        Ok(Response::Proposed { revision, outcomes }) => {
                            Ok(Committed { revision: Revision(revision), outcomes })
                        }
                        Ok(_) | Err(CallError::NoAnswer { .. }) => Err(Refusal::Unknown),
                        Err(CallError::Unreachable { .. }) => Err(Refusal::NotLeader { leader: None }),
                        Err(CallError::Refused { source: Refusal::Stranger, .. }) => {
                            Err(Refusal::NotLeader { leader: None })
                        }
                        Err(CallError::Refused { source, .. }) => Err(source),
                    }
                }
                Target::Nobody => Err(Refusal::NotLeader { leader: None }),
            };
            match answer {
                Ok(committed) => {
                    let mut state = self.0.disk.state();
                    let applied = state.wait_for(|state| committed.revision <= state.revision);
                    // It is committed, whether or not this machine has seen it in time.
                    let _ = tokio::time::timeout_at(deadline, applied).await;
                    return Ok(committed);
                }
                Err(Refusal::NotLeader { .. } | Refusal::Stranger) => {
                    if !self.0.pause(deadline).await {
                        return Err(ProposeError::NoLeader { hint: self.0.no_leader() });
                    }
                }
                Err(Refusal::Unknown) => return Err(ProposeError::Unknown),
                Err(Refusal::Failed(reason)) => return Err(ProposeError::Stopped { reason }),
            }
        }
    }

    fn state(&self) -> watch::Receiver<Arc<ClusterState>> {
        self.0.disk.state()
    }

    async fn read(&self, deadline: Instant) -> Result<Arc<ClusterState>, ReadError> {
        let Some(node) = self.0.node.get() else {
            return Err(ReadError::Unformed { hint: self.0.unformed() });
        };
        loop {
            let answer = match self.0.target(node) {
                Target::Me => {
                    let index = tokio::time::timeout_at(deadline, node.read_index()).await;
                    index.unwrap_or(Err(Refusal::NotLeader { leader: None }))
                }
                Target::Peer(leader) => {
                    match self.0.ask_leader(node, &leader, Request::ReadIndex, deadline).await {
                        Ok(Response::ReadIndex { index }) => Ok(index),
                        Err(CallError::Refused { source, .. }) => Err(source),
                        Ok(_) | Err(CallError::NoAnswer { .. } | CallError::Unreachable { .. }) => {
                            Err(Refusal::NotLeader { leader: None })
                        }
                    }
                }
                Target::Nobody => Err(Refusal::NotLeader { leader: None }),
            };
            match answer {
                Ok(index) => {
                    let wait = node.raft.wait(Some(remaining(deadline)));
                    wait.applied_index_at_least(Some(index), "read").await.map_err(|_| ReadError::Timeout)?;
                    return Ok(self.0.disk.state().borrow().clone());
                }
                Err(Refusal::Failed(reason)) => return Err(ReadError::Stopped { reason }),
                Err(Refusal::NotLeader { .. } | Refusal::Stranger | Refusal::Unknown) => {
                    if !self.0.pause(deadline).await {
                        return Err(ReadError::NoLeader { hint: self.0.no_leader() });
                    }
                }
            }
        }
    }

    fn role(&self) -> watch::Receiver<Role> {
        self.0.role.subscribe()
    }

    fn voting(&self) -> Option<Voting> {
        self.0.node.get().map(|node| node.voting())
    }

    async fn here(&self, deadline: Instant) -> Result<(), ReadError> {
        let Some(node) = self.0.node.get() else {
            return Err(ReadError::Unformed { hint: self.0.unformed() });
        };
        let no_leader = || ReadError::NoLeader { hint: self.0.no_leader() };
        match self.0.target(node) {
            Target::Me => Ok(()),
            Target::Nobody => Err(no_leader()),
            Target::Peer(leader) => {
                let request = Request::Here { machine: self.0.options.machine.to_string() };
                match self.0.ask_leader(node, &leader, request, deadline).await {
                    Ok(_) => Ok(()),
                    Err(CallError::NoAnswer { .. }) => Err(ReadError::Timeout),
                    Err(CallError::Unreachable { .. } | CallError::Refused { .. }) => Err(no_leader()),
                }
            }
        }
    }

    fn silence(&self) -> BTreeMap<MachineId, Duration> {
        let Some(node) = self.0.node.get() else { return BTreeMap::new() };
        let state = self.0.disk.state().borrow().clone();
        node.liveness.silence(state.machines.keys(), &self.0.options.machine)
    }
}
