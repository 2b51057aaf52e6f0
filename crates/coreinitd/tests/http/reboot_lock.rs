//! The reboot lock, request by request: FleetLock's two, and those of administrators. The leader's own rooms
//! run beside the API.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use cluster::{Command, DesiredState};
use coreinitd::{leader, reboot};
use serde_json::Value;
use store::Store;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::bench::{Bench, machine, name, register, report, set, text};

/// Of machine `dd09f0b6c3b54ce1a7b1a3e3c2a2f5d1`, as Zincati derives it.
const ZINCATI_ID: &str = "8baa32aa5d3240dbae29f0a8ba1246c2";
const M1: &str = "dd09f0b6c3b54ce1a7b1a3e3c2a2f5d1";

/// The leader at work, for as long as this is kept.
struct Leader {
    _stop: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

fn lead(bench: &Bench) -> Leader {
    let (stop, stopping) = watch::channel(false);
    let mut tasks = JoinSet::new();
    let store: Arc<dyn Store> = bench.store.clone();
    tasks.spawn(leader::run(store.clone(), Duration::from_secs(6), Arc::default(), stopping.clone()));
    tasks.spawn(reboot::run(store, stopping));
    Leader { _stop: stop, _tasks: tasks }
}

async fn two_machines() -> Bench {
    let bench = Bench::new();
    for (id, address) in [(M1, "10.0.0.1"), ("m2", "10.0.0.2")] {
        bench.propose(register(id, address, &[])).await;
    }
    bench
}

/// Status, and `kind: value` of an error.
async fn speak(bench: &Bench, path: &str, id: &str, group: &str) -> (u16, String) {
    let body = format!(r#"{{"client_params": {{"id": "{id}", "group": "{group}"}}, "more": 1}}"#);
    let request = Request::builder().method("POST").uri(path).header("fleet-lock-protocol", "true");
    said(bench, request.body(body.into()).unwrap()).await
}

async fn said(bench: &Bench, request: Request<Body>) -> (u16, String) {
    let (status, body) = text(bench.send(request).await).await;
    if body.is_empty() {
        return (status.as_u16(), body);
    }
    let body: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{body:?}: {error}"));
    let part = |key: &str| body[key].as_str().unwrap_or_else(|| panic!("{body}")).to_string();
    (status.as_u16(), format!("{}: {}", part("kind"), part("value")))
}

async fn pre_reboot(bench: &Bench, id: &str) -> (u16, String) {
    speak(bench, "/v1/pre-reboot", id, "default").await
}

#[tokio::test(start_paused = true)]
async fn the_lock_goes_round_and_machines_are_known_by_several_names() {
    let bench = two_machines().await;
    assert_eq!(pre_reboot(&bench, ZINCATI_ID).await, (200, String::new()));
    assert_eq!(pre_reboot(&bench, M1).await, (200, String::new()), "it holds the slot already");
    let (status, why) = pre_reboot(&bench, "host-m2").await;
    assert_eq!(status, 409);
    assert!(why.starts_with("failed_lock_semaphore_full: no slot of reboot group default is free"), "{why}");
    assert_eq!(speak(&bench, "/v1/pre-reboot", "m2", "workers").await.0, 200, "another group");
    assert_eq!(speak(&bench, "/v1/steady-state", "m2", "workers").await.0, 200);
    assert_eq!(speak(&bench, "/v1/steady-state", ZINCATI_ID, "default").await, (200, String::new()));
    assert_eq!(speak(&bench, "/v1/steady-state", ZINCATI_ID, "default").await.0, 200, "once more");
    assert_eq!(pre_reboot(&bench, "m2").await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_the_protocol_is_refused_in_its_terms() {
    let bench = two_machines().await;
    let check = async |request: Request<Body>, status: u16, part: &str| {
        let (found, why) = said(&bench, request).await;
        assert_eq!(found, status, "{why}");
        assert!(why.contains(part), "{why}");
    };
    let post = |body: &str| {
        let request = Request::builder().method("POST").uri("/v1/pre-reboot");
        request.header("fleet-lock-protocol", "true").body(Body::from(body.to_owned())).unwrap()
    };
    let body = r#"{"client_params": {"id": "m2", "group": "default"}}"#;
    let plain = Request::builder().method("POST").uri("/v1/pre-reboot").body(body.into()).unwrap();
    check(plain, 400, "invalid_request: there is no header fleet-lock-protocol").await;
    let get = Request::builder().uri("/v1/pre-reboot").body(Body::empty()).unwrap();
    check(get, 405, "method_not_allowed: only POST").await;
    check(post(""), 400, "invalid_request: cannot read the body").await;
    check(post("{}"), 400, "client_params").await;
    check(post(&body.replace("m2", "")), 400, "client_params.id").await;
    check(post(&body.replace("default", "a b")), 400, "reboot group").await;
    check(post(&body.replace("m2", "m9")), 400, "unknown_machine: no machine of the cluster is called m9")
        .await;
    let (status, _) = speak(&bench, "/v1/steady-state", "m9", "default").await;
    assert_eq!(status, 200, "who is not known holds nothing");
    assert!(bench.state().reboot_groups.is_empty());
}

/// What the agents would do and tell, until the machine is empty.
async fn agents(bench: &Bench) {
    let mut states = bench.store.state();
    loop {
        let state = states.borrow_and_update().clone();
        for (unit, home) in &state.assignments {
            let generation = state.units[unit].generation;
            let id = home.machine.as_str();
            let seen = state.observed.get(&(unit.clone(), home.machine.clone()));
            if home.leaving.is_some() && seen.is_some() {
                let (machine, unit) = (home.machine.clone(), unit.clone());
                bench.propose(Command::Report { machine, unit, observed: None }).await;
            } else if home.leaving.is_none() && seen.is_none() {
                bench.propose(report(&state, unit.as_str(), id, "active", Some(generation))).await;
            }
        }
        if states.changed().await.is_err() {
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_machine_is_emptied_before_it_may_reboot() {
    let bench = two_machines().await;
    let leader = lead(&bench);
    for unit in ["a.service", "b.service", "c.service", "d.service"] {
        bench.propose(set(unit, "/bin/a", DesiredState::Launched)).await;
    }
    let m1 = machine(M1);
    let here = |bench: &Bench| bench.state().assignments.values().filter(|home| home.machine == m1).count();
    let granted = async {
        while here(&bench) < 2 {
            bench.store.state().changed().await.unwrap();
        }
        let said = pre_reboot(&bench, M1).await;
        assert_eq!(here(&bench), 0, "it is empty when it is told that it may reboot");
        said
    };
    let granted = tokio::select! {
        granted = granted => granted,
        () = agents(&bench) => unreachable!("the state outlives the test"),
    };
    assert_eq!(granted, (200, String::new()));
    let (_, machines) = bench.ask("GET", "/v1/machines", "").await;
    let machines: Value = serde_json::from_str(&machines).unwrap();
    let listed = machines["machines"].as_array().unwrap().iter().find(|one| one["id"] == M1).unwrap();
    assert_eq!(listed["schedulable"], false);
    assert!(bench.state().machines[&m1].schedulable, "nobody has cordoned it");

    // The daemon that granted it dies, and so does the leader: it is granted still.
    drop(leader);
    let _leader = lead(&bench);
    assert_eq!(pre_reboot(&bench, M1).await.0, 200);
    assert_eq!(pre_reboot(&bench, "m2").await.0, 409);
    assert_eq!(speak(&bench, "/v1/steady-state", M1, "default").await.0, 200);
    let (_, machines) = bench.ask("GET", "/v1/machines", "").await;
    assert!(!machines.contains("\"schedulable\":false"), "{machines}");
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_takes_long_is_asked_for_again() {
    let bench = two_machines().await;
    let _leader = lead(&bench);
    bench.propose(set("a.service", "/bin/a", DesiredState::Launched)).await;
    let mut states = bench.store.state();
    let placed = states.wait_for(|state| !state.assignments.is_empty()).await.unwrap().clone();
    let home = placed.assignments[&name("a.service")].machine.clone();
    let generation = placed.units[&name("a.service")].generation;
    bench.propose(report(&placed, "a.service", home.as_str(), "active", Some(generation))).await;
    // Its machine does not stop it.
    let (status, why) = pre_reboot(&bench, home.as_str()).await;
    assert_eq!(status, 409);
    assert!(why.starts_with("draining: the machine is not empty yet (waiting for a.service)"), "{why}");
    assert!(bench.state().reboots(&home), "it keeps its slot meanwhile");
    let (_, listed) = bench.ask("GET", "/v1/reboot-lock", "").await;
    assert!(listed.contains(r#""drained":false,"waitsFor":"a.service""#), "{listed}");
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_cannot_be_emptied_takes_no_slot() {
    let bench = two_machines().await;
    let _leader = lead(&bench);
    bench.propose(Command::SetSchedulable { id: machine("m2"), schedulable: false }).await;
    bench.propose(set("a.service", "/bin/a", DesiredState::Launched)).await;
    let mut states = bench.store.state();
    let placed = states.wait_for(|state| !state.assignments.is_empty()).await.unwrap().clone();
    let generation = placed.units[&name("a.service")].generation;
    bench.propose(report(&placed, "a.service", M1, "active", Some(generation))).await;
    let (status, why) = pre_reboot(&bench, M1).await;
    assert_eq!(status, 409);
    assert!(why.starts_with("drain_impossible: the machine cannot be emptied: a.service"), "{why}");
    assert!(!bench.state().reboots(&machine(M1)), "others may reboot");
}

#[tokio::test(start_paused = true)]
async fn administrators_see_and_change_it() {
    let bench = two_machines().await;
    let (_, listed) = bench.ask("GET", "/v1/reboot-lock", "").await;
    assert_eq!(listed, r#"{"groups":[{"group":"default","slots":1,"holders":[]}]}"#);
    let set_slots = async |body: &str| bench.ask("POST", "/v1/reboot-lock/slots", body).await.0.as_u16();
    assert_eq!(set_slots(r#"{"group": "default", "slots": 2}"#).await, 200);
    assert_eq!(set_slots(r#"{"group": "default", "slots": 10001}"#).await, 400);
    assert_eq!(set_slots(r#"{"group": "a b", "slots": 1}"#).await, 400);
    assert_eq!(pre_reboot(&bench, M1).await.0, 200);
    assert_eq!(pre_reboot(&bench, "m2").await.0, 200);
    let release = async |body: &str| bench.ask("POST", "/v1/reboot-lock/release", body).await.0.as_u16();
    assert_eq!(release(r#"{"machine": "host-m2", "group": "other"}"#).await, 200, "it holds none there");
    assert!(bench.state().reboots(&machine("m2")));
    assert_eq!(release(r#"{"machine": "host-m2"}"#).await, 200);
    assert_eq!(release(r#"{"machine": "m9"}"#).await, 409);
    assert!(!bench.state().reboots(&machine("m2")) && bench.state().reboots(&machine(M1)));
}
