//! The bench that the tests of this binary work on: a router over a [`MemoryStore`], and short words for what
//! happens to it.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, Response, StatusCode};
use cluster::{
    ClusterState, Command, DesiredState, Generation, MachineId, MachineInfo, Observed, UnitFile, UnitHash,
    UnitName,
};
use coreinitd::http::{Access, Caller, HttpParts, InitError, router};
use coreinitd::signs::Signs;
use futures::FutureExt;
use store::{MemoryStore, Store};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower::ServiceExt;

pub struct Bench {
    pub store: Arc<MemoryStore>,
    pub router: Router,
    /// Ends with the bench.
    _follower: JoinSet<()>,
}

pub fn name(text: &str) -> UnitName {
    UnitName::new(text).unwrap()
}

pub fn machine(text: &str) -> MachineId {
    MachineId::new(text).unwrap()
}

/// The parts that the room is built from, over that store. A cluster of the name `taken` exists already.
pub fn parts(store: &Arc<MemoryStore>) -> HttpParts {
    let (init_store, store) = (store.clone(), store.clone() as Arc<dyn Store>);
    let init = move |wish: api::v1::ClusterInit| {
        let name = wish.name;
        let store = init_store.clone();
        async move {
            if name.as_deref() == Some("taken") {
                return Err(InitError::Exists { id: "c0".into() });
            }
            let command = Command::InitCluster { id: "c1".into(), name: name.unwrap_or("cluster".into()) };
            let outcomes = store.propose(vec![command], soon()).await;
            outcomes.map(drop).map_err(|error| InitError::Failed { reason: error.to_string() })
        }
        .boxed()
    };
    let ask = |_, _| Box::pin(async { Err("no machine answers here".into()) }) as _;
    HttpParts {
        store,
        machine: machine("m1"),
        version: "9.9.9".into(),
        signs: Arc::default(),
        init: Arc::new(init),
        ask: Arc::new(ask),
        membership: None,
        access: Access::default(),
    }
}

/// Over the socket.
pub fn root() -> Caller {
    Caller::local(0, None, "/run/coreinit.sock")
}

pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

impl Bench {
    pub fn new() -> Bench {
        Bench::with_signs(Arc::default())
    }

    pub fn with_signs(signs: Arc<Signs>) -> Bench {
        let store = Arc::new(MemoryStore::new(machine("m1")));
        let (router, follower) = router(HttpParts { signs, ..parts(&store) });
        let mut tasks = JoinSet::new();
        tasks.spawn(follower.run(std::future::pending()));
        Bench { store, router, _follower: tasks }
    }

    pub async fn send(&self, mut request: Request<Body>) -> Response<Body> {
        request.extensions_mut().insert(root());
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// Status and body; a body that is given goes out as JSON.
    pub async fn ask(&self, method: &str, path: &str, body: &str) -> (StatusCode, String) {
        let mut request = Request::builder().method(method).uri(path);
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        text(self.send(request.body(body.to_owned().into()).unwrap()).await).await
    }

    pub fn state(&self) -> Arc<ClusterState> {
        state(&*self.store)
    }

    pub async fn propose(&self, command: Command) {
        propose(&*self.store, command).await;
    }
}

pub fn state(store: &dyn Store) -> Arc<ClusterState> {
    store.state().borrow().clone()
}

pub async fn propose(store: &dyn Store, command: Command) {
    let committed = store.propose(vec![command.clone()], soon()).await.unwrap();
    for outcome in committed.outcomes {
        outcome.unwrap_or_else(|rejected| panic!("{command:?}: {rejected}"));
    }
}

pub async fn text(response: Response<Body>) -> (StatusCode, String) {
    let status = response.status();
    let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

pub fn register(id: &str, address: &str, metadata: &[(&str, &str)]) -> Command {
    let metadata = metadata.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    let info = MachineInfo {
        name: format!("host-{id}"),
        address: address.into(),
        version: "9.9.9".into(),
        metadata,
        ..MachineInfo::default()
    };
    Command::RegisterMachine { id: machine(id), info }
}

pub fn set(unit: &str, exec: &str, desired: DesiredState) -> Command {
    let file = UnitFile::parse(&format!("[Service]\nExecStart={exec}\n")).unwrap();
    Command::SetUnit { name: name(unit), file: Some(file), desired: Some(desired) }
}

pub fn assign(state: &ClusterState, unit: &str, to: &str) -> Command {
    let generation = state.units.get(&name(unit)).map(|unit| unit.generation).unwrap_or_default();
    Command::Assign { unit: name(unit), machine: machine(to), generation, reason: "because".into() }
}

/// `generation`: what the machine has carried out.
pub fn report(
    state: &ClusterState,
    unit: &str,
    by: &str,
    active: &str,
    generation: Option<Generation>,
) -> Command {
    let hash = state.units.get(&name(unit)).map_or(UnitHash([0; 20]), |unit| unit.file.hash());
    let sub = if active == "active" { "running" } else { "dead" };
    let observed = Observed {
        load: "loaded".into(),
        active: active.into(),
        sub: sub.into(),
        hash,
        generation,
        failure: None,
    };
    Command::Report { machine: machine(by), unit: name(unit), observed: Some(observed) }
}
