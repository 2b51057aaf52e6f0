//! What a fleet cluster keeps in its etcd: read, never changed.
//!
//! `job/UNIT/object` names the unit and the hash of its file, `unit/HASH` holds the file,
//! `job/UNIT/target-state` what is wanted of it.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster::{DesiredState, UnitFile, UnitName};
use serde::Deserialize;

use crate::http::Http;
use crate::options::{Tls, User};
use crate::v2::keys::{KeyError, Member, Node};

/// Where fleet keeps its things unless told otherwise.
pub const FLEET_PREFIX: &str = "/_coreos.com/fleet/";
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// One unit of a fleet cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetUnit {
    pub name: UnitName,
    pub file: UnitFile,
    pub desired: DesiredState,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FleetCluster {
    pub units: Vec<FleetUnit>,
    /// What cannot be brought over: the unit's key, and why.
    pub problems: Vec<(String, String)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct JobObject {
    name: String,
    #[serde(default)]
    unit_hash: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct UnitObject {
    raw: String,
}

/// Reads a fleet cluster's key space through one member of its etcd.
pub async fn read_fleet(
    endpoint: &str,
    prefix: &str,
    tls: Option<&Tls>,
    user: Option<&User>,
) -> Result<FleetCluster, String> {
    let member = Member { number: 0, http: Http::new(endpoint, tls, user)? };
    let dir = prefix.trim_end_matches('/');
    let read = async |part: &str| {
        let key = format!("{dir}/{part}");
        match member.get(&key, "recursive=true&quorum=true", ANSWER_TIMEOUT).await {
            Ok(found) => Ok(Some(found.node)),
            Err(KeyError::NotFound(_)) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    };
    let Some(jobs) = read("job").await? else {
        return Err(format!("there is no fleet under {dir} at {endpoint}"));
    };
    let files = read("unit").await?.map(|node| node.nodes).unwrap_or_default();
    let files: BTreeMap<&str, &str> =
        files.iter().filter_map(|node| Some((last(node), value(node)?))).collect();
    let mut cluster = FleetCluster::default();
    for job in &jobs.nodes {
        match unit(job, &files) {
            Ok(Some(unit)) => cluster.units.push(unit),
            // fleet leaves such behind when a unit is destroyed while its machine speaks.
            Ok(None) => {}
            Err(why) => cluster.problems.push((last(job).into(), why)),
        }
    }
    cluster.units.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(cluster)
}

fn last(node: &Node) -> &str {
    node.key.rsplit('/').next().unwrap_or_default()
}

fn value(node: &Node) -> Option<&str> {
    node.value.as_deref()
}

/// `None` for a job without an object: it is none any more.
fn unit(job: &Node, files: &BTreeMap<&str, &str>) -> Result<Option<FleetUnit>, String> {
    let part = |name: &str| job.nodes.iter().find(|node| last(node) == name).and_then(value);
    let Some(object) = part("object") else { return Ok(None) };
    let object: JobObject =
        serde_json::from_str(object).map_err(|error| format!("its object cannot be read: {error}"))?;
    let name = UnitName::new(&object.name).map_err(|error| error.to_string())?;
    let hash: String = object.unit_hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let file = files.get(&*hash).ok_or_else(|| format!("its file, {hash}, is not there"))?;
    let file: UnitObject =
        serde_json::from_str(file).map_err(|error| format!("its file, {hash}, cannot be read: {error}"))?;
    let file = UnitFile::parse(&file.raw).map_err(|error| format!("its file, {hash}: {error}"))?;
    // A job that was never given a state is one that nobody wanted to run yet.
    let desired = part("target-state").unwrap_or("inactive").trim();
    let desired = DesiredState::from_name(desired)
        .ok_or_else(|| format!("what is wanted of it, {desired:?}, means nothing"))?;
    Ok(Some(FleetUnit { name, file, desired }))
}
