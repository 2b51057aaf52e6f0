//! One event stream: what stands, then what changes, at the reader's pace. `api::v1::Told` says what a reader
//! may rely on.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use api::v1::Event;
use axum::body::Body;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use cluster::{MachineId, Revision, UnitName};
use store::Role;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::error::Refusal;
use super::feed::{STREAMS_MAX, message};
use super::request::Parameters;
use super::view::Snapshot;
use super::{READ_DEADLINE, Room};

/// A third of the silence that the client bears.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// What is put together before it is handed to the connection.
const CHUNK_BYTES: usize = 32 << 10;

/// Taken from the feed at a time; the feed is locked meanwhile.
const ENTRIES_MAX: usize = 64;

struct Stream {
    room: Arc<Room>,
    newest: watch::Receiver<Snapshot>,
    /// `None`: all units, and the machines.
    names: Option<BTreeSet<UnitName>>,
    phase: Phase,
    /// When the reader has to hear something.
    keepalive_at: Instant,
    _permit: OwnedSemaphorePermit,
}

enum Phase {
    Begin {
        after: Option<Revision>,
        at_least: Revision,
    },
    Standing(Box<Standing>),
    /// Everything up to here was told.
    Following {
        told: Revision,
        synced: bool,
    },
}

/// What is still to be told of what stands.
struct Standing {
    snapshot: Snapshot,
    names: std::vec::IntoIter<UnitName>,
    machines: std::vec::IntoIter<(MachineId, usize)>,
}

pub(super) fn event_stream(
    room: &Arc<Room>,
    headers: &HeaderMap,
    query: &Parameters,
    names: Vec<UnitName>,
) -> Result<Response, Refusal> {
    let names: BTreeSet<UnitName> = names.into_iter().collect();
    let after = revision_given(headers, query)?;
    let permit = room.feed.streams.clone().try_acquire_owned();
    let permit = permit.map_err(|_| Refusal::TooManyStreams(STREAMS_MAX))?;
    // The feed runs behind the store a little: a unit that was just created must not be told as gone.
    let at_least = room.parts.store.state().borrow().revision;
    let stream = Stream {
        room: room.clone(),
        newest: room.feed.newest(),
        names: (!names.is_empty()).then_some(names),
        phase: Phase::Begin { after, at_least },
        keepalive_at: Instant::now() + KEEPALIVE,
        _permit: permit,
    };
    let chunks = futures::stream::unfold(stream, |mut stream| async move {
        let chunk = stream.next_chunk().await?;
        Some((Ok::<_, Infallible>(chunk), stream))
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    Ok((headers, Body::from_stream(chunks)).into_response())
}

/// The header is what a reader sends that resumes by itself, so it knows more than the query of its first
/// request.
fn revision_given(headers: &HeaderMap, query: &Parameters) -> Result<Option<Revision>, Refusal> {
    let header = headers.get("last-event-id").map(|value| value.to_str().unwrap_or("?"));
    let Some(text) = header.filter(|text| !text.is_empty()).or_else(|| query.first("after")) else {
        return Ok(None);
    };
    match text.parse() {
        Ok(revision) => Ok(Some(Revision(revision))),
        Err(_) => Err(Refusal::Invalid(format!("{text:?} is not a revision"))),
    }
}

impl Stream {
    /// The next bytes to send; `None` when the daemon stops.
    async fn next_chunk(&mut self) -> Option<Vec<u8>> {
        let mut chunk = Vec::new();
        while chunk.is_empty() {
            match &mut self.phase {
                Phase::Begin { after, at_least } => {
                    let (after, at_least) = (*after, *at_least);
                    self.begin(after, at_least, &mut chunk).await;
                }
                Phase::Standing(standing) => {
                    if standing.tell(self.names.is_none(), &mut chunk) {
                        let told = standing.snapshot.state.revision;
                        self.phase = Phase::Following { told, synced: false };
                    }
                }
                Phase::Following { told, synced } => {
                    let (told, synced) = (*told, *synced);
                    if !self.go_on(told, synced, &mut chunk) && chunk.is_empty() {
                        self.wait(told, &mut chunk).await?;
                    }
                }
            }
        }
        self.keepalive_at = Instant::now() + KEEPALIVE;
        Some(chunk)
    }

    async fn begin(&mut self, after: Option<Revision>, at_least: Revision, chunk: &mut Vec<u8>) {
        let needed = at_least.max(after.unwrap_or_default());
        let seen = self.newest.wait_for(|newest| needed <= newest.state.revision);
        let reached = matches!(timeout(READ_DEADLINE, seen).await, Ok(Ok(_)));
        match after {
            Some(told) if reached => self.phase = Phase::Following { told, synced: false },
            // The reader has seen a later state than this machine can reach: of another cluster, perhaps.
            Some(_) => self.reset(chunk),
            None => self.stand(),
        }
    }

    fn reset(&mut self, chunk: &mut Vec<u8>) {
        self.stand();
        chunk.extend_from_slice(&message(self.newest.borrow().state.revision, Event::Reset, false));
    }

    fn stand(&mut self) {
        let snapshot = self.newest.borrow_and_update().clone();
        let names = match &self.names {
            Some(names) => names.clone(),
            None => snapshot.names(),
        };
        let counts = snapshot.unit_counts();
        let count = |id: &MachineId| (id.clone(), counts.get(id).copied().unwrap_or(0));
        let machines: Vec<_> = snapshot.state.machines.keys().map(count).collect();
        self.phase = Phase::Standing(Box::new(Standing {
            names: names.into_iter().collect::<Vec<_>>().into_iter(),
            machines: machines.into_iter(),
            snapshot,
        }));
    }

    /// Tells what the feed has; `false` when it has nothing after what was told.
    fn go_on(&mut self, told: Revision, synced: bool, chunk: &mut Vec<u8>) -> bool {
        let Some(entries) = self.room.feed.after(told, ENTRIES_MAX) else {
            self.reset(chunk);
            return true;
        };
        let Some(last) = entries.last() else {
            if !synced {
                chunk.extend_from_slice(&message(told, Event::Synced { leader: self.leader() }, true));
                self.phase = Phase::Following { told, synced: true };
            }
            return false;
        };
        let wanted = |unit: &Option<UnitName>| match (&self.names, unit) {
            (None, _) => true,
            (Some(names), Some(unit)) => names.contains(unit),
            (Some(_), None) => false,
        };
        for change in entries.iter().flat_map(|entry| &entry.changes).filter(|change| wanted(&change.unit)) {
            chunk.extend_from_slice(&change.message);
        }
        if !chunk.is_empty() {
            chunk.extend_from_slice(&told_up_to(last.to));
        }
        self.phase = Phase::Following { told: last.to, synced };
        true
    }

    /// Until the feed has more, or the reader has to hear that the daemon is still there.
    async fn wait(&mut self, told: Revision, chunk: &mut Vec<u8>) -> Option<()> {
        match timeout_at(self.keepalive_at, self.newest.changed()).await {
            Ok(changed) => changed.ok(),
            Err(_) => {
                chunk.extend_from_slice(b": here\n");
                chunk.extend_from_slice(&told_up_to(told));
                Some(())
            }
        }
    }

    fn leader(&self) -> Option<MachineId> {
        match &*self.room.parts.store.role().borrow() {
            Role::Leader { .. } => Some(self.room.parts.machine.clone()),
            Role::Follower { leader } => Some(leader.clone()),
            Role::Unformed { .. } | Role::Leaderless => None,
        }
    }
}

impl Standing {
    /// Fills the chunk; says whether all has been told.
    fn tell(&mut self, machines: bool, chunk: &mut Vec<u8>) -> bool {
        let revision = self.snapshot.state.revision;
        while chunk.len() < CHUNK_BYTES {
            let event = if let Some(name) = self.names.next() {
                self.snapshot.unit_event(&name)
            } else if let Some((id, units)) = self.machines.next().filter(|_| machines) {
                self.snapshot.machine_event(&id, units)
            } else {
                return true;
            };
            chunk.extend_from_slice(&message(revision, event, false));
        }
        false
    }
}

/// A message without data: it only moves the reader's last event id.
fn told_up_to(revision: Revision) -> Vec<u8> {
    format!("id: {revision}\n\n").into_bytes()
}
