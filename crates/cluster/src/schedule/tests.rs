//! Tables of cases for schedule.

use super::*;
use crate::{MachineInfo, Observed, Revision, UnitFile, UnitHash};

/// A state in a few words: machines, then units with what they ask (`;` between lines), then what else has
/// happened.
struct Told(ClusterState);

impl Told {
    fn machines(ids: &[&str]) -> Told {
        let mut told = Told(ClusterState::default());
        for id in ids {
            let (id, metadata) = id.split_once(' ').unwrap_or((id, ""));
            let pairs = metadata.split_whitespace().filter_map(|pair| pair.split_once('='));
            let metadata = pairs.map(|(key, value)| (key.into(), value.into())).collect();
            told.tell(Command::RegisterMachine {
                id: machine(id),
                info: MachineInfo { metadata, ..MachineInfo::default() },
            });
        }
        told
    }

    fn tell(&mut self, command: Command) {
        let outcome = self.0.apply_all(Revision(self.0.revision.0 + 1), std::slice::from_ref(&command));
        assert!(outcome[0].is_ok(), "{command:?}: {outcome:?}");
    }

    fn unit(mut self, unit: &str, asks: &str, home: &str) -> Told {
        let section = if unit.ends_with(".socket") { "[Socket]" } else { "[X-Fleet]" };
        let file =
            UnitFile::parse(&format!("{section}\n{}\n", asks.replace(';', "\n"))).expect("a unit file");
        self.tell(Command::SetUnit {
            name: name(unit),
            file: Some(file),
            desired: Some(DesiredState::Launched),
        });
        if !home.is_empty() {
            let (unit, machine, generation) = (name(unit), machine(home), Generation(self.0.revision.0));
            self.tell(Command::Assign { unit, machine, generation, reason: String::new() });
        }
        self
    }

    fn lost(mut self, id: &str) -> Told {
        self.tell(Command::MarkLost { machine: machine(id) });
        self
    }

    fn runs(mut self, unit: &str, id: &str) -> Told {
        let (load, active, sub) = ("loaded".into(), "active".into(), "running".into());
        let observed =
            Observed { load, active, sub, hash: UnitHash([0; 20]), generation: None, failure: None };
        self.tell(Command::Report { machine: machine(id), unit: name(unit), observed: Some(observed) });
        self
    }

    fn check(self, expected: &str) {
        let Schedule { decisions, unplaced } = schedule(&self.0);
        let word = |decision: &Decision| match decision {
            Decision::Assign { unit, machine, .. } => format!("{}>{machine}", unit.stem()),
            Decision::Unassign { unit, machine, .. } => format!("{}<{machine}", unit.stem()),
            Decision::Forget { unit, machine } => format!("{}?{machine}", unit.stem()),
        };
        let waits = unplaced.iter().map(|(unit, unplaced)| format!("{}: {}", unit.stem(), unplaced.why));
        let words: Vec<String> = decisions.iter().map(word).chain(waits).collect();
        assert_eq!(words.join(" | "), expected);
    }
}

fn name(text: &str) -> UnitName {
    UnitName::new(text).expect("a unit name")
}

fn machine(text: &str) -> MachineId {
    MachineId::new(text).expect("a machine id")
}

/// Fleet's placement predicate, one row each.
#[test]
fn a_machine_is_able_to_run_a_unit_or_not() {
    let check = |machine: &str, runs: &[&str], asks: &str, expected: &str| {
        let told = Told::machines(&[machine]);
        let told =
            runs.iter().fold(told, |told, unit| told.unit(unit, "", machine.split(' ').next().unwrap_or("")));
        told.unit("x.service", asks, "").check(expected);
    };
    let why = |reason: &str, id: &str| format!("x: no machine can run it: {reason} (on {id})");
    check("m", &[], "", "x>m");
    check("XYZ", &[], "MachineID=XYZ", "x>XYZ");
    check("0123456789", &[], "MachineID=01234567", "x>0123456789");
    check(
        "0123456789",
        &[],
        "MachineID=0123456",
        &why("agent ID \"0123456789\" does not match required \"0123456\"", "01234567"),
    );
    check("m region=us", &[], "MachineMetadata=region=us", "x>m");
    check("m region=us", &[], "MachineMetadata=region=eu;MachineMetadata=region=us", "x>m");
    check(
        "m region=us",
        &[],
        "MachineMetadata=region=eu",
        &why("local Machine metadata insufficient: needs region=eu", "m"),
    );
    check(
        "m a=1",
        &[],
        "MachineMetadata=\"a=1\" \"b=1\" \"b=2\"",
        &why("local Machine metadata insufficient: needs b=1 or b=2", "m"),
    );
    check("m", &["a.service", "b.service"], "MachineOf=a.service;MachineOf=b.service", "x>m");
    check(
        "m",
        &[],
        "MachineOf=a.service",
        "x: required peer Unit(a.service) is not scheduled: it does not exist",
    );
    check("m", &["a.service"], "Conflicts=b.service", "x>m");
    let conflict = why("found conflict with locally-scheduled Unit(a.service)", "m");
    check("m", &["a.service"], "Conflicts=b.service a.*", &conflict);
    check("m", &["a.service"], "Conflicts=b*;Conflicts=[a-c].service", &conflict);
    Told::machines(&["m"]).unit("a.service", "Conflicts=x*", "m").unit("x.service", "", "").check(&conflict);
    check("m", &[], "Conflicts=*", "x>m");
}

#[test]
fn moves_only_what_has_to_move() {
    let two = || Told::machines(&["m1", "m2"]);
    two().unit("a.service", "", "m1").unit("b.service", "", "m1").unit("c.service", "", "m1").check("");
    two().unit("a.service", "", "m1").runs("a.service", "m1").lost("m1").check("a>m2 | a?m1");
    two().unit("a.service", "", "m1").lost("m1").lost("m2").check("a: no machine is ready: all 2 are lost");
    // It runs where it is not wanted to be: the new home waits; back to where it runs, it does not.
    two()
        .unit("a.service", "MachineID=m2", "m1")
        .runs("a.service", "m1")
        .check("a<m1 | a: still stopping on m1");
    two().unit("a.service", "MachineID=m2", "").runs("a.service", "m1").check("a: still stopping on m1");
    two().unit("a.service", "", "").runs("a.service", "m2").check("a>m2");
    two().unit("a.service", "MachineID=m2", "").runs("a.service", "m1").lost("m1").check("a>m2 | a?m1");
    // The follower goes to its peer, not the peer to the follower.
    two().unit("a.service", "MachineOf=b.service", "m1").unit("b.service", "", "m2").check("a>m2");
    two()
        .unit("a.service", "MachineOf=b.service;MachineMetadata=x=y", "")
        .unit("b.service", "", "m2")
        .check("a: no machine can run it: local Machine metadata insufficient: needs x=y (on m1, m2)");
    // A peer that cannot be had does not hold up those who do not need it.
    two()
        .unit("a.service", "MachineOf=b.service;MachineOf=c.service", "")
        .unit("b.service", "", "")
        .check("b>m1 | a: required peer Unit(c.service) is not scheduled: it does not exist");
    two()
        .unit("a.service", "MachineID=m1", "")
        .unit("b.service", "MachineOf=c.service", "")
        .unit("c.service", "MachineID=m2", "")
        .check("a>m1 | b>m2 | c>m2");
    // The one that was changed last has to go.
    two().unit("a.service", "", "m1").unit("b.service", "Conflicts=a*", "m1").check("b>m2");
    two().unit("b.service", "", "m1").unit("a.service", "Conflicts=b*", "m1").check("a>m2");
    // A socket stays where it is when its service can be nowhere.
    two()
        .unit("s.socket", "Service=t.service", "m2")
        .runs("s.socket", "m2")
        .unit("t.service", "MachineMetadata=x=y", "")
        .check("t: no machine can run it: local Machine metadata insufficient: needs x=y (on m1, m2)");
    two().unit("s.socket", "Service=t.service", "m2").unit("t.service", "", "m1").check("s>m1");
}
