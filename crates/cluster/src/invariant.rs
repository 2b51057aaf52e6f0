//! What holds of every state, by name. Checked after every change in debug builds and tests.
//!
//! *Single Home*, a unit has at most one assignment, needs no check: assignments are kept by unit name.

use std::fmt;

use crate::{ClusterState, DesiredState, UnitName};

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
        let broken = [self.past_only(), self.idle_templates(), self.known_home()];
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
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Assignment, Generation, MachineId, Revision, Unit, UnitFile};

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
            Arc::new(Assignment { machine, generation: Generation(generation), reason: String::new() })
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
    }
}
