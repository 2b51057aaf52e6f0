//! The HTTP room: fleet's API (`/fleet/v1`, and `/v1-alpha` as its other name) and our own (`/v1`) over the
//! store, served on Unix sockets.
//!
//! It turns requests into commands and states into views, and decides nothing else. It knows neither systemd
//! nor how the state is kept. Called by the daemon's `run`.

mod error;
mod events;
mod feed;
mod fleet;
mod journal;
mod listen;
mod page_token;
mod request;
mod v1;
mod view;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use cluster::{ClusterState, Command, MachineId};
use futures::future::BoxFuture;
use store::{Committed, Store};
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use error::Refusal;
use feed::{Feed, Follower};
use view::Placement;

pub use journal::{AskMachine, JOURNALS_MAX, Question, Words};
pub use listen::{ListenError, SOCKET_GROUP, bind};

/// Of one whole request: a batch of several hundred ordinary unit files, or some of the largest.
pub const BODY_BYTES_MAX: usize = 16 << 20;

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
    pub init: InitCluster,
    pub ask: AskMachine,
}

/// Forms a cluster of this machine alone, with that name if one is given. It returns when the store can be
/// used.
pub type InitCluster =
    Arc<dyn Fn(Option<String>) -> BoxFuture<'static, Result<(), InitError>> + Send + Sync + 'static>;

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
    /// Journals that may still be opened.
    journals: Arc<Semaphore>,
}

impl Room {
    /// The state to answer from: linearizable, or what this machine knows.
    async fn read(&self, stale: bool) -> Result<Arc<ClusterState>, Refusal> {
        if stale {
            return Ok(self.parts.store.state().borrow().clone());
        }
        Ok(self.parts.store.read(Instant::now() + READ_DEADLINE).await?)
    }

    async fn propose(&self, commands: Vec<Command>) -> Result<Committed, Refusal> {
        Ok(self.parts.store.propose(commands, Instant::now() + WRITE_DEADLINE).await?)
    }
}

/// The routes, and the task that feeds the event streams: they begin once it runs, and end when it does.
pub fn router(parts: HttpParts) -> (Router, Follower) {
    let placement = Arc::new(Placement::default());
    let (feed, follower) = feed::follow(parts.store.state(), placement.clone());
    let server = HeaderValue::try_from(format!("coreinitd/{}", parts.version))
        .unwrap_or(HeaderValue::from_static("coreinitd"));
    let room = Arc::new(Room { parts, placement, feed, journals: Arc::new(Semaphore::new(JOURNALS_MAX)) });
    let router = Router::new()
        .merge(v1::routes())
        .merge(journal::routes())
        .merge(fleet::routes())
        .fallback(|| async { Refusal::NoRoute })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(axum::middleware::map_response(move |mut response: Response| {
            response.headers_mut().insert(header::SERVER, server.clone());
            std::future::ready(response)
        }))
        .with_state(room);
    (router, follower)
}

/// Serves until `shutdown` turns true or its sender is gone: event streams end, open requests get a moment to
/// finish.
pub async fn run(
    parts: HttpParts,
    listeners: Vec<UnixListener>,
    shutdown: watch::Receiver<bool>,
) -> io::Result<()> {
    let (router, follower) = router(parts);
    let servers = listeners
        .into_iter()
        .map(|listener| listen::serve(listener, router.clone(), until(shutdown.clone()), SHUTDOWN_GRACE));
    tokio::join!(follower.run(until(shutdown.clone())), futures::future::join_all(servers));
    Ok(())
}

async fn until(mut shutdown: watch::Receiver<bool>) {
    // An error means that whoever could say so is gone.
    let _ = shutdown.wait_for(|stop| *stop).await;
}
