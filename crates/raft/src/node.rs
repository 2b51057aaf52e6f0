//! One running Raft node: what it answers its peers, and what it does while it leads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cluster::{ClusterState, Command, MachineId, RotationStep};
use openraft::ReadPolicy;
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{LinearizableReadError, RaftError};
use openraft::metrics::RaftMetrics;
use openraft::storage::Snapshot as RaftSnapshot;
use openraft_rt::Instant as _;
use store::{Role, Voting};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::batch::Batches;
use crate::disk::Identity;
use crate::forming::{joined_node, machine_id};
use crate::liveness::Liveness;
use crate::membership::{Members, Step, ZONE, next_step};
use crate::message::{Refusal, Request, Response};
use crate::network::Moved;
use crate::peers::Peers;
use crate::state_machine::StateMachine;
use crate::transport::Caller;
use crate::twin::{self, Told};
use crate::types::{Member, NodeId, TypeConfig, Vote};

pub type Raft = openraft::Raft<TypeConfig, StateMachine>;

pub struct Node {
    pub raft: Raft,
    pub identity: Identity,
    pub batches: Batches,
    pub liveness: Arc<Liveness>,
    /// A leader that no quorum has answered for so long does not count as one, nor does one that is not
    /// heard for so long.
    pub lease: Duration,
    /// A voter that is away for longer gives its vote to another machine.
    pub voter_grace: Duration,
    pub peers: Arc<Peers>,
    /// Machines with another's id that were told of in the log.
    pub told: Told,
    pub state: watch::Receiver<Arc<ClusterState>>,
    pub moved: Moved,
}

impl Node {
    /// Answers a peer of this cluster.
    pub async fn handle(&self, caller: &Caller, request: Request) -> Result<Response, Refusal> {
        if let Caller::Machine(caller) = caller {
            self.speaks_for_itself(caller, &request)?;
        }
        match request {
            Request::Append(request) => {
                self.liveness.leader_spoke();
                let response = self.raft.append_entries(request).await;
                response.map(Response::Append).map_err(failed)
            }
            Request::Vote(request) => self.raft.vote(request).await.map(Response::Vote).map_err(failed),
            Request::PreVote(request) => {
                self.raft.pre_vote(request).await.map(Response::Vote).map_err(failed)
            }
            Request::Snapshot { vote, meta, data } => {
                self.liveness.leader_spoke();
                let snapshot = RaftSnapshot { meta, snapshot: data };
                let response = self.raft.install_full_snapshot(vote, snapshot).await;
                response.map(Response::Snapshot).map_err(failed)
            }
            Request::TransferLeader(request) => {
                self.raft.handle_transfer_leader(request).await.map(Response::Transferred).map_err(failed)
            }
            Request::Propose { commands } => {
                let committed = self.batches.propose(commands).await?;
                Ok(Response::Proposed { revision: committed.revision.0, outcomes: committed.outcomes })
            }
            Request::ReadIndex => Ok(Response::ReadIndex { index: self.read_index().await? }),
            Request::Here { machine, node, address } => {
                let Role::Leader { .. } = self.role() else {
                    return Err(Refusal::NotLeader {
                        leader: self.leader().map(|(_, member)| member.address),
                    });
                };
                // Only the member that the machine is now: a former life says nothing about this one.
                let member = self.member(node).filter(|member| member.machine == machine);
                let Some(member) = member else {
                    let is_out = self.is_expelled(&machine) || self.is_gone(node).await;
                    return Err(if is_out { Refusal::Expelled } else { Refusal::Stranger });
                };
                if member.address != address {
                    self.moved.lock().expect("no holder of this lock panics").insert(node, address);
                }
                if let Some(machine) = machine_id(&machine) {
                    self.liveness.heard(machine);
                }
                Ok(Response::Here)
            }
            Request::Join { machine, address, nonce } => {
                let node = self.admit(Member { machine, address, nonce }).await?;
                Ok(Response::Joined { node })
            }
            Request::Members => match self.role() {
                Role::Leader { .. } => Ok(Response::Members { members: self.seen_members() }),
                _ => {
                    let leader = self.leader().map(|(_, member)| member.address);
                    Err(Refusal::NotLeader { leader })
                }
            },
        }
    }

    /// Whether the machine was removed, and has not been taken back.
    fn is_expelled(&self, machine: &str) -> bool {
        machine_id(machine).is_some_and(|machine| self.state.borrow().expelled.contains_key(&machine))
    }

    /// Whether the node was removed, whatever its machine may do by now: ids are given to members that are
    /// committed, and never twice, so one that all that is committed lacks is nobody's any more.
    async fn is_gone(&self, node: NodeId) -> bool {
        let Ok(index) = self.read_index().await else { return false };
        let wait = self.raft.wait(Some(self.lease));
        let Ok(now) = wait.applied_index_at_least(Some(index), "who is a member").await else { return false };
        let [committed, newest] = [&now.committed_membership_config, &now.membership_config];
        [committed, newest].iter().all(|config| config.membership().get_node(&node).is_none())
    }

    /// Every member as this node, which leads, sees it. A machine that is changing its store is shown once.
    pub fn seen_members(&self) -> Vec<store::Member> {
        let members = self.members();
        let mut seen = BTreeMap::new();
        for (node, member) in &members.nodes {
            let Some(machine) = machine_id(&member.machine) else { continue };
            let matched = members.matched.get(node);
            let view = store::Member {
                address: member.address.clone(),
                votes: members.voters.contains(node),
                leads: *node == members.leader,
                lag: matched.map(|matched| members.last_index.saturating_sub(*matched)),
                silence: members.silence.get(node).copied().unwrap_or_default(),
                machine: machine.clone(),
            };
            seen.insert(machine, view);
        }
        seen.into_values().collect()
    }

    /// Where every member but this one listens.
    pub fn other_addresses(&self) -> Vec<String> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let others = metrics.membership_config.membership().nodes();
        others.filter(|(id, _)| **id != self.identity.node).map(|(_, m)| m.address.clone()).collect()
    }

    /// A machine leads, votes, reports and joins in no other's name. What its users ask for passes: each
    /// daemon has looked at its own.
    fn speaks_for_itself(&self, caller: &MachineId, request: &Request) -> Result<(), Refusal> {
        let voted_for = |vote: &Vote| {
            self.member(vote.leader_id.voted_for).map(|member| member.machine).into_iter().collect()
        };
        let claimed: Vec<String> = match request {
            Request::Append(request) => voted_for(&request.vote),
            Request::Vote(request) | Request::PreVote(request) => voted_for(&request.vote),
            Request::Snapshot { vote, .. } => voted_for(vote),
            Request::TransferLeader(request) => voted_for(request.from_leader()),
            Request::Here { machine, .. } | Request::Join { machine, .. } => vec![machine.clone()],
            Request::Propose { commands } => {
                let claimed = commands.iter().filter_map(|command| match command {
                    Command::Report { machine, .. } => Some(machine.to_string()),
                    Command::RegisterMachine { id, .. } => Some(id.to_string()),
                    Command::Rotate(RotationStep::Confirm { machine, .. }) => Some(machine.to_string()),
                    _ => None,
                });
                claimed.collect()
            }
            Request::ReadIndex | Request::Members => Vec::new(),
        };
        match claimed.into_iter().find(|claimed| claimed != caller.as_str()) {
            Some(claimed) => {
                tracing::warn!(%caller, claimed, "a machine spoke in another's name, and was not heard");
                Err(Refusal::Impostor { caller: caller.to_string(), claimed })
            }
            None => Ok(()),
        }
    }

    /// Up to which log index a reader must have applied to have seen all that was acknowledged before; asks
    /// a quorum.
    pub async fn read_index(&self) -> Result<u64, Refusal> {
        match self.raft.get_read_log_id(ReadPolicy::ReadIndex).await {
            Ok((read, _)) => Ok(read.index()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                Err(Refusal::NotLeader { leader: forward.leader_node.map(|node| node.address) })
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                Err(Refusal::NotLeader { leader: None })
            }
            Err(RaftError::Fatal(fatal)) => Err(Refusal::Failed(fatal.to_string())),
        }
    }

    /// Takes a machine as a new member. Asked again by the same life of a store, it gives the same id again.
    async fn admit(&self, member: Member) -> Result<NodeId, Refusal> {
        let nodes = self.members().nodes;
        let known = |m: &Member| m.machine == member.machine && m.nonce == member.nonce;
        if self.is_expelled(&member.machine) {
            return Err(Refusal::Expelled);
        }
        if let Some((node, _)) = nodes.iter().find(|(_, m)| known(m)) {
            // One that is not committed may be lost with its leader. The id would never have been, then.
            return if self.is_committed(*node) { Ok(*node) } else { Err(Refusal::Unknown) };
        }
        if let Some(address) = self.twin_of(&nodes, &member).await {
            if self.told.first(&member.address) {
                let (machine, second) = (&member.machine, &member.address);
                tracing::warn!(
                    machine,
                    first = address,
                    second,
                    "two machines have the same machine id; the second is kept out"
                );
            }
            return Err(Refusal::Twin { address });
        }
        // An empty proposal's index is nobody else's: it makes an id that is never used again.
        let index = self.batches.propose(Vec::new()).await?.revision.0;
        let node = joined_node(index);
        tracing::info!(machine = member.machine, node, "taking a new member");
        match self.raft.add_learner(node, member, false).await {
            Ok(_) => Ok(node),
            Err(error) => Err(failed(error)),
        }
    }

    /// Where the living machine listens that has this one's id.
    async fn twin_of(&self, nodes: &BTreeMap<NodeId, Member>, member: &Member) -> Option<String> {
        let former = nodes.values().rev().find(|m| m.machine == member.machine)?;
        let silence = match machine_id(&member.machine) {
            Some(machine) => self.silence_of(&machine),
            None => Duration::MAX,
        };
        let lives =
            member.machine == self.identity.machine || twin::lives(&self.peers, former, silence).await;
        lives.then(|| former.address.clone())
    }

    fn silence_of(&self, machine: &MachineId) -> Duration {
        let me = machine_id(&self.identity.machine);
        let silence = self.liveness.silence([machine].into_iter(), me.as_ref().unwrap_or(machine));
        silence.get(machine).copied().unwrap_or(Duration::MAX)
    }

    fn member(&self, node: NodeId) -> Option<Member> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().get_node(&node).cloned()
    }

    fn is_committed(&self, node: NodeId) -> bool {
        self.metrics().committed_membership_config.membership().get_node(&node).is_some()
    }

    pub fn metrics(&self) -> RaftMetrics<TypeConfig> {
        self.raft.metrics().borrow_watched().clone()
    }

    /// Who leads, as far as this node knows; silence beyond the lease counts as nobody.
    pub fn role(&self) -> Role {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        if metrics.state == ServerState::Leader {
            // The only voter is its own quorum, which openraft's clock of acknowledgements never notes.
            let alone = metrics.membership_config.voter_ids().eq([self.identity.node]);
            drop(metrics);
            if alone {
                return Role::Leader { term: self.term() };
            }
            let data = self.raft.data_metrics();
            let acked = data.borrow_watched().last_quorum_acked;
            return match acked {
                Some(acked) if acked.elapsed() < self.lease => Role::Leader { term: self.term() },
                Some(_) | None => Role::Leaderless,
            };
        }
        drop(metrics);
        match self.leader() {
            Some((_, member)) if self.liveness.leader_silence() < self.lease => {
                machine_id(&member.machine).map_or(Role::Leaderless, |leader| Role::Follower { leader })
            }
            Some(_) | None => Role::Leaderless,
        }
    }

    /// Who votes as this node knows it, and how far it has applied the log. While the voters are being
    /// changed those before count, who must all agree with it: it may yet be lost with them.
    pub fn voting(&self) -> Voting {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let voters = metrics.committed_membership_config.membership().get_joint_config().first();
        Voting {
            voters: voters.map_or(0, BTreeSet::len),
            votes: voters.is_some_and(|voters| voters.contains(&self.identity.node)),
            applied_index: metrics.last_applied.as_ref().map_or(0, |id| id.index),
        }
    }

    /// Of each of these groups a majority is needed; two while the voters are being changed, those before
    /// first.
    pub fn voters(&self) -> Vec<BTreeSet<NodeId>> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().get_joint_config().clone()
    }

    fn term(&self) -> u64 {
        self.metrics().current_term
    }

    /// Whether this node has taken its place: it is a member, and its machine's former node is none any
    /// more. Until then the text says what is awaited.
    pub fn settled(&self) -> Result<(), String> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        if membership.get_node(&self.identity.node).is_none() {
            return Err(
                "waiting for the cluster's state; or this machine was removed from the cluster".into()
            );
        }
        let former = |(node, member): (&NodeId, &Member)| {
            *node < self.identity.node && member.machine == self.identity.machine
        };
        match membership.nodes().any(former) {
            true => Err("taking the place of this machine's former store".into()),
            false => Ok(()),
        }
    }

    /// The leader by openraft's book, however long it has been silent; `None` when it is this node or
    /// unknown.
    pub fn leader(&self) -> Option<(NodeId, Member)> {
        let leader = self.raft.server_metrics().borrow_watched().current_leader;
        let leader = leader.filter(|leader| *leader != self.identity.node)?;
        Some((leader, self.member(leader)?))
    }

    /// Where that machine listens for its peers; of its lives the newest, when it has just come back anew.
    pub fn address_of(&self, machine: &cluster::MachineId) -> Option<String> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let nodes = metrics.membership_config.membership().nodes();
        let own = nodes.filter(|(_, member)| member.machine == machine.as_str());
        own.max_by_key(|(node, _)| **node).map(|(_, member)| member.address.clone())
    }

    /// Where all members listen.
    pub fn addresses(&self) -> Vec<String> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let nodes = metrics.membership_config.membership().nodes();
        nodes.map(|(_, member)| member.address.clone()).collect()
    }

    fn members(&self) -> Members {
        let metrics = self.metrics();
        let membership = metrics.membership_config.membership();
        let matched = metrics.replication.iter().flatten();
        let nodes: BTreeMap<NodeId, Member> =
            membership.nodes().map(|(node, member)| (*node, member.clone())).collect();
        let silence = nodes.iter().filter_map(|(node, member)| {
            let machine = machine_id(&member.machine)?;
            Some((*node, self.silence_of(&machine)))
        });
        let silence = silence.collect();
        let expelled = nodes.iter().filter(|(_, member)| self.is_expelled(&member.machine));
        let expelled = expelled.map(|(node, _)| *node).collect();
        let state = self.state.borrow();
        let zones = nodes.iter().filter_map(|(node, member)| {
            let metadata = state.machines.get(&machine_id(&member.machine)?)?.metadata();
            Some((*node, metadata.get(ZONE)?.clone()))
        });
        let zones = zones.collect();
        Members {
            leader: self.identity.node,
            voters: membership.voter_ids().collect(),
            wanted: match membership.get_joint_config().as_slice() {
                [_, wanted] => Some(wanted.clone()),
                _ => None,
            },
            nodes,
            silence,
            expelled,
            zones,
            voter_grace: self.voter_grace,
            matched: matched.filter_map(|(node, id)| Some((*node, id.as_ref()?.index))).collect(),
            last_index: metrics.last_log_index.unwrap_or(0),
        }
    }

    /// While this node leads: carries out the membership's next step, if one is due.
    pub async fn mend_membership(&self) {
        use openraft::ChangeMembers::{RemoveNodes, ReplaceAllVoters, SetNodes};
        let moved = self.moved_members();
        if !moved.is_empty() {
            tracing::info!(?moved, "machines have other addresses now");
            if let Err(error) = self.raft.change_membership(SetNodes(moved), true).await {
                tracing::warn!(%error, "the new addresses were not written down; it will be tried again");
            }
        }
        let Some(step) = next_step(&self.members()) else { return };
        tracing::info!(?step, "changing the membership");
        let changed = match step {
            Step::Transfer(node) => {
                if let Err(error) = self.raft.trigger().transfer_leader(node).await {
                    tracing::warn!(%error, "the lead was not handed over; it will be tried again");
                }
                return;
            }
            Step::Voters(voters) => self.raft.change_membership(ReplaceAllVoters(voters), false).await,
            Step::Swap(voters) | Step::Finish(voters) => {
                self.raft.change_membership(ReplaceAllVoters(voters), true).await
            }
            Step::Remove(node) => self.raft.change_membership(RemoveNodes([node].into()), false).await,
        };
        if let Err(error) = changed {
            tracing::warn!(%error, "the membership was not changed; it will be tried again");
        }
    }

    /// Members that listen elsewhere than the membership says, this one among them.
    fn moved_members(&self) -> BTreeMap<NodeId, Member> {
        let mut heard = self.moved.lock().expect("no holder of this lock panics").clone();
        heard.extend(self.identity.address.clone().map(|address| (self.identity.node, address)));
        let moved = heard.into_iter().filter_map(|(node, address)| {
            let member = self.member(node).filter(|member| member.address != address)?;
            Some((node, Member { address, ..member }))
        });
        moved.collect()
    }

    /// A founder's first act, harmless to repeat: every founder writes the same first entry.
    pub async fn initialize(&self) -> Result<(), String> {
        if self.raft.is_initialized().await.map_err(|error| error.to_string())? {
            return Ok(());
        }
        let members: BTreeMap<NodeId, Member> = self
            .identity
            .founders
            .iter()
            .map(|founder| {
                let (machine, address) = (founder.machine.clone(), founder.address.clone());
                (founder.node, Member { machine, address, nonce: founder.nonce.clone() })
            })
            .collect();
        match self.raft.initialize(members).await {
            Ok(()) | Err(RaftError::APIError(openraft::errors::InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn failed(error: impl std::fmt::Display) -> Refusal {
    Refusal::Failed(error.to_string())
}

/// Until then.
pub fn remaining(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
