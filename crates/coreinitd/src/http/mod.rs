//! The HTTP room: fleet's API (`/fleet/v1`, and its other names) and our own (`/v1`) over the store, served
//! on Unix sockets and, when asked for, on TCP.
//!
//! Who calls is told by the door (`caller`), what they may do by one table (`roles`); every change that was
//! asked for is written down (`audit`).
//!
//! It turns requests into commands and states into views, and decides nothing else. It knows neither systemd
//! nor how the state is kept. Called by the daemon's `run`.

mod answers;
mod audit;
mod backup;
mod caller;
mod concerns;
mod connection;
mod error;
mod events;
mod feed;
mod fleet;
mod fleet_lock;
mod handed_over;
mod health;
mod journal;
pub mod key_api;
mod listen;
pub(crate) mod membership;
mod metrics;
#[cfg(feature = "next")]
mod next;
mod page_token;
mod patience;
mod people;
mod placing;
mod prometheus;
mod reboot_lock;
mod request;
mod roles;
mod rotation;
mod v1;
mod view;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use api::v1::ClusterInit;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderValue, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::any;
use cluster::{ClusterState, Command, MachineId};
use futures::FutureExt;
use futures::future::BoxFuture;
use store::{Committed, ProposeError, ReadError, Store};
use tokio::sync::{Semaphore, oneshot, watch};

use crate::signs::Signs;
use answers::Answers;
use error::Refusal;
use feed::{Feed, Follower};
use metrics::Requests;
use patience::{LEADERLESS_MAX, Leaderless, Watcher};
use view::Placement;

pub use answers::ANSWERS_BYTES_MAX;
pub use caller::Caller;
pub use handed_over::{handed_over, is_handed_over};
pub use journal::{AskMachine, JOURNALS_MAX, Question, Words};
pub use listen::{DOORS_MAX, Door, ListenError, SOCKET_GROUP, bind, bind_tcp};
pub use membership::{MadeToken, Membership};
pub use people::{Access, Inviting, IssuePerson};
pub use roles::requests;

/// Of one whole request: a batch of several hundred ordinary unit files, or some of the largest.
pub const BODY_BYTES_MAX: usize = 16 << 20;

/// Bodies that are being received, all together: as many of the largest as one client sends.
const BODIES_BYTES_MAX: usize = 64 << 20;

/// Not yet read by those who asked.
static ANSWERS: Answers = Answers::new();

/// A body that is not there by then is not waited for any longer; the largest needs 5 Mbit/s.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A write outlives an election (some seconds at most) and then some; longer, and people think that it hangs.
pub const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// A read is asked again more lightly than a write, so it gives up earlier; an election still fits in.
pub const READ_DEADLINE: Duration = Duration::from_secs(5);

/// How long open requests may still run when the daemon stops; event streams end at once.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// What the room needs from the rest of the daemon.
pub struct HttpParts {
    pub store: Arc<dyn Store>,
    /// This machine.
    pub machine: MachineId,
    /// Of coreinit, such as `0.1.0`.
    pub version: String,
    /// What the daemon's rooms tell of themselves.
    pub signs: Arc<Signs>,
    pub init: InitCluster,
    pub ask: AskMachine,
    /// `None` where machines have no membership of their own.
    pub membership: Option<Arc<dyn Membership>>,
    pub access: Access,
}

/// Forms a cluster of this machine alone, as it is wished. It returns when the store can be
/// used.
pub type InitCluster =
    Arc<dyn Fn(ClusterInit) -> BoxFuture<'static, Result<(), InitError>> + Send + Sync + 'static>;

/// Why no cluster was formed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InitError {
    #[error("this machine is part of a cluster already: {id}")]
    Exists { id: String },
    #[error("cannot form a cluster: {reason}")]
    Failed { reason: String },
}

/// What every handler shares.
struct Room {
    parts: HttpParts,
    placement: Arc<Placement>,
    feed: Arc<Feed>,
    leaderless: Arc<Leaderless>,
    requests: Requests,
    /// Journals that may still be opened.
    journals: Arc<Semaphore>,
}

impl Room {
    /// The state to answer from: linearizable, or what this machine knows.
    async fn read(&self, stale: bool) -> Result<Arc<ClusterState>, Refusal> {
        if stale {
            return Ok(self.parts.store.state().borrow().clone());
        }
        let deadline = self.leaderless.deadline(READ_DEADLINE).await;
        self.parts.store.read(deadline).await.map_err(|error| match error {
            ReadError::NoLeader { hint } => self.no_leader(hint),
            error => error.into(),
        })
    }

    async fn propose(&self, commands: Vec<Command>) -> Result<Committed, Refusal> {
        let deadline = self.leaderless.deadline(WRITE_DEADLINE).await;
        self.parts.store.propose(commands, deadline).await.map_err(|error| match error {
            ProposeError::NoLeader { hint } => self.no_leader(hint),
            error => error.into(),
        })
    }

    fn no_leader(&self, hint: String) -> Refusal {
        let silent = self.leaderless.since().map(|since| since.elapsed()).unwrap_or_default();
        Refusal::NoLeader { hint, silent: Some(silent).filter(|silent| *silent >= LEADERLESS_MAX) }
    }
}

/// What the room does besides answering: event streams begin once it runs, and end when it does.
pub struct Background {
    follower: Follower,
    watcher: Watcher,
}

impl Background {
    /// Until `shutdown`.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let shutdown = shutdown.shared();
        tokio::join!(self.follower.run(shutdown.clone()), self.watcher.run(shutdown));
    }
}

/// The routes, and the work behind them.
pub fn router(parts: HttpParts) -> (Router, Background) {
    let placement = Arc::new(Placement::default());
    let (feed, follower) = feed::follow(parts.store.state(), placement.clone());
    let server = HeaderValue::try_from(format!("coreinitd/{}", parts.version))
        .unwrap_or(HeaderValue::from_static("coreinitd"));
    let (leaderless, watcher) = patience::watch_leader(parts.store.role());
    let journals = Arc::new(Semaphore::new(JOURNALS_MAX));
    let room = Arc::new(Room { parts, placement, feed, leaderless, requests: Requests::default(), journals });
    let router = Router::new()
        .merge(v1::routes())
        .merge(health::routes())
        .merge(backup::routes())
        .merge(journal::routes())
        .merge(placing::routes())
        .merge(membership::routes())
        .merge(rotation::routes())
        .merge(people::routes())
        .merge(reboot_lock::routes())
        .merge(fleet_lock::routes())
        .merge(fleet::routes())
        .route("/metrics", any(metrics::metrics));
    #[cfg(feature = "next")]
    let router = router.merge(next::routes());
    let router = router
        .fallback(|| async { Refusal::NoRoute })
        .layer(from_fn(|request: Request, next: axum::middleware::Next| async move {
            ANSWERS.hold(next.run(request).await).await.map_err(|answers::NoRoom| Refusal::TooManyAnswers)
        }))
        .layer(from_fn_with_state(room.clone(), roles::admit))
        .layer(from_fn(|request: Request, next: axum::middleware::Next| async move {
            match fleet::go_path::redirect(request.method(), request.uri()) {
                Some(redirection) => redirection,
                None => next.run(request).await,
            }
        }))
        .layer(from_fn_with_state(room.clone(), metrics::count))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(axum::middleware::map_response(move |mut response: Response| {
            response.headers_mut().insert(header::SERVER, server.clone());
            std::future::ready(response)
        }))
        .with_state(room);
    (router, Background { follower, watcher })
}

/// Serves until `shutdown` turns true or its sender is gone: event streams end, open requests get a moment to
/// finish.
pub async fn run(
    parts: HttpParts,
    doors: Vec<impl Into<Door>>,
    shutdown: watch::Receiver<bool>,
) -> io::Result<()> {
    let signs = parts.signs.clone();
    let (router, background) = router(parts);
    let servers = doors.into_iter().take(listen::DOORS_MAX).map(|door| {
        let (router, signs) = (router.clone(), signs.clone());
        let stop = until(shutdown.clone());
        let door = door.into();
        let is_tcp = door.tcp_address().is_some();
        let served = listen::serve(door, router, signs, listen::LIMITS, stop, SHUTDOWN_GRACE);
        if is_tcp { apart(served).boxed() } else { served.boxed() }
    });
    tokio::join!(background.run(until(shutdown.clone())), futures::future::join_all(servers));
    Ok(())
}

/// On a thread of its own: strangers who flood a TCP door keep that thread busy, and neither the daemon's
/// other work nor its Unix sockets.
async fn apart(work: impl Future<Output = ()> + Send + 'static) {
    let (done, ended) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    // What it says goes where it would go from here.
    let dispatch = tracing::dispatcher::get_default(Clone::clone);
    let thread = runtime.and_then(|runtime| {
        std::thread::Builder::new().name("api-tcp".into()).spawn(move || {
            let _dispatched = tracing::dispatcher::set_default(&dispatch);
            runtime.block_on(work);
            // Nobody waits any more when the daemon is in a hurry to end.
            let _ = done.send(());
        })
    });
    match thread {
        Ok(_) => drop(ended.await),
        Err(error) => tracing::error!(%error, "the API is not served over TCP"),
    }
}

async fn until(mut shutdown: watch::Receiver<bool>) {
    // An error means that whoever could say so is gone.
    let _ = shutdown.wait_for(|stop| *stop).await;
}
