//! What the API shows of a state: pure functions from the records to the wire.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use api::v1;
use cluster::{
    ClusterState, DesiredState, Liveness, MachineId, Observed, Scheduler, Unit, UnitName, Unplaced, is_global,
};

/// One state together with what follows from it but is not stored.
#[derive(Clone)]
pub(super) struct Snapshot {
    pub(super) state: Arc<ClusterState>,
    pub(super) unplaced: Arc<BTreeMap<UnitName, Unplaced>>,
}

/// Remembers the last answer of the scheduler, since most changes (what the machines report) leave it as it
/// was.
#[derive(Default)]
pub(super) struct Placement(Mutex<Memory>);

#[derive(Default)]
struct Memory {
    last: Option<Remembered>,
    scheduler: Scheduler,
}

struct Remembered {
    snapshot: Snapshot,
    /// Some unit is wanted and has no living home, so the scheduler was asked.
    homeless: bool,
}

impl Placement {
    pub(super) fn of(&self, state: &Arc<ClusterState>) -> Snapshot {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (homeless, unplaced) = match memory.last.take().filter(|last| last.holds_for(state)) {
            Some(last) => (last.homeless, last.snapshot.unplaced),
            None if is_any_homeless(state) => (true, Arc::new(memory.scheduler.schedule(state).unplaced)),
            None => (false, Arc::default()),
        };
        let snapshot = Snapshot { state: state.clone(), unplaced };
        memory.last = Some(Remembered { snapshot: snapshot.clone(), homeless });
        snapshot
    }
}

impl Remembered {
    /// What the scheduler looks at is the same. A unit's reports matter to it only while the unit has no
    /// home: it waits for the copies elsewhere to end.
    fn holds_for(&self, state: &ClusterState) -> bool {
        let last = &*self.snapshot.state;
        last.units.ptr_eq(&state.units)
            && last.assignments.ptr_eq(&state.assignments)
            && last.machines.ptr_eq(&state.machines)
            && (!self.homeless || last.observed.ptr_eq(&state.observed))
    }
}

fn is_any_homeless(state: &ClusterState) -> bool {
    let mut wanted = state.units.iter().filter(|(_, unit)| unit.desired != DesiredState::Inactive);
    wanted.any(|(name, unit)| match state.assignments.get(name) {
        Some(assignment) => assignment.leaving.is_some() || is_lost(state, &assignment.machine),
        None => !is_global(name, &unit.file),
    })
}

/// Nobody hears from that machine, so what it last said counts no more.
pub(super) fn is_lost(state: &ClusterState, machine: &MachineId) -> bool {
    state.machines.get(machine).is_none_or(|machine| machine.liveness == Liveness::Lost)
}

/// What has come of the wish: `launched` once the home machine has carried out the start that this generation
/// asks for, `loaded` while it holds the unit in any other way, else `inactive`.
pub(super) fn current_state(state: &ClusterState, name: &UnitName, unit: &Unit) -> DesiredState {
    let home = state.assignments.get(name).map(|assignment| &assignment.machine);
    let Some(home) = home.filter(|home| !is_lost(state, home)) else { return DesiredState::Inactive };
    match state.observed.get(&(name.clone(), home.clone())) {
        None => DesiredState::Inactive,
        Some(observed) if unit.desired == DesiredState::Launched => match observed.generation {
            Some(generation) if generation == unit.generation => DesiredState::Launched,
            _ => DesiredState::Loaded,
        },
        Some(_) => DesiredState::Loaded,
    }
}

impl Snapshot {
    pub(super) fn unit(&self, name: &UnitName) -> Option<v1::Unit> {
        let state = &*self.state;
        let unit = state.units.get(name)?;
        let assignment = state.assignments.get(name);
        Some(v1::Unit {
            name: name.clone(),
            desired_state: unit.desired.into(),
            current_state: current_state(state, name, unit).into(),
            generation: unit.generation,
            hash: unit.file.hash().to_string(),
            description: unit.file.description(name),
            global: is_global(name, &unit.file),
            machine: assignment.map(|assignment| assignment.machine.clone()),
            reason: assignment.map(|assignment| assignment.reason.clone()),
            unplaced: self.unplaced.get(name).map(|unplaced| unplaced.why.clone()),
            states: self.states(name),
            text: None,
        })
    }

    pub(super) fn states(&self, name: &UnitName) -> Vec<v1::UnitState> {
        let told = self.state.observed_of(name);
        told.map(|(machine, seen)| unit_state(machine, seen, is_lost(&self.state, machine))).collect()
    }

    /// The unit, or that it is gone.
    pub(super) fn unit_event(&self, name: &UnitName) -> v1::Event {
        match self.unit(name) {
            Some(unit) => v1::Event::Unit { unit: Box::new(unit) },
            None => v1::Event::Gone { name: name.clone(), states: self.states(name) },
        }
    }

    pub(super) fn machine(&self, id: &MachineId, units: usize) -> Option<v1::Machine> {
        let machine = self.state.machines.get(id)?;
        Some(v1::Machine {
            id: id.clone(),
            name: machine.info.name.clone(),
            address: machine.info.address.clone(),
            version: machine.info.version.clone(),
            metadata: machine.metadata(),
            state: match machine.liveness {
                Liveness::Ready => v1::MachineState::Ready,
                Liveness::Lost => v1::MachineState::Lost,
            },
            units,
            schedulable: machine.schedulable && !self.state.reboots(id),
        })
    }

    pub(super) fn machine_event(&self, id: &MachineId, units: usize) -> v1::Event {
        match self.machine(id, units) {
            Some(machine) => v1::Event::Machine { machine },
            None => v1::Event::MachineGone { id: id.clone() },
        }
    }

    /// How many units each machine is home to.
    pub(super) fn unit_counts(&self) -> BTreeMap<MachineId, usize> {
        let mut counts = BTreeMap::new();
        for (_, assignment) in &self.state.assignments {
            *counts.entry(assignment.machine.clone()).or_default() += 1;
        }
        counts
    }

    /// Every name that there is something to tell of: the units, and those destroyed ones that some machine
    /// still holds.
    pub(super) fn names(&self) -> BTreeSet<UnitName> {
        let held = self.state.observed.keys().map(|(name, _)| name);
        self.state.units.keys().chain(held).cloned().collect()
    }
}

fn unit_state(machine: &MachineId, observed: &Observed, stale: bool) -> v1::UnitState {
    v1::UnitState {
        machine: machine.clone(),
        load: observed.load.to_string(),
        active: observed.active.to_string(),
        sub: observed.sub.to_string(),
        hash: observed.hash.to_string(),
        generation: observed.generation,
        failure: observed
            .failure
            .as_ref()
            .map(|failure| v1::Failure { reason: failure.reason.clone(), journal: failure.journal.clone() }),
        stale,
    }
}

#[cfg(test)]
mod tests {
    use cluster::{Command, MachineInfo, Revision, UnitFile, UnitHash, schedule};

    use super::*;

    fn after(state: &Arc<ClusterState>, command: Command) -> Arc<ClusterState> {
        let mut next = (**state).clone();
        next.apply_all(Revision(state.revision.0 + 1), &[command]).pop().unwrap().unwrap();
        Arc::new(next)
    }

    #[test]
    fn a_remembered_reason_gives_way_to_every_change_that_it_hangs_on() {
        let (unit, machine) = (UnitName::new("a.service").unwrap(), MachineId::new("m1").unwrap());
        let placement = Placement::default();
        let check = |state: &Arc<ClusterState>, what: &str| {
            let unplaced = placement.of(state).unplaced;
            assert_eq!(*unplaced, schedule(state).unplaced, "{what}");
            unplaced.get(&unit).map(|unplaced| unplaced.why.clone())
        };
        let report = |active: Option<&str>| Command::Report {
            machine: machine.clone(),
            unit: unit.clone(),
            observed: active.map(|active| Observed {
                load: "loaded".into(),
                active: active.into(),
                sub: "".into(),
                hash: UnitHash([0; 20]),
                generation: None,
                failure: None,
            }),
        };
        let register = |id: &str, ssd: &str| {
            let metadata = BTreeMap::from([("ssd".to_owned(), ssd.to_owned())]);
            let info = MachineInfo { metadata, ..MachineInfo::default() };
            Command::RegisterMachine { id: MachineId::new(id).unwrap(), info }
        };
        let state = after(&Arc::default(), register("m1", "no"));
        let file = UnitFile::parse("[X-Fleet]\nMachineMetadata=ssd=yes\n").unwrap();
        let desired = Some(DesiredState::Launched);
        let state = after(&state, Command::SetUnit { name: unit.clone(), file: Some(file), desired });
        let nowhere = check(&state, "no machine suits");
        let state = after(&state, report(Some("active")));
        check(&state, "though a copy runs");
        let state = after(&state, register("m2", "yes"));
        let waits = check(&state, "the copy has to stop first");
        assert!(nowhere.is_some() && waits.is_some() && nowhere != waits, "{nowhere:?} {waits:?}");
        let state = after(&state, report(None));
        assert_eq!(check(&state, "the copy has stopped"), None);
    }
}
