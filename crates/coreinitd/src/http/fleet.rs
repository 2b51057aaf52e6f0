//! fleet's API, version 1, under all the prefixes that it had: `/fleet/v1`, `/flt/v1` and `/v1-alpha`. To the
//! letter where the letter is no defect; what differs:
//!
//! * 400 where fleet stored it: a desired state that is none of the three, unit options that no unit file can
//!   carry, a template that is to be loaded or launched, metadata of an unknown machine. The requirements of
//!   a file that replaces another are checked too.
//! * `GET /state/NAME` of a unit without a state is 404 where fleet dropped the connection, and a list too
//!   long for its page tokens 400 where fleet crashed.
//! * PUT of an instance without options takes those of its stored template.
//! * A change without a leader is 503 with the reason, and 504 when nobody knows whether it was made.
//! * PATCH takes a metadata value as the documentation had it (`"bar"`) and as the code had it
//!   (`{"value":"bar"}`).
//! * The discovery document and `/metrics` are served without a leader too, and `Server` names coreinitd.
//! * `?stale=true` reads what this machine knows.

pub(super) mod go_path;
mod lenient;
mod machines;

use std::sync::Arc;

use api::fleet::{Unit, UnitOption, UnitPage, UnitState, UnitStatePage};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::{Json, Router};
use cluster::{
    ClusterState, Command, DesiredState, Kind, MachineId, Observed, Rejected, UnitFile, UnitName, is_global,
};

use super::Room;
use super::error::Refusal;
use super::page_token::PageNumber;
use super::request::{
    Name, Parameters, Payload, check_template, checked, expect_json, file_of_instance, unit_name,
};
use super::view::{current_state, is_lost};

/// What fleet told of its API to programs that write clients.
const DISCOVERY: &str = include_str!("fleet/discovery.json");

const ONLY_GET: Refusal = Refusal::Method("only GET supported against this resource");

pub(super) fn routes() -> Router<Arc<Room>> {
    let root = || any(|| async { Refusal::Method("") });
    let prefixes = ["/fleet/v1", "/flt/v1", "/v1-alpha"];
    prefixes.into_iter().fold(Router::new().route("/", root()), |router, prefix| {
        router
            .route(prefix, root())
            .route(
                &format!("{prefix}/discovery"),
                any(move |method| async move { discovery(prefix, method) }),
            )
            .route(&format!("{prefix}/units"), any(units))
            .route(&format!("{prefix}/units/{{name}}"), any(unit))
            .route(&format!("{prefix}/state"), any(states))
            .route(&format!("{prefix}/state/{{name}}"), any(state))
            .route(&format!("{prefix}/machines"), any(machines::machines))
    })
}

/// fleet gave the paths of `/fleet/v1` under its old prefix too.
fn discovery(prefix: &str, method: Method) -> Result<impl IntoResponse, Refusal> {
    if method != Method::GET {
        return Err(Refusal::Invalid("only HTTP GET supported against this resource".into()));
    }
    let text = match prefix {
        "/flt/v1" => DISCOVERY.replace("fleet/v1/", "flt/v1/"),
        _ => DISCOVERY.to_owned(),
    };
    Ok(([(header::CONTENT_TYPE, "application/json")], text))
}

async fn units(
    State(room): State<Arc<Room>>,
    method: Method,
    query: Parameters,
) -> Result<Json<UnitPage>, Refusal> {
    if method != Method::GET {
        return Err(ONLY_GET);
    }
    let (page, state) = (PageNumber::asked_for(&query)?, room.read(query.stale()?).await?);
    let (found, next_page_token) = page.of(state.units.iter())?;
    let units = found.into_iter().map(|(name, unit)| unit_entity(&state, name, unit)).collect();
    Ok(Json(UnitPage { next_page_token, units }))
}

async fn unit(
    State(room): State<Arc<Room>>,
    method: Method,
    Name(name): Name,
    query: Parameters,
    headers: HeaderMap,
    payload: Payload,
) -> Result<Response, Refusal> {
    if name.contains('/') {
        // An encoded slash is a path of more segments to fleet, and there is nothing.
        return Err(Refusal::NoRoute);
    }
    match method {
        Method::GET => Ok(Json(get_unit(&room, &name, &query).await?).into_response()),
        Method::PUT => Ok(put_unit(&room, &name, &headers, &payload).await?.into_response()),
        Method::DELETE => Ok(delete_unit(&room, &name).await?.into_response()),
        _ => Err(Refusal::Method("only GET, PUT and DELETE supported against this resource")),
    }
}

async fn get_unit(room: &Room, name: &str, query: &Parameters) -> Result<Unit, Refusal> {
    let state = room.read(query.stale()?).await?;
    // A name that no unit can have is one that does not exist.
    let name = UnitName::new(name).map_err(|_| Refusal::NoUnit)?;
    let unit = state.units.get(&name).ok_or(Refusal::NoUnit)?;
    Ok(unit_entity(&state, &name, unit))
}

async fn delete_unit(room: &Room, name: &str) -> Result<StatusCode, Refusal> {
    let name = UnitName::new(name).map_err(|_| Refusal::NoUnit)?;
    propose_one(room, Command::DestroyUnit { name }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// fleet's Unit.Set: creates, replaces, or changes the desired state; which one, the commit says.
async fn put_unit(
    room: &Room,
    name_in_url: &str,
    headers: &HeaderMap,
    Payload(body): &Payload,
) -> Result<StatusCode, Refusal> {
    expect_json(headers)?;
    let unit: Unit = lenient::decode(body, b'{')
        .map_err(|error| Refusal::Invalid(format!("unable to decode body: {error}")))?;
    if !unit.name.is_empty() && unit.name != name_in_url {
        let text =
            format!("name in URL {name_in_url:?} differs from unit name in request body {:?}", unit.name);
        return Err(Refusal::Invalid(text));
    }
    let name = unit_name(name_in_url)?;
    let desired = desired_state(&unit.desired_state)?;
    let file = if unit.options.is_empty() { None } else { Some(checked(&name, unit_file(unit.options))?) };
    check_template(&name, desired)?;
    let set = |file| Command::SetUnit { name: name.clone(), file, desired };
    let kind = match propose_one(room, set(file)).await {
        Err(Refusal::Rejected(Rejected::UnitWithoutFile { .. })) => {
            let state = room.parts.store.state().borrow().clone();
            let file = file_of_instance(&state, &name)?;
            propose_one(room, set(file)).await?
        }
        made => made?,
    };
    match kind {
        Kind::Created | Kind::Replaced => Ok(StatusCode::CREATED),
        Kind::Unchanged if desired.is_none() => Err(Refusal::NothingToUpdate),
        Kind::Updated | Kind::Unchanged | Kind::Removed | Kind::Key(_) => Ok(StatusCode::NO_CONTENT),
    }
}

fn desired_state(text: &str) -> Result<Option<DesiredState>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    let state = DesiredState::from_name(text).ok_or_else(|| {
        Refusal::Invalid(format!("desiredState must be inactive, loaded or launched, not {text:?}"))
    })?;
    Ok(Some(state))
}

fn unit_file(options: Vec<UnitOption>) -> Result<UnitFile, cluster::UnitFileError> {
    let option = |option: UnitOption| cluster::UnitOption {
        section: option.section,
        name: option.name,
        value: option.value,
    };
    UnitFile::from_options(options.into_iter().map(option).collect())
}

async fn propose_one(room: &Room, command: Command) -> Result<Kind, Refusal> {
    let mut outcomes = room.propose(vec![command]).await?.outcomes;
    Ok(outcomes.pop().expect("the store answers with one outcome for each command")?)
}

fn unit_entity(state: &ClusterState, name: &UnitName, unit: &cluster::Unit) -> Unit {
    let home = state.assignments.get(name).map(|assignment| assignment.machine.to_string());
    let options = unit.file.options().iter().map(|option| UnitOption {
        name: option.name.clone(),
        section: option.section.clone(),
        value: option.value.clone(),
    });
    // One word cannot tell how a unit fares on many machines, and fleet said none.
    let current = (!is_global(name, &unit.file)).then(|| current_state(state, name, unit).to_string());
    Unit {
        current_state: current.unwrap_or_default(),
        desired_state: unit.desired.to_string(),
        machine_id: home.unwrap_or_default(),
        name: name.to_string(),
        options: options.collect(),
    }
}

async fn states(
    State(room): State<Arc<Room>>,
    method: Method,
    query: Parameters,
) -> Result<Json<UnitStatePage>, Refusal> {
    if method != Method::GET {
        return Err(ONLY_GET);
    }
    let (page, state) = (PageNumber::asked_for(&query)?, room.read(query.stale()?).await?);
    let machine = query.first("machineID");
    let of_machine = |id: &MachineId| machine.is_none_or(|machine| machine == id.as_str());
    let name = query.first("unitName").map(UnitName::new);
    let (told, next_page_token) = match &name {
        None => page.of(told(&state).filter(|(_, id, _)| of_machine(id)))?,
        Some(Ok(name)) => {
            let told = state.observed_of(name).filter(|(id, _)| of_machine(id) && counts(&state, name, id));
            page.of(told.map(|(id, observed)| (name, id, &**observed)))?
        }
        // A name that no unit can have is that of none.
        Some(Err(_)) => (Vec::new(), String::new()),
    };
    let states = told.into_iter().map(|(name, id, observed)| state_entity(name, id, observed)).collect();
    Ok(Json(UnitStatePage { next_page_token, states }))
}

async fn state(
    State(room): State<Arc<Room>>,
    method: Method,
    Name(name): Name,
    query: Parameters,
) -> Result<Json<UnitState>, Refusal> {
    if name.contains('/') {
        return Err(Refusal::NoRoute);
    }
    if method != Method::GET {
        return Err(ONLY_GET);
    }
    let state = room.read(query.stale()?).await?;
    let name = UnitName::new(&name).map_err(|_| Refusal::NoUnitState)?;
    let first = state.observed_of(&name).find(|(id, _)| counts(&state, &name, id));
    first.map(|(id, observed)| Json(state_entity(&name, id, observed))).ok_or(Refusal::NoUnitState)
}

/// All the states that count. Units and states are in the same order, so no unit is looked up: this is passed
/// over again for each page.
fn told(state: &ClusterState) -> impl Iterator<Item = (&UnitName, &MachineId, &Observed)> {
    let mut units = state.units.keys().peekable();
    state.observed.iter().filter_map(move |((name, id), observed)| {
        while units.next_if(|unit| *unit < name).is_some() {}
        let counts = units.peek() == Some(&name) && !is_lost(state, id);
        counts.then_some((name, id, &**observed))
    })
}

/// fleet forgot the states of destroyed units, and those of machines that it no longer heard of.
fn counts(state: &ClusterState, name: &UnitName, id: &MachineId) -> bool {
    state.units.contains_key(name) && !is_lost(state, id)
}

fn state_entity(name: &UnitName, id: &MachineId, observed: &Observed) -> UnitState {
    UnitState {
        hash: observed.hash.to_string(),
        machine_id: id.to_string(),
        name: name.to_string(),
        systemd_active_state: observed.active.to_string(),
        systemd_load_state: observed.load.to_string(),
        systemd_sub_state: observed.sub.to_string(),
    }
}
