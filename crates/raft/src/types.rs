//! What openraft is told about us: what an entry holds, what comes back, who a node is.

use std::fmt;

use cluster::{Command, Outcome};
use openraft::alias;
use serde::{Deserialize, Serialize};

use crate::runtime::Runtime;

openraft::declare_raft_types!(
    pub TypeConfig:
        D = Proposal,
        R = Reply,
        NodeId = u64,
        Node = Member,
        // At most one leader a term, as in the Raft paper.
        LeaderId = openraft::impls::leader_id_std::LeaderId<Self::Term, Self::NodeId>,
        AsyncRuntime = Runtime,
);

/// Raft's own name for a member. Never used twice, not even by the same machine after it lost its store.
pub type NodeId = u64;

pub type Entry = alias::EntryOf<TypeConfig>;
pub type LogId = alias::LogIdOf<TypeConfig>;
pub type Vote = alias::VoteOf<TypeConfig>;
pub type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
pub type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;

/// The payload of one log entry: the commands of many callers, applied in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal(pub Vec<Command>);

/// One outcome for each command of a proposal; empty for entries that are Raft's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply(pub Vec<Outcome>);

/// A node as the membership knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The machine's id.
    pub machine: String,
    /// Where its peers reach it: `HOST:PORT`.
    pub address: String,
    /// Tells one life of the machine's store from the next.
    pub nonce: String,
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} commands", self.0.len())
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} outcomes", self.0.len())
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.machine, self.address)
    }
}
