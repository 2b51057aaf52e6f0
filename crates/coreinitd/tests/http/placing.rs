//! Units that are asked to leave their machine, and machines that take no more, request by request.

use cluster::{Command, DesiredState};
use serde_json::Value;

use crate::bench::{Bench, assign, machine, name, register, report, set};

/// Two machines, and `a.service` placed on the first, which has told nothing of it yet.
async fn placed() -> Bench {
    let bench = Bench::new();
    for (id, address) in [("m1", "10.0.0.1"), ("m2", "10.0.0.2")] {
        bench.propose(register(id, address, &[])).await;
    }
    bench.propose(set("a.service", "/bin/a", DesiredState::Launched)).await;
    bench.propose(assign(&bench.state(), "a.service", "m1")).await;
    bench
}

async fn tell(bench: &Bench) {
    let generation = bench.state().units[&name("a.service")].generation;
    bench.propose(report(&bench.state(), "a.service", "m1", "active", Some(generation))).await;
}

/// Status, and the names of the units that move or the message.
async fn move_unit(bench: &Bench, body: &str) -> (u16, String) {
    let (status, body) = bench.ask("POST", "/v1/units/a.service/move", body).await;
    let body: Value = serde_json::from_str(&body).unwrap();
    let text = if body["units"].is_array() {
        body["units"].to_string()
    } else {
        body["error"]["message"].to_string()
    };
    (status.as_u16(), text)
}

#[tokio::test(start_paused = true)]
async fn a_move_waits_until_the_machine_has_told_of_the_unit() {
    let bench = placed().await;
    let told = async {
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        assert!(bench.state().assignments[&name("a.service")].leaving.is_none());
        tell(&bench).await;
    };
    let (moved, ()) = tokio::join!(move_unit(&bench, ""), told);
    assert_eq!(moved, (200, r#"["a.service"]"#.into()));
    assert!(bench.state().assignments[&name("a.service")].leaving.is_some());
    let before = bench.state().revision;
    assert_eq!(move_unit(&bench, "").await, (200, "[]".into()), "it is moving already");
    assert_eq!(bench.state().revision, before);
}

#[tokio::test(start_paused = true)]
async fn a_move_does_not_wait_for_ever() {
    let bench = placed().await;
    let (status, message) = move_unit(&bench, "").await;
    assert_eq!(status, 409);
    assert!(message.contains("has not told yet that it has started a.service"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_left_while_its_move_waited_is_not_moved_again() {
    let bench = placed().await;
    let lost = async {
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        bench.propose(Command::MarkLost { machine: machine("m1") }).await;
        bench.propose(Command::Unassign { unit: name("a.service"), machine: machine("m1") }).await;
        bench.propose(assign(&bench.state(), "a.service", "m2")).await;
    };
    let ((status, message), ()) = tokio::join!(move_unit(&bench, ""), lost);
    assert_eq!(status, 409);
    assert!(message.contains("has left its machine meanwhile"), "{message}");
    assert!(bench.state().assignments[&name("a.service")].leaving.is_none());
}

#[tokio::test]
async fn what_cannot_be_moved_is_said_at_once() {
    let bench = placed().await;
    tell(&bench).await;
    let check = async |body: &str, part: &str| {
        let (status, message) = move_unit(&bench, body).await;
        assert_eq!(status, 409);
        assert!(message.contains(part), "{message}");
    };
    check(r#"{"machine": "m1"}"#, "it is there already").await;
    check(r#"{"machine": "m9"}"#, "no machine is called").await;
    let (status, _) = bench.ask("POST", "/v1/machines/host-m2/cordon", "").await;
    assert_eq!(status, 200);
    assert!(!bench.state().machines[&machine("m2")].schedulable);
    check("", "the machine is cordoned").await;
    check(r#"{"machine": "m2"}"#, "the machine is cordoned").await;
    let (status, explained) = bench.ask("GET", "/v1/units/a.service/explain", "").await;
    assert_eq!(status, 200);
    assert!(explained.contains("the machine is cordoned"), "{explained}");
    let (status, _) = bench.ask("POST", "/v1/units/b.service/move", "").await;
    assert_eq!(status, 404);
    let (status, _) = bench.ask("POST", "/v1/machines/m2/uncordon", "").await;
    assert_eq!(status, 200);
    assert_eq!(move_unit(&bench, "").await.0, 200);
}
