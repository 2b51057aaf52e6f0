//! What the programs of a unit's machine say of it, through any daemon: its journal as a stream of lines, and
//! its `systemctl status`. Which machine that is, is found here; the asking is a room of its own.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use api::v1::SystemdStatus;
use api::{JOURNAL_LINES_MAX, JOURNAL_OUTPUTS};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use cluster::{ClusterState, MachineId, UnitName};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::Room;
use super::error::Refusal;
use super::request::{Name, Parameters, unit_name};
use super::v1::only;
use super::view::is_lost;

/// Open at a time in one daemon: people who read.
pub const JOURNALS_MAX: usize = 64;

/// What `systemctl status` may say; it says some kilobytes.
const STATUS_BYTES_MAX: usize = 1 << 20;

/// The asked machine limits itself to less.
const STATUS_TIMEOUT: Duration = Duration::from_secs(13);

/// What a machine is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// Answered with the text as it comes.
    Journal { unit: UnitName, lines: u32, follow: bool, output: String },
    /// Answered with the exit status on a line of its own, then the text.
    Status { unit: UnitName },
    /// Answered with the microseconds of Unix time.
    Clock,
}

/// An answer as it comes. Dropped, it ends where it is made.
pub type Words = BoxStream<'static, io::Result<Bytes>>;

/// Asks a machine of the cluster; the text of an error is for people.
pub type AskMachine =
    Arc<dyn Fn(MachineId, Question) -> BoxFuture<'static, Result<Words, String>> + Send + Sync>;

pub(super) fn routes() -> Router<Arc<Room>> {
    Router::new()
        .route("/v1/units/{name}/journal", only("GET", get(journal)))
        .route("/v1/units/{name}/status", only("GET", get(status)))
}

async fn journal(
    State(room): State<Arc<Room>>,
    Name(name): Name,
    query: Parameters,
) -> Result<Response, Refusal> {
    let unit = unit_name(&name)?;
    let lines = match query.first("lines") {
        None => 10,
        Some(text) => match text.parse() {
            Ok(lines) if lines <= JOURNAL_LINES_MAX => lines,
            _ => {
                return Err(Refusal::Invalid(format!(
                    "lines must be 0 to {JOURNAL_LINES_MAX}, not {text:?}"
                )));
            }
        },
    };
    let follow = match query.first("follow") {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => return Err(Refusal::Invalid(format!("follow must be true or false, not {other:?}"))),
    };
    let output = query.first("output").unwrap_or("short");
    if !JOURNAL_OUTPUTS.contains(&output) {
        return Err(Refusal::Invalid(format!("output must be one of {}", JOURNAL_OUTPUTS.join(", "))));
    }
    let machine = machine(&room.parts.store.state().borrow(), &unit, query.first("machine"))?;
    let permit = room.journals.clone().try_acquire_owned();
    let permit = permit.map_err(|_| Refusal::TooManyJournals(JOURNALS_MAX))?;
    let question = Question::Journal { unit, lines, follow, output: output.into() };
    let words = (room.parts.ask)(machine.clone(), question).await.map_err(Refusal::Unanswered)?;
    let words = words.map(move |piece| {
        let _held = &permit;
        piece
    });
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8".to_string()),
        (header::CACHE_CONTROL, "no-cache".to_string()),
        (header::HeaderName::from_static("coreinit-machine"), machine.to_string()),
    ];
    Ok((headers, Body::from_stream(words)).into_response())
}

async fn status(
    State(room): State<Arc<Room>>,
    Name(name): Name,
    query: Parameters,
) -> Result<Json<SystemdStatus>, Refusal> {
    let unit = unit_name(&name)?;
    let machine = machine(&room.parts.store.state().borrow(), &unit, query.first("machine"))?;
    let asked = async {
        let words = (room.parts.ask)(machine.clone(), Question::Status { unit }).await;
        let mut words = words.map_err(Refusal::Unanswered)?;
        let mut bytes = Vec::new();
        while let Some(piece) = words.next().await {
            bytes.extend_from_slice(&piece.map_err(|error| Refusal::Unanswered(error.to_string()))?);
            if bytes.len() > STATUS_BYTES_MAX {
                return Err(Refusal::Unanswered("systemctl status does not come to an end".into()));
            }
        }
        Ok(bytes)
    };
    let bytes = timeout(STATUS_TIMEOUT, asked).await;
    let bytes = bytes.map_err(|_| Refusal::Unanswered(format!("{machine} took too long to answer")))??;
    let text = String::from_utf8_lossy(&bytes);
    let answer = text.split_once('\n').and_then(|(exit, text)| Some((exit.parse().ok()?, text)));
    match answer {
        Some((exit_status, text)) => Ok(Json(SystemdStatus { machine, exit_status, text: text.into() })),
        None => Err(Refusal::Unanswered(format!("{machine} answered in a way that is not understood here"))),
    }
}

/// The machine to ask: the one that is named, or the unit's own. Only units of the cluster can be asked for.
fn machine(state: &ClusterState, unit: &UnitName, named: Option<&str>) -> Result<MachineId, Refusal> {
    let holders = || state.observed_of(unit).map(|(machine, _)| machine.clone());
    if !state.units.contains_key(unit) && holders().next().is_none() {
        return Err(Refusal::NoUnit);
    }
    if let Some(named) = named {
        return find(state, named);
    }
    if let Some(assignment) = state.assignments.get(unit) {
        return Ok(assignment.machine.clone());
    }
    let mut living = holders().filter(|machine| !is_lost(state, machine));
    match (living.next(), living.next()) {
        (Some(machine), None) => Ok(machine),
        (None, _) => Err(Refusal::Nowhere(format!("unit {unit} is on no machine"))),
        (Some(_), Some(_)) => Err(Refusal::Nowhere(format!("unit {unit} is on several machines; name one"))),
    }
}

/// By id or name; else by the beginning of an id.
pub(super) fn find(state: &ClusterState, text: &str) -> Result<MachineId, Refusal> {
    // As it stands in corectl's lists.
    let begin = text.strip_suffix("...").unwrap_or(text);
    let all = || state.machines.iter();
    let exact: Vec<&MachineId> =
        all().filter(|(id, m)| id.as_str() == text || m.info.name == text).map(|(id, _)| id).collect();
    let begun: Vec<&MachineId> =
        all().filter(|(id, _)| id.as_str().starts_with(begin)).map(|(id, _)| id).collect();
    match (&exact[..], &begun[..]) {
        ([one], _) | ([], [one]) => Ok((*one).clone()),
        ([], []) => Err(Refusal::Nowhere(format!("no machine is called {text:?}"))),
        _ => Err(Refusal::Nowhere(format!("several machines are called {text:?}; name one by its whole id"))),
    }
}
