//! etcd's API of old (`/v2/keys` and what is around it), answered from the cluster's own key space: for units
//! written for CoreOS, which announce themselves with `etcdctl set` or `curl`. Plain HTTP, and whoever
//! reaches it may use it, as it was with etcd; so it is served at addresses of its own, and only when asked
//! for.
//!
//! Reads are answered from what this machine knows unless `quorum=true`; writes go to the leader.

mod answer;
mod ask;
mod counts;
mod form;
mod gather;
mod hub;
mod members;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, header};
use axum::response::Response;
use cluster::{ClusterState, Command, KeyChange, Kind, MachineId, Rejected};
use futures::FutureExt;
use guests::Limits;
use store::{ProposeError, ReadError, Role, Store};
use tokio::net::TcpListener;
use tokio::sync::watch as state_watch;
use tokio::time::Instant;

use self::answer::{Fault, Page};
use self::ask::{Asked, Read};
use self::counts::Counts;
use self::form::Form;
use self::gather::Gather;
use self::hub::Hub;
use super::answers::{Answers, NoRoom};
use super::patience::{Leaderless, watch_leader};
use super::request::receive;
use super::{READ_DEADLINE, SHUTDOWN_GRACE, WRITE_DEADLINE, apart, listen, until};
use crate::signs::Signs;

pub use hub::WATCHES_MAX;

/// Of one request: the largest value, each byte of it written as three.
pub const FORM_BYTES_MAX: usize = 1 << 20;

/// Connections of one address that is served. Those who watch hold theirs: twice as many as may watch.
const LIMITS: Limits = Limits { inside_max: 2 * WATCHES_MAX, from_one_max: WATCHES_MAX, pace: None };

const KEYS: &str = "/v2/keys";

/// What is needed of the rest of the daemon.
pub struct KeyParts {
    pub store: Arc<dyn Store>,
    /// This machine.
    pub machine: MachineId,
    /// Of coreinit, such as `0.1.0`.
    pub version: String,
    pub signs: Arc<Signs>,
}

/// What every request shares.
struct Room {
    parts: KeyParts,
    states: state_watch::Receiver<Arc<ClusterState>>,
    leaderless: Arc<Leaderless>,
    hub: Arc<Hub>,
    gather: Gather,
    counts: Counts,
    /// Raft's, for those who ask for it.
    term: AtomicU64,
    since: SystemTime,
    /// Since when this machine knows its leader.
    led_since: std::sync::Mutex<SystemTime>,
}

/// Serves until `shutdown`: those who watch are let go, open requests get a moment to finish.
pub async fn run(parts: KeyParts, doors: Vec<TcpListener>, shutdown: state_watch::Receiver<bool>) {
    let (leaderless, watcher) = watch_leader(parts.store.role());
    let hub = Arc::new(Hub::new(parts.store.state()));
    let (gather, gathering) = Gather::new(parts.store.clone());
    let room = Arc::new(Room {
        states: parts.store.state(),
        leaderless,
        hub: hub.clone(),
        gather,
        counts: Counts::default(),
        term: AtomicU64::new(0),
        since: SystemTime::now(),
        led_since: std::sync::Mutex::new(SystemTime::now()),
        parts,
    });
    let router = Router::new().fallback(answer).with_state(room.clone());
    let servers = doors.into_iter().map(|door| {
        let stop = until(shutdown.clone());
        let signs = room.parts.signs.clone();
        apart(listen::serve(door.into(), router.clone(), signs, LIMITS, stop, SHUTDOWN_GRACE))
    });
    let servers = futures::future::join_all(servers);
    let served = async {
        tokio::join!(
            watcher.run(until(shutdown.clone())),
            hub.follow(until(shutdown.clone())),
            room.follow_leader(until(shutdown.clone())),
            servers,
        )
    };
    tokio::select! {
        // Not resumed when cancelled: nobody waits for it any more.
        () = gathering => {}
        _ = served => {}
    }
}

/// Not yet read by those who asked.
static ANSWERS: Answers = Answers::new();

async fn answer(state: State<Arc<Room>>, request: Request) -> Response {
    let held = ANSWERS.hold(answered(state, request).await).await;
    held.unwrap_or_else(|NoRoom| answer::text(503, "too many large answers at once; try again"))
}

async fn answered(State(room): State<Arc<Room>>, request: Request) -> Response {
    // Only browsers send it. etcd let every page write; a page has no business here.
    if request.headers().contains_key(header::ORIGIN) {
        return answer::text(403, "requests of web pages are not answered");
    }
    let path = match form::decode(request.uri().path(), form::Plus::Stays) {
        Ok(path) => path,
        Err(_) => return answer::text(400, "400 Bad Request"),
    };
    match path.strip_prefix(KEYS) {
        Some(key) if key.is_empty() || key.starts_with('/') => keys(&room, key, request).await,
        _ => members::answer(&room, &path, request.method(), host(&request)),
    }
}

/// As the client calls this machine: it gets its own words back.
fn host(request: &Request) -> Option<&str> {
    let host = request.headers().get(header::HOST)?.to_str().ok()?;
    let good = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b':' | b'[' | b']');
    (!host.is_empty() && host.bytes().all(good)).then_some(host)
}

async fn keys(room: &Arc<Room>, key: &str, request: Request) -> Response {
    let method = request.method().clone();
    if ![Method::GET, Method::HEAD, Method::PUT, Method::POST, Method::DELETE].contains(&method) {
        return answer::not_allowed("HEAD,GET,PUT,POST,DELETE");
    }
    let asked = match asked(key, &method, request).await {
        Ok(asked) => asked,
        Err(fault) => return room.page(0, None).fault(&fault),
    };
    match asked {
        Asked::Read(read) => room.read(&read).await,
        Asked::Watch(watch) => watch::answer(room, watch),
        Asked::Write { change, terse } => room.write(change, terse).await,
    }
}

async fn asked(key: &str, method: &Method, request: Request) -> Result<Asked, Fault> {
    let query = request.uri().query().unwrap_or_default().to_string();
    let is_form = |value: &header::HeaderValue| {
        let media = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        media.trim_ascii().eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
    };
    let has_form = request.headers().get(header::CONTENT_TYPE).is_some_and(is_form);
    // As in Go: what others send is no form.
    let body = match has_form && [Method::PUT, Method::POST].contains(method) {
        true => receive(request, FORM_BYTES_MAX).await.map_err(|refusal| Fault::form(refusal.to_string()))?,
        false => Default::default(),
    };
    let form = Form::read(&body, &query).map_err(Fault::form)?;
    ask::asked(key, method, &form, now_millis())
}

fn now_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Room {
    fn page(&self, index: u64, revision: Option<u64>) -> Page {
        let cluster = self.states.borrow().cluster.as_ref().map(|cluster| members::number(&cluster.id));
        let raft = revision.map(|revision| (revision, self.term.load(Ordering::Relaxed)));
        Page { cluster: cluster.unwrap_or_default(), index, raft }
    }

    async fn read(&self, read: &Read) -> Response {
        let state = match read.quorum {
            false => self.states.borrow().clone(),
            true => match self.vouched().await {
                Ok(state) => state,
                Err(fault) => return self.page(0, None).fault(&fault),
            },
        };
        let found = state.keys.get(&read.path);
        self.counts.read(found.is_ok());
        match found {
            Ok(node) => {
                let page = self.page(state.keys.index(), Some(state.revision.0));
                page.node(&read.path, node, read.recursive, now_millis())
            }
            Err(error) => self.page(error.index, None).fault(&error.into()),
        }
    }

    async fn vouched(&self) -> Result<Arc<ClusterState>, Fault> {
        let deadline = self.leaderless.deadline(READ_DEADLINE).await;
        self.parts.store.read(deadline).await.map_err(|error| match error {
            ReadError::NoLeader { .. } => Fault::leaderless(error.to_string()),
            error => Fault::internal(error.to_string()),
        })
    }

    async fn write(&self, change: KeyChange, terse: bool) -> Response {
        let what = counts::of(&change);
        let deadline = self.leaderless.deadline(WRITE_DEADLINE).await;
        let written = self.propose(change, deadline).await;
        self.counts.wrote(what, written.is_ok());
        match written {
            Ok((Kind::Key(event), revision)) => self.page(event.index(), Some(revision)).event(&event, terse),
            // Only keys' ends are answered otherwise, and nobody asks for those here.
            Ok(_) => self.page(0, None).fault(&Fault::internal("it came to nothing".into())),
            Err(fault) => self.page(fault.index, None).fault(&fault),
        }
    }

    async fn propose(&self, change: KeyChange, deadline: Instant) -> Result<(Kind, u64), Fault> {
        let command = Command::Keys { at: now_millis(), change };
        let proposed = self.gather.propose(command, deadline).await;
        let (outcome, revision) = proposed.map_err(|error| match error {
            ProposeError::NoLeader { .. } | ProposeError::Unformed { .. } => {
                Fault::leaderless(error.to_string())
            }
            error => Fault::internal(error.to_string()),
        })?;
        match outcome {
            Ok(kind) => Ok((kind, revision)),
            Err(Rejected::Key(error)) => Err(error.into()),
            Err(rejected) => Err(Fault::internal(rejected.to_string())),
        }
    }

    /// Notes each new leader.
    async fn follow_leader(&self, shutdown: impl Future<Output = ()>) {
        let mut roles = self.parts.store.role();
        let shutdown = shutdown.shared();
        loop {
            let role = roles.borrow_and_update().clone();
            *self.led_since.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = SystemTime::now();
            let term = match role {
                Role::Leader { term } => term,
                Role::Follower { .. } | Role::Leaderless | Role::Unformed { .. } => {
                    self.parts.store.vitals().log.map_or(0, |log| log.term)
                }
            };
            self.term.store(term, Ordering::Relaxed);
            tokio::select! {
                // Cancel-safe: both only wait.
                changed = roles.changed() => if changed.is_err() { return },
                () = shutdown.clone() => return,
            }
        }
    }
}

/// What waits for something that does not come is let go after so long, and asks again, as with etcd.
const WATCH_TIMEOUT: Duration = Duration::from_secs(300);
