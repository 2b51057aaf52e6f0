//! The API's doors as a client finds them: the bytes on the wire, on each kind of socket.

use std::sync::Arc;

use coreinitd::http::{self, Door};
use store::MemoryStore;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

use crate::bench::{machine, parts};

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
