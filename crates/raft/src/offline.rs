//! A store that no daemon uses: its state read out, or a new one made of a state. For moving a cluster from
//! one backend to another, for a backup's return, and for a cluster that has lost its majority (`renewal`).
//!
//! Reading works on a copy, since opening a store writes to it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use cluster::{ClusterState, MachineId, Revision};
use openraft::impls::leader_id_std::LeaderId;
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftStateMachine};
use openraft::vote::RaftLeaderIdExt;
use openraft::{EntryPayload, Membership};

use crate::codec;
use crate::disk::{Disk, DiskError, EngineKind, FlushMode, Identity};
use crate::files;
use crate::types::{LogId, Member, NodeId, SnapshotMeta, StoredMembership, Vote};

/// The first member of a cluster that was moved here.
const NODE: NodeId = 1;
const TERM: u64 = 1;
const NODES_AT_ONCE: u64 = 1000;

/// Why a store was not read or made.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    #[error("there is no store in {}", dir.display())]
    Missing { dir: PathBuf },
    #[error("a daemon uses the store in {}; stop it first", dir.display())]
    InUse { dir: PathBuf },
    #[error("there is a store in {} already; move it away first", dir.display())]
    Exists { dir: PathBuf },
    #[error("the state has no cluster in it")]
    NoCluster,
    #[error("the store in {} is of cluster {cluster}", dir.display())]
    Belongs { dir: PathBuf, cluster: String },
    #[error("what was written is not what was read back; nothing was changed")]
    Miswritten,
    #[error("cannot open the store")]
    Open(#[from] DiskError),
    #[error("cannot use {}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// Everything that is known to be committed in the store in `dir`, which is left as it is.
pub async fn read(dir: &Path, kind: EngineKind) -> Result<ClusterState, OfflineError> {
    survey(dir, kind, Upto::Committed).await.map(|survey| survey.state)
}

/// How much of the log counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upto {
    /// What is known to be committed.
    Committed,
    /// All of it: a majority may have acknowledged more than this node has heard of, and none that is left
    /// can tell.
    Written,
}

/// What a store holds.
#[derive(Clone, Debug)]
pub struct Survey {
    pub state: ClusterState,
    /// `None`: no cluster was founded or joined with it yet.
    pub identity: Option<Identity>,
    /// The members as its log has them.
    pub members: Vec<KeptMember>,
}

/// A member that the store's log knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptMember {
    pub member: Member,
    pub votes: bool,
    /// It is the store's own node.
    pub is_self: bool,
}

/// Looks at a copy of the store in `dir`, which is left as it is.
pub async fn survey(dir: &Path, kind: EngineKind, upto: Upto) -> Result<Survey, OfflineError> {
    let failed = |source| OfflineError::Io { path: dir.into(), source };
    if !EngineKind::left(dir) {
        return Err(OfflineError::Missing { dir: dir.into() });
    }
    let _unused = unused(dir)?;
    let copy = beside(dir, &format!("copy-{}", std::process::id()));
    let copied = copy_dir(dir, &copy).map_err(failed);
    let survey = match copied {
        Ok(()) => played(&copy, kind, upto).await,
        Err(error) => Err(error),
    };
    fs::remove_dir_all(&copy).map_err(failed)?;
    survey
}

/// Keeps daemons from using the store, for as long as it is held.
pub(crate) fn unused(dir: &Path) -> Result<File, OfflineError> {
    files::lock(dir).map_err(|error| match error.kind() {
        io::ErrorKind::ResourceBusy => OfflineError::InUse { dir: dir.into() },
        _ => OfflineError::Io { path: dir.into(), source: error },
    })
}

pub(crate) fn beside(dir: &Path, what: &str) -> PathBuf {
    let mut path = dir.as_os_str().to_owned();
    path.push(format!(".{what}"));
    path.into()
}

async fn played(dir: &Path, kind: EngineKind, upto: Upto) -> Result<Survey, OfflineError> {
    let failed = |source| OfflineError::Io { path: dir.into(), source };
    let disk = Disk::open(dir, kind, FlushMode::Inline)?;
    let identity = disk.identity().map_err(failed)?;
    let mut state = ClusterState::clone(&disk.state().borrow());
    let (_, stored) = disk.state_machine().applied_state().await.map_err(failed)?;
    let mut membership = stored.membership().clone();
    let mut log = disk.log_store();
    let last = match upto {
        Upto::Committed => log.read_committed().await.map_err(failed)?,
        Upto::Written => log.get_log_state().await.map_err(failed)?.last_log_id,
    };
    // One behind the last; the first entry, which names the members, is at 0.
    let end = last.map_or(0, |id| id.index + 1);
    let mut next = state.revision.0 + u64::from(state.revision.0 > 0);
    while next < end {
        let until = end.min(next + NODES_AT_ONCE);
        for entry in log.try_get_log_entries(next..until).await.map_err(failed)? {
            let commands = match entry.payload {
                EntryPayload::Normal(proposal) => proposal.0,
                EntryPayload::Membership(changed) => {
                    membership = changed;
                    Vec::new()
                }
                EntryPayload::Blank => Vec::new(),
            };
            state.apply_all(Revision(entry.log_id.index), &commands);
        }
        next = until;
    }
    let voters: BTreeSet<NodeId> = membership.voter_ids().collect();
    let node = identity.as_ref().map(|identity| identity.node);
    let members = membership.nodes().map(|(id, member)| KeptMember {
        member: member.clone(),
        votes: voters.contains(id),
        is_self: Some(*id) == node,
    });
    let members = members.collect();
    Ok(Survey { state, identity, members })
}

fn copy_dir(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy_dir(&entry.path(), &target)?,
            false => drop(fs::copy(entry.path(), target)?),
        }
    }
    Ok(())
}

/// Makes a store in `dir` that holds `state`: the first member of its cluster, for others to join. `address`
/// is where peers reach it.
pub async fn found(
    dir: &Path,
    kind: EngineKind,
    machine: &MachineId,
    address: &str,
    state: &ClusterState,
) -> Result<(), OfflineError> {
    let failed = |source| OfflineError::Io { path: dir.into(), source };
    if EngineKind::left(dir) {
        return Err(OfflineError::Exists { dir: dir.into() });
    }
    let cluster = state.cluster.as_ref().ok_or(OfflineError::NoCluster)?;
    let disk = Disk::open(dir, kind, FlushMode::Inline)?;
    let nonce = disk.nonce().map_err(failed)?;
    // All that was is one entry of this log: whatever comes gets a later revision.
    let last: LogId = LogId::new(LeaderId::new_committed(TERM, NODE), state.revision.0.max(1));
    let member = Member { machine: machine.to_string(), address: address.into(), nonce };
    let membership = Membership::new(vec![[NODE].into()], BTreeMap::from([(NODE, member)]));
    let membership = membership.map_err(|error| failed(io::Error::other(error)))?;
    let meta = SnapshotMeta {
        last_log_id: Some(last),
        last_membership: StoredMembership::new(Some(last), membership),
    };
    let data = codec::encode(state).map_err(failed)?;
    disk.write_snapshot(&meta, &data).map_err(failed)?;
    let mut log = disk.log_store();
    log.save_vote(&Vote::new(TERM, NODE)).await.map_err(failed)?;
    log.purge(last).await.map_err(failed)?;
    let identity = Identity {
        cluster_id: cluster.id.clone(),
        node: NODE,
        machine: machine.to_string(),
        founders: Vec::new(),
        address: Some(address.into()),
    };
    disk.set_identity(&identity).map_err(failed)
}
