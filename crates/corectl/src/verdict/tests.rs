//! Tables of cases for verdicts.

use super::*;
use api::v1::Failure;
use cluster::{Generation, UnitName};

fn unit(desired_state: State, alter: impl FnOnce(&mut Unit)) -> Known {
    let mut unit = Unit {
        name: UnitName::new("a.service").unwrap(),
        desired_state,
        current_state: State::Inactive,
        generation: Generation(7),
        hash: String::new(),
        global: false,
        description: String::new(),
        machine: MachineId::new("m1").ok(),
        reason: None,
        unplaced: None,
        states: vec![state("active", "running", 7)],
        text: None,
    };
    alter(&mut unit);
    Known::Unit(Box::new(unit))
}

fn state(active: &str, sub: &str, generation: u64) -> UnitState {
    UnitState {
        machine: MachineId::new("m1").unwrap(),
        load: "loaded".into(),
        active: active.into(),
        sub: sub.into(),
        hash: String::new(),
        generation: Some(Generation(generation)),
        failure: None,
        stale: false,
    }
}

fn with_failure(active: &str, sub: &str, reason: &str) -> UnitState {
    let failure = Failure { reason: reason.into(), journal: vec!["last words".into()] };
    UnitState { failure: Some(failure), ..state(active, sub, 7) }
}

fn stale() -> UnitState {
    UnitState { stale: true, ..state("active", "running", 7) }
}

/// `expected`: `+` reached, `.` pending, `?` unplaced, `!` failed, then the text.
fn check(goal: Goal, known: Known, expected: &str) {
    let said = match judge(goal, &known, &|id| format!("<{id}>")) {
        Verdict::Pending(text) => format!(".{text}"),
        Verdict::Unplaced(text) => format!("?{text}"),
        Verdict::Reached(text) => format!("+{text}"),
        Verdict::Settling(text) => format!("settling: {text}"),
        Verdict::Failed { why, journal } => [vec![format!("!{why}")], journal].concat().join(" | "),
    };
    assert_eq!(said, expected, "{goal:?} of {known:?}");
}

#[test]
fn launched() {
    let check = |alter: &dyn Fn(&mut Unit), expected: &str| {
        check(Goal::Launched, unit(State::Launched, alter), expected);
    };
    let is = |active: &str, sub: &str, generation: u64, expected: &str| {
        check(&|u| u.states = vec![state(active, sub, generation)], expected);
    };
    is("active", "running", 7, "+active (running) on <m1>");
    is("active", "exited", 7, "+active (exited) on <m1>");
    is("reloading", "reload", 7, "+reloading (reload) on <m1>");
    is("active", "running", 6, ".active (running) on <m1>");
    is("failed", "failed", 6, ".failed (failed) on <m1>");
    is("activating", "start", 7, ".activating (start) on <m1>");
    is("activating", "auto-restart", 7, ".activating (auto-restart) on <m1>");
    // It has failed, and systemd waits before it tries again: for how often, nobody knows.
    check(
        &|u| u.states = vec![with_failure("activating", "auto-restart", "exit-code (status 1)")],
        "!activating (auto-restart) on <m1>: exit-code (status 1) | last words",
    );
    is("deactivating", "stop", 7, ".deactivating (stop) on <m1>");
    is("inactive", "dead", 7, "+inactive (dead) on <m1>");
    is("failed", "failed", 7, "!failed (failed) on <m1>");
    check(&|u| u.states[0].generation = None, ".active (running) on <m1>");
    check(
        &|u| u.states = vec![with_failure("failed", "failed", "start job failed: exit-code (status 3)")],
        "!failed (failed) on <m1>: start job failed: exit-code (status 3) | last words",
    );
    // A start that its dependency prevented leaves the unit inactive.
    check(
        &|u| u.states = vec![with_failure("inactive", "dead", "start job failed: dependency")],
        "!inactive (dead) on <m1>: start job failed: dependency | last words",
    );
    check(&|u| u.states.clear(), ".on its way to <m1>");
    check(&|u| u.states = vec![stale()], ".on <m1>, which is lost");
    check(&|u| (u.machine, u.states) = (None, vec![]), ".not placed yet");
    let why = || Some("no machine is ready".to_string());
    check(
        &|u| (u.machine, u.states, u.unplaced) = (None, vec![], why()),
        "?cannot be placed: no machine is ready",
    );
    check(&|u| (u.states, u.unplaced) = (vec![stale()], why()), "?cannot be placed: no machine is ready");
    // Another machine's word counts nothing.
    check(&|u| u.machine = MachineId::new("m2").ok(), ".on its way to <m2>");
}

#[test]
fn loaded() {
    let is = |state: UnitState, expected: &str| {
        check(Goal::Loaded, unit(State::Loaded, |u| u.states = vec![state]), expected);
    };
    is(state("inactive", "dead", 7), "+loaded on <m1>");
    // Its socket may have started it already.
    is(state("active", "running", 7), "+loaded on <m1>");
    is(state("inactive", "dead", 6), ".inactive (dead) on <m1>");
    let broken = UnitState { load: "bad-setting".into(), ..state("inactive", "dead", 7) };
    is(broken, "!inactive (dead) on <m1>: its file is bad-setting");
    is(with_failure("failed", "failed", "cannot link"), "!failed (failed) on <m1>: cannot link | last words");
}

#[test]
fn stopped() {
    let check = |alter: &dyn Fn(&mut Unit), expected: &str| {
        check(Goal::Stopped, unit(State::Loaded, alter), expected);
    };
    let is = |state: UnitState, expected: &str| check(&|u| u.states = vec![state.clone()], expected);
    is(state("active", "running", 6), ".active (running) on <m1>");
    is(state("deactivating", "stop-sigterm", 7), ".deactivating (stop-sigterm) on <m1>");
    is(state("inactive", "dead", 7), "+inactive (dead) on <m1>");
    is(state("failed", "failed", 7), "+failed (failed) on <m1>");
    is(
        state("active", "running", 7),
        "!still active (running) on <m1>: its socket, its timer or somebody there started it; \
         unload it instead",
    );
    is(
        with_failure("active", "running", "stop job failed"),
        "!active (running) on <m1>: stop job failed | last words",
    );
    check(&|u| (u.machine, u.states) = (None, vec![]), "+inactive, on no machine");
    check(&|u| (u.machine, u.states) = (None, vec![state("active", "running", 6)]), ".still on <m1>");
}

#[test]
fn unloaded_and_gone() {
    let inactive = |states: Vec<UnitState>| unit(State::Inactive, |u| (u.machine, u.states) = (None, states));
    check(Goal::Unloaded, inactive(vec![state("active", "running", 7)]), ".still on <m1>");
    check(Goal::Unloaded, inactive(vec![]), "+inactive");
    check(Goal::Unloaded, inactive(vec![stale()]), "+inactive; <m1> is lost, and follows when it returns");
    check(Goal::Gone, Known::Gone(vec![state("active", "running", 7)]), ".still on <m1>");
    let stuck = with_failure("active", "running", "stop job failed: timeout");
    check(Goal::Gone, Known::Gone(vec![stuck]), ".still on <m1> (stop job failed: timeout)");
    check(Goal::Gone, Known::Gone(vec![stale()]), "+gone; <m1> is lost, and follows when it returns");
    check(Goal::Gone, Known::Gone(vec![]), "+gone");
}

#[test]
fn others_have_a_say_too() {
    check(Goal::Launched, unit(State::Loaded, |_| ()), "!somebody else wants it loaded by now");
    check(Goal::Stopped, unit(State::Launched, |_| ()), "!somebody else wants it launched by now");
    check(Goal::Launched, Known::Gone(vec![]), "!it was destroyed meanwhile");
    check(Goal::Gone, unit(State::Inactive, |_| ()), "!somebody has created it again");
}
