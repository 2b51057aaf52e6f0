//! FleetLock, the protocol by which Zincati and others ask whether their machine may reboot
//! (<https://coreos.github.io/zincati/development/fleetlock/protocol/>). It is allowed to when it holds one
//! of its group's slots and has been emptied.
//!
//! Nothing is moved here: a machine that holds a slot is emptied by the leader. Who is refused asks again, at
//! whichever daemon; nothing hangs on the one that was asked first.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, post};
use axum::{Extension, Json, Router};
use cluster::{
    ClusterState, Command, DrainStep, MachineId, RebootChange, RebootGroupName, Rejected, drain_obstacle,
    drain_step,
};
use ring::hmac;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use super::Room;
use super::audit::Noted;
use super::error::Refusal;
use super::membership::now;
use super::request::Payload;

/// Who asks is told only then that it takes longer. Zincati waits for half an hour, and asks again only after
/// some minutes, in which the machine would stand empty.
const DRAIN_PATIENCE: Duration = Duration::from_secs(120);
/// Units that are named as those that are still there.
const NAMES_MAX: usize = 5;
/// Longer than any id of a machine.
const ID_BYTES_MAX: usize = 256;
/// What Zincati derives a machine's id with, see [`app_specific`].
const ZINCATI: [u8; 16] = 0xde35106b_6ec24688_b63afdda_a156679b_u128.to_be_bytes();

pub(super) fn routes() -> Router<Arc<Room>> {
    Router::new()
        .route("/v1/pre-reboot", only_post(post(pre_reboot)))
        .route("/v1/steady-state", only_post(post(steady_state)))
}

/// Whether refusals on that route are told in FleetLock's form.
pub(super) fn is_spoken_on(route: &str) -> bool {
    matches!(route, "/v1/pre-reboot" | "/v1/steady-state")
}

fn only_post(router: MethodRouter<Arc<Room>>) -> MethodRouter<Arc<Room>> {
    router.fallback(|| async {
        let value = "only POST supported against this resource".into();
        Refused { status: StatusCode::METHOD_NOT_ALLOWED, kind: "method_not_allowed", value }
    })
}

/// The protocol's form of an error. Of `kind` there are few, since clients count them.
pub(super) struct Refused {
    status: StatusCode,
    kind: &'static str,
    value: String,
}

#[derive(Serialize)]
struct RefusedBody<'a> {
    kind: &'a str,
    value: &'a str,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.status, Json(RefusedBody { kind: self.kind, value: &self.value })).into_response()
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Refused {
        let kind = match &refusal {
            Refusal::Rejected(Rejected::RebootSlotsTaken { .. }) => "failed_lock_semaphore_full",
            Refusal::NoLeader { .. } => "no_leader",
            Refusal::Role { .. } | Refusal::NobodyKnown | Refusal::NotForMachines(_) => "forbidden",
            Refusal::Invalid(_) | Refusal::BodyTooLarge { .. } | Refusal::Slow => "invalid_request",
            _ => "failed",
        };
        Refused { status: refusal.status(), kind, value: refusal.to_string() }
    }
}

fn invalid(value: String) -> Refused {
    Refused { status: StatusCode::BAD_REQUEST, kind: "invalid_request", value }
}

fn not_yet(kind: &'static str, value: String) -> Refused {
    Refused { status: StatusCode::CONFLICT, kind, value }
}

/// Other members may come to be sent: they mean nothing here.
#[derive(Deserialize)]
struct Asked {
    client_params: ClientParams,
}

#[derive(Deserialize)]
struct ClientParams {
    id: String,
    group: String,
}

fn asked(headers: &HeaderMap, body: &[u8]) -> Result<(String, RebootGroupName), Refused> {
    if headers.get("fleet-lock-protocol").map(|value| value.as_bytes()) != Some(b"true") {
        return Err(invalid("there is no header fleet-lock-protocol with the value true".into()));
    }
    let asked: Result<Asked, _> = serde_json::from_slice(body);
    let ClientParams { id, group } =
        asked.map_err(|error| invalid(format!("cannot read the body: {error}")))?.client_params;
    if id.is_empty() || id.len() > ID_BYTES_MAX {
        return Err(invalid(format!("client_params.id is not 1 to {ID_BYTES_MAX} bytes long")));
    }
    let group = RebootGroupName::new(&group).map_err(|error| invalid(error.to_string()))?;
    Ok((id, group))
}

/// The machine that a client means by its id: the machine's own, the one that Zincati derives from that, or
/// the name of one machine alone.
fn machine_of(state: &ClusterState, id: &str) -> Option<MachineId> {
    if let Some((machine, _)) = state.machines.get_key_value(id) {
        return Some(machine.clone());
    }
    let derived = id.to_ascii_lowercase().replace('-', "");
    let by_zincati = |machine: &&MachineId| app_specific(machine.as_str()) == Some(derived.clone());
    if let Some(machine) = state.machines.keys().find(by_zincati) {
        return Some(machine.clone());
    }
    let mut named = state.machines.iter().filter(|(_, machine)| machine.info.name == id);
    match (named.next(), named.next()) {
        (Some((machine, _)), None) => Some(machine.clone()),
        _ => None,
    }
}

/// sd_id128_get_machine_app_specific(3): a keyed digest of the application's id, the key being the machine's,
/// marked as a random UUID. `None` for what is not 32 hex digits.
fn app_specific(machine: &str) -> Option<String> {
    if machine.len() != 32 || !machine.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let key = u128::from_str_radix(machine, 16).ok()?.to_be_bytes();
    let digest = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), &ZINCATI);
    let mut id: [u8; 16] = digest.as_ref().get(..16)?.try_into().ok()?;
    id[6] = id[6] & 0x0f | 0x40;
    id[8] = id[8] & 0x3f | 0x80;
    Some(format!("{:032x}", u128::from_be_bytes(id)))
}

async fn pre_reboot(
    State(room): State<Arc<Room>>,
    Extension(noted): Extension<Noted>,
    headers: HeaderMap,
    Payload(body): Payload,
) -> Result<(), Refused> {
    let (id, group) = asked(&headers, &body)?;
    let state = room.read(false).await?;
    let machine = machine_of(&state, &id).ok_or_else(|| {
        let value = format!(
            "no machine of the cluster is called {}; it takes the machine's id (/etc/machine-id), the one \
             that Zincati derives from it, or its host name",
            id.escape_debug()
        );
        Refused { status: StatusCode::BAD_REQUEST, kind: "unknown_machine", value }
    })?;
    noted.asked([format!("slot for {machine} in {group}")]);
    if !holds(&state, &group, &machine) {
        // Whoever cannot be emptied does not keep the slot from others.
        if let Some(obstacle) = drain_obstacle(&state, &machine) {
            return Err(stays(obstacle));
        }
        let change = RebootChange::Take { machine: machine.clone(), at: now() };
        room.propose_one(Command::RebootLock { group: group.clone(), change }).await?;
    }
    emptied(&room, &group, &machine).await
}

fn holds(state: &ClusterState, group: &RebootGroupName, machine: &MachineId) -> bool {
    state.reboot_groups.get(group).is_some_and(|group| group.holders.contains_key(machine))
}

fn stays(obstacle: String) -> Refused {
    not_yet("drain_impossible", format!("the machine cannot be emptied: {obstacle}"))
}

/// Waits until the machine holds its slot and nothing else.
async fn emptied(room: &Room, group: &RebootGroupName, machine: &MachineId) -> Result<(), Refused> {
    let deadline = Instant::now() + DRAIN_PATIENCE;
    let mut changes = room.parts.store.state();
    loop {
        let known = changes.borrow_and_update().clone();
        let left = match drain_step(&known, machine) {
            // What this machine knows may be old.
            DrainStep::Done => {
                let state = room.read(false).await?;
                let is_empty = drain_step(&state, machine) == DrainStep::Done;
                if is_empty && holds(&state, group, machine) {
                    return Ok(());
                }
                String::new()
            }
            DrainStep::Stuck(why) => why,
            DrainStep::Wait(units) => named(&units),
            DrainStep::Move(_) => String::new(),
        };
        if !holds(&known, group, machine) {
            let state = room.read(false).await?;
            if !holds(&state, group, machine) {
                let why = drain_obstacle(&state, machine);
                return Err(stays(why.unwrap_or_else(|| "its slot was given back meanwhile".into())));
            }
        }
        match timeout_at(deadline, changes.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(not_yet("draining", "this daemon is stopping; ask again".into())),
            Err(_) => {
                let left = if left.is_empty() { left } else { format!(" (waiting for {left})") };
                return Err(not_yet("draining", format!("the machine is not empty yet{left}; ask again")));
            }
        }
    }
}

fn named(units: &[cluster::UnitName]) -> String {
    let mut names: Vec<&str> = units.iter().take(NAMES_MAX).map(|unit| unit.as_str()).collect();
    if units.len() > NAMES_MAX {
        names.push("…");
    }
    names.join(", ")
}

/// A machine that nobody knows holds nothing, and may go on.
async fn steady_state(
    State(room): State<Arc<Room>>,
    Extension(noted): Extension<Noted>,
    headers: HeaderMap,
    Payload(body): Payload,
) -> Result<(), Refused> {
    let (id, group) = asked(&headers, &body)?;
    let state = room.read(false).await?;
    let Some(machine) = machine_of(&state, &id) else { return Ok(()) };
    noted.asked([format!("no slot for {machine} in {group}")]);
    if holds(&state, &group, &machine) {
        let change = RebootChange::Release { machine };
        room.propose_one(Command::RebootLock { group, change }).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `systemd-id128 machine-id --app-specific=de35106b6ec24688b63afddaa156679b` says it.
    #[test]
    fn ids_are_derived_as_zincati_does() {
        let check = |machine: &str, expected: Option<&str>| {
            assert_eq!(app_specific(machine).as_deref(), expected, "{machine}");
        };
        check("dd09f0b6c3b54ce1a7b1a3e3c2a2f5d1", Some("8baa32aa5d3240dbae29f0a8ba1246c2"));
        check("m1", None);
        check("", None);
        check("+d09f0b6c3b54ce1a7b1a3e3c2a2f5d1", None);
    }
}
