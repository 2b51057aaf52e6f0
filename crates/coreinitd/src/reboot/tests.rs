//! What the leader does about machines that are to reboot, one look after another.

use cluster::{
    DesiredState, Generation, MachineInfo, Observed, RebootGroupName, Revision, UnitFile, schedule,
};

use super::*;

fn machine(id: &str) -> MachineId {
    MachineId::new(id).unwrap()
}

fn name(unit: &str) -> UnitName {
    UnitName::new(unit).unwrap()
}

fn apply(state: &mut ClusterState, command: Command) {
    let at = Revision(state.revision.0 + 1);
    let outcome = state.apply_all(at, std::slice::from_ref(&command)).remove(0);
    outcome.unwrap_or_else(|rejected| panic!("{command:?}: {rejected}"));
    for decision in schedule(state).decisions {
        let at = Revision(state.revision.0 + 1);
        state.apply_all(at, &[decision.into_command()]).remove(0).unwrap();
    }
}

fn tell(state: &mut ClusterState, unit: &str, id: &str, generation: Option<Generation>) {
    let hash = state.units[&name(unit)].file.hash();
    let observed = generation.map(|generation| Observed {
        load: "loaded".into(),
        active: "active".into(),
        sub: "running".into(),
        hash,
        generation: Some(generation),
        failure: None,
    });
    apply(state, Command::Report { machine: machine(id), unit: name(unit), observed });
}

/// Two machines; the units are on the first, which is to reboot.
fn rebooting(units: &[(&str, &str)]) -> ClusterState {
    let mut state = ClusterState::default();
    let register = |id| Command::RegisterMachine { id: machine(id), info: MachineInfo::default() };
    apply(&mut state, register("m1"));
    for (unit, more) in units {
        let file = UnitFile::parse(&format!("[Service]\nExecStart=/bin/sleep 9\n{more}")).unwrap();
        let desired = Some(DesiredState::Launched);
        apply(&mut state, Command::SetUnit { name: name(unit), file: Some(file), desired });
        let generation = state.units[&name(unit)].generation;
        tell(&mut state, unit, "m1", Some(generation));
    }
    apply(&mut state, register("m2"));
    let change = RebootChange::Take { machine: machine("m1"), at: 1 };
    apply(&mut state, Command::RebootLock { group: RebootGroupName::default(), change });
    state
}

fn moves(commands: &[Command]) -> Vec<&str> {
    commands.iter().map(|command| moved(command).expect("a move").as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn the_next_unit_waits_for_the_one_before() {
    let mut state = rebooting(&[("a.service", ""), ("b.service", ""), ("c.service", "")]);
    let mut under_way = UnderWay::new();
    let first = decide(&state, &mut under_way);
    assert_eq!(moves(&first), ["a.service"]);
    first.into_iter().for_each(|command| apply(&mut state, command));
    assert!(decide(&state, &mut under_way).is_empty(), "it stops");
    tell(&mut state, "a.service", "m1", None);
    assert_eq!(state.assignments[&name("a.service")].machine, machine("m2"));
    assert!(decide(&state, &mut under_way).is_empty(), "it has yet to start");
    let generation = state.units[&name("a.service")].generation;
    tell(&mut state, "a.service", "m2", Some(generation));
    let second = decide(&state, &mut under_way);
    assert_eq!(moves(&second), ["b.service"]);
    second.into_iter().for_each(|command| apply(&mut state, command));
    tell(&mut state, "b.service", "m1", None);
    assert!(decide(&state, &mut under_way).is_empty());
    // One that never comes up does not hold up the rest for ever.
    tokio::time::advance(SETTLE_MAX).await;
    let third = decide(&state, &mut under_way);
    assert_eq!(moves(&third), ["c.service"]);
    third.into_iter().for_each(|command| apply(&mut state, command));
    tell(&mut state, "c.service", "m1", None);
    assert!(decide(&state, &mut under_way).is_empty());
    assert_eq!(drain_step(&state, &machine("m1")), DrainStep::Done);
    assert!(state.reboots(&machine("m1")), "the slot stays until the machine gives it back");
}

#[tokio::test(start_paused = true)]
async fn who_cannot_be_emptied_gives_the_slot_back() {
    let mut state = rebooting(&[("a.service", ""), ("b.service", "[X-Fleet]\nMachineID=m1\n")]);
    let mut under_way = UnderWay::new();
    let first = decide(&state, &mut under_way);
    assert_eq!(moves(&first), ["a.service"]);
    first.into_iter().for_each(|command| apply(&mut state, command));
    tell(&mut state, "a.service", "m1", None);
    let generation = state.units[&name("a.service")].generation;
    tell(&mut state, "a.service", "m2", Some(generation));
    let release = decide(&state, &mut under_way);
    let change = RebootChange::Release { machine: machine("m1") };
    assert_eq!(release, [Command::RebootLock { group: RebootGroupName::default(), change }]);
    release.into_iter().for_each(|command| apply(&mut state, command));
    assert!(!state.reboots(&machine("m1")));
    assert!(decide(&state, &mut under_way).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_is_away_is_not_touched() {
    let mut state = rebooting(&[("a.service", "")]);
    apply(&mut state, Command::MarkLost { machine: machine("m1") });
    assert!(decide(&state, &mut UnderWay::new()).is_empty());
    assert!(state.reboots(&machine("m1")), "it is rebooting");
}
