//! `explain`, `cordon`, `drain`, `move` and `rebalance`, against a daemon in front of which stands one that
//! answers these requests, and plays the leader's and the machines' part in a move.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use cluster::{Command, Condition, Observed, UnitFile};
use store::{MemoryStore, Store};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::play::{GOOD, Play, SOON, id, name};

struct Front {
    socket: PathBuf,
    asked: Arc<Mutex<Vec<String>>>,
    _serving: JoinSet<()>,
}

const EXPLANATION: &str = r#"{"unit": "a.service", "placed": "m1", "machines": [
    {"id": "m1", "name": "h1", "fits": true, "reasons": []},
    {"id": "m2", "name": "h2", "fits": false, "reasons": ["needs disk=ssd", "is cordoned"]}]}"#;

const REBALANCE: &str = r#"{"moves": [
    {"unit": "a.service", "from": "m1", "to": "m2", "why": "m1 has 2 units, m2 none"},
    {"unit": "gone.service", "from": "m1", "to": "m2", "why": "m1 has 2 units, m2 none"}]}"#;

impl Front {
    fn begin(play: &Play) -> Front {
        let socket = play.dir.path().join("front.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (behind, store, log) = (play.socket(), play.store.clone(), asked.clone());
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(one(stream, behind.clone(), store.clone(), log.clone()));
            }
        });
        Front { socket, asked, _serving: serving }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

async fn one(
    mut stream: UnixStream,
    behind: PathBuf,
    store: Arc<MemoryStore>,
    asked: Arc<Mutex<Vec<String>>>,
) {
    let mut head = Vec::new();
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        let mut piece = [0; 4096];
        let read = stream.read(&mut piece).await.unwrap();
        if read == 0 {
            return;
        }
        head.extend_from_slice(&piece[..read]);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let words: Vec<&str> = text.split_whitespace().take(2).collect();
    let parts: Vec<&str> = words[1].trim_start_matches("/v1/").split('/').collect();
    let (status, body) = match (words[0], &parts[..]) {
        ("GET", ["units", "a.service", "explain"]) => (200, EXPLANATION.to_string()),
        ("GET", ["rebalance"]) => (200, REBALANCE.to_string()),
        ("POST", ["machines", _, "cordon" | "uncordon"]) => (200, "{}".into()),
        ("POST", ["units", "stuck.service", "move"]) => {
            let why = "no other machine can run it: needs disk=ssd";
            (409, format!(r#"{{"error": {{"code": 409, "message": "{why}"}}}}"#))
        }
        ("POST", ["units", "slow.service", "move"]) => (200, "{}".into()),
        ("POST", ["units", unit, "move"]) => {
            move_to_m2(&store, unit).await;
            (200, "{}".into())
        }
        _ => {
            let mut real = UnixStream::connect(behind).await.unwrap();
            real.write_all(&head).await.unwrap();
            let _ = copy_bidirectional(&mut stream, &mut real).await;
            return;
        }
    };
    asked.lock().unwrap().push(words.join(" "));
    let length = body.len();
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
}

/// In the order in which it happens: gone there, assigned here, reported here.
async fn move_to_m2(store: &MemoryStore, unit: &str) {
    let (unit, now) = (name(unit), store.state().borrow().clone());
    let generation = now.units[&unit].generation;
    let observed = Observed {
        load: "loaded".into(),
        active: if unit.as_str() == "weak.service" { "failed" } else { "active" }.into(),
        sub: "x".into(),
        hash: UnitFile::parse(GOOD).unwrap().hash(),
        generation: Some(generation),
        failure: None,
    };
    assert_ne!(observed.condition(), Condition::Down);
    for command in [
        Command::Unassign { unit: unit.clone(), machine: id("m1") },
        Command::Report { machine: id("m1"), unit: unit.clone(), observed: None },
        Command::Assign { unit: unit.clone(), machine: id("m2"), generation, reason: "moved".into() },
        Command::Report { machine: id("m2"), unit, observed: Some(observed) },
    ] {
        let committed = store.propose(vec![command], Instant::now() + SOON).await.unwrap();
        assert!(committed.outcomes[0].is_ok(), "{:?}", committed.outcomes);
    }
}

#[tokio::test]
async fn each_machine_is_explained() {
    let play = Play::begin().await;
    let front = Front::begin(&play);
    play.run_at(&front.socket, &["explain", "a"]).await.is(
        0,
        "a.service is on h1 (10.0.0.1)\n\nMACHINE        FITS      AGAINST IT\nh1 (10.0.0.1)  is there  -\n\
         h2 (10.0.0.2)  no        needs disk=ssd\n                         is cordoned\n",
        "",
    );
}

#[tokio::test]
async fn units_move_when_they_are_asked_to() {
    let play = Play::begin().await;
    let front = Front::begin(&play);
    for unit in ["a.service", "stuck.service"] {
        play.running(unit).await;
    }
    play.run_at(&front.socket, &["move", "a", "h1"]).await.is(0, "a.service: there already\n", "");
    play.run_at(&front.socket, &["move", "a", "h2"]).await.is(
        0,
        "a.service: active (x) on h2 (10.0.0.2)\n",
        "",
    );
    play.run_at(&front.socket, &["move", "stuck"]).await.is(
        1,
        "",
        "corectl: stuck.service stays: no other machine can run it: needs disk=ssd\n",
    );
    assert_eq!(front.asked(), ["POST /v1/units/a.service/move", "POST /v1/units/stuck.service/move"]);
    play.run_at(&front.socket, &["move", "a", "h9"]).await.is(
        1,
        "",
        "corectl: no machine is called \"h9\"\n",
    );
}

#[tokio::test]
async fn a_machine_is_drained_one_unit_after_another() {
    let play = Play::begin().await;
    let front = Front::begin(&play);
    for unit in ["a.service", "b.service"] {
        play.running(unit).await;
    }
    play.run_at(&front.socket, &["drain", "h1"]).await.is(
        0,
        "h1 (10.0.0.1): gets no new units\na.service: active (x) on h2 (10.0.0.2)\n\
         b.service: active (x) on h2 (10.0.0.2)\nh1 (10.0.0.1): drained\n",
        "",
    );
    let expected =
        ["POST /v1/machines/m1/cordon", "POST /v1/units/a.service/move", "POST /v1/units/b.service/move"];
    assert_eq!(front.asked(), expected);
    play.run_at(&front.socket, &["uncordon", "h1", "m2"]).await.is(
        0,
        "h1 (10.0.0.1): gets units again\nh2 (10.0.0.2): gets units again\n",
        "",
    );
}

#[tokio::test]
async fn what_cannot_leave_a_machine_is_named() {
    let play = Play::begin().await;
    let front = Front::begin(&play);
    for unit in ["stuck.service", "weak.service"] {
        play.running(unit).await;
    }
    play.run_at(&front.socket, &["drain", "h1"]).await.is(
        1,
        "h1 (10.0.0.1): gets no new units\n",
        "corectl: stuck.service stays: no other machine can run it: needs disk=ssd\n\
         corectl: weak.service: failed (x) on h2 (10.0.0.2)\n\
         corectl: h1 (10.0.0.1): still there: stuck.service\n",
    );
    play.running("slow.service").await;
    let late = play.run_at(&front.socket, &["drain", "--timeout", "300ms", "h1"]).await;
    assert_eq!(late.code, 1);
    let end = "corectl: h1 (10.0.0.1): not in time; still there: slow.service stuck.service\n";
    assert!(late.err.ends_with(end), "{}", late.err);
}

#[tokio::test]
async fn a_rebalance_is_told_before_it_is_made() {
    let play = Play::begin().await;
    let front = Front::begin(&play);
    play.running("a.service").await;
    let told = play.run_at(&front.socket, &["rebalance"]).await;
    assert_eq!(told.code, 0);
    assert!(told.out.contains("a.service     h1 (10.0.0.1)  h2 (10.0.0.2)  m1 has 2 units"), "{}", told.out);
    assert_eq!(front.asked(), ["GET /v1/rebalance"]);
    play.run_at(&front.socket, &["rebalance", "--yes"]).await.is(
        0,
        "a.service: active (x) on h2 (10.0.0.2)\n",
        "",
    );
    assert_eq!(front.asked(), ["GET /v1/rebalance", "POST /v1/units/a.service/move"]);
}
