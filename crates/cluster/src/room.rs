//! How much the cluster keeps of what has no end by itself: unit files, and what machines say of failures.
//! All of it is in every snapshot, which has a bound, and which is made, sent and read as a whole.
//!
//! Each replica refuses and shortens alike. Keys have bounds of their own (`key_space`).

use std::borrow::Cow;

use crate::command::Rejected;
use crate::record::{Failure, Observed, Unit};
use crate::state::Weigh;
use crate::{ClusterState, MachineId, UnitName};

/// Of all units together: some ten thousand ordinary ones, or thousands of the largest that are seen in
/// practice.
pub const UNITS_BYTES_MAX: usize = 48 << 20;
/// What a unit counts beside its name and its file: its home, why that was chosen, and what is reported of
/// it.
const UNIT_BYTES: usize = 1 << 10;
/// Of all that machines say of failures. Beyond that, they are told in a line.
pub const TOLD_BYTES_MAX: usize = 16 << 20;
/// Of one failure, as [`Failure`] has it.
const REASON_BYTES_MAX: usize = 1 << 10;
const LINES_MAX: usize = 10;
const LINE_BYTES_MAX: usize = 256;
/// Of one failure for which there is no more room. What follows from a failure does not need its words.
const TERSE_BYTES: usize = 128;

impl Weigh<UnitName> for Unit {
    fn bytes(&self, name: &UnitName) -> usize {
        UNIT_BYTES + name.as_str().len() + self.file.text().len()
    }
}

impl Weigh<(UnitName, MachineId)> for Observed {
    /// Only what it tells: the rest is small.
    fn bytes(&self, _key: &(UnitName, MachineId)) -> usize {
        let told = |failure: &Failure| {
            failure.reason.len() + failure.journal.iter().map(|line| line.len() + 1).sum::<usize>()
        };
        self.failure.as_ref().map_or(0, told)
    }
}

impl ClusterState {
    /// Whether the bounds allow that unit. What makes the whole smaller is always allowed.
    pub(crate) fn has_room_for(&self, name: &UnitName, unit: &Unit) -> Result<(), Rejected> {
        let bytes = self.units.bytes_with(name, unit);
        match self.units.bytes() < bytes && UNITS_BYTES_MAX < bytes {
            true => Err(Rejected::UnitsFull { bytes: self.units.bytes(), max: UNITS_BYTES_MAX }),
            false => Ok(()),
        }
    }

    /// A machine's report as the cluster keeps it: never refused, since decisions wait for it, but in fewer
    /// words where it has too many.
    pub fn kept<'a>(
        &self,
        unit: &UnitName,
        machine: &MachineId,
        observed: &'a Observed,
    ) -> Cow<'a, Observed> {
        let Some(failure) = &observed.failure else { return Cow::Borrowed(observed) };
        let key = (unit.clone(), machine.clone());
        let fits = |observed: &Observed| {
            let bytes = self.observed.bytes_with(&key, observed);
            bytes <= self.observed.bytes() || bytes <= TOLD_BYTES_MAX
        };
        let is_bounded = failure.reason.len() <= REASON_BYTES_MAX
            && failure.journal.len() <= LINES_MAX
            && failure.journal.iter().all(|line| line.len() <= LINE_BYTES_MAX);
        if is_bounded && fits(observed) {
            return Cow::Borrowed(observed);
        }
        let cut = |text: &str, max| text[..text.floor_char_boundary(max)].to_string();
        let mut kept = observed.clone();
        let lines = failure.journal.iter().take(LINES_MAX);
        kept.failure = Some(Failure {
            reason: cut(&failure.reason, REASON_BYTES_MAX),
            journal: lines.map(|line| cut(line, LINE_BYTES_MAX)).collect(),
        });
        if !fits(&kept) {
            let reason = cut(&failure.reason, TERSE_BYTES);
            kept.failure = Some(Failure { reason, journal: Vec::new() });
        }
        Cow::Owned(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Command, DesiredState, Kind, MachineInfo, Outcome, Revision, UNIT_FILE_BYTES_MAX, UnitFile};

    fn apply(state: &mut ClusterState, command: Command) -> Outcome {
        let at = Revision(state.revision.0 + 1);
        state.apply_all(at, &[command]).remove(0)
    }

    fn name(number: usize) -> UnitName {
        UnitName::new(&format!("u{number}.service")).unwrap()
    }

    fn set(number: usize, bytes: usize) -> Command {
        let head = "[Service]\nExecStart=/bin/true\n#";
        let text = format!("{head}{}\n", "x".repeat(bytes - head.len() - 1));
        let file = Some(UnitFile::parse(&text).unwrap());
        Command::SetUnit { name: name(number), file, desired: Some(DesiredState::Inactive) }
    }

    #[test]
    fn unit_files_have_a_bound_together() {
        let mut state = ClusterState::default();
        let many = UNITS_BYTES_MAX / (UNIT_FILE_BYTES_MAX + UNIT_BYTES + 16);
        for number in 0..many {
            assert_eq!(apply(&mut state, set(number, UNIT_FILE_BYTES_MAX)), Ok(Kind::Created));
        }
        let Err(full) = apply(&mut state, set(many, UNIT_FILE_BYTES_MAX)) else { panic!("it is full") };
        assert_eq!(full, Rejected::UnitsFull { bytes: state.units.bytes(), max: UNITS_BYTES_MAX });
        assert!(!state.units.contains_key(&name(many)));
        let said = full.to_string();
        assert!(said.contains("at most 50331648") && said.contains("corectl destroy"), "{said}");
        // What changes nothing of that goes on, and what makes room.
        let desired = Some(DesiredState::Launched);
        let start = Command::SetUnit { name: name(0), file: None, desired };
        assert_eq!(apply(&mut state, start), Ok(Kind::Updated));
        assert_eq!(apply(&mut state, set(0, 1000)), Ok(Kind::Updated));
        assert_eq!(apply(&mut state, set(many, UNIT_FILE_BYTES_MAX - 2000)), Ok(Kind::Created));
        assert!(apply(&mut state, set(many + 1, UNIT_FILE_BYTES_MAX)).is_err());
        assert_eq!(apply(&mut state, Command::DestroyUnit { name: name(1) }), Ok(Kind::Removed));
        assert_eq!(apply(&mut state, set(many + 1, UNIT_FILE_BYTES_MAX)), Ok(Kind::Created));
    }

    #[test]
    fn reports_are_taken_in_fewer_words() {
        let machine = MachineId::new("m1").unwrap();
        let mut state = ClusterState::default();
        let info = MachineInfo::default();
        apply(&mut state, Command::RegisterMachine { id: machine.clone(), info }).unwrap();
        let observed = |reason: usize, lines: usize, line: usize| {
            let text = |length: usize| "\u{e4}".repeat(length / 2);
            let failure = Failure { reason: text(reason), journal: vec![text(line); lines] };
            let hash = UnitFile::parse("").unwrap().hash();
            Observed {
                load: "loaded".into(),
                active: "failed".into(),
                sub: "failed".into(),
                hash,
                generation: None,
                failure: Some(failure),
            }
        };
        let mut check = |number: usize, said: &Observed, expected: (usize, usize)| {
            let (machine, unit) = (machine.clone(), name(number));
            let kept = state.kept(&unit, &machine, said).into_owned();
            let report = |observed| Command::Report {
                machine: machine.clone(),
                unit: unit.clone(),
                observed: Some(observed),
            };
            apply(&mut state, report(said.clone())).unwrap();
            let there = state.observed[&(unit.clone(), machine.clone())].clone();
            assert_eq!((&*there, &*there.active), (&kept, "failed"));
            let failure = there.failure.clone().unwrap();
            assert_eq!((failure.reason.len(), failure.journal.len()), expected, "{number}");
            assert!(failure.journal.iter().all(|line| line.len() <= LINE_BYTES_MAX));
            // Said again, it is no news: else its machine would say it for ever.
            assert_eq!(apply(&mut state, report(said.clone())), Ok(Kind::Unchanged));
            assert_eq!(*state.kept(&unit, &machine, said), *there);
        };
        check(0, &observed(20, 10, 256), (20, 10));
        check(1, &observed(5000, 30, 1000), (1024, 10));
        let one = observed(1024, 10, 256);
        let fit = (TOLD_BYTES_MAX - (20 + 2570) - (1024 + 2570)) / (1024 + 2570);
        (2..2 + fit).for_each(|number| check(number, &one, (1024, 10)));
        (2 + fit..6 + fit).for_each(|number| check(number, &one, (128, 0)));
        // One that says less makes room for another.
        check(2, &observed(4, 0, 0), (4, 0));
        check(2 + fit, &one, (1024, 10));
    }
}
