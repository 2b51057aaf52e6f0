//! A cluster's next life: its state under a new cluster id, in a store of one member, put where an old store
//! was. No daemon runs meanwhile. For `corectl cluster restore` and `corectl cluster recover`.
//!
//! The old store is never written to: it is moved aside whole, when the new one is complete and was read
//! back.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cluster::{ClusterState, MachineId};

use crate::disk::{EngineKind, put_aside};
use crate::offline::{self, KeptMember, OfflineError, beside, unused};
use crate::peers::Peers;
use crate::transport::Transport;

/// How far a new life's revisions begin beyond what was kept. The former life may have gone on after that,
/// and machines may remember its generations: none is given a second time. Far more than a cluster writes
/// between two backups, and some billions of lives fit in.
const REVISION_GAP: u64 = 1_000_000_000;
/// A machine in reach answers well within this.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);

/// `state` in a new life, and nothing else changed.
pub fn renewed(state: &ClusterState) -> Result<ClusterState, OfflineError> {
    let cluster = state.cluster.as_ref().ok_or(OfflineError::NoCluster)?;
    let mut next = state.clone();
    next.cluster = Some(Arc::new(cluster.renewed(uuid::Uuid::new_v4().simple().to_string())));
    next.revision.0 += REVISION_GAP;
    Ok(next)
}

/// What may be moved aside for a new store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// Only a store that no cluster was ever formed with.
    Nobodys,
    /// Whatever is there.
    Anything,
}

/// Puts a store in `dir` that holds `state`: the first member of its cluster. Gives the place where the
/// former store was moved, if there was one: `DIR.WHY-1` or the next number that is free. When it fails, what
/// was in `dir` is still there.
pub async fn put(
    dir: &Path,
    kind: EngineKind,
    (machine, address): (&MachineId, &str),
    state: &ClusterState,
    (replace, why): (Replace, &str),
) -> Result<Option<PathBuf>, OfflineError> {
    let failed = |source| OfflineError::Io { path: dir.into(), source };
    let is_there = fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some());
    if replace == Replace::Nobodys && EngineKind::left(dir) {
        let survey = offline::survey(dir, kind.clone(), offline::Upto::Written).await?;
        if let Some(identity) = survey.identity {
            return Err(OfflineError::Belongs { dir: dir.into(), cluster: identity.cluster_id });
        }
    }
    let _unused = if is_there { Some(unused(dir)?) } else { None };
    let new = beside(dir, &format!("new-{}", std::process::id()));
    let made = async {
        offline::found(&new, kind.clone(), machine, address, state).await?;
        let written = offline::read(&new, kind.clone()).await?;
        if written != *state {
            return Err(OfflineError::Miswritten);
        }
        fs::set_permissions(&new, Permissions::from_mode(0o700)).map_err(failed)?;
        let aside = match is_there {
            true => Some(put_aside(dir, why).map_err(failed)?),
            false => None,
        };
        let moved = rename(&new, dir);
        if let (Err(_), Some(aside)) = (&moved, &aside) {
            fs::rename(aside, dir).map_err(failed)?;
        }
        moved.map_err(failed)?;
        Ok(aside)
    };
    let made = made.await;
    if made.is_err() && new.exists() {
        fs::remove_dir_all(&new).map_err(failed)?;
    }
    made
}

/// `to` may be an empty folder.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

/// Of `members`, those that answer with the store that the log knows, so that they can still vote; and the
/// address of the leader that they know, if they do.
pub async fn alive(
    transport: Arc<dyn Transport>,
    cluster: &str,
    members: &[KeptMember],
) -> (Vec<KeptMember>, Option<String>) {
    let peers = Peers::new(transport);
    let asked = members.iter().filter(|kept| !kept.is_self).map(|kept| async {
        let hello = peers.hello(&kept.member.address, None, HELLO_TIMEOUT).await.ok()?;
        let is_it = hello.machine == kept.member.machine && hello.nonce == kept.member.nonce;
        let formed = hello.formed.filter(|formed| is_it && formed.cluster == cluster)?;
        Some((kept.clone(), formed.leader))
    });
    let (mut living, mut leader) = (Vec::new(), None);
    for (kept, known) in futures::future::join_all(asked).await.into_iter().flatten() {
        leader = leader.or(known);
        living.push(kept);
    }
    (living, leader)
}

/// Who of these says that it belongs to a cluster that has a leader: its address, and the cluster's id.
pub async fn led(transport: Arc<dyn Transport>, addresses: &[String]) -> Option<(String, String)> {
    let peers = Peers::new(transport);
    let asked = addresses.iter().map(|address| async {
        let hello = peers.hello(address, None, HELLO_TIMEOUT).await.ok()?;
        let formed = hello.formed.filter(|formed| formed.leader.is_some())?;
        Some((address.clone(), formed.cluster))
    });
    futures::future::join_all(asked).await.into_iter().flatten().next()
}
