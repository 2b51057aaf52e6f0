//! How commands wait, what they say meanwhile, and how they end.

use cluster::Command;
use cluster::DesiredState::{Inactive, Launched, Loaded};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::timeout;

use crate::play::{GOOD, Play, SOON, end, id, name};

#[tokio::test]
async fn start_tells_each_unit_as_it_gets_there() {
    let play = Play::begin().await;
    play.file("a.service", GOOD);
    play.file("b.service", GOOD);
    let start = play.spawn(&["start", "a.service", "b.service"]);
    play.until_desired("b.service", Launched).await;
    play.assign("a.service", "m1").await;
    play.assign("b.service", "m2").await;
    play.report("b.service", "m2", "activating", "start").await;
    play.report("b.service", "m2", "active", "running").await;
    play.report("a.service", "m1", "inactive", "dead").await;
    let said = end(start).await;
    assert_eq!((said.code, &*said.err), (0, ""));
    let mut lines: Vec<&str> = said.out.lines().collect();
    lines.sort();
    assert_eq!(
        lines,
        ["a.service: inactive (dead) on h1 (10.0.0.1)", "b.service: active (running) on h2 (10.0.0.2)"]
    );
}

#[tokio::test]
async fn a_failure_says_why_and_the_others_are_waited_for() {
    let play = Play::begin().await;
    play.file("a.service", GOOD);
    play.file("b.service", GOOD);
    let start = play.spawn(&["start", "a.service", "b.service"]);
    play.until_desired("b.service", Launched).await;
    play.assign("a.service", "m1").await;
    play.report_failure(
        "a.service",
        "m1",
        "failed",
        "failed",
        Some("start job failed: exit-code (status 3)"),
    )
    .await;
    play.assign("b.service", "m2").await;
    play.report("b.service", "m2", "active", "running").await;
    end(start).await.is(
        1,
        "b.service: active (running) on h2 (10.0.0.2)\n",
        "corectl: a.service: failed (failed) on h1 (10.0.0.1): start job failed: exit-code \
         (status 3)\n    last words\n",
    );
}

#[tokio::test]
async fn a_unit_that_no_machine_can_take_says_why() {
    let play = Play::begin().await;
    play.file("a.service", "[Service]\nExecStart=/bin/true\n[X-Fleet]\nMachineMetadata=disk=ssd\n");
    let said = play.run(&["start", "a.service"]).await;
    assert_eq!((said.code, &*said.out), (1, ""));
    assert!(said.err.contains("a.service: cannot be placed: no machine can run it: "), "{}", said.err);
    assert!(said.err.contains("disk=ssd") && said.err.contains("it stays wanted"), "{}", said.err);
    assert_eq!(play.desired("a.service"), Some(Launched));
    let listed = play.run(&["list-units"]).await;
    listed.is(
        0,
        "UNIT       LOAD  ACTIVE  SUB  DESC  MACHINE\na.service  -     -       -    -     -\n",
        "1 unit waits for a machine; `corectl status UNIT` says why\n",
    );
}

#[tokio::test]
async fn a_unit_that_is_placed_after_all_is_waited_for() {
    let play = Play::begin().await;
    play.file("a.service", "[Service]\nExecStart=/bin/true\n[X-Fleet]\nMachineMetadata=disk=ssd\n");
    let start = play.spawn(&["start", "a.service"]);
    play.until_desired("a.service", Launched).await;
    let set = [("disk".to_string(), Some("ssd".to_string()))].into();
    play.propose(Command::SetMachineMetadata { id: id("m2"), set }).await;
    play.assign("a.service", "m2").await;
    play.report("a.service", "m2", "active", "running").await;
    end(start).await.is(0, "a.service: active (running) on h2 (10.0.0.2)\n", "");
}

#[tokio::test]
async fn a_wait_has_an_end_when_one_is_wanted() {
    let play = Play::begin().await;
    play.file("a.service", GOOD);
    let start = play.spawn(&["start", "--timeout", "700ms", "a.service"]);
    play.until_desired("a.service", Launched).await;
    play.assign("a.service", "m1").await;
    play.report("a.service", "m1", "activating", "start").await;
    end(start).await.is(
        1,
        "",
        "corectl: a.service: activating (start) on h1 (10.0.0.1) (not in time; the wish stays)\n",
    );
}

#[tokio::test]
async fn a_daemon_that_restarts_is_waited_for() {
    let mut play = Play::begin().await;
    play.create("a.service", Inactive).await;
    play.create("b.service", Inactive).await;
    let mut start = play.child(&["start", "a.service", "b.service"]);
    play.until_desired("a.service", Launched).await;
    play.stop_serving().await;
    let mut errors = BufReader::new(start.stderr.take().unwrap()).lines();
    let lost = timeout(SOON, errors.next_line()).await.unwrap().unwrap().unwrap();
    assert!(lost.ends_with("; the wait goes on when coreinitd is back"), "{lost}");
    play.assign("a.service", "m1").await;
    play.report("a.service", "m1", "active", "running").await;
    play.serve().await;
    play.assign("b.service", "m1").await;
    play.report("b.service", "m1", "active", "running").await;
    let said = end(tokio::spawn(async move { start.wait_with_output().await.unwrap() })).await;
    assert_eq!((said.code, said.out.lines().count()), (0, 2), "{}", said.out);
    let back = timeout(SOON, errors.next_line()).await.unwrap().unwrap();
    assert_eq!(back.as_deref(), Some("corectl: coreinitd is back"));
    assert_eq!(errors.next_line().await.unwrap(), None);
}

#[tokio::test]
async fn stop_and_unload_wait_for_the_machine() {
    let play = Play::begin().await;
    play.running("a.service").await;
    let stop = play.spawn(&["stop", "a"]);
    play.until_desired("a.service", Loaded).await;
    play.report("a.service", "m1", "inactive", "dead").await;
    end(stop).await.is(0, "a.service: inactive (dead) on h1 (10.0.0.1)\n", "");

    // Something has started it, which is not what was wished for: a new wish is made, and the machine acts.
    for (sub, code, told) in
        [("dead", 0, "inactive (dead) on h1"), ("running", 1, "still active (running) on h1")]
    {
        play.report("a.service", "m1", "active", "running").await;
        let before = play.generation("a.service");
        let stop = play.spawn(&["stop", "a"]);
        let unit = name("a.service");
        play.until("another wish", |state| state.units[&unit].generation.0 > before).await;
        assert_eq!(play.desired("a.service"), Some(Loaded));
        // Unless it is started again at once.
        let active = if sub == "dead" { "inactive" } else { "active" };
        play.report("a.service", "m1", active, sub).await;
        let said = end(stop).await;
        assert!(said.code == code && [said.out, said.err].concat().contains(told));
    }

    let unload = play.spawn(&["unload", "a"]);
    play.until_desired("a.service", Inactive).await;
    play.propose(Command::Unassign { unit: name("a.service"), machine: id("m1") }).await;
    play.report_gone("a.service", "m1").await;
    end(unload).await.is(0, "a.service: inactive\n", "");
}

#[tokio::test]
async fn destroy_waits_for_living_machines_only() {
    let play = Play::begin().await;
    for unit in ["a.service", "b.service"] {
        play.running(unit).await;
    }
    let destroy = play.spawn(&["destroy", "a.service"]);
    play.until("a.service to go", |state| !state.units.contains_key(&name("a.service"))).await;
    play.report_gone("a.service", "m1").await;
    end(destroy).await.is(0, "a.service: gone\n", "");

    play.propose(Command::MarkLost { machine: id("m1") }).await;
    let said = play.run(&["destroy", "b.service"]).await;
    said.is(0, "b.service: gone; h1 (10.0.0.1) is lost, and follows when it returns\n", "");
}

#[tokio::test]
async fn somebody_else_may_change_his_mind() {
    let play = Play::begin().await;
    play.create("a.service", Inactive).await;
    let start = play.spawn(&["start", "a"]);
    play.until_desired("a.service", Launched).await;
    let set = Command::SetUnit { name: name("a.service"), file: None, desired: Some(Inactive) };
    play.propose(set).await;
    end(start).await.is(1, "", "corectl: a.service: somebody else wants it inactive by now\n");
}

#[tokio::test]
async fn restart_stops_first_and_then_starts() {
    let play = Play::begin().await;
    play.running("a.service").await;
    play.running("b.service").await;
    let restart = play.spawn(&["restart", "a", "b"]);
    play.until_desired("a.service", Loaded).await;
    assert_eq!(play.desired("b.service"), Some(Launched), "one after another");
    play.report("a.service", "m1", "inactive", "dead").await;
    play.until_desired("a.service", Launched).await;
    play.report("a.service", "m1", "failed", "failed").await;
    end(restart).await.is(
        1,
        "",
        "corectl: a.service: failed (failed) on h1 (10.0.0.1)\n\
         corectl: not restarted, since a.service was not: b.service\n",
    );
    play.run(&["restart", "a", "x"]).await.is(
        1,
        "",
        "corectl: unit x.service is not in the cluster\ncorectl: nothing was restarted\n",
    );
}

/// Whatever ends the wait for the stop, the unit is not left stopped.
#[tokio::test]
async fn a_restart_that_does_not_see_the_stop_wants_the_unit_launched() {
    let play = Play::begin().await;
    play.running("a.service").await;
    let again = "corectl: a.service: starts again as soon as it has stopped\n";
    let stopping = "corectl: a.service: deactivating (stop-sigterm) on h1 (10.0.0.1) (not stopped in time)\n";
    let restart = play.spawn(&["restart", "--timeout", "700ms", "a"]);
    play.until_desired("a.service", Loaded).await;
    play.report("a.service", "m1", "deactivating", "stop-sigterm").await;
    end(restart).await.is(1, "", &format!("{stopping}{again}"));
    assert_eq!(play.desired("a.service"), Some(Launched));

    for (signal, code) in [("-INT", 130), ("-TERM", 143), ("-HUP", 129)] {
        let restart = play.child(&["restart", "a"]);
        let process = restart.id().unwrap().to_string();
        play.until_desired("a.service", Loaded).await;
        assert!(std::process::Command::new("kill").args([signal, &process]).status().unwrap().success());
        let said = end(tokio::spawn(async move { restart.wait_with_output().await.unwrap() })).await;
        said.is(code, "", again);
        assert_eq!(play.desired("a.service"), Some(Launched));
    }

    // Unless somebody else has said what he wants.
    let restart = play.spawn(&["restart", "a"]);
    play.until_desired("a.service", Loaded).await;
    play.propose(Command::SetUnit { name: name("a.service"), file: None, desired: Some(Inactive) }).await;
    end(restart).await.is(1, "", "corectl: a.service: somebody else wants it inactive by now\n");
    assert_eq!(play.desired("a.service"), Some(Inactive));
}

#[tokio::test]
async fn a_global_unit_is_waited_for_on_every_machine_that_takes_it() {
    let play = Play::begin().await;
    let text = format!("{GOOD}[X-Fleet]\nGlobal=true\n");
    let file = Some(cluster::UnitFile::parse(&text).unwrap());
    play.propose(Command::SetUnit { name: name("g.service"), file, desired: Some(Inactive) }).await;
    let start = play.spawn(&["start", "g"]);
    play.until_desired("g.service", Launched).await;
    play.report("g.service", "m1", "active", "running").await;
    play.report("g.service", "m2", "activating", "start").await;
    play.report("g.service", "m2", "active", "running").await;
    let both = "active (running) on h1 (10.0.0.1), active (running) on h2 (10.0.0.2)";
    end(start).await.is(0, &format!("g.service: {both}\n"), "");

    let restart = play.spawn(&["stop", "g"]);
    play.until_desired("g.service", Loaded).await;
    play.report("g.service", "m1", "inactive", "dead").await;
    play.report_failure("g.service", "m2", "active", "running", Some("it will not stop")).await;
    end(restart).await.is(
        1,
        "",
        "corectl: g.service: active (running) on h2 (10.0.0.2): it will not stop\n    last words\n",
    );
    let status = play.run(&["status", "--brief", "g"]).await;
    assert!(status.out.contains("    Machine: every machine that suits it\n"), "{}", status.out);
    assert!(status.out.contains("         On: h1 (10.0.0.1): inactive (dead)\n"), "{}", status.out);
}
