//! The API's doors as a client finds them: the bytes on the wire, on each kind of socket.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::Request;
use coreinitd::http::{self, Door};
use futures::stream::{self, StreamExt};
use store::MemoryStore;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::bench::{Bench, machine, parts, text};

/// The whole answer, without the line that tells the time.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
    let request = format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let lines = answer.split("\r\n").filter(|line| !line.starts_with("Date: "));
    lines.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn every_door_leads_to_the_same_api() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fleet.sock");
    let unix = http::bind(&path).await.unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let (stop, stopping) = watch::channel(false);
    let doors: Vec<Door> = vec![unix.into(), tcp.into()];
    let store = Arc::new(MemoryStore::new(machine("m1")));
    let served = tokio::spawn(http::run(parts(&store), doors, stopping));

    let check = async |request: &str, answer: &str| {
        assert_eq!(ask(TcpStream::connect(address).await.unwrap(), request).await, answer);
        assert_eq!(ask(UnixStream::connect(&path).await.unwrap(), request).await, answer);
    };
    let json = "Content-Type: application/json\nServer: coreinitd/9.9.9";
    let end = "Connection: close";
    check("GET /fleet/v1/units", &format!("HTTP/1.1 200 OK\n{json}\nContent-Length: 2\n{end}\n\n{{}}")).await;
    let refused = r#"{"error":{"code":405,"message":"only GET supported against this resource"}}"#;
    let status = "HTTP/1.1 405 Method Not Allowed";
    check("PUT /fleet/v1/units", &format!("{status}\n{json}\nContent-Length: 75\n{end}\n\n{refused}")).await;
    check("HEAD /fleet/v1/units", &format!("{status}\n{json}\nContent-Length: 75\n{end}\n\n")).await;
    let moved = "HTTP/1.1 301 Moved Permanently\nLocation: /fleet/v1/units\nServer: coreinitd/9.9.9";
    check("DELETE /fleet//v1/units", &format!("{moved}\n{end}\nContent-Length: 0\n\n")).await;

    stop.send_replace(true);
    served.await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "a door that is closed is closed");
}

#[tokio::test(start_paused = true)]
async fn a_body_is_not_waited_for_and_not_without_limit() {
    let bench = Bench::new();
    let post = |body: Body| {
        let request = Request::post("/v1/units").header("content-type", "application/json");
        let answer = bench.send(request.body(body).unwrap());
        async move { text(answer.await).await.0.as_u16() }
    };
    let piece = Bytes::from(vec![b' '; 1 << 20]);
    let pieces = |count: usize| {
        let piece = piece.clone();
        stream::iter(0..count).map(move |_| Ok::<_, std::io::Error>(piece.clone()))
    };
    let begun = Instant::now();
    assert_eq!(post(Body::from_stream(pieces(1).chain(stream::pending()))).await, 408);
    assert_eq!(begun.elapsed().as_secs(), 30);
    assert_eq!(post(Body::from_stream(pieces(17))).await, 413);
    // Four of 15 MiB that wait for more leave no room for a fifth.
    let waiting = || post(Body::from_stream(pieces(15).chain(stream::pending())));
    let fifth = async {
        tokio::task::yield_now().await;
        let refused = waiting().await;
        (refused, begun.elapsed().as_secs())
    };
    let (a, b, c, d, (refused, at)) = tokio::join!(waiting(), waiting(), waiting(), waiting(), fifth);
    assert_eq!(([a, b, c, d], refused, at), ([408; 4], 503, 30));
    assert_eq!(post(Body::from_stream(pieces(15))).await, 400, "there is room again");
}
