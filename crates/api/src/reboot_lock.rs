//! The reboot lock: who may reboot now, in which group; and FleetLock's two requests, by which a machine asks
//! for a slot and gives it back.

use std::time::Duration;

use cluster::MachineId;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::client::{Client, ClientError, REQUEST_TIMEOUT};

/// Longer than the daemon waits for a machine to be empty (120 s).
const LOCK_TIMEOUT: Duration = Duration::from_secs(150);

/// `GET /v1/reboot-lock`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebootLock {
    pub groups: Vec<LockGroup>,
}

/// Machines that share slots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LockGroup {
    pub group: String,
    pub slots: u32,
    pub holders: Vec<HolderView>,
}

/// A machine that holds a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HolderView {
    pub machine: MachineId,
    /// The host name.
    pub name: String,
    /// Seconds since 1970.
    pub since: u64,
    /// Whether no unit but global ones is there any more: only then may it reboot.
    pub drained: bool,
    /// What it is not empty for, if that is known.
    pub waits_for: Option<String>,
}

/// `POST /v1/reboot-lock/release`: in the machine's place, which may not come back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LockRelease {
    /// Its name, or the beginning of its id.
    pub machine: String,
    /// Without it: in all groups.
    #[serde(default)]
    pub group: Option<String>,
}

/// `POST /v1/reboot-lock/slots`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LockSlots {
    pub group: String,
    /// Whoever holds one keeps it; with 0, nobody else gets any.
    pub slots: u32,
}

impl Client {
    pub async fn reboot_lock(&self, stale: bool) -> Result<RebootLock, ClientError> {
        self.get(if stale { "/v1/reboot-lock?stale=true" } else { "/v1/reboot-lock" }).await
    }

    /// Gives a machine's slots back in its place.
    pub async fn release_reboot(&self, release: &LockRelease) -> Result<(), ClientError> {
        self.order("/v1/reboot-lock/release", release, REQUEST_TIMEOUT).await
    }

    pub async fn set_reboot_slots(&self, slots: &LockSlots) -> Result<(), ClientError> {
        self.order("/v1/reboot-lock/slots", slots, REQUEST_TIMEOUT).await
    }

    /// FleetLock's `pre-reboot`: good once the machine has a slot and is empty. The error with status 409
    /// says what that waits for; ask again.
    pub async fn pre_reboot(&self, id: &str, group: &str) -> Result<(), ClientError> {
        self.fleet_lock("/v1/pre-reboot", id, group, LOCK_TIMEOUT).await
    }

    /// FleetLock's `steady-state`: the machine needs no slot any more.
    pub async fn steady_state(&self, id: &str, group: &str) -> Result<(), ClientError> {
        self.fleet_lock("/v1/steady-state", id, group, REQUEST_TIMEOUT).await
    }

    async fn fleet_lock(
        &self,
        path: &str,
        id: &str,
        group: &str,
        limit: Duration,
    ) -> Result<(), ClientError> {
        let body = json!({ "client_params": { "id": id, "group": group } });
        self.order(path, &body, limit).await
    }
}
