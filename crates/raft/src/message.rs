//! What daemons say to each other: one request, one response, in bincode behind a version byte (see
//! `codec`). Variants are only appended. The first word between strangers, [`Hello`], is JSON, so that any
//! two versions understand it.

use cluster::{Command, Outcome};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};

use crate::types::{NodeId, SnapshotMeta, TypeConfig, Vote};

/// Where a request goes to: a member of this cluster, under this id. Another answers [`Refusal::Stranger`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Envelope {
    pub cluster: String,
    /// `None`: whoever listens there.
    pub to: Option<NodeId>,
    pub request: Request,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    Append(AppendEntriesRequest<TypeConfig>),
    Vote(VoteRequest<TypeConfig>),
    PreVote(VoteRequest<TypeConfig>),
    Snapshot {
        vote: Vote,
        meta: SnapshotMeta,
        data: Vec<u8>,
    },
    TransferLeader(TransferLeaderRequest<TypeConfig>),
    /// For the leader: commit these.
    Propose {
        commands: Vec<Command>,
    },
    /// For the leader: up to where must I have applied, to have seen all that was acknowledged?
    ReadIndex,
    /// For the leader: this machine is alive.
    Here {
        machine: String,
        node: NodeId,
        /// Where it listens now; machines may get other addresses.
        address: String,
    },
    /// For the leader: take this machine as a new member.
    Join {
        machine: String,
        address: String,
        nonce: String,
    },
    /// For the leader: who are the members?
    Members,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Response {
    Append(AppendEntriesResponse<TypeConfig>),
    Vote(VoteResponse<TypeConfig>),
    Snapshot(SnapshotResponse<TypeConfig>),
    Transferred(TransferLeaderResponse<TypeConfig>),
    Proposed { revision: u64, outcomes: Vec<Outcome> },
    ReadIndex { index: u64 },
    Here,
    Joined { node: NodeId },
    Members { members: Vec<store::Member> },
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    #[error("this daemon is not that member of that cluster")]
    Stranger,
    #[error("this daemon does not lead")]
    NotLeader { leader: Option<String> },
    /// It listens there, or has been heard from there a moment ago.
    #[error("the machine at {address} has the same machine id")]
    Twin { address: String },
    #[error("machine {caller} may not speak for machine {claimed}")]
    Impostor { caller: String, claimed: String },
    #[error("no answer in time; the change may or may not be made")]
    Unknown,
    #[error("{0}")]
    Failed(String),
    /// The leader's word: it was removed, and is no member any more. It may have been taken back since: then
    /// as a new member.
    #[error("this machine was removed from the cluster")]
    Expelled,
}

/// `POST /stream`: a question to the daemon around the store of that cluster's member; its meaning is the
/// daemon's alone.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Asked {
    pub cluster: String,
    pub question: Vec<u8>,
}

/// `POST /hello`: who listens there. Who asks says the same of itself, if it has something to say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub machine: String,
    /// Where this machine is reached by its peers.
    pub address: String,
    /// Tells one life of the machine's store from the next.
    pub nonce: String,
    pub version: String,
    /// How many machines it waits for; 0 when it waits for none.
    pub expects: usize,
    pub formed: Option<Formed>,
}

/// The cluster that a daemon belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Formed {
    pub cluster: String,
    pub founders: Vec<crate::disk::Founder>,
    /// The leader's address, if one is known.
    pub leader: Option<String>,
    /// The clusters that this one goes on from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<String>,
    /// What a machine has to know to be a member; 0 when that is not known yet.
    #[serde(default)]
    pub feature_level: u32,
}

#[cfg(test)]
mod tests;
