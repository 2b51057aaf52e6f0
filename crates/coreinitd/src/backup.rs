//! A state as a backup, and back. The same record as in a snapshot: `raft` knows how, whichever store keeps
//! the state.

use std::io;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use api::backup::{Backup, BackupError, Head};
use cluster::{ClusterState, FEATURE_LEVEL};
use raft::codec;

/// Why a file's state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UnusableBackup {
    #[error(transparent)]
    File(#[from] BackupError),
    #[error("it was made by coreinit {version}, which knows more than this one; use that, or a newer one")]
    Newer { version: String },
    #[error("it is damaged inside: {0}")]
    Inconsistent(String),
}

/// Of a state that has a cluster in it.
pub fn of(state: &ClusterState, version: &str) -> io::Result<Backup> {
    let cluster = state.cluster.as_ref().ok_or_else(|| io::Error::other("there is no cluster here"))?;
    let head = Head {
        cluster_id: cluster.id.clone(),
        cluster_name: cluster.name.clone(),
        revision: state.revision.0,
        units: state.units.len(),
        machines: state.machines.len(),
        feature_level: cluster.feature_level,
        version: version.into(),
        taken_at: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
    };
    // A change of the authority that is under way here has no meaning for the machines that restore this.
    let mut state = state.clone();
    state.cluster = Some(Arc::new(cluster.unrotated()));
    Ok(Backup { head, record: codec::encode(&state)? })
}

/// The state in a file's bytes, with every invariant checked.
pub fn read(bytes: &[u8]) -> Result<(Head, ClusterState), UnusableBackup> {
    let Backup { head, record } = Backup::from_bytes(bytes)?;
    if head.feature_level > FEATURE_LEVEL {
        return Err(UnusableBackup::Newer { version: head.version });
    }
    let inconsistent = |what: &str| UnusableBackup::Inconsistent(what.into());
    let state: ClusterState = codec::decode(&record).map_err(|error| match error.kind() {
        io::ErrorKind::Unsupported => UnusableBackup::Newer { version: head.version.clone() },
        _ => UnusableBackup::Inconsistent(error.to_string()),
    })?;
    state.check().map_err(UnusableBackup::Inconsistent)?;
    let cluster = state.cluster.as_ref().ok_or_else(|| inconsistent("no cluster is in it"))?;
    if (&cluster.id, state.revision.0) != (&head.cluster_id, head.revision) {
        return Err(inconsistent("its head is of another state"));
    }
    Ok((head, state))
}

#[cfg(test)]
pub(crate) mod tests;
