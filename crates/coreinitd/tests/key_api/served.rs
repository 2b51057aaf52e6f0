//! The key API over a store in memory, and a client of few words for this one and for a real etcd.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cluster::{Command, MachineId, MachineInfo};
use coreinitd::http::key_api::{self, KeyParts};
use coreinitd::key_ends;
use serde_json::Value;
use store::{MemoryStore, Store};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// Longer than any answer takes on a machine that is busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Served {
    pub store: Arc<MemoryStore>,
    pub address: SocketAddr,
    stop: watch::Sender<bool>,
    tasks: tokio::task::JoinSet<()>,
}

impl Served {
    pub async fn start() -> Served {
        let machine = MachineId::new("m1").unwrap();
        let store = Arc::new(MemoryStore::new(machine.clone()));
        let info = MachineInfo { name: "h1".into(), ..MachineInfo::default() };
        let register = Command::RegisterMachine { id: machine.clone(), info };
        let init = Command::InitCluster { id: "c1".into(), name: "test".into() };
        store.propose(vec![init, register], Instant::now() + PATIENCE).await.unwrap();
        let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = door.local_addr().unwrap();
        let (stop, stopping) = watch::channel(false);
        let parts =
            KeyParts { store: store.clone(), machine, version: "9.9.9".into(), signs: Arc::default() };
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(key_api::run(parts, vec![door], stopping.clone()));
        tasks.spawn(key_ends::run(store.clone(), stopping));
        Served { store, address, stop, tasks }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub async fn stop(self) {
        self.stop.send_replace(true);
        timeout(PATIENCE, self.tasks.join_all()).await.expect("it ends");
    }
}

#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {} {text}", self.status))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One request over a connection of its own. `form` is sent in the body, when it is not empty.
pub async fn ask(address: SocketAddr, method: &str, path: &str, form: &str) -> Answer {
    let mut stream = begin(address, method, path, form).await;
    let mut bytes = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("an answer").unwrap();
    parse(&bytes).unwrap_or_else(|| panic!("{method} {path}: {}", String::from_utf8_lossy(&bytes)))
}

/// Sends a request, whose answer is still to come.
pub async fn begin(address: SocketAddr, method: &str, path: &str, form: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let kind = if form.is_empty() { "" } else { "Content-Type: application/x-www-form-urlencoded\r\n" };
    let length = form.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{kind}\
         Content-Length: {length}\r\n\r\n{form}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

pub fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> =
        lines.filter_map(|line| line.split_once(": ")).map(|(k, v)| (k.into(), v.into())).collect();
    let body = bytes[end + 4..].to_vec();
    let chunked = headers.iter().any(|(k, v)| k.eq_ignore_ascii_case("transfer-encoding") && v == "chunked");
    Some(Answer { status, headers, body: if chunked { unchunked(&body) } else { body } })
}

/// What is there so far.
fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        let length = usize::from_str_radix(&String::from_utf8_lossy(&rest[..end]), 16).unwrap();
        let Some(chunk) = rest.get(end + 2..end + 2 + length).filter(|chunk| !chunk.is_empty()) else {
            break;
        };
        whole.extend_from_slice(chunk);
        rest = &rest[(end + length + 4).min(rest.len())..];
    }
    whole
}
