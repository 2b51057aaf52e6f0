//! A store that no daemon uses: its state read out, or a new one made of a state. For moving a cluster from
//! one backend to another.
//!
//! Reading works on a copy, since opening a store writes to it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use cluster::{ClusterState, MachineId, Revision};
use openraft::impls::leader_id_std::LeaderId;
use openraft::storage::{RaftLogReader, RaftLogStorage};
use openraft::vote::RaftLeaderIdExt;
use openraft::{EntryPayload, Membership};

use crate::codec;
use crate::disk::{Disk, DiskError, EngineKind, FlushMode, Identity};
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
    #[error("cannot open the store")]
    Open(#[from] DiskError),
    #[error("cannot use {}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// Everything that is known to be committed in the store in `dir`, which is left as it is.
pub async fn read(dir: &Path, kind: EngineKind) -> Result<ClusterState, OfflineError> {
    let failed = |source| OfflineError::Io { path: dir.into(), source };
    if !EngineKind::left(dir) {
        return Err(OfflineError::Missing { dir: dir.into() });
    }
    let lock = File::options().read(true).open(dir.join("LOCK")).map_err(failed)?;
    if lock.try_lock().is_err() {
        return Err(OfflineError::InUse { dir: dir.into() });
    }
    let mut copy = dir.as_os_str().to_owned();
    copy.push(format!(".copy-{}", std::process::id()));
    let copy = PathBuf::from(copy);
    let copied = copy_dir(dir, &copy).map_err(failed);
    let state = match copied {
        Ok(()) => committed(&copy, kind).await,
        Err(error) => Err(error),
    };
    fs::remove_dir_all(&copy).map_err(failed)?;
    state
}

async fn committed(dir: &Path, kind: EngineKind) -> Result<ClusterState, OfflineError> {
    let failed = |source| OfflineError::Io { path: dir.into(), source };
    let disk = Disk::open(dir, kind, FlushMode::Inline)?;
    let mut state = ClusterState::clone(&disk.state().borrow());
    let mut log = disk.log_store();
    let committed = log.read_committed().await.map_err(failed)?.map_or(0, |id| id.index);
    let mut next = state.revision.0 + u64::from(state.revision.0 > 0);
    while next <= committed {
        let end = (committed + 1).min(next + NODES_AT_ONCE);
        for entry in log.try_get_log_entries(next..end).await.map_err(failed)? {
            let commands = match entry.payload {
                EntryPayload::Normal(proposal) => proposal.0,
                EntryPayload::Blank | EntryPayload::Membership(_) => Vec::new(),
            };
            state.apply_all(Revision(entry.log_id.index), &commands);
        }
        next = end;
    }
    Ok(state)
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
