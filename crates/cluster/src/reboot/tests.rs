//! The reboot lock, on states of a few machines.

use super::*;
use crate::{DesiredState, MachineInfo, Observed, Revision, UnitFile, schedule};

fn machine(id: &str) -> MachineId {
    MachineId::new(id).unwrap()
}

fn name(unit: &str) -> UnitName {
    UnitName::new(unit).unwrap()
}

fn cluster(machines: &[&str]) -> ClusterState {
    let mut state = ClusterState::default();
    for id in machines {
        let register = Command::RegisterMachine { id: machine(id), info: MachineInfo::default() };
        apply(&mut state, register).unwrap();
    }
    state
}

fn apply(state: &mut ClusterState, command: Command) -> Result<Kind, String> {
    let at = Revision(state.revision.0 + 1);
    state.apply_all(at, &[command]).remove(0).map_err(|rejected| rejected.to_string())
}

fn lock(state: &mut ClusterState, group: &str, change: RebootChange) -> Result<Kind, String> {
    apply(state, Command::RebootLock { group: RebootGroupName::new(group).unwrap(), change })
}

fn take(id: &str) -> RebootChange {
    RebootChange::Take { machine: machine(id), at: 7 }
}

fn release(id: &str) -> RebootChange {
    RebootChange::Release { machine: machine(id) }
}

/// Does all that the leader decides, until it decides nothing more.
fn settle(state: &mut ClusterState) {
    for _ in 0..10 {
        let decided = schedule(state).decisions;
        if decided.is_empty() {
            return;
        }
        for decision in decided {
            apply(state, decision.into_command()).unwrap();
        }
    }
    panic!("the schedule does not come to rest");
}

fn launch(state: &mut ClusterState, unit: &str, more: &str) {
    let file = UnitFile::parse(&format!("[Service]\nExecStart=/bin/sleep 9\n{more}")).unwrap();
    let desired = Some(DesiredState::Launched);
    apply(state, Command::SetUnit { name: name(unit), file: Some(file), desired }).unwrap();
    settle(state);
}

/// The machine tells that the unit is as wished there, or gone.
fn tell(state: &mut ClusterState, unit: &str, id: &str, is_up: bool) {
    let known = state.units[&name(unit)].clone();
    let observed = is_up.then(|| Observed {
        load: "loaded".into(),
        active: "active".into(),
        sub: "running".into(),
        hash: known.file.hash(),
        generation: Some(known.generation),
        failure: None,
    });
    apply(state, Command::Report { machine: machine(id), unit: name(unit), observed }).unwrap();
    settle(state);
}

fn home(state: &ClusterState, unit: &str) -> String {
    state.assignments.get(&name(unit)).map_or("-".into(), |home| home.machine.to_string())
}

#[test]
fn slots_are_taken_and_given_back() {
    let mut state = cluster(&["m1", "m2", "m3"]);
    let state = &mut state;
    assert_eq!(lock(state, "default", take("m1")), Ok(Kind::Created));
    assert_eq!(lock(state, "default", take("m1")), Ok(Kind::Unchanged), "it has one");
    let said = lock(state, "default", take("m2")).unwrap_err();
    assert!(said.contains("m1") && said.contains("1 slot"), "{said}");
    assert_eq!(lock(state, "other", take("m2")), Ok(Kind::Created), "another group");
    assert_eq!(lock(state, "default", release("m3")), Ok(Kind::Unchanged));
    assert_eq!(lock(state, "default", RebootChange::SetSlots(2)), Ok(Kind::Updated));
    assert_eq!(lock(state, "default", take("m3")), Ok(Kind::Updated));
    assert_eq!(lock(state, "default", RebootChange::SetSlots(0)), Ok(Kind::Updated));
    assert!(state.reboots(&machine("m1")), "whoever has one keeps it");
    assert_eq!(lock(state, "default", release("m1")), Ok(Kind::Updated));
    assert!(lock(state, "default", take("m1")).is_err(), "no slots, no reboots");
    assert_eq!(lock(state, "other", release("m2")), Ok(Kind::Removed));
    assert!(lock(state, "default", take("m9")).unwrap_err().contains("not known"));
    assert_eq!(state.reboot_groups.len(), 1, "an empty group like any other is not kept");
}

#[test]
fn a_machine_that_was_removed_holds_no_slot() {
    let mut state = cluster(&["m1", "m2"]);
    lock(&mut state, "default", take("m1")).unwrap();
    apply(&mut state, Command::RemoveMachine { id: machine("m1") }).unwrap();
    assert_eq!(lock(&mut state, "default", take("m2")), Ok(Kind::Updated));
    assert!(!state.reboots(&machine("m1")));
}

#[test]
fn groups_are_few_and_have_names() {
    let mut state = cluster(&["m1"]);
    for group in 0..GROUPS_MAX {
        lock(&mut state, &format!("g{group}"), RebootChange::SetSlots(2)).unwrap();
    }
    assert!(lock(&mut state, "one-more", take("m1")).unwrap_err().contains("100 reboot groups"));
    assert_eq!(lock(&mut state, "g7", take("m1")), Ok(Kind::Updated));
    for wrong in ["", "a b", "a/b", "ä", &"a".repeat(65)] {
        assert!(RebootGroupName::new(wrong).is_err(), "{wrong:?}");
    }
}

/// Units leave one after another, none comes back, and it ends with the slot.
#[test]
fn a_holder_is_emptied_and_gets_nothing_new() {
    let mut state = cluster(&["m1", "m2"]);
    let state = &mut state;
    for unit in ["a.service", "b.service", "c.service", "d.service"] {
        launch(state, unit, "");
    }
    launch(state, "everywhere.service", "[X-Coreinit]\nGlobal=true\n");
    lock(state, "default", take("m1")).unwrap();
    settle(state);
    let mine: Vec<&str> = ["a.service", "b.service", "c.service", "d.service"]
        .into_iter()
        .filter(|unit| home(state, unit) == "m1")
        .collect();
    assert_eq!(mine.len(), 2, "a slot alone moves nothing");
    let waits = |units: &[&str]| DrainStep::Wait(units.iter().map(|unit| name(unit)).collect());
    assert_eq!(drain_step(state, &machine("m1")), waits(&mine), "the machine has not told of them");
    mine.iter().for_each(|unit| tell(state, unit, "m1", true));
    for (left, unit) in [(2, mine[0]), (1, mine[1])] {
        let DrainStep::Move(commands) = drain_step(state, &machine("m1")) else { panic!("{left} are left") };
        assert_eq!(commands.len(), 1);
        commands.into_iter().map(|command| apply(state, command)).for_each(|done| assert!(done.is_ok()));
        settle(state);
        assert_eq!(drain_step(state, &machine("m1")), waits(&[unit]), "it has not stopped yet");
        tell(state, unit, "m1", false);
        assert_eq!(home(state, unit), "m2");
    }
    assert_eq!(drain_step(state, &machine("m1")), DrainStep::Done);
    launch(state, "e.service", "");
    assert_eq!(home(state, "e.service"), "m2");
    let generation = state.units[&name("e.service")].generation;
    let (unit, reason) = (name("e.service"), String::new());
    let assign = Command::Assign { unit, machine: machine("m1"), generation, reason };
    assert!(apply(state, assign).unwrap_err().contains("is about to reboot"), "an older decision");
    lock(state, "default", release("m1")).unwrap();
    launch(state, "f.service", "");
    assert_eq!(home(state, "f.service"), "m1");
}

#[test]
fn a_unit_that_nobody_else_takes_is_said() {
    let mut state = cluster(&["m1", "m2"]);
    let state = &mut state;
    launch(state, "pinned.service", "[X-Fleet]\nMachineID=m1\n");
    launch(state, "free.service", "");
    tell(state, "pinned.service", "m1", true);
    let obstacle = drain_obstacle(state, &machine("m1")).expect("it is pinned");
    assert!(obstacle.contains("pinned.service"), "{obstacle}");
    assert_eq!(drain_obstacle(state, &machine("m2")), None);
    lock(state, "default", take("m1")).unwrap();
    let DrainStep::Stuck(why) = drain_step(state, &machine("m1")) else { panic!("nobody takes it") };
    assert!(why.contains("pinned.service"), "{why}");
}
