//! The seam's verbs: what the leader is asked, wherever it is, and what a caller hears when there is none.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cluster::{ClusterState, Command, Liveness, Machine, MachineId, Revision};
use store::{Committed, ProposeError, ReadError, Role, Store, Vitals, Voting};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{RaftStore, Shared};
use crate::codec;
use crate::message::{Envelope, Refusal, Request, Response};
use crate::node::{Node, remaining};
use crate::peers::CallError;
use crate::types::Member;

/// The largest proposal, encoded: a batch of several thousand ordinary unit files.
pub const PROPOSAL_BYTES_MAX: usize = 8 << 20;
/// How soon a proposal that found no leader tries again, when no change of roles wakes it before.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

enum Target {
    Me,
    Peer(Member),
    Nobody,
}

impl Shared {
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

    pub(super) fn here(&self, node: &Node) -> Request {
        let machine = self.options.machine.to_string();
        Request::Here { machine, node: node.identity.node, address: self.address.clone() }
    }

    fn no_leader(&self) -> String {
        if let Some(succeeded) = &*self.succeeded.lock().expect("no holder of this lock panics") {
            return succeeded.clone();
        }
        let groups = self.node.get().map(|node| node.voters()).unwrap_or_default();
        let (now, before) = match groups.as_slice() {
            [before, wanted, ..] => (wanted.len(), Some(before.len())),
            [now] => (now.len(), None),
            [] => (0, None),
        };
        let mut why = format!("{} of the {now} voting machines", now / 2 + 1);
        // A change of the voters that is half done needs both.
        if let Some(before) = before {
            why.push_str(&format!(", and {} of the {before} that voted before,", before / 2 + 1));
        }
        why.push_str(" must be running and reach each other");
        for stranger in self.peers.strangers() {
            why.push_str("; ");
            why.push_str(&stranger);
        }
        why
    }

    /// What every proposal must be, whoever makes it.
    fn admits(&self, commands: &[Command]) -> Result<(), ProposeError> {
        let bytes = codec::encode(&commands).map_or(usize::MAX, |bytes| bytes.len());
        if bytes > PROPOSAL_BYTES_MAX {
            return Err(ProposeError::TooLarge { bytes, max: PROPOSAL_BYTES_MAX });
        }
        // What is known here may be old, but a level never falls.
        Ok(self.disk.state().borrow().admits_all(commands)?)
    }

    /// Until this machine's own state holds it. It is committed, whether or not that is so in time.
    async fn seen(&self, committed: Committed, deadline: Instant) -> Committed {
        let mut state = self.disk.state();
        let applied = state.wait_for(|state| committed.revision <= state.revision);
        let _ = tokio::time::timeout_at(deadline, applied).await;
        committed
    }

    fn unformed(&self) -> String {
        match &*self.role.borrow() {
            Role::Unformed { hint } => hint.clone(),
            _ => "it is starting".into(),
        }
    }
}

#[async_trait]
impl Store for RaftStore {
    async fn propose(&self, commands: Vec<Command>, deadline: Instant) -> Result<Committed, ProposeError> {
        let Some(node) = self.0.node.get() else {
            return Err(ProposeError::Unformed { hint: self.0.unformed() });
        };
        self.0.admits(&commands)?;
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
                Ok(committed) => return Ok(self.0.seen(committed, deadline).await),
                Err(Refusal::NotLeader { .. } | Refusal::Stranger) => {
                    if !self.0.pause(deadline).await {
                        return Err(ProposeError::NoLeader { hint: self.0.no_leader() });
                    }
                }
                Err(Refusal::Unknown) => return Err(ProposeError::Unknown),
                Err(
                    refusal @ (Refusal::Failed(_)
                    | Refusal::Twin { .. }
                    | Refusal::Impostor { .. }
                    | Refusal::Expelled),
                ) => {
                    return Err(ProposeError::Stopped { reason: refusal.to_string() });
                }
            }
        }
    }

    async fn decide(
        &self,
        term: u64,
        commands: Vec<Command>,
        deadline: Instant,
    ) -> Result<Committed, ProposeError> {
        let Some(node) = self.0.node.get() else {
            return Err(ProposeError::Unformed { hint: self.0.unformed() });
        };
        self.0.admits(&commands)?;
        let over = || ProposeError::NoLeader { hint: "this machine does not lead any more".into() };
        if !matches!(self.0.target(node), Target::Me) {
            return Err(over());
        }
        let decided = tokio::time::timeout_at(deadline, node.batches.decide(term, commands)).await;
        match decided.unwrap_or(Err(Refusal::Unknown)) {
            Ok(committed) => Ok(self.0.seen(committed, deadline).await),
            Err(Refusal::NotLeader { .. } | Refusal::Stranger) => Err(over()),
            Err(Refusal::Unknown) => Err(ProposeError::Unknown),
            Err(
                refusal @ (Refusal::Failed(_)
                | Refusal::Twin { .. }
                | Refusal::Impostor { .. }
                | Refusal::Expelled),
            ) => Err(ProposeError::Stopped { reason: refusal.to_string() }),
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
                Err(
                    refusal @ (Refusal::Failed(_)
                    | Refusal::Twin { .. }
                    | Refusal::Impostor { .. }
                    | Refusal::Expelled),
                ) => {
                    return Err(ReadError::Stopped { reason: refusal.to_string() });
                }
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

    fn vitals(&self) -> Vitals {
        let node = self.0.node.get();
        Vitals {
            log: node.map(|node| node.log_vitals()),
            members: node.map(|node| node.member_vitals()).unwrap_or_default(),
            syncs: Some(self.0.disk.syncs()),
            call_errors: self.0.peers.errors(),
            failure: self.0.disk.failed().borrow().clone(),
        }
    }

    fn trouble(&self) -> Option<String> {
        matches!(*self.0.role.borrow(), Role::Leaderless).then(|| self.0.no_leader())
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
                let request = self.0.here(node);
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
        let me = &self.0.options.machine;
        let counts = |(id, machine): &(&MachineId, &Arc<Machine>)| {
            machine.liveness == Liveness::Ready || *id == me || node.liveness.has_heard(id)
        };
        // Collected first: both questions take the same lock.
        let counted: Vec<&MachineId> = state.machines.iter().filter(counts).map(|(id, _)| id).collect();
        node.liveness.silence(counted.into_iter(), me)
    }

    async fn members(&self, deadline: Instant) -> Result<Vec<store::Member>, ReadError> {
        let Some(node) = self.0.node.get() else {
            return Err(ReadError::Unformed { hint: self.0.unformed() });
        };
        loop {
            if let Target::Me = self.0.target(node) {
                return Ok(node.seen_members());
            }
            if let Target::Peer(leader) = self.0.target(node) {
                match self.0.ask_leader(node, &leader, Request::Members, deadline).await {
                    Ok(Response::Members { members }) => return Ok(members),
                    Ok(_) | Err(CallError::NoAnswer { .. }) => return Err(ReadError::Timeout),
                    // It has just gone, as far as anybody knows.
                    Err(CallError::Unreachable { .. } | CallError::Refused { .. }) => {}
                }
            }
            if !self.0.pause(deadline).await {
                return Err(ReadError::NoLeader { hint: self.0.no_leader() });
            }
        }
    }

    async fn give_up_lead(&self, limit: Duration) {
        RaftStore::give_up_lead(self, limit).await;
    }
}
