//! The same requests to a real etcd and to us: status, error, action, node tree and index must be the same.
//! Ours begins to count at 0, etcd at what it has written of itself; the difference stays.

use std::net::SocketAddr;

use cluster::KeyPath;
use serde_json::{Value, json};
use store::Store;
use tokio::time::{Duration, Instant};

use crate::random::{Dice, Field, Request, draw};
use crate::real_etcd::RealEtcd;
use crate::served::{Answer, PATIENCE, Served, ask};

const REQUESTS: usize = 2000;

async fn send(address: SocketAddr, request: &Request, offset: u64) -> Answer {
    let form = request.form(offset);
    let path = format!("/v2/keys{}", request.key);
    match request.in_body || form.is_empty() {
        true => ask(address, request.method, &path, &form).await,
        false => ask(address, request.method, &format!("{path}?{form}"), "").await,
    }
}

/// With indices as if the count had begun at 0, and without what hangs on the clock.
fn common(value: Value, offset: u64) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| {
                let value = match (name.as_str(), &value) {
                    ("modifiedIndex" | "createdIndex" | "index", Value::Number(index)) => {
                        json!(index.as_u64().unwrap().saturating_sub(offset))
                    }
                    ("expiration", _) => json!("some time"),
                    ("ttl", Value::Number(ttl)) => json!((ttl.as_i64().unwrap().max(0) + 50) / 100),
                    ("key" | "cause", Value::String(text)) => json!(relative(text, offset)),
                    ("nodes", Value::Array(nodes)) => {
                        let mut nodes: Vec<Value> =
                            nodes.iter().map(|node| common(node.clone(), offset)).collect();
                        nodes.sort_by_key(|node| node["key"].as_str().map(String::from));
                        Value::Array(nodes)
                    }
                    _ => common(value, offset),
                };
                (name, value)
            });
            Value::Object(fields.collect())
        }
        other => other,
    }
}

/// Names of keys in order are indices, and causes of failed comparisons hold some.
fn relative(text: &str, offset: u64) -> String {
    let parts = text.split_inclusive(['/', '[', ' ', ']']);
    let parts = parts.map(|part| {
        let digits = part.trim_end_matches(['/', '[', ' ', ']']);
        match digits.parse::<u64>() {
            Ok(index) if digits.len() == 20 => format!("{:020}{}", index - offset, &part[20..]),
            _ => part.into(),
        }
    });
    parts.collect()
}

/// What of an answer has to be the same. A failed comparison of indices says so in numbers of its own.
fn seen(answer: &Answer, offset: u64) -> (u16, Option<u64>, bool, Value) {
    let index = answer.header("x-etcd-index").map(|index| index.parse::<u64>().unwrap());
    let mut body = match answer.body.is_empty() {
        true => Value::Null,
        false => common(answer.json(), offset),
    };
    if body["errorCode"] == 101 && body["cause"].as_str().is_some_and(|cause| !cause.is_empty()) {
        body["cause"] = json!("[...]");
    }
    (
        answer.status,
        index.map(|index| index.saturating_sub(offset)),
        answer.header("x-raft-index").is_some(),
        body,
    )
}

/// Whether we would answer at once.
fn is_ready(served: &Served, request: &Request) -> bool {
    let Some(Field::Index(since)) = request.field("waitIndex") else { return true };
    let truth = |name: &str| match request.field(name) {
        Some(Field::Text(text)) => matches!(text.as_str(), "true" | "1" | "t"),
        _ => false,
    };
    let recursive = truth("recursive");
    if truth("quorum") {
        return true;
    }
    let key = request.key.replace("%20", " ").replace("%C3%A9", "é");
    let state = served.store.state().borrow().clone();
    !matches!(state.keys.event_since(&KeyPath::new(&key).unwrap(), recursive, *since), Ok(None))
}

async fn index(address: SocketAddr) -> u64 {
    let answer = ask(address, "GET", "/v2/keys/", "").await;
    answer.header("x-etcd-index").unwrap().parse().unwrap()
}

async fn same_trees(etcd: &RealEtcd, served: &Served, offset: u64) {
    for key in ["/", "/_h", "/a/_s"] {
        let path = format!("/v2/keys{key}?recursive=true&sorted=true&quorum=true");
        let theirs = ask(etcd.address, "GET", &path, "").await;
        let ours = ask(served.address, "GET", &path, "").await;
        assert_eq!(seen(&theirs, offset), seen(&ours, 0), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_requests_are_answered_as_etcd_answers_them() {
    let (etcd, served) = (RealEtcd::start().await, Served::start().await);
    let offset = index(etcd.address).await;
    assert_eq!(index(served.address).await, 0);
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_260_101);
    let mut dice = Dice(seed);
    let (mut sent, mut errors, mut events) = (0, 0, 0);
    let mut last = 0;
    while sent < REQUESTS {
        let request = draw(&mut dice, last);
        if !is_ready(&served, &request) {
            continue;
        }
        let theirs = send(etcd.address, &request, offset).await;
        let ours = send(served.address, &request, 0).await;
        let (theirs, ours) = (seen(&theirs, offset), seen(&ours, 0));
        assert_eq!(theirs, ours, "request {sent} of seed {seed}, etcd's answer is the left one: {request:?}");
        last = served.store.state().borrow().keys.index();
        sent += 1;
        errors += usize::from(ours.3["errorCode"].is_u64());
        events += usize::from(ours.3["action"].as_str().is_some_and(|action| action != "get"));
        if sent % 200 == 0 {
            same_trees(&etcd, &served, offset).await;
        }
    }
    assert!(errors > 300 && events > 300, "{errors} errors, {events} events");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_end_as_etcds_do() {
    let (etcd, served) = (RealEtcd::start().await, Served::start().await);
    let offset = index(etcd.address).await;
    for address in [etcd.address, served.address] {
        for (key, form) in [
            ("/short", "value=1&ttl=2"),
            ("/dir/in", "value=1"),
            ("/dir", "dir=true&prevExist=true&ttl=2"),
            ("/kept", "value=1&ttl=2"),
            ("/kept", "value=2&prevExist=true"),
            ("/long", "value=1&ttl=2"),
            ("/long", "ttl=1000&refresh=true&prevExist=true"),
            ("/now", "value=1&ttl=0"),
        ] {
            let answer = ask(address, "PUT", &format!("/v2/keys{key}"), form).await;
            assert!(answer.status < 300, "{key}: {}", answer.text());
        }
    }
    let begun = Instant::now();
    for address in [etcd.address, served.address] {
        let left = async || {
            let answer = ask(address, "GET", "/v2/keys/?sorted=true", "").await.json();
            let nodes = answer["node"]["nodes"].as_array().unwrap().clone();
            nodes.iter().map(|node| node["key"].as_str().unwrap().to_string()).collect::<Vec<_>>()
        };
        while left().await != ["/kept", "/long"] {
            assert!(begun.elapsed() < PATIENCE, "{address}: {:?}", left().await);
            tokio::task::yield_now().await;
        }
    }
    assert!(begun.elapsed() > Duration::from_millis(300), "they did not end at once");
    same_trees(&etcd, &served, offset).await;
    // Each end is told to those who ask for it.
    let ends = async |address: SocketAddr, key: &str, offset: u64| {
        let path = format!("/v2/keys{key}?wait=true&waitIndex={}", offset + 9);
        common(ask(address, "GET", &path, "").await.json(), offset)
    };
    for key in ["/short", "/dir", "/dir/in", "/now"] {
        let (mut theirs, mut ours) =
            (ends(etcd.address, key, offset).await, ends(served.address, key, 0).await);
        // Those that ended together may have ended in another order.
        for answer in [&mut theirs, &mut ours] {
            assert_eq!(answer["action"], "expire", "{key}: {answer}");
            answer["node"]["modifiedIndex"] = json!(0);
        }
        assert_eq!(theirs, ours, "{key}");
    }
    served.stop().await;
}
