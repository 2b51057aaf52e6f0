//! What holds of every state, by name. Checked after every change in debug builds and tests.

use crate::ClusterState;

impl ClusterState {
    /// The first invariant that does not hold, as `Name: what was found`.
    pub fn check(&self) -> Result<(), String> {
        for (name, unit) in &self.units {
            if unit.generation.0 > self.revision.0 {
                return Err(format!(
                    "Past Only: {name} is of generation {}, ahead of the state",
                    unit.generation
                ));
            }
        }
        for (name, assignment) in &self.assignments {
            if !self.machines.contains_key(&assignment.machine) {
                return Err(format!("Known Home: {name} is assigned to unknown {}", assignment.machine));
            }
        }
        Ok(())
    }
}
