//! Where each unit goes: the leader's decision, from the state alone.

mod absorb;
mod board;
mod fit;
mod pattern;
mod place;
mod search;
mod settle;
mod tie;

use std::collections::{BTreeMap, BTreeSet};

pub(crate) use self::board::{Board, SpotId, WishId};
pub(crate) use self::search::Rank;
use crate::{ClusterState, Command, DesiredState, Generation, MachineId, UnitName};

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

impl Schedule {
    /// Takes back what was decided of a unit, since it has to make room after all.
    fn retract(&mut self, name: &UnitName) {
        self.unplaced.remove(name);
        self.decisions.retain(|decision| match decision {
            Decision::Assign { unit, .. } | Decision::Unassign { unit, .. } => unit != name,
            Decision::Forget { .. } => true,
        });
    }
}

/// The least loaded machine that a unit's requirements allow. Deterministic: equal states give equal
/// schedules, and the state with the decisions carried out asks for no more.
///
/// A unit is moved only when its machine is lost or does not suit it any more, when it was asked to leave, or
/// when one that replaces it comes; and it is not given a new home while another ready machine still runs it.
/// A lost machine's units stay assigned to it as long as there is no other place for them. Global units have
/// no assignments: see [`wanted_on`](crate::wanted_on).
///
/// This is the specification: it looks at all machines for all units. [`Scheduler`] comes to the same in less
/// time.
pub fn schedule(state: &ClusterState) -> Schedule {
    let mut board = Board::exhaustive();
    board.absorb(state);
    board.decide()
}

/// Keeps from one schedule to the next what it knows of the state, so that each costs what has changed.
#[derive(Default)]
pub struct Scheduler {
    board: Board,
}

impl Scheduler {
    /// What [`schedule`] says of this state. The states may come in any order.
    pub fn schedule(&mut self, state: &ClusterState) -> Schedule {
        // What units wanted once is remembered by number; from time to time all is read anew.
        if self.board.wants.len() > 2 * self.board.wish_ids.len() + 1000 {
            self.board = Board::default();
        }
        self.board.absorb(state);
        let schedule = self.board.decide();
        self.board.undo();
        schedule
    }
}

impl Board {
    /// Makes the schedule; the board shows it until it is undone.
    pub(crate) fn decide(&mut self) -> Schedule {
        let mut result = Schedule::default();
        for unit in &self.strays {
            let Some(assignment) = self.state.assignments.get(unit) else { continue };
            let reason = match self.state.units.get(unit) {
                None => "unit destroyed",
                Some(_) if self.wish_of(unit).is_some() => "the unit is global now",
                Some(_) => "target state inactive",
            };
            let (unit, machine) = (unit.clone(), assignment.machine.clone());
            result.decisions.push(Decision::Unassign { unit, machine, reason: reason.into() });
        }
        let groups = self.settle();
        self.refuse_impossible(&mut result);
        self.place_all(groups, &mut result);
        self.forget(&mut result);
        result
    }

    /// Units that no machine can be found for, whatever there is. One whose requirements cannot be read,
    /// since it was stored by another version, is left where it is.
    fn refuse_impossible(&mut self, result: &mut Schedule) {
        for i in self.by_name(self.impossible.iter().copied()) {
            let wish = self.wish(i);
            let why = match (&wish.requirements, &wish.missing) {
                (Err(_), _) if wish.home.is_some() => continue,
                (Err(error), _) => error.to_string(),
                (Ok(_), None) => continue,
                (Ok(_), Some(peer)) => {
                    let what = match self.state.units.get(peer).map(|unit| unit.desired) {
                        None => "it does not exist",
                        Some(DesiredState::Inactive) => "its desired state is inactive",
                        Some(DesiredState::Loaded | DesiredState::Launched) => {
                            "it cannot be scheduled itself"
                        }
                    };
                    format!("required peer Unit({peer}) is not scheduled: {what}")
                }
            };
            if let (Some(spot), Some(_)) = (wish.assigned, wish.home.or(wish.left)) {
                let (unit, machine) = (wish.name.clone(), self.spot_names[spot].clone());
                result.decisions.push(Decision::Unassign { unit, machine, reason: why.clone() });
            }
            result.unplaced.insert(wish.name.clone(), Unplaced { why });
        }
    }

    /// What machines that are not ready said of units that are, after the decisions made, not theirs. A
    /// global unit is every machine's business as long as the machine is a member.
    fn forget(&self, result: &mut Schedule) {
        let mut homes: BTreeMap<&UnitName, Option<&MachineId>> = BTreeMap::new();
        if self.silent.is_empty() {
            return;
        }
        for decision in &result.decisions {
            match decision {
                Decision::Assign { unit, machine, .. } => homes.insert(unit, Some(machine)),
                Decision::Unassign { unit, .. } => homes.insert(unit, None),
                Decision::Forget { .. } => None,
            };
        }
        let mut forgotten: BTreeSet<(UnitName, MachineId)> = BTreeSet::new();
        for s in &self.silent {
            let (machine, spot) = (&self.spot_names[*s], &self.spots[*s]);
            for unit in &spot.reported {
                let assigned = self.state.assignments.get(unit).map(|assignment| &assignment.machine);
                let home = homes.get(unit).copied().unwrap_or(assigned);
                let is_global = spot.machine.is_some() && self.globals.contains_key(unit);
                if !is_global && (home != Some(machine) || !self.state.units.contains_key(unit)) {
                    forgotten.insert((unit.clone(), machine.clone()));
                }
            }
        }
        let forget = forgotten.into_iter().map(|(unit, machine)| Decision::Forget { unit, machine });
        let forget: Vec<Decision> = forget.collect();
        result.decisions.extend(forget);
    }
}

#[cfg(test)]
mod tests;
