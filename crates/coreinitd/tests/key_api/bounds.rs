//! What is larger than is kept, what is asked while nobody leads, and what is asked beside keys.

use cluster::{KEY_VALUE_BYTES_MAX, KEYS_BYTES_MAX};
use store::Role;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::served::{Served, ask};

#[tokio::test]
async fn what_is_too_large_is_refused_in_words() {
    let served = Served::start().await;
    let put = async |key: &str, value: &str| {
        let answer = ask(served.address, "PUT", &format!("/v2/keys{key}"), &format!("value={value}")).await;
        (answer.status, answer.json()["errorCode"].as_u64(), answer.text())
    };
    let large = "x".repeat(KEY_VALUE_BYTES_MAX);
    let (status, code, text) = put("/a", &format!("{large}x")).await;
    assert!((status, code) == (400, Some(209)) && text.contains("at most 262144"), "{text}");
    let (status, code, _) = put(&"/a".repeat(61), "x").await;
    assert_eq!((status, code), (400, Some(209)));
    for number in 0..KEYS_BYTES_MAX / KEY_VALUE_BYTES_MAX - 1 {
        assert_eq!(put(&format!("/large/{number}"), &large).await.0, 201);
    }
    let (status, code, text) = put("/more", &large).await;
    assert!((status, code) == (403, Some(112)) && text.contains("Key space is full"), "{text}");
    assert_eq!(put("/large/0", "small").await.0, 200);
    assert_eq!(put("/more", "fits").await.0, 201);
    served.stop().await;
}

#[tokio::test]
async fn without_a_leader_reads_are_answered_and_writes_are_not() {
    let served = Served::start().await;
    assert_eq!(ask(served.address, "PUT", "/v2/keys/a", "value=1").await.status, 201);
    served.store.set_role(Role::Leaderless);
    let health = ask(served.address, "GET", "/health", "").await;
    assert_eq!((health.status, health.text().trim()), (503, r#"{"health":"false"}"#));
    assert_eq!(ask(served.address, "GET", "/v2/keys/a", "").await.json()["node"]["value"], "1");
    for (method, path, form) in [("PUT", "/v2/keys/a", "value=2"), ("GET", "/v2/keys/a?quorum=true", "")] {
        let refused = ask(served.address, method, path, form).await;
        assert_eq!((refused.status, refused.json()["errorCode"].clone()), (500, 301.into()));
    }
    served.stop().await;
}

#[tokio::test]
async fn what_clients_ask_beside_keys() {
    let served = Served::start().await;
    let get = async |path: &str| ask(served.address, "GET", path, "").await;
    let version = get("/version").await.json();
    assert!(version["etcdserver"] == "2.3.8" && version["coreinit"] == "9.9.9", "{version}");
    assert_eq!(get("/health").await.text().trim(), r#"{"health":"true"}"#);
    let members = get("/v2/members").await;
    let member = &members.json()["members"][0];
    assert_eq!((&member["name"], &member["clientURLs"][0]), (&"h1".into(), &served.url().into()));
    assert_eq!(get("/v2/members/leader").await.json(), *member);
    assert!(members.header("x-etcd-cluster-id").is_some());
    let own = get("/v2/stats/self").await.json();
    assert_eq!((&own["state"], &own["id"]), (&"StateLeader".into(), &member["id"]));
    assert_eq!(get("/v2/stats/leader").await.json()["leader"], member["id"]);
    assert_eq!(get("/v2/machines").await.text(), served.url());
    assert_eq!(get("/v2/auth/enable").await.json()["enabled"], false);
    assert_eq!((get("/nowhere").await.status, get("/v2/keysx").await.status), (404, 404));
    let patch = ask(served.address, "PATCH", "/v2/keys/a", "").await;
    assert_eq!((patch.status, patch.header("allow")), (405, Some("HEAD,GET,PUT,POST,DELETE")));
    assert_eq!(ask(served.address, "POST", "/v2/members", "x=1").await.status, 403);
    served.stop().await;
}

/// A page that somebody opens in a browser must not write to what listens on their own machine.
#[tokio::test]
async fn web_pages_are_not_answered() {
    let served = Served::start().await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let request = "POST /v2/keys/a HTTP/1.1\r\nHost: x\r\nOrigin: http://evil.example\r\n\
                   Connection: close\r\nContent-Length: 0\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert_eq!(ask(served.address, "GET", "/v2/keys/a", "").await.status, 404);
    served.stop().await;
}
