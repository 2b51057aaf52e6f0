//! The client's requests about where units are: why there, where else, and away from a machine.

use cluster::{MachineId, UnitName};

use crate::client::{Client, ClientError, REQUEST_TIMEOUT, escape};
use crate::v1::{Explanation, Move, Rebalance};

impl Client {
    /// Where a unit is, and what each machine has against it.
    pub async fn explain(&self, unit: &UnitName) -> Result<Explanation, ClientError> {
        self.get(&format!("/v1/units/{}/explain", escape(unit.as_str()))).await
    }

    /// Asks that a unit leaves its machine; it is carried out after the answer. The error with status 409
    /// says why nothing else would take it.
    pub async fn move_unit(&self, unit: &UnitName, machine: Option<&str>) -> Result<(), ClientError> {
        let path = format!("/v1/units/{}/move", escape(unit.as_str()));
        self.order(&path, &Move { machine: machine.map(str::to_string) }, REQUEST_TIMEOUT).await
    }

    /// Whether a machine gets new units.
    pub async fn set_schedulable(&self, machine: &MachineId, yes: bool) -> Result<(), ClientError> {
        let verb = if yes { "uncordon" } else { "cordon" };
        let path = format!("/v1/machines/{}/{verb}", escape(machine.as_str()));
        self.order(&path, &serde_json::json!({}), REQUEST_TIMEOUT).await
    }

    /// What would even out the machines.
    pub async fn rebalance(&self) -> Result<Rebalance, ClientError> {
        self.get("/v1/rebalance").await
    }
}
