//! Global units: where they belong, and what one machine should hold in all. Decided from the state alone, so
//! that the leader, who keeps conflicting units away from them, and every machine come to the same.

use std::collections::BTreeMap;

use crate::requirement::{Requirements, is_global};
use crate::{ClusterState, Condition, Desired, DesiredState, Liveness, Machine, MachineId, Unit, UnitName};

/// The global units that belong on a machine, out of all that are wanted: those that its metadata suits. Of
/// two that cannot share a machine, the first by name belongs there, as with fleet: the same one on every
/// machine that suits both, and it does not hang on who came when. A machine that takes no new units keeps
/// those that are there.
pub(crate) fn globals_on<'a>(
    globals: impl Iterator<Item = (&'a UnitName, &'a Requirements)>,
    machine: &Machine,
    metadata: &BTreeMap<String, String>,
    is_there: impl Fn(&UnitName) -> bool,
) -> Vec<(&'a UnitName, &'a Requirements)> {
    let takes_new = machine.schedulable && machine.liveness == Liveness::Ready;
    let mut chosen: Vec<(&UnitName, &Requirements)> = Vec::new();
    for (name, requirements) in globals {
        let belongs = (takes_new || is_there(name))
            && requirements.suits(metadata)
            && !chosen.iter().any(|(other, others)| requirements.clash(name, other, others));
        if belongs {
            chosen.push((name, requirements));
        }
    }
    chosen
}

/// All units that the machine should hold: those assigned to it that were not asked to leave, and the global
/// ones that belong there. A global unit that is new to the machine waits until the units that it cannot
/// share the machine with have gone, also from systemd.
pub fn wanted_on(state: &ClusterState, id: &MachineId) -> BTreeMap<UnitName, Desired> {
    let mut wanted = BTreeMap::new();
    let assigned = state.assignments.iter().filter(|(_, assignment)| assignment.machine == *id);
    for (name, assignment) in assigned {
        let Some(unit) = state.units.get(name) else { continue };
        if assignment.leaving.is_none() && !is_global(name, &unit.file) {
            wanted.extend(desired(unit).map(|desired| (name.clone(), desired)));
        }
    }
    let Some(machine) = state.machine_to_use(id) else { return wanted };
    let may_be_global = state.units.iter().filter(|(_, unit)| unit.file.may_be_global());
    let globals: Vec<(&UnitName, &Unit, Requirements)> = may_be_global
        .filter(|(_, unit)| unit.desired != DesiredState::Inactive)
        .filter_map(|(name, unit)| Some((name, &**unit, Requirements::of(name, &unit.file).ok()?)))
        .filter(|(.., requirements)| requirements.is_global)
        .collect();
    let is_there = |name: &UnitName| state.observed.contains_key(&(name.clone(), id.clone()));
    let named = globals.iter().map(|(name, _, requirements)| (*name, requirements));
    for (name, requirements) in globals_on(named, &machine, &machine.metadata(), is_there) {
        if !is_there(name) && is_held_up(state, id, name, requirements) {
            continue;
        }
        let unit = globals.iter().find(|(other, ..)| *other == name).map(|(_, unit, _)| *unit);
        wanted.extend(unit.and_then(desired).map(|desired| (name.clone(), desired)));
    }
    wanted
}

fn desired(unit: &Unit) -> Option<Desired> {
    let launched = match unit.desired {
        DesiredState::Inactive => return None,
        DesiredState::Loaded => false,
        DesiredState::Launched => true,
    };
    Some(Desired { file: unit.file.clone(), generation: unit.generation, launched })
}

/// Whether some unit that the new global one cannot share the machine with is assigned there or still runs
/// there.
fn is_held_up(state: &ClusterState, id: &MachineId, name: &UnitName, requirements: &Requirements) -> bool {
    let clashes = |other: &UnitName| {
        let unit = state.units.get(other);
        let others = unit.map(|unit| Requirements::of(other, &unit.file).unwrap_or_default());
        requirements.clash(name, other, &others.unwrap_or_default())
    };
    let mut assigned = state.assignments.iter().filter(|(_, assignment)| assignment.machine == *id);
    let runs = |condition: Condition| match condition {
        Condition::Up | Condition::Starting | Condition::Stopping => true,
        Condition::Down | Condition::Failed => false,
    };
    let here = state.observed.iter().filter(|((_, machine), _)| machine == id);
    let mut running = here.filter(|(_, observed)| runs(observed.condition()));
    assigned.any(|(other, _)| clashes(other)) || running.any(|((other, _), _)| clashes(other))
}
