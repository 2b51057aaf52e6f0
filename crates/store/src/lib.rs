//! The seam between the daemon and whatever keeps the cluster's state: a raft log inside the daemons, or an
//! etcd that stands already. Two verbs, propose and state; the rest tells who leads and who is alive.
//!
//! Called by every room of the daemon. Knows nothing of how the state is kept.

#[cfg(feature = "conformance")]
pub mod conformance;
mod histogram;
mod memory;
mod size;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cluster::{ClusterState, Command, MachineId, Outcome, Rejected, Revision};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

pub use histogram::{Histogram, STEPS_MICROS};
pub use memory::MemoryStore;
pub use size::{PROPOSAL_BYTES_MAX, proposal_bytes};

/// The cluster's state, and the one door for changing it. Any machine's store takes proposals and passes
/// them to the leader.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Commits the commands in order, and waits until this machine's own state holds them. They are made in
    /// one go where the store can do that with so many of them at once (Raft always can; etcd has its
    /// limits): else in several, and others may see the first before the last. After
    /// [`ProposeError::Unknown`] they may still be committed later; every command can be proposed again
    /// without harm.
    async fn propose(&self, commands: Vec<Command>, deadline: Instant) -> Result<Committed, ProposeError>;

    /// [`Store::propose`] for what this machine has decided as the leader of that term. Once that lead is
    /// over, nothing of it is made: the next leader knows better who is alive, and is not asked to make it.
    /// By default a plain proposal, for a store whose leader never changes.
    async fn decide(
        &self,
        _term: u64,
        commands: Vec<Command>,
        deadline: Instant,
    ) -> Result<Committed, ProposeError> {
        self.propose(commands, deadline).await
    }

    /// The newest state this machine knows; it may be behind. Every change of it is seen by the receivers,
    /// though several may be seen as one.
    fn state(&self) -> watch::Receiver<Arc<ClusterState>>;

    /// A state that holds everything acknowledged before the call, anywhere in the cluster (a linearizable
    /// read).
    async fn read(&self, deadline: Instant) -> Result<Arc<ClusterState>, ReadError>;

    fn role(&self) -> watch::Receiver<Role>;

    /// Who votes, and how far this machine is; `None` while that is not known, or where nobody votes.
    fn voting(&self) -> Option<Voting> {
        None
    }

    /// How the store fares, for those who watch from outside.
    fn vitals(&self) -> Vitals {
        Vitals::default()
    }

    /// Why there is no leader while there is none, or what else is wrong where the state is kept; for people.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// Tells the leader that this machine is alive. Fails fast; the caller calls again in its own time.
    async fn here(&self, deadline: Instant) -> Result<(), ReadError>;

    /// On the leader: how long each machine has been silent, this one included (as zero). A machine that was
    /// never heard since this one took the lead is counted from that moment; one that counts as lost is left
    /// out then, since nothing says that it is back.
    fn silence(&self) -> BTreeMap<MachineId, Duration>;

    /// Every member with its part, as the leader sees it; empty where the store has no members of its own.
    async fn members(&self, _deadline: Instant) -> Result<Vec<Member>, ReadError> {
        Ok(Vec::new())
    }

    /// Before a planned stop: hands the lead to another machine, if this one has it. It leads no more
    /// afterwards.
    async fn give_up_lead(&self, _limit: Duration) {}
}

/// Waits until something else than the key space has changed since `seen`: for those who need not look at
/// every of its many changes. Cancel-safe.
pub async fn changed_beyond_keys(
    states: &mut watch::Receiver<Arc<ClusterState>>,
    seen: &ClusterState,
) -> Result<(), watch::error::RecvError> {
    loop {
        states.changed().await?;
        if !states.borrow_and_update().is_same_but_keys(seen) {
            return Ok(());
        }
    }
}

/// What became of a proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    pub revision: Revision,
    /// One for each command, in order.
    pub outcomes: Vec<Outcome>,
}

/// Who decides in this cluster now, as this machine knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// This machine belongs to no cluster yet; the text says what to do about it.
    Unformed {
        hint: String,
    },
    /// This machine leads. `term` grows with every new leader.
    Leader {
        term: u64,
    },
    Follower {
        leader: MachineId,
    },
    /// No leader is known: an election is under way, or too few machines can be reached.
    Leaderless,
}

/// The cluster's voters as this machine knows them, and this machine's part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voting {
    pub voters: usize,
    /// This machine is one of them.
    pub votes: bool,
    /// Of the last log entry that this machine's state holds.
    pub applied_index: u64,
}

/// One member of the cluster, as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub machine: MachineId,
    /// Where its peers reach it: `HOST:PORT`.
    pub address: String,
    pub votes: bool,
    pub leads: bool,
    /// How many log entries it has yet to get; `None` when the leader has not heard how many it has.
    pub lag: Option<u64>,
    /// Since the leader last heard it.
    pub silence: Duration,
}

/// How a store fares. What a store does not have stays empty.
#[derive(Clone, Debug, Default)]
pub struct Vitals {
    /// The log, where there is one.
    pub log: Option<LogVitals>,
    /// The members of the cluster, in the order in which they came.
    pub members: Vec<MemberVitals>,
    /// How long the log's writes took to be durable.
    pub syncs: Option<Arc<Histogram>>,
    /// Calls to other machines that came to nothing, by kind.
    pub call_errors: Vec<(&'static str, u64)>,
    /// What failed, once nothing can be written any more.
    pub failure: Option<String>,
}

/// `applied <= committed <= last`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogVitals {
    pub term: u64,
    pub last_index: u64,
    pub committed_index: u64,
    pub applied_index: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberVitals {
    pub machine: MachineId,
    pub votes: bool,
    /// On the leader: how many entries of the log the member is not known to hold; `None` when nothing is
    /// known of it, and on other machines.
    pub lag: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    #[error("this machine is not part of a cluster: {hint}")]
    Unformed { hint: String },
    /// Nothing was written.
    #[error("the cluster has no leader: {hint}")]
    NoLeader { hint: String },
    /// Nothing was written.
    #[error("the cluster's state cannot be changed: {reason}")]
    Unavailable { reason: String },
    #[error("no answer in time; the change may or may not be made")]
    Unknown,
    #[error("a proposal of {bytes} bytes is larger than the {max} allowed")]
    TooLarge { bytes: usize, max: usize },
    /// Nothing was written: a machine of the cluster could not read it.
    #[error(transparent)]
    TooNew(#[from] Rejected),
    #[error("the store has stopped: {reason}")]
    Stopped { reason: String },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("this machine is not part of a cluster: {hint}")]
    Unformed { hint: String },
    #[error("the cluster has no leader: {hint}")]
    NoLeader { hint: String },
    #[error("the cluster's state cannot be read: {reason}")]
    Unavailable { reason: String },
    #[error("no answer from the leader in time")]
    Timeout,
    #[error("the store has stopped: {reason}")]
    Stopped { reason: String },
}
