//! The records that make up the cluster's state. Each has one writer, named in its doc.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::rotation::Rotation;
use crate::{Generation, MachineId, UnitFile, UnitHash};

/// What the user asked for. Written by the user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    pub file: UnitFile,
    pub desired: DesiredState,
    pub generation: Generation,
}

/// The three states a user can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DesiredState {
    /// Kept by the cluster, on no machine.
    Inactive,
    /// Known to the systemd of one machine, not started by the cluster.
    Loaded,
    /// Known to the systemd of one machine, and started there.
    Launched,
}

impl DesiredState {
    pub fn as_str(self) -> &'static str {
        match self {
            DesiredState::Inactive => "inactive",
            DesiredState::Loaded => "loaded",
            DesiredState::Launched => "launched",
        }
    }

    /// The state of that name, exactly as [`DesiredState::as_str`] spells it.
    pub fn from_name(text: &str) -> Option<DesiredState> {
        match text {
            "inactive" => Some(DesiredState::Inactive),
            "loaded" => Some(DesiredState::Loaded),
            "launched" => Some(DesiredState::Launched),
            _ => None,
        }
    }
}

impl fmt::Display for DesiredState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The unit's home. Written by the leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    pub machine: MachineId,
    /// The unit's generation that the leader saw when it chose.
    pub generation: Generation,
    /// For people: why this machine.
    pub reason: String,
    /// The unit was asked to go. It stops here, and then gets its next home in one step: the record is never
    /// without a machine meanwhile.
    pub leaving: Option<Leaving>,
}

/// A unit's way from one machine to another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// Where it should go, if that machine still takes it then.
    pub to: Option<MachineId>,
}

/// A member. `info` is written by the machine itself, `metadata_set` and `schedulable` by an administrator,
/// the rest by the leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    pub info: MachineInfo,
    /// Metadata set through the API; it overlays the machine's own. `None` hides the machine's own value.
    pub metadata_set: BTreeMap<String, Option<String>>,
    pub liveness: Liveness,
    /// False on a cordoned machine: it keeps its units and gets no new ones.
    pub schedulable: bool,
}

impl Machine {
    /// The metadata that counts: the machine's own, overlaid with what was set through the API.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        let mut all = self.info.metadata.clone();
        for (key, value) in &self.metadata_set {
            match value {
                Some(value) => all.insert(key.clone(), value.clone()),
                None => all.remove(key),
            };
        }
        all
    }
}

/// What a machine says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineInfo {
    /// The host name.
    pub name: String,
    /// The address that its users reach it at, without a port; empty when unknown.
    pub address: String,
    /// Of coreinit, such as `0.1.0`.
    pub version: String,
    pub metadata: BTreeMap<String, String>,
    /// All its memory; 0 when unknown, and then it is not counted.
    pub memory_bytes: u64,
    /// All its processors, in thousandths of one; 0 when unknown, and then they are not counted.
    pub cpu_millis: u64,
    /// The newest commands that it knows, see [`crate::FEATURE_LEVEL`]; 0 counts as 1.
    #[serde(default)]
    pub feature_level: u32,
}

/// Whether the leader hears from a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Liveness {
    Ready,
    /// Silent for longer than `machine_lost_after`: its units may be started elsewhere.
    Lost,
}

/// What one machine's systemd says about one unit. Written by that machine's agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// systemd's LoadState, ActiveState and SubState, in systemd's spelling.
    pub load: Arc<str>,
    pub active: Arc<str>,
    pub sub: Arc<str>,
    /// Of the file that the machine holds.
    pub hash: UnitHash,
    /// The generation whose wish this machine has carried out: the start or stop it asked for has ended, well
    /// or badly.
    pub generation: Option<Generation>,
    pub failure: Option<Failure>,
}

impl Observed {
    pub fn condition(&self) -> Condition {
        Condition::of(&self.active)
    }
}

/// systemd's ActiveState, folded to what a decision needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Up,
    Starting,
    Stopping,
    Down,
    Failed,
}

impl Condition {
    /// From systemd's ActiveState.
    pub fn of(active: &str) -> Condition {
        match active {
            "active" | "reloading" | "refreshing" => Condition::Up,
            "activating" => Condition::Starting,
            "deactivating" => Condition::Stopping,
            "failed" => Condition::Failed,
            _ => Condition::Down,
        }
    }
}

/// Why a unit is not what was asked for, in the words of the machine that tried.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// One line: what was tried and how it ended, such as `start job failed: exit-code (status 3)`.
    pub reason: String,
    /// The unit's last journal lines, oldest first; at most 10 lines of 256 bytes.
    pub journal: Vec<String>,
}

/// The cluster itself. Written by an administrator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Set once, when the cluster is formed.
    pub id: String,
    pub name: String,
    /// The newest command that may be proposed: every member must know it.
    pub feature_level: u32,
    /// The ids of the clusters that this one goes on from: restored from their backup, or recovered from one
    /// of their machines. The newest last, [`FORMER_MAX`] of them. Their members' stores are of no use here.
    #[serde(default)]
    pub former: Vec<String>,
    /// The digest of the authority that the last change of it has led to; `None`: there was none.
    #[serde(default)]
    pub authority: Option<String>,
    /// Changes of the authority that are over, however they ended.
    #[serde(default)]
    pub rotations: u64,
    /// The change of the authority that is under way.
    #[serde(default)]
    pub rotation: Option<Rotation>,
}

/// Ids of former clusters that are kept: whoever comes back with an older store is a stranger.
pub const FORMER_MAX: usize = 16;

impl Cluster {
    /// The same cluster in a new life, in which the stores of the former one's members have no part.
    pub fn renewed(&self, id: String) -> Cluster {
        let mut former = self.former.clone();
        former.push(self.id.clone());
        let surplus = former.len().saturating_sub(FORMER_MAX);
        former.drain(..surplus);
        Cluster { id, former, ..self.clone() }
    }
}

/// What lets machines in. Written by an administrator, and by each machine that uses it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// SHA-256 of the token's secret part, in hexadecimal: what is stored lets nobody in.
    pub digest: String,
    /// In seconds since 1970, by the clock of the machine that made it.
    pub created_at: u64,
    /// It lets nobody in from this second on; `None`: it never ends.
    pub expires_at: Option<u64>,
    /// How many more machines it lets in; `None`: any number.
    pub uses_left: Option<u32>,
    /// Those it has let in. One that asks again, such as after a crash, is not counted again.
    pub used_by: BTreeSet<MachineId>,
}

/// A machine that was removed. Written by an administrator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expelled {
    /// In seconds since 1970.
    pub at: u64,
    /// The host name that it had, for people.
    pub name: String,
}
