//! Why a unit is where it is, or nowhere: for each machine, whether it would do and all that speaks against
//! it. For people; nothing is decided here.

use std::sync::Arc;

use crate::global::globals_on;
use crate::requirement::Requirements;
use crate::schedule::Board;
use crate::{ClusterState, DesiredState, Liveness, MachineId, Unit, UnitName, is_global, wanted_on};

/// The answer to `corectl explain UNIT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    pub unit: UnitName,
    /// What has come of the unit's wish, and why, in one line.
    pub summary: String,
    /// Every machine of the cluster, by id.
    pub machines: Vec<Opinion>,
}

/// What speaks against one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opinion {
    pub machine: MachineId,
    /// The unit is there, or is to be there.
    pub is_home: bool,
    /// All that speaks against the machine; empty when it would do.
    pub reasons: Vec<String>,
    /// How many units stand there, this one not counted: of two machines that would do, the emptier is taken.
    pub units: usize,
}

/// Looks at every machine for that unit, as the next schedule would see them. A unit that is not wanted is
/// looked at as if it were.
pub fn explain(state: &ClusterState, name: &UnitName) -> Explanation {
    let explain = |summary: String, machines| Explanation { unit: name.clone(), summary, machines };
    let Some(unit) = state.units.get(name) else {
        return explain("the unit does not exist".into(), Vec::new());
    };
    if name.is_template() {
        return explain("it is a template; only its instances are placed".into(), Vec::new());
    }
    let mut state = state.clone();
    if unit.desired == DesiredState::Inactive {
        let wanted = Unit { desired: DesiredState::Loaded, ..(**unit).clone() };
        state.units.insert(name.clone(), Arc::new(wanted));
    }
    let (mut summary, mut machines) = match Requirements::of(name, &unit.file) {
        Err(error) => (error.to_string(), Vec::new()),
        Ok(_) if is_global(name, &unit.file) => of_global(&state, name),
        Ok(_) => of_ordinary(&state, name),
    };
    if unit.desired == DesiredState::Inactive {
        summary = "it is not wanted on any machine: its desired state is inactive".into();
        machines.iter_mut().for_each(|opinion| opinion.is_home = false);
    }
    explain(summary, machines)
}

fn of_ordinary(state: &ClusterState, name: &UnitName) -> (String, Vec<Opinion>) {
    let mut board = Board::default();
    board.absorb(state);
    let schedule = board.decide();
    let Some(i) = board.wish_of(name) else { return (String::new(), Vec::new()) };
    let (assigned, place) = (board.wish(i).assigned, board.wish(i).spot);
    board.take_away(i);
    let opinion = |s: usize| {
        let mut reasons = board.objections(i, s);
        if reasons.is_empty() && place.is_none() {
            reasons.push("the units that must be with it cannot all be there".into());
        }
        let (machine, units) = (board.spot_names[s].clone(), board.load(s));
        Opinion {
            machine,
            is_home: place == Some(s) || place.is_none() && assigned == Some(s),
            reasons,
            units,
        }
    };
    let spots = board.spot_ids.values().copied().filter(|s| board.spots[*s].machine.is_some());
    let machines = spots.map(opinion).collect();
    let summary = match (schedule.unplaced.get(name), state.assignments.get(name)) {
        (Some(unplaced), _) => format!("it waits: {}", unplaced.why),
        (None, Some(home)) if assigned == place => {
            let place = assigned.map(|s| board.label(s)).unwrap_or_default();
            format!("it is on {place}: {}", home.reason)
        }
        (None, _) => {
            let place = place.map(|s| board.label(s)).unwrap_or_default();
            format!("it is about to be placed on {place}")
        }
    };
    (summary, machines)
}

fn of_global(state: &ClusterState, name: &UnitName) -> (String, Vec<Opinion>) {
    let wished = state.units.iter().filter(|(_, unit)| unit.desired != DesiredState::Inactive);
    let globals: Vec<(&UnitName, Requirements)> = wished
        .filter(|(_, unit)| unit.file.may_be_global())
        .filter_map(|(name, unit)| Some((name, Requirements::of(name, &unit.file).ok()?)))
        .filter(|(_, requirements)| requirements.is_global)
        .collect();
    let Some((_, own)) = globals.iter().find(|(global, _)| *global == name) else {
        return (String::new(), Vec::new());
    };
    let mut machines = Vec::new();
    for id in state.machines.keys() {
        let Some(machine) = state.machine_to_use(id) else { continue };
        let metadata = machine.metadata();
        let there = |name: &UnitName| state.observed.contains_key(&(name.clone(), id.clone()));
        let chosen =
            globals_on(globals.iter().map(|(name, asked)| (*name, asked)), &machine, &metadata, there);
        let is_home = chosen.iter().any(|(chosen, _)| *chosen == name);
        let mut reasons = Vec::new();
        // What stands there stands there still, and would do nobody any good.
        reasons.extend((machine.liveness == Liveness::Lost).then(|| "the machine is lost".into()));
        if !is_home {
            reasons.extend((!machine.schedulable).then(|| "the machine is cordoned".into()));
            let unmet = own.unmet(&metadata).into_iter();
            reasons.extend(unmet.map(|lack| format!("local Machine metadata insufficient: needs {lack}")));
            let clashing = chosen.iter().filter(|(other, others)| own.clash(name, other, others));
            reasons.extend(clashing.map(|(other, _)| {
                format!("found conflict with locally-scheduled Unit({other}), which is global, too")
            }));
        }
        let wanted = wanted_on(state, id);
        if is_home && !wanted.contains_key(name) {
            reasons.push("it waits until the units that it conflicts with have left the machine".into());
        }
        let units = wanted.len() - usize::from(wanted.contains_key(name));
        machines.push(Opinion { machine: id.clone(), is_home, reasons, units });
    }
    let homes = machines.iter().filter(|opinion| opinion.is_home).count();
    (format!("it is global: wanted on {homes} of {} machines", machines.len()), machines)
}
