//! Our own API; `api::v1` has the table of its endpoints.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::v1;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Json, Router};
use cluster::{Command, Kind, Outcome, Rejected, UnitFile};
use store::{Committed, Role};

use super::Room;
use super::audit::Noted;
use super::concerns::concerns;
use super::error::Refusal;
use super::events::event_stream;
use super::request::{
    Name, Parameters, Payload, check_template, checked, decode_body, desired, expect_json, file_of_instance,
    unit_name,
};

pub(super) fn routes() -> Router<Arc<Room>> {
    Router::new()
        .route("/v1/status", only("GET", get(status)))
        .route("/v1/units", only("GET and POST", get(units).post(batch)))
        .route("/v1/units/{name}", only("GET", get(unit)))
        .route("/v1/machines", only("GET", get(machines)))
        .route("/v1/cluster/init", only("POST", post(cluster_init)))
        .route("/v1/events", only("GET and POST", get(events).post(events_of)))
}

pub(super) fn only(methods: &'static str, router: MethodRouter<Arc<Room>>) -> MethodRouter<Arc<Room>> {
    router.fallback(move || async move {
        Refusal::Method(match methods {
            "GET" => "only GET supported against this resource",
            "POST" => "only POST supported against this resource",
            _ => "only GET and POST supported against this resource",
        })
    })
}

async fn status(State(room): State<Arc<Room>>) -> Json<v1::Status> {
    Json(status_of(&room))
}

pub(super) fn status_of(room: &Room) -> v1::Status {
    let state = room.parts.store.state().borrow().clone();
    let role = room.parts.store.role().borrow().clone();
    let voting = room.parts.store.voting();
    let trouble = match &role {
        Role::Unformed { hint } => Some(hint.clone()),
        Role::Leaderless => Some(room.parts.store.trouble().unwrap_or_else(|| "no leader is known".into())),
        Role::Leader { .. } | Role::Follower { .. } => None,
    };
    let (role, leader) = match &role {
        Role::Unformed { .. } => (v1::Role::Unformed, None),
        Role::Leader { .. } => (v1::Role::Leader, Some(room.parts.machine.clone())),
        Role::Follower { leader } => (v1::Role::Follower, Some(leader.clone())),
        Role::Leaderless => (v1::Role::Leaderless, None),
    };
    v1::Status {
        machine: room.parts.machine.clone(),
        version: room.parts.version.clone(),
        role,
        leader,
        cluster_id: state.cluster.as_ref().map(|cluster| cluster.id.clone()),
        cluster_name: state.cluster.as_ref().map(|cluster| cluster.name.clone()),
        revision: state.revision,
        voters: voting.as_ref().map(|voting| voting.voters),
        member: voting.map(|voting| if voting.votes { v1::Member::Voter } else { v1::Member::Learner }),
        leaderless_seconds: room.leaderless.since().map(|since| since.elapsed().as_secs()),
        trouble,
        concerns: concerns(room, &room.placement.of(&state)),
    }
}

async fn units(State(room): State<Arc<Room>>, query: Parameters) -> Result<Json<v1::Units>, Refusal> {
    let names: BTreeSet<_> = query.units()?.into_iter().collect();
    let snapshot = room.placement.of(&room.read(query.stale()?).await?);
    let units = if names.is_empty() {
        snapshot.state.units.keys().filter_map(|name| snapshot.unit(name)).collect()
    } else {
        names.iter().filter_map(|name| snapshot.unit(name)).collect()
    };
    Ok(Json(v1::Units { revision: snapshot.state.revision, units }))
}

async fn unit(
    State(room): State<Arc<Room>>,
    Name(name): Name,
    query: Parameters,
) -> Result<Json<v1::Unit>, Refusal> {
    let name = unit_name(&name)?;
    let snapshot = room.placement.of(&room.read(query.stale()?).await?);
    let mut unit = snapshot.unit(&name).ok_or(Refusal::NoUnit)?;
    unit.text = snapshot.state.units.get(&name).map(|unit| unit.file.text().into());
    Ok(Json(unit))
}

async fn machines(State(room): State<Arc<Room>>, query: Parameters) -> Result<Json<v1::Machines>, Refusal> {
    let snapshot = room.placement.of(&room.read(query.stale()?).await?);
    let counts = snapshot.unit_counts();
    let view = |id| snapshot.machine(id, counts.get(id).copied().unwrap_or(0));
    let machines = snapshot.state.machines.keys().filter_map(view).collect();
    Ok(Json(v1::Machines { revision: snapshot.state.revision, machines }))
}

async fn batch(
    State(room): State<Arc<Room>>,
    Extension(noted): Extension<Noted>,
    headers: HeaderMap,
    Payload(body): Payload,
) -> Result<Json<v1::BatchDone>, Refusal> {
    expect_json(&headers)?;
    let batch: v1::Batch = decode_body(&body)?;
    if batch.operations.is_empty() {
        return Err(Refusal::Invalid("the batch has no operations".into()));
    }
    let mut names = Vec::with_capacity(batch.operations.len());
    let mut commands = Vec::with_capacity(batch.operations.len());
    for (index, operation) in batch.operations.into_iter().enumerate() {
        let name = match &operation {
            v1::Operation::Set { name, .. } | v1::Operation::Destroy { name } => name.clone(),
        };
        let command = command(operation).map_err(|refusal| {
            Refusal::Invalid(format!("operation {} on {name:?}: {refusal}; nothing was changed", index + 1))
        })?;
        names.push(name);
        commands.push(command);
    }
    noted.asked(commands.iter().filter_map(in_words));
    let mut committed = room.propose(commands.clone()).await?;
    instantiate(&room, &commands, &mut committed).await?;
    noted.refused(committed.outcomes.iter().filter(|outcome| outcome.is_err()).count());
    let results =
        names.into_iter().zip(committed.outcomes).map(|(name, outcome)| done(name, outcome)).collect();
    Ok(Json(v1::BatchDone { revision: committed.revision, results }))
}

/// For the audit.
fn in_words(command: &Command) -> Option<String> {
    match command {
        Command::SetUnit { name, file, desired } => {
            let what = if file.is_some() { "set" } else { "wish" };
            let desired = desired.map(|desired| format!(" {desired}")).unwrap_or_default();
            Some(format!("{what} {name}{desired}"))
        }
        Command::DestroyUnit { name } => Some(format!("destroy {name}")),
        _ => None,
    }
}

/// Instances that were asked for without a file get their stored template's, in a second go.
async fn instantiate(room: &Room, commands: &[Command], committed: &mut Committed) -> Result<(), Refusal> {
    let state = room.parts.store.state().borrow().clone();
    let (mut places, mut again) = (Vec::new(), Vec::new());
    for (place, (command, outcome)) in commands.iter().zip(&committed.outcomes).enumerate() {
        if let (Command::SetUnit { name, desired, .. }, Err(Rejected::UnitWithoutFile { .. })) =
            (command, outcome)
            && let Ok(Some(file)) = file_of_instance(&state, name)
        {
            places.push(place);
            again.push(Command::SetUnit { name: name.clone(), file: Some(file), desired: *desired });
        }
    }
    if again.is_empty() {
        return Ok(());
    }
    let made = room.propose(again).await?;
    committed.revision = made.revision;
    for (place, outcome) in places.into_iter().zip(made.outcomes) {
        committed.outcomes[place] = outcome;
    }
    Ok(())
}

fn command(operation: v1::Operation) -> Result<Command, Refusal> {
    match operation {
        v1::Operation::Destroy { name } => Ok(Command::DestroyUnit { name: unit_name(&name)? }),
        v1::Operation::Set { name, text, desired_state } => {
            let name = unit_name(&name)?;
            let wish = desired_state.map(desired);
            let file = text.map(|text| checked(&name, UnitFile::parse(&text))).transpose()?;
            if file.is_none() && wish.is_none() {
                return Err(Refusal::Invalid("neither text nor desiredState is given".into()));
            }
            check_template(&name, wish)?;
            Ok(Command::SetUnit { name, file, desired: wish })
        }
    }
}

fn done(name: String, outcome: Outcome) -> v1::OperationDone {
    let (outcome, message) = match outcome {
        Ok(Kind::Created) => (v1::OperationOutcome::Created, None),
        Ok(Kind::Replaced) => (v1::OperationOutcome::Replaced, None),
        Ok(Kind::Updated | Kind::Key(_)) => (v1::OperationOutcome::Updated, None),
        Ok(Kind::Unchanged) => (v1::OperationOutcome::Unchanged, None),
        Ok(Kind::Removed) => (v1::OperationOutcome::Removed, None),
        Err(cluster::Rejected::UnitWithoutFile { .. }) => {
            (v1::OperationOutcome::Refused, Some("unit does not exist".into()))
        }
        Err(rejected) => (v1::OperationOutcome::Refused, Some(rejected.to_string())),
    };
    v1::OperationDone { name, outcome, message }
}

async fn cluster_init(
    State(room): State<Arc<Room>>,
    headers: HeaderMap,
    Payload(body): Payload,
) -> Result<Json<v1::Status>, Refusal> {
    expect_json(&headers)?;
    let init: v1::ClusterInit = decode_body(&body)?;
    (room.parts.init)(init).await?;
    Ok(Json(status_of(&room)))
}

async fn events(
    State(room): State<Arc<Room>>,
    headers: HeaderMap,
    query: Parameters,
) -> Result<Response, Refusal> {
    event_stream(&room, &headers, &query, query.units()?)
}

async fn events_of(
    State(room): State<Arc<Room>>,
    headers: HeaderMap,
    query: Parameters,
    Payload(body): Payload,
) -> Result<Response, Refusal> {
    expect_json(&headers)?;
    let filter: v1::EventFilter = decode_body(&body)?;
    event_stream(&room, &headers, &query, filter.units)
}
