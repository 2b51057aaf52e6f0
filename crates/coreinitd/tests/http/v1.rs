//! Our own API, request by request.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::v1::{BatchDone, Machines, OperationOutcome, Status, Unit, Units};
use async_trait::async_trait;
use axum::body::{Body, Bytes};
use axum::http::Request;
use cluster::{ClusterState, Command, DesiredState, MachineId};
use coreinitd::http::{BODY_BYTES_MAX, router};
use serde::de::DeserializeOwned;
use store::{Committed, MemoryStore, ProposeError, ReadError, Role, Store};
use tokio::sync::watch;
use tokio::time::Instant;
use tower::ServiceExt;

use crate::bench::{Bench, assign, machine, parts, register, report, root, set, text};

impl Bench {
    async fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        let (status, body) = self.ask("GET", path, "").await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// The request is refused with that status and a message that has all those parts, and nothing is
    /// changed.
    async fn refused(&self, request: (&str, &str, &str), status: u16, parts: &[&str]) {
        let before = self.state();
        let (got, body) = self.ask(request.0, request.1, request.2).await;
        assert_eq!(got, status, "{request:.200?}: {body}");
        let error: api::fleet::ErrorBody = serde_json::from_str(&body).unwrap();
        assert_eq!(error.error.code, status);
        for part in parts {
            assert!(error.error.message.contains(part), "{part:?} in {:?}", error.error.message);
        }
        assert_eq!(self.state(), before);
    }
}

fn batch(operations: &str) -> String {
    format!(r#"{{"operations":[{operations}]}}"#)
}

const SET: &str =
    r#"{"op":"set","name":"a.service","text":"[Service]\nExecStart=/bin/a\n","desiredState":"launched"}"#;

#[tokio::test]
async fn a_batch_is_made_in_order_and_each_operation_answers_for_itself() {
    let bench = Bench::new();
    let operations = [
        SET,
        SET,
        r#"{"op":"set","name":"a.service","desiredState":"loaded"}"#,
        r#"{"op":"set","name":"a.service","text":"[Service]\nExecStart=/bin/b\n"}"#,
        r#"{"op":"destroy","name":"a.service"}"#,
        r#"{"op":"destroy","name":"a.service"}"#,
        r#"{"op":"set","name":"b.service","desiredState":"launched"}"#,
    ];
    let (status, body) = bench.ask("POST", "/v1/units", &batch(&operations.join(","))).await;
    assert_eq!(status, 200, "{body}");
    let done: BatchDone = serde_json::from_str(&body).unwrap();
    assert_eq!(done.revision, bench.state().revision);
    let outcomes: Vec<_> = done.results.iter().map(|result| result.outcome).collect();
    use OperationOutcome::*;
    assert_eq!(outcomes, [Created, Unchanged, Updated, Replaced, Removed, Refused, Refused]);
    assert_eq!(done.results[5].message.as_deref(), Some("unit does not exist"));
    assert_eq!(done.results[6].message.as_deref(), Some("unit does not exist"));
    assert_eq!(done.results[6].name, "b.service");
}

#[tokio::test]
async fn a_batch_with_one_bad_operation_changes_nothing() {
    let bench = Bench::new();
    let check = async |operation: &str, parts: &[&str]| {
        let body = batch(&format!("{SET},{operation}"));
        let mut parts = parts.to_vec();
        parts.extend(["operation 2", "nothing was changed"]);
        bench.refused(("POST", "/v1/units", &body), 400, &parts).await;
    };
    check(r#"{"op":"set","name":"nodot","text":""}"#, &["nodot", "unit name must contain"]).await;
    check(r#"{"op":"destroy","name":"../x.service"}"#, &["../x.service", "invalid character '/'"]).await;
    check(r#"{"op":"set","name":"b.service"}"#, &["b.service", "neither text nor desiredState"]).await;
    check(r#"{"op":"set","name":"b.service","text":"[Service]\n\nnonsense\n"}"#, &["b.service", "line 3"])
        .await;
    check(
        r#"{"op":"set","name":"b.service","text":"[X-Fleet]\nReplaces=m\nConflicts=x\n"}"#,
        &["b.service", "Conflicts cannot be used with Replaces"],
    )
    .await;
    check(
        r#"{"op":"set","name":"b@.service","text":"[Service]\nExecStart=/b\n","desiredState":"launched"}"#,
        &["cannot activate template \"b@.service\""],
    )
    .await;
    let long = "x".repeat(cluster::UNIT_FILE_BYTES_MAX);
    let long = format!(r##"{{"op":"set","name":"b.service","text":"#{long}"}}"##);
    check(&long, &["b.service", &cluster::UNIT_FILE_BYTES_MAX.to_string()]).await;
}

#[tokio::test]
async fn bad_requests_are_refused_with_a_reason() {
    let bench = Bench::new();
    let check = async |method: &str, path: &str, body: &str, status: u16, part: &str| {
        bench.refused((method, path, body), status, &[part]).await;
    };
    check("POST", "/v1/units", "{", 400, "unexpected EOF").await;
    check("POST", "/v1/units", "[]", 400, "unable to decode body").await;
    check("POST", "/v1/units", "{}", 400, "operations").await;
    check("POST", "/v1/units", &batch(""), 400, "no operations").await;
    check("POST", "/v1/units", &batch(r#"{"op":"stop","name":"a.service"}"#), 400, "stop").await;
    check("POST", "/v1/units", "", 415, "expected 1 Content-Type, got 0").await;
    check("PUT", "/v1/units", "", 405, "only GET and POST").await;
    check("DELETE", "/v1/units/a.service", "", 405, "only GET").await;
    check("GET", "/v1/units/a.service", "", 404, "unit does not exist").await;
    check("GET", "/v1/units/..%2F..%2Fetc%2Fx.service", "", 400, "invalid character '/'").await;
    check("GET", "/v1/units?unit=nodot", "", 400, "unit name must contain").await;
    check("GET", "/v1/units?stale=perhaps", "", 400, "stale must be").await;
    check("GET", "/v1/events?after=now", "", 400, "\"now\" is not a revision").await;
    check("POST", "/v1/events", r#"{"units":["nodot"]}"#, 400, "unit name must contain").await;
    check("GET", "/v1/nosuch", "", 404, "").await;
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_said_or_not() {
    let bench = Bench::new();
    let long = " ".repeat(BODY_BYTES_MAX + 1);
    bench.refused(("POST", "/v1/units", &long), 413, &[&BODY_BYTES_MAX.to_string()]).await;
    let chunks = (0..17).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 1 << 20])));
    let request =
        Request::builder().method("POST").uri("/v1/units").header("content-type", "application/json");
    let request = request.body(Body::from_stream(futures::stream::iter(chunks))).unwrap();
    let (status, body) = text(bench.send(request).await).await;
    assert_eq!(status, 413, "{body}");
}

#[tokio::test]
async fn units_and_machines_are_shown_whole() {
    let bench = Bench::new();
    bench.propose(register("m1", "10.0.0.1", &[("ssd", "yes")])).await;
    bench.propose(register("m2", "10.0.0.2", &[])).await;
    let file = "# mine\n[Unit]\nDescription=The A\n[Service]\nExecStart=/bin/a\n";
    let picky = "[X-Fleet]\nMachineMetadata=ssd=no\n";
    let body = serde_json::json!({"operations": [
        {"op": "set", "name": "a.service", "text": file, "desiredState": "launched"},
        {"op": "set", "name": "b.service", "text": picky, "desiredState": "launched"},
    ]});
    bench.ask("POST", "/v1/units", &body.to_string()).await;
    bench.propose(assign(&bench.state(), "a.service", "m1")).await;
    let generation = bench.state().units.values().next().map(|unit| unit.generation);
    bench.propose(report(&bench.state(), "a.service", "m1", "active", generation)).await;

    let unit: Unit = bench.get("/v1/units/a.service").await;
    assert_eq!(unit.text.as_deref(), Some(file));
    assert_eq!(unit.description, "The A");
    assert_eq!(unit.machine, Some(machine("m1")));
    assert_eq!(unit.reason.as_deref(), Some("because"));
    assert_eq!(unit.current_state, api::v1::State::Launched);
    assert_eq!(unit.states[0].generation, generation);
    assert_eq!(unit.unplaced, None);

    let units: Units = bench.get("/v1/units").await;
    assert_eq!(units.revision, bench.state().revision);
    assert_eq!(units.units.len(), 2);
    assert_eq!(units.units[0], Unit { text: None, ..unit });
    assert!(units.units[1].unplaced.is_some(), "b.service fits nowhere: {:?}", units.units[1]);
    let some: Units = bench.get("/v1/units?unit=b.service&unit=c.service&stale=true").await;
    assert_eq!(some.units, units.units[1..]);

    bench.propose(Command::MarkLost { machine: machine("m1") }).await;
    let machines: Machines = bench.get("/v1/machines").await;
    assert_eq!(machines.machines[0].units, 1);
    assert_eq!(machines.machines[0].state, api::v1::MachineState::Lost);
    assert_eq!(machines.machines[0].metadata["ssd"], "yes");
    let unit: Unit = bench.get("/v1/units/a.service").await;
    assert!(unit.states[0].stale);
    assert_eq!(unit.current_state, api::v1::State::Inactive);
}

#[tokio::test]
async fn a_cluster_is_formed_once() {
    let bench = Bench::new();
    let status: Status = bench.get("/v1/status").await;
    assert_eq!((status.cluster_id, status.leader), (None, Some(machine("m1"))));
    let (code, body) = bench.ask("POST", "/v1/cluster/init", r#"{"name":"lab"}"#).await;
    assert_eq!(code, 200, "{body}");
    let status: Status = serde_json::from_str(&body).unwrap();
    assert_eq!(status.cluster_name.as_deref(), Some("lab"));
    bench.refused(("POST", "/v1/cluster/init", r#"{"name":"taken"}"#), 409, &["c0"]).await;
}

#[tokio::test(start_paused = true)]
async fn without_a_leader_only_stale_reads_are_answered() {
    let bench = Bench::new();
    bench.propose(set("a.service", "/bin/a", DesiredState::Launched)).await;
    let check = async |role: Role, name: &str, part: &str| {
        bench.store.set_role(role);
        for path in ["/v1/units", "/v1/units/a.service", "/v1/machines"] {
            bench.refused(("GET", path, ""), 503, &[part]).await;
        }
        bench.refused(("POST", "/v1/units", &batch(SET)), 503, &[part]).await;
        let units: Units = bench.get("/v1/units?stale=true").await;
        assert_eq!(units.units.len(), 1);
        let (_, status) = bench.ask("GET", "/v1/status", "").await;
        assert!(status.contains(&format!("\"role\":\"{name}\"")), "{status}");
    };
    check(Role::Leaderless, "leaderless", "no leader").await;
    check(Role::Unformed { hint: "run corectl cluster init".into() }, "unformed", "run corectl cluster init")
        .await;
}

/// A store that looks for a leader until the deadline, as the one on Raft does.
struct Searching(MemoryStore);

impl Searching {
    async fn search(&self, deadline: Instant) -> Result<(), String> {
        let mut role = self.0.role();
        let found = role.wait_for(|role| matches!(role, Role::Leader { .. }));
        let found = tokio::time::timeout_at(deadline, found).await;
        found.map(drop).map_err(|_| "too few machines".into())
    }
}

#[async_trait]
impl Store for Searching {
    async fn propose(&self, commands: Vec<Command>, deadline: Instant) -> Result<Committed, ProposeError> {
        self.search(deadline).await.map_err(|hint| ProposeError::NoLeader { hint })?;
        self.0.propose(commands, deadline).await
    }
    fn state(&self) -> watch::Receiver<Arc<ClusterState>> {
        self.0.state()
    }
    async fn read(&self, deadline: Instant) -> Result<Arc<ClusterState>, ReadError> {
        self.search(deadline).await.map_err(|hint| ReadError::NoLeader { hint })?;
        self.0.read(deadline).await
    }
    fn role(&self) -> watch::Receiver<Role> {
        self.0.role()
    }
    async fn here(&self, _: Instant) -> Result<(), ReadError> {
        Ok(())
    }
    fn silence(&self) -> BTreeMap<MachineId, Duration> {
        BTreeMap::new()
    }
}

#[tokio::test(start_paused = true)]
async fn an_election_is_waited_for_a_lost_quorum_is_not() {
    let mut parts = parts(&Arc::new(MemoryStore::new(machine("m1"))));
    let store = Arc::new(Searching(MemoryStore::new(machine("m1"))));
    parts.store = store.clone();
    let (router, background) = router(parts);
    let _background = tokio::spawn(background.run(std::future::pending()));
    let ask = async |method: &str, path: &str, body: &str| {
        let begun = Instant::now();
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        let mut request = request.body(Body::from(body.to_owned())).unwrap();
        request.extensions_mut().insert(root());
        let (status, answer) = text(router.clone().oneshot(request).await.unwrap()).await;
        (status.as_u16(), answer, begun.elapsed().as_millis())
    };
    let check = async |method: &str, path: &str, body: &str, seconds: u64, took: u128| {
        let message =
            format!("the cluster has no leader: too few machines; there has been none for {seconds} s");
        let expected = format!(r#"{{"error":{{"code":503,"message":"{message}"}}}}"#);
        assert_eq!(ask(method, path, body).await, (503, expected, took), "{method} {path}");
    };
    store.0.set_role(Role::Leaderless);
    check("POST", "/v1/units", &batch(SET), 2, 2000).await;
    check("POST", "/v1/units", &batch(SET), 2, 0).await;
    check("GET", "/v1/units", "", 2, 0).await;
    tokio::time::advance(Duration::from_secs(40)).await;
    check("DELETE", "/fleet/v1/units/a.service", "", 42, 0).await;
    check("GET", "/fleet/v1/units", "", 42, 0).await;
    let (_, status, _) = ask("GET", "/v1/status", "").await;
    let status: Status = serde_json::from_str(&status).unwrap();
    assert_eq!((status.leaderless_seconds, status.leader), (Some(42), None));
    assert_eq!(status.trouble.as_deref(), Some("no leader is known"));

    store.0.set_role(Role::Leader { term: 7 });
    assert_eq!(ask("POST", "/v1/units", &batch(SET)).await.0, 200);
    store.0.set_role(Role::Leaderless);
    let elected = async {
        tokio::time::advance(Duration::from_millis(1500)).await;
        store.0.set_role(Role::Leader { term: 8 });
    };
    let body = batch(SET);
    let (answer, ()) = tokio::join!(ask("POST", "/v1/units", &body), elected);
    assert_eq!((answer.0, answer.2), (200, 1500), "an election is waited for");
    let (_, status, _) = ask("GET", "/v1/status", "").await;
    let status: Status = serde_json::from_str(&status).unwrap();
    assert_eq!((status.leaderless_seconds, status.trouble), (None, None));

    store.0.set_role(Role::Unformed { hint: "waiting for h2".into() });
    let (_, status, _) = ask("GET", "/v1/status", "").await;
    let status: Status = serde_json::from_str(&status).unwrap();
    assert_eq!(status.trouble.as_deref(), Some("waiting for h2"));
}

#[tokio::test]
async fn instances_are_made_of_stored_templates() {
    let bench = Bench::new();
    let operations = [
        r#"{"op":"set","name":"t@.service","text":"[Service]\nExecStart=/bin/t %i\n"}"#,
        r#"{"op":"set","name":"t@1.service","desiredState":"launched"}"#,
        r#"{"op":"set","name":"u@1.service","desiredState":"launched"}"#,
        r#"{"op":"set","name":"t@2.service","desiredState":"loaded"}"#,
    ];
    let (status, body) = bench.ask("POST", "/v1/units", &batch(&operations.join(","))).await;
    assert_eq!(status, 200, "{body}");
    let done: BatchDone = serde_json::from_str(&body).unwrap();
    let outcomes: Vec<_> = done.results.iter().map(|result| (&*result.name, result.outcome)).collect();
    use OperationOutcome::*;
    let expected = [
        ("t@.service", Created),
        ("t@1.service", Created),
        ("u@1.service", Refused),
        ("t@2.service", Created),
    ];
    assert_eq!(outcomes, expected);
    assert_eq!(done.revision, bench.state().revision);
    let unit: Unit = bench.get("/v1/units/t@1.service").await;
    assert_eq!(unit.text.as_deref(), Some("[Service]\nExecStart=/bin/t %i\n"));
    // It keeps what it was made of.
    let change = r#"{"op":"set","name":"t@.service","text":"[Service]\nExecStart=/bin/other\n"}"#;
    bench.ask("POST", "/v1/units", &batch(change)).await;
    let (_, body) = bench
        .ask("POST", "/v1/units", &batch(r#"{"op":"set","name":"t@1.service","desiredState":"loaded"}"#))
        .await;
    assert!(body.contains("updated"), "{body}");
    let unit: Unit = bench.get("/v1/units/t@1.service").await;
    assert_eq!(unit.text.as_deref(), Some("[Service]\nExecStart=/bin/t %i\n"));
}

/// A store of which nobody knows what it did.
struct Undecided(MemoryStore);

#[async_trait]
impl Store for Undecided {
    async fn propose(&self, _: Vec<Command>, _: Instant) -> Result<Committed, ProposeError> {
        Err(ProposeError::Unknown)
    }
    fn state(&self) -> watch::Receiver<Arc<ClusterState>> {
        self.0.state()
    }
    async fn read(&self, _: Instant) -> Result<Arc<ClusterState>, ReadError> {
        Err(ReadError::Timeout)
    }
    fn role(&self) -> watch::Receiver<Role> {
        self.0.role()
    }
    async fn here(&self, _: Instant) -> Result<(), ReadError> {
        Ok(())
    }
    fn silence(&self) -> BTreeMap<MachineId, Duration> {
        BTreeMap::new()
    }
}

#[tokio::test]
async fn an_unknown_outcome_is_said_to_be_one() {
    let mut parts = parts(&Arc::new(MemoryStore::new(machine("m1"))));
    parts.store = Arc::new(Undecided(MemoryStore::new(machine("m1"))));
    let (router, _follower) = router(parts);
    let ask = async |method: &str, path: &str, body: &str| {
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        let mut request = request.body(Body::from(body.to_owned())).unwrap();
        request.extensions_mut().insert(root());
        text(router.clone().oneshot(request).await.unwrap()).await
    };
    let unknown =
        r#"{"error":{"code":504,"message":"no answer in time; the change may or may not be made"}}"#;
    for (method, path, body) in [
        ("POST", "/v1/units", batch(SET)),
        ("PUT", "/fleet/v1/units/a.service", r#"{"desiredState":"inactive"}"#.into()),
        ("DELETE", "/fleet/v1/units/a.service", String::new()),
    ] {
        let (status, answer) = ask(method, path, &body).await;
        assert_eq!((status.as_u16(), answer.as_str()), (504, unknown), "{method} {path}");
    }
    assert_eq!(ask("GET", "/v1/units", "").await.0, 503);
}
