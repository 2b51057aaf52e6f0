//! What holds of every state, by name. Checked after every change in debug builds and tests.
//!
//! *Single Home*, a unit has at most one assignment, needs no check: assignments are kept by unit name.

use std::fmt;

use crate::{Assignment, ClusterState, DesiredState, UnitName};

/// An invariant that does not hold: a bug. A replica that finds one must not go on.
struct Broken {
    name: &'static str,
    found: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.found)
    }
}

impl ClusterState {
    /// The first invariant that does not hold, as `Name: what was found`.
    pub fn check(&self) -> Result<(), String> {
        let broken = [self.past_only(), self.idle_templates(), self.known_home(), self.true_moves()];
        broken.into_iter().flatten().next().map_or(Ok(()), |broken| Err(broken.to_string()))
    }

    /// *Past Only*: no generation is ahead of the state's revision, and an assignment's not ahead of its
    /// unit's.
    fn past_only(&self) -> Option<Broken> {
        let units = self.units.iter().map(|(name, unit)| ("unit", name, unit.generation));
        let assignments = self.assignments.iter().map(|(name, a)| ("assignment", name, a.generation));
        let mut ahead = units.chain(assignments).filter(|(.., generation)| generation.0 > self.revision.0);
        let found = ahead.next().map(|(what, name, generation)| {
            format!(
                "the {what} of {name} is of generation {generation}, the state at revision {}",
                self.revision
            )
        });
        let stale = |name: &UnitName, generation| {
            self.units.get(name).is_some_and(|unit| unit.generation < generation)
        };
        let found = found.or_else(|| {
            let mut ahead = self.assignments.iter().filter(|(name, a)| stale(name, a.generation));
            ahead
                .next()
                .map(|(name, _)| format!("{name} was assigned in a generation that it has not reached"))
        });
        found.map(|found| Broken { name: "Past Only", found })
    }

    /// *Idle Templates*: a template is wanted on no machine.
    fn idle_templates(&self) -> Option<Broken> {
        let active = |desired| desired != DesiredState::Inactive;
        let mut found = self.units.iter().filter(|(name, unit)| name.is_template() && active(unit.desired));
        let (name, unit) = found.next()?;
        Some(Broken { name: "Idle Templates", found: format!("{name} is {}", unit.desired) })
    }

    /// *Known Home*: a unit's home is a member of the cluster.
    fn known_home(&self) -> Option<Broken> {
        let mut found = self.assignments.iter().filter(|(_, a)| !self.machines.contains_key(&a.machine));
        let (name, assignment) = found.next()?;
        Some(Broken {
            name: "Known Home",
            found: format!("{name} is assigned to unknown {}", assignment.machine),
        })
    }

    /// *True Moves*: who leaves a machine leaves it for another.
    fn true_moves(&self) -> Option<Broken> {
        let stays = |a: &Assignment| {
            a.leaving.as_ref().and_then(|leaving| leaving.to.as_ref()).is_some_and(|to| *to == a.machine)
        };
        let (name, assignment) = self.assignments.iter().find(|(_, a)| stays(a))?;
        Some(Broken { name: "True Moves", found: format!("{name} leaves {0} for {0}", assignment.machine) })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Generation, Leaving, Liveness, Machine, MachineId, MachineInfo, Revision, Unit, UnitFile};

    /// Each invariant is broken by hand, since no command does it.
    #[test]
    fn finds_what_is_broken() {
        let name = |text: &str| UnitName::new(text).expect("a unit name");
        let unit = |desired, generation| {
            let file = UnitFile::parse("[Service]\n").expect("a unit file");
            Arc::new(Unit { file, desired, generation: Generation(generation) })
        };
        let home = |machine: &str, generation| {
            let machine = MachineId::new(machine).expect("a machine id");
            let (generation, reason) = (Generation(generation), String::new());
            Arc::new(Assignment { machine, generation, reason, leaving: None })
        };
        let check = |break_it: &dyn Fn(&mut ClusterState), expected: &str| {
            let mut state = ClusterState { revision: Revision(7), ..ClusterState::default() };
            assert_eq!(state.check(), Ok(()));
            break_it(&mut state);
            assert_eq!(state.check(), Err(expected.into()));
        };
        check(
            &|state| drop(state.units.insert(name("a.service"), unit(DesiredState::Loaded, 8))),
            "Past Only: the unit of a.service is of generation 8, the state at revision 7",
        );
        check(
            &|state| {
                state.units.insert(name("a.service"), unit(DesiredState::Loaded, 3));
                state.assignments.insert(name("a.service"), home("m1", 4));
            },
            "Past Only: a.service was assigned in a generation that it has not reached",
        );
        check(
            &|state| drop(state.units.insert(name("a@.service"), unit(DesiredState::Launched, 1))),
            "Idle Templates: a@.service is launched",
        );
        check(
            &|state| drop(state.assignments.insert(name("a.service"), home("m1", 1))),
            "Known Home: a.service is assigned to unknown m1",
        );
        check(
            &|state| {
                let mut home = (*home("m1", 1)).clone();
                home.leaving = Some(Leaving { to: Some(home.machine.clone()) });
                let (info, metadata_set) = (MachineInfo::default(), std::collections::BTreeMap::new());
                let machine = Machine { info, metadata_set, liveness: Liveness::Ready, schedulable: true };
                state.machines.insert(home.machine.clone(), machine.into());
                state.assignments.insert(name("a.service"), home.into());
            },
            "True Moves: a.service leaves m1 for m1",
        );
    }
}
