//! What a store has to be told, and why it may have formed no cluster.

use std::sync::Arc;

use cluster::MachineId;

use crate::lookup::Lookup;

/// What a node has to know.
#[derive(Clone, Debug)]
pub struct Options {
    pub machine: MachineId,
    pub version: String,
    /// Where this machine listens for its peers, `HOST:PORT`.
    pub listen: String,
    /// Where its peers reach it; `None`: where it listens.
    pub advertise: Option<String>,
    /// How many machines found the cluster; 0 waits for [`super::RaftStore::init`] or for a cluster to join.
    pub bootstrap_expect: usize,
    /// The machines to found or join a cluster with: places that `lookup` knows.
    pub join: Vec<String>,
    pub lookup: Arc<dyn Lookup>,
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

/// Raft's clock and the membership's, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    pub heartbeat_ms: u64,
    pub election_ms_min: u64,
    pub election_ms_max: u64,
    /// Entries between two snapshots.
    pub snapshot_entries: u64,
    /// Entries kept behind a snapshot, for members that lag a little.
    pub log_entries_kept: u64,
    /// A voter that is away for longer than a reboot gives its vote to another machine.
    pub voter_grace_ms: u64,
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
            voter_grace_ms: 60_000,
        }
    }
}
