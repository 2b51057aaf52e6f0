//! Those who wait: for one event, for all that come, from an index on, and below a directory.

use serde_json::Value;
use store::Store;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::served::{PATIENCE, Served, ask, begin, parse};

/// Reads until the answer has that many lines.
async fn lines(stream: &mut TcpStream, count: usize) -> Vec<Value> {
    let mut bytes = Vec::new();
    loop {
        let text = parse(&bytes).map(|answer| answer.text()).unwrap_or_default();
        if text.matches('\n').count() >= count {
            return text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        }
        let read = timeout(PATIENCE, stream.read_buf(&mut bytes)).await.expect("an event").unwrap();
        assert!(read > 0, "it ended after {text:?}");
    }
}

/// Waits until so many watch.
async fn watched_by(served: &Served, count: u64) {
    let watchers =
        async || ask(served.address, "GET", "/v2/stats/store", "").await.json()["watchers"].clone();
    while watchers().await != count {
        tokio::task::yield_now().await;
    }
}

async fn set(served: &Served, key: &str, value: &str) {
    let answer = ask(served.address, "PUT", &format!("/v2/keys{key}"), &format!("value={value}")).await;
    assert!(answer.status < 300, "{}", answer.text());
}

#[tokio::test]
async fn those_who_wait_are_told() {
    let served = Served::start().await;
    let watch = async |path: &str| begin(served.address, "GET", &format!("/v2/keys{path}"), "").await;
    let mut own = watch("/a/b?wait=true").await;
    let mut above = watch("/a?wait=true&recursive=true").await;
    let mut not_below = watch("/a?wait=true").await;
    let mut hidden = watch("/?wait=true&recursive=true&stream=true").await;
    let mut future = watch("/a/b?wait=true&waitIndex=5").await;
    watched_by(&served, 5).await;
    set(&served, "/_x/y", "0").await;
    set(&served, "/a/b", "1").await;
    assert_eq!(lines(&mut own, 1).await[0]["node"]["value"], "1");
    assert_eq!(lines(&mut above, 1).await[0]["node"]["key"], "/a/b");
    // Neither the refresh nor what is hidden is told.
    let refresh = "ttl=100&refresh=true&prevExist=true";
    assert_eq!(ask(served.address, "PUT", "/v2/keys/a/b", refresh).await.status, 200);
    set(&served, "/a/_c", "2").await;
    set(&served, "/a/b", "5").await;
    let told = lines(&mut hidden, 2).await;
    let values: Vec<_> = told.iter().map(|event| event["node"]["value"].as_str().unwrap()).collect();
    assert_eq!(values, ["1", "5"]);
    assert_eq!(lines(&mut future, 1).await[0]["node"]["modifiedIndex"], 5);
    let deleted = ask(served.address, "DELETE", "/v2/keys/a?recursive=true", "").await;
    assert_eq!(deleted.status, 200);
    assert_eq!(lines(&mut not_below, 1).await[0]["action"], "delete");
    drop(hidden);
    watched_by(&served, 0).await;
    served.stop().await;
}

#[tokio::test]
async fn what_was_missed_is_told_from_an_index_on() {
    let served = Served::start().await;
    for number in 1..=5 {
        set(&served, "/a", &number.to_string()).await;
    }
    let mut stream = begin(served.address, "GET", "/v2/keys/a?wait=true&stream=true&waitIndex=3", "").await;
    watched_by(&served, 1).await;
    set(&served, "/a", "6").await;
    let told = lines(&mut stream, 4).await;
    let values: Vec<_> = told.iter().map(|event| event["node"]["value"].as_str().unwrap()).collect();
    assert_eq!(values, ["3", "4", "5", "6"]);
    for _ in 0..1000 {
        set(&served, "/b", "x").await;
    }
    let cleared = ask(served.address, "GET", "/v2/keys/a?wait=true&waitIndex=3", "").await;
    assert_eq!((cleared.status, cleared.json()["errorCode"].clone()), (400, 401.into()));
    assert_eq!(cleared.header("x-etcd-index"), Some("1006"));
    served.stop().await;
}

/// Keys below a directory that goes are told of it, those that never were are not; and when the daemon stops,
/// everybody's answer ends.
#[tokio::test]
async fn a_directory_takes_its_watchers_along() {
    let served = Served::start().await;
    set(&served, "/a/b/c", "1").await;
    let mut there = begin(served.address, "GET", "/v2/keys/a/b/c?wait=true", "").await;
    let mut never = begin(served.address, "GET", "/v2/keys/a/b/d?wait=true", "").await;
    watched_by(&served, 2).await;
    let deleted = ask(served.address, "DELETE", "/v2/keys/a?recursive=true", "").await;
    assert_eq!(deleted.json()["node"]["dir"], true);
    let told = lines(&mut there, 1).await;
    assert_eq!((&told[0]["action"], &told[0]["node"]["key"]), (&"delete".into(), &"/a".into()));
    watched_by(&served, 1).await;
    served.stop().await;
    let mut rest = Vec::new();
    timeout(PATIENCE, never.read_to_end(&mut rest)).await.expect("it ends").unwrap();
    let answer = parse(&rest).unwrap();
    assert_eq!((answer.status, answer.body.len()), (200, 0));
}

/// A state that is not the next one, such as a snapshot's: whoever waits has to ask anew.
#[tokio::test]
async fn a_gap_lets_everybody_go() {
    let (served, other) = (Served::start().await, Served::start().await);
    let mut waiting = begin(served.address, "GET", "/v2/keys/a?wait=true", "").await;
    watched_by(&served, 1).await;
    for _ in 0..1100 {
        set(&other, "/b", "x").await;
    }
    let state = other.store.state().borrow().clone();
    served.store.set_state(state);
    let mut rest = Vec::new();
    timeout(PATIENCE, waiting.read_to_end(&mut rest)).await.expect("it ends").unwrap();
    assert!(parse(&rest).unwrap().body.is_empty());
    served.stop().await;
    other.stop().await;
}
