//! Reading and writing everything at once, while no daemon does.

use std::sync::Arc;
use std::time::Duration;

use cluster::ClusterState;

use super::link::Link;
use super::mirror::{FORMAT_VERSION, Format, Mirror};
use super::snapshot;
use crate::offline::Kept;
use crate::shared::Shared;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

pub async fn read(shared: Arc<Shared>, first: usize) -> Result<Kept, String> {
    let link = Arc::new(Link::new(shared.clone(), first)?);
    let (state, alive) = Mirror::new(shared, link).read_once().await?;
    Ok(Kept { state, alive })
}

pub async fn write(shared: Arc<Shared>, first: usize, state: &ClusterState) -> Result<(), String> {
    let link = Link::new(shared.clone(), first)?;
    let (member, dir) = (link.current(), shared.options.prefix.trim_end_matches('/'));
    // The snapshot stands for an entry of the log that etcd's index has passed by now.
    let mark = member.put(&format!("{dir}/marks/{}", shared.options.machine), "", "", ANSWER_TIMEOUT).await;
    let index = mark.map_err(|error| error.to_string())?.node.modified_index;
    let format = Format { version: FORMAT_VERSION, base: state.revision.0 };
    let format = serde_json::to_string(&format).expect("numbers");
    let written = member.put(&format!("{dir}/format"), "prevExist=false", &format, ANSWER_TIMEOUT).await;
    written.map_err(|error| error.to_string())?;
    let saved = snapshot::save(&member, dir, state, index, None).await;
    saved.map(drop).map_err(|error| error.to_string())
}
