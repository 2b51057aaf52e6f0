//! Where each unit goes: the leader's decision, from the state alone.

use std::collections::BTreeMap;

use crate::{ClusterState, Command, DesiredState, Generation, Liveness, MachineId, UnitName};

/// What the leader should propose, and why some units have no home.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    pub decisions: Vec<Decision>,
    /// Units that are wanted somewhere and can be nowhere now.
    pub unplaced: BTreeMap<UnitName, Unplaced>,
}

/// One change of a home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Assign {
        unit: UnitName,
        machine: MachineId,
        generation: Generation,
        reason: String,
    },
    Unassign {
        unit: UnitName,
        machine: MachineId,
        reason: String,
    },
    /// A lost machine's last word about a unit that is not its business any more.
    Forget {
        unit: UnitName,
        machine: MachineId,
    },
}

/// Why a unit has no home, in words that a person can act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unplaced {
    pub why: String,
}

impl Decision {
    pub fn into_command(self) -> Command {
        match self {
            Decision::Assign { unit, machine, generation, reason } => {
                Command::Assign { unit, machine, generation, reason }
            }
            Decision::Unassign { unit, machine, .. } => Command::Unassign { unit, machine },
            Decision::Forget { unit, machine } => Command::Forget { unit, machine },
        }
    }
}

/// Least loaded first. Deterministic: equal states give equal schedules.
pub fn schedule(state: &ClusterState) -> Schedule {
    let mut load: BTreeMap<&MachineId, usize> = state
        .machines
        .iter()
        .filter(|(_, machine)| machine.liveness == Liveness::Ready)
        .map(|(id, _)| (id, 0))
        .collect();
    let mut result = Schedule::default();
    for (unit, assignment) in &state.assignments {
        match state.units.get(unit) {
            Some(u) if u.desired != DesiredState::Inactive => {
                if let Some(count) = load.get_mut(&assignment.machine) {
                    *count += 1;
                }
            }
            _ => result.decisions.push(Decision::Unassign {
                unit: unit.clone(),
                machine: assignment.machine.clone(),
                reason: "not wanted on any machine".into(),
            }),
        }
    }
    for (name, unit) in state.units.iter().filter(|(_, u)| u.desired != DesiredState::Inactive) {
        if state.assignments.get(name).is_some_and(|a| load.contains_key(&a.machine)) {
            continue;
        }
        let Some((machine, count)) = load.iter().min_by_key(|(_, count)| **count).map(|(m, c)| (*m, *c))
        else {
            result.unplaced.insert(name.clone(), Unplaced { why: "no machine is ready".into() });
            continue;
        };
        load.insert(machine, count + 1);
        result.decisions.push(Decision::Assign {
            unit: name.clone(),
            machine: machine.clone(),
            generation: unit.generation,
            reason: format!("fewest units ({count})"),
        });
    }
    result
}
