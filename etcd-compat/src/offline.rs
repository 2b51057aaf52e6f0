//! What an etcd keeps while no daemon uses it: read out, or written from a state. For moving a cluster from
//! one backend to another.

use std::sync::Arc;
use std::time::Duration;

use cluster::{ClusterState, MachineId};

use crate::detect::detect;
use crate::options::{Api, Options};
use crate::shared::Shared;
use crate::v2;
use crate::v3;

/// For all of it.
const LIMIT: Duration = Duration::from_secs(120);

/// Everything that is under the prefix.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    pub state: ClusterState,
    /// Machines whose daemons use it now.
    pub alive: Vec<MachineId>,
}

/// Reads everything; the state has no cluster when there is none.
pub async fn read(options: &Options) -> Result<Kept, String> {
    let shared = Arc::new(Shared::new(options.clone()).map_err(|error| error.to_string())?);
    let found = detect(options).await?;
    let reading = async {
        match found.api {
            Api::V3 => v3::offline::read(shared).await,
            Api::V2 => v2::offline::read(shared, found.endpoint).await,
        }
    };
    tokio::time::timeout(LIMIT, reading).await.unwrap_or_else(|_| Err("no answer in time".into()))
}

/// Writes the state to where nothing is yet. Its generations stay what they are, and the etcd's own revisions
/// are counted from the state's on.
pub async fn write(options: &Options, state: &ClusterState) -> Result<(), String> {
    let shared = Arc::new(Shared::new(options.clone()).map_err(|error| error.to_string())?);
    let found = detect(options).await?;
    let writing = async {
        match found.api {
            Api::V3 => v3::offline::write(shared, state).await,
            Api::V2 => v2::offline::write(shared, found.endpoint, state).await,
        }
    };
    tokio::time::timeout(LIMIT, writing).await.unwrap_or_else(|_| Err("no answer in time".into()))
}
