//! A store of one machine in memory, which always leads. For tests of the rooms above the seam; it keeps
//! nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cluster::{ClusterState, Command, MachineId, Revision};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::{
    Committed, LogVitals, MemberVitals, PROPOSAL_BYTES_MAX, ProposeError, ReadError, Role, Store, Vitals,
    Voting, proposal_bytes,
};

/// Applies every proposal at once, at the next revision.
pub struct MemoryStore {
    machine: MachineId,
    state: watch::Sender<Arc<ClusterState>>,
    role: watch::Sender<Role>,
}

impl MemoryStore {
    pub fn new(machine: MachineId) -> MemoryStore {
        let role = watch::Sender::new(Role::Leader { term: 1 });
        MemoryStore { machine, state: watch::Sender::new(Arc::default()), role }
    }

    /// Is in that state from here on, such as one that it was in before.
    pub fn set_state(&self, state: Arc<ClusterState>) {
        self.state.send_replace(state);
    }

    /// Plays another role from here on; proposals are refused unless it leads or follows.
    pub fn set_role(&self, role: Role) {
        self.role.send_replace(role);
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn propose(&self, commands: Vec<Command>, _deadline: Instant) -> Result<Committed, ProposeError> {
        match &*self.role.borrow() {
            Role::Unformed { hint } => return Err(ProposeError::Unformed { hint: hint.clone() }),
            Role::Leaderless => return Err(ProposeError::NoLeader { hint: "none was elected".into() }),
            Role::Leader { .. } | Role::Follower { .. } => {}
        }
        let bytes = proposal_bytes(&commands);
        if bytes > PROPOSAL_BYTES_MAX {
            return Err(ProposeError::TooLarge { bytes, max: PROPOSAL_BYTES_MAX });
        }
        self.state.borrow().admits_all(&commands)?;
        let mut committed = Committed { revision: Revision(0), outcomes: Vec::new() };
        self.state.send_modify(|state| {
            let mut next = (**state).clone();
            committed.revision = Revision(next.revision.0 + 1);
            committed.outcomes = next.apply_all(committed.revision, &commands);
            *state = Arc::new(next);
        });
        Ok(committed)
    }

    fn state(&self) -> watch::Receiver<Arc<ClusterState>> {
        self.state.subscribe()
    }

    async fn read(&self, _deadline: Instant) -> Result<Arc<ClusterState>, ReadError> {
        match &*self.role.borrow() {
            Role::Unformed { hint } => Err(ReadError::Unformed { hint: hint.clone() }),
            Role::Leaderless => Err(ReadError::NoLeader { hint: "none was elected".into() }),
            Role::Leader { .. } | Role::Follower { .. } => Ok(self.state.borrow().clone()),
        }
    }

    fn role(&self) -> watch::Receiver<Role> {
        self.role.subscribe()
    }

    fn voting(&self) -> Option<Voting> {
        Some(Voting { voters: 1, votes: true, applied_index: self.state.borrow().revision.0 })
    }

    fn vitals(&self) -> Vitals {
        let revision = self.state.borrow().revision.0;
        let log =
            LogVitals { term: 1, last_index: revision, committed_index: revision, applied_index: revision };
        let me = MemberVitals { machine: self.machine.clone(), votes: true, lag: Some(0) };
        Vitals { log: Some(log), members: vec![me], ..Vitals::default() }
    }

    async fn here(&self, _deadline: Instant) -> Result<(), ReadError> {
        Ok(())
    }

    fn silence(&self) -> BTreeMap<MachineId, Duration> {
        BTreeMap::from([(self.machine.clone(), Duration::ZERO)])
    }
}
