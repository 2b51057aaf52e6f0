//! Where each unit goes: the leader's decision, from the state alone.

mod board;
mod groups;

use std::collections::BTreeMap;

use self::board::Board;
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

/// The least loaded machine that a unit's requirements allow. Deterministic: equal states give equal
/// schedules, and the state with the decisions carried out asks for no more.
///
/// A unit is moved only when its machine is lost or does not suit it any more, and it is not given a new home
/// while another ready machine still runs it. A lost machine's units stay assigned to it as long as there is
/// no other place for them.
pub fn schedule(state: &ClusterState) -> Schedule {
    let mut result = Schedule::default();
    let is_wanted =
        |name: &UnitName| state.units.get(name).is_some_and(|unit| unit.desired != DesiredState::Inactive);
    for (unit, assignment) in state.assignments.iter().filter(|(name, _)| !is_wanted(name)) {
        let reason = if state.units.contains_key(unit) { "target state inactive" } else { "unit destroyed" };
        let (unit, machine) = (unit.clone(), assignment.machine.clone());
        result.decisions.push(Decision::Unassign { unit, machine, reason: reason.into() });
    }
    let mut board = Board::new(state);
    groups::settle(&mut board);
    refuse_impossible(&board, &mut result);
    groups::place_all(&mut board, &mut result);
    forget(state, &mut result);
    result
}

/// Units that no machine can be found for, whatever there is. One whose requirements cannot be read, since it
/// was stored by another version, is left where it is.
fn refuse_impossible(board: &Board, result: &mut Schedule) {
    for wish in &board.wishes {
        let why = match (&wish.requirements, &wish.missing) {
            (Err(_), _) if wish.home.is_some() => continue,
            (Err(error), _) => error.to_string(),
            (Ok(_), None) => continue,
            (Ok(_), Some(peer)) => {
                let what = match board.state.units.get(peer).map(|unit| unit.desired) {
                    None => "it does not exist",
                    Some(DesiredState::Inactive) => "its desired state is inactive",
                    Some(DesiredState::Loaded | DesiredState::Launched) => "it cannot be scheduled itself",
                };
                format!("required peer Unit({peer}) is not scheduled: {what}")
            }
        };
        if let (Some(machine), Some(_)) = (wish.assigned, wish.home) {
            let (unit, machine) = (wish.name.clone(), machine.clone());
            result.decisions.push(Decision::Unassign { unit, machine, reason: why.clone() });
        }
        result.unplaced.insert(wish.name.clone(), Unplaced { why });
    }
}

/// What machines that are not ready said of units that are, after the decisions made, not theirs.
fn forget(state: &ClusterState, result: &mut Schedule) {
    let gone =
        |id: &MachineId| state.machines.get(id).is_none_or(|machine| machine.liveness == Liveness::Lost);
    if !state.observed.keys().any(|(_, machine)| gone(machine)) {
        return;
    }
    let moved: BTreeMap<UnitName, Option<MachineId>> = result
        .decisions
        .iter()
        .filter_map(|decision| match decision {
            Decision::Assign { unit, machine, .. } => Some((unit.clone(), Some(machine.clone()))),
            Decision::Unassign { unit, .. } => Some((unit.clone(), None)),
            Decision::Forget { .. } => None,
        })
        .collect();
    for (unit, machine) in state.observed.keys().filter(|(_, machine)| gone(machine)) {
        let assigned = state.assignments.get(unit).map(|assignment| &assignment.machine);
        let home = moved.get(unit).map_or(assigned, Option::as_ref);
        if home != Some(machine) || !state.units.contains_key(unit) {
            result.decisions.push(Decision::Forget { unit: unit.clone(), machine: machine.clone() });
        }
    }
}

#[cfg(test)]
mod tests;
