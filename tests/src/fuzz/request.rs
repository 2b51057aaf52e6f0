//! Requests to the daemon's API, over a store in memory that holds a few units and machines.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use api::fleet::{ErrorBody, Unit};
use cluster::{
    ClusterState, Command, DesiredState, MachineId, MachineInfo, Observed, UnitFile, UnitName, validate,
};
use coreinitd::http::{Access, Caller, HttpParts, InitError, router};
use futures::FutureExt;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use serde_json::{Value, json};
use store::{MemoryStore, Store};
use tokio::runtime::Runtime;
use tokio::time::Instant;
use tower::ServiceExt;

use super::unit_file::is_read_again;

/// Longer would be no message but an echo.
const MESSAGE_BYTES_MAX: usize = 2010;

/// The first line is the unit's name in the path, the rest the body.
pub fn put_unit(bytes: &[u8]) {
    let (name, body) = first_line(bytes);
    let Ok(name) = str::from_utf8(name) else { return };
    check("PUT", &format!("/fleet/v1/units/{}", escaped(name)), body);
}

pub fn patch_machines(body: &[u8]) {
    check("PATCH", "/fleet/v1/machines", body);
}

pub fn batch(body: &[u8]) {
    check("POST", "/v1/units", body);
}

pub fn cluster_init(body: &[u8]) {
    check("POST", "/v1/cluster/init", body);
}

pub fn move_unit(body: &[u8]) {
    check("POST", "/v1/units/known.service/move", body);
}

pub fn event_filter(body: &[u8]) {
    check("POST", "/v1/events", body);
}

/// The first line is the method and the path with its query, the rest the body.
pub fn request_line(bytes: &[u8]) {
    let (line, body) = first_line(bytes);
    let Some((method, path)) = str::from_utf8(line).ok().and_then(|line| line.split_once(' ')) else {
        return;
    };
    check(method, path, body);
}

fn first_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, b""),
    }
}

/// As one segment of a path.
fn escaped(name: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    name.bytes().map(byte).collect()
}

/// What came back.
struct Answer {
    status: u16,
    /// `None`: a stream, which has no end.
    body: Option<Bytes>,
}

/// The daemon's API, made once: it takes longer to make than to ask.
struct Bench {
    store: Arc<MemoryStore>,
    answer: Box<dyn Fn(Request<Full<Bytes>>) -> BoxFuture<'static, Answer> + Send + Sync>,
    /// What the store holds before each request.
    filled: Arc<ClusterState>,
}

fn check(method: &str, path: &str, body: &[u8]) {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
    });
    static BENCH: LazyLock<Bench> = LazyLock::new(|| RUNTIME.block_on(Bench::new()));
    let bench = &*BENCH;
    RUNTIME.block_on(async {
        bench.store.set_state(bench.filled.clone());
        let before = bench.filled.clone();
        let Some(answer) = bench.ask(method, path, body).await else { return };
        let after = bench.state();
        is_clear(&answer, path);
        if answer.status >= 400 {
            assert!(after.units == before.units && after.machines == before.machines, "refused, yet done");
            return;
        }
        for list in ["units", "machines", "state"] {
            let page = bench.ask("GET", &format!("/fleet/v1/{list}"), b"").await.expect("a good request");
            let page: Value = read(&page);
            assert!(page.is_object(), "{page}");
        }
        for (name, unit) in &after.units {
            if before.units.get(name).is_none_or(|known| known.file != unit.file) {
                bench.store.set_state(after.clone());
                bench.is_stored_well(name, &unit.file).await;
            }
        }
    });
}

/// An error says what is wrong, in the body that all errors have.
fn is_clear(answer: &Answer, path: &str) {
    let status = answer.status;
    assert!(
        matches!(status, 200 | 201 | 204 | 301 | 400 | 404 | 405 | 409 | 413 | 415 | 502),
        "{status} {path}"
    );
    if status < 400 {
        return;
    }
    let error: ErrorBody = read(answer);
    let said = error.error.message;
    assert_eq!(error.error.code, status);
    // fleet had no words for a path or a method that it does not know.
    assert!(!said.trim().is_empty() || matches!(status, 404 | 405), "{status} without a word, {path}");
    assert!(said.len() <= MESSAGE_BYTES_MAX, "{status} with {} bytes", said.len());
}

fn read<T: serde::de::DeserializeOwned>(answer: &Answer) -> T {
    let body = answer.body.as_deref().unwrap_or_default();
    serde_json::from_slice(body).unwrap_or_else(|error| panic!("{error} in {:?}", answer.body))
}

impl Bench {
    async fn new() -> Bench {
        let store = filled().await;
        let (router, _background) = router(parts(&store));
        let filled = store.state().borrow().clone();
        let answer = move |request: Request<Full<Bytes>>| {
            let router = router.clone();
            let answer = async move {
                let mut request = request;
                request.extensions_mut().insert(Caller::local(0, None, "/run/coreinit.sock"));
                let response = router.oneshot(request).await.expect("it answers");
                let status = response.status().as_u16();
                let stream = response.headers().get("content-type").is_some_and(|t| t == "text/event-stream");
                let body = match stream {
                    true => None,
                    false => Some(response.into_body().collect().await.expect("a body").to_bytes()),
                };
                Answer { status, body }
            };
            answer.boxed()
        };
        Bench { store, answer: Box::new(answer), filled }
    }

    fn state(&self) -> Arc<ClusterState> {
        self.store.state().borrow().clone()
    }

    /// `None`: no HTTP server would let such a request through.
    async fn ask(&self, method: &str, path: &str, body: &[u8]) -> Option<Answer> {
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        let request = request.body(Full::new(Bytes::copy_from_slice(body))).ok()?;
        match request.uri().path().starts_with('/') {
            true => Some((self.answer)(request).await),
            false => None,
        }
    }

    /// What both APIs hand out of a unit can be handed in again, and gives the same unit.
    async fn is_stored_well(&self, name: &UnitName, file: &UnitFile) {
        assert_eq!(UnitFile::parse(file.text()).as_ref(), Ok(file), "{name} can be read");
        assert!(validate(name, file).is_ok(), "{name} may be stored");
        is_read_again(file);
        let path = escaped(name.as_str());
        let fleets = format!("/fleet/v1/units/{path}");
        let told: Unit = read(&self.ask("GET", &fleets, b"").await.expect("a good request"));
        let ours = self.ask("GET", &format!("/v1/units/{path}"), b"").await.expect("a good request");
        let ours: api::v1::Unit = read(&ours);

        self.store.set_state(self.filled.clone());
        let given = Unit { options: told.options, desired_state: "inactive".into(), ..Unit::default() };
        let given = serde_json::to_vec(&given).expect("JSON");
        let taken = self.ask("PUT", &fleets, &given).await.expect("a good request");
        assert!(matches!(taken.status, 201 | 204), "{name}: {} {:?}", taken.status, taken.body);
        assert_eq!(self.state().units[name].file.hash(), file.hash(), "{name}");

        let operation = json!({"op": "set", "name": name, "text": ours.text, "desiredState": "inactive"});
        let given = json!({ "operations": [operation] }).to_string();
        let taken = self.ask("POST", "/v1/units", given.as_bytes()).await.expect("a good request");
        assert_eq!(taken.status, 200, "{name}: {:?}", taken.body);
        assert_eq!(self.state().units[name].file, *file, "{name}");
    }
}

fn parts(store: &Arc<MemoryStore>) -> HttpParts {
    let init = |_| async { Err(InitError::Exists { id: "c1".into() }) }.boxed();
    let ask = |_, _| async { Err("no machine answers here".into()) }.boxed();
    HttpParts {
        store: store.clone(),
        machine: machine("m1"),
        version: "1".into(),
        signs: Arc::default(),
        init: Arc::new(init),
        ask: Arc::new(ask),
        membership: None,
        access: Access::default(),
    }
}

fn machine(id: &str) -> MachineId {
    MachineId::new(id).expect("an id")
}

fn name(text: &str) -> UnitName {
    UnitName::new(text).expect("a name")
}

/// A unit that runs, one that waits, a template, a global one; two machines.
async fn filled() -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::new(machine("m1")));
    let mut commands = vec![Command::InitCluster { id: "c1".into(), name: "fuzz".into() }];
    for id in ["m1", "m2"] {
        let info = MachineInfo { name: id.into(), address: "10.0.0.1".into(), ..MachineInfo::default() };
        commands.push(Command::RegisterMachine { id: machine(id), info });
    }
    let file = |text: &str| UnitFile::parse(text).expect("a unit file");
    let sleep = "[Service]\nExecStart=/bin/sleep 1\n";
    let units = [
        ("known.service", file(sleep), DesiredState::Launched),
        ("waits.service", file(sleep), DesiredState::Inactive),
        ("t@.service", file(&format!("{sleep}[X-Fleet]\nConflicts=t@*.service\n")), DesiredState::Inactive),
        ("g.service", file(&format!("{sleep}[X-Fleet]\nGlobal=true\n")), DesiredState::Launched),
    ];
    for (unit, file, desired) in units {
        commands.push(Command::SetUnit { name: name(unit), file: Some(file), desired: Some(desired) });
    }
    propose(&store, commands).await;
    let unit = store.state().borrow().units[&name("known.service")].clone();
    let (generation, reason) = (unit.generation, "fewest units".to_string());
    let observed = Observed {
        load: "loaded".into(),
        active: "active".into(),
        sub: "running".into(),
        hash: unit.file.hash(),
        generation: Some(generation),
        failure: None,
    };
    let (unit, at) = (name("known.service"), machine("m1"));
    let assign = Command::Assign { unit: unit.clone(), machine: at.clone(), generation, reason };
    propose(&store, vec![assign, Command::Report { machine: at, unit, observed: Some(observed) }]).await;
    store
}

async fn propose(store: &MemoryStore, commands: Vec<Command>) {
    let committed = store.propose(commands, Instant::now() + Duration::from_secs(10)).await;
    let outcomes = committed.expect("the store takes it").outcomes;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
}
