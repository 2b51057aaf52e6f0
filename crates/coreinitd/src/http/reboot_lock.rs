//! What administrators see of the reboot lock, and do about it: who holds a slot, slots that are given back
//! in a machine's place, and how many there are.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::reboot_lock::{HolderView, LockGroup, LockRelease, LockSlots, RebootLock};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use cluster::{
    ClusterState, Command, DrainStep, MachineId, REBOOT_SLOTS_MAX, RebootChange, RebootGroup,
    RebootGroupName, drain_step,
};

use super::Room;
use super::audit::Noted;
use super::error::Refusal;
use super::journal::find;
use super::request::{Parameters, Payload, decode_body, expect_json};
use super::v1::only;

pub(super) fn routes() -> Router<Arc<Room>> {
    Router::new()
        .route("/v1/reboot-lock", only("GET", get(list)))
        .route("/v1/reboot-lock/release", only("POST", post(release)))
        .route("/v1/reboot-lock/slots", only("POST", post(set_slots)))
}

async fn list(State(room): State<Arc<Room>>, query: Parameters) -> Result<Json<RebootLock>, Refusal> {
    let state = room.read(query.stale()?).await?;
    // The usual group is shown although nothing is kept of it.
    let usual = RebootGroupName::default();
    let names: BTreeSet<&RebootGroupName> = state.reboot_groups.keys().chain([&usual]).collect();
    let groups = names.into_iter().map(|name| {
        let group = state.reboot_groups.get(name).map(|group| (**group).clone()).unwrap_or_default();
        view(&state, name, group)
    });
    Ok(Json(RebootLock { groups: groups.collect() }))
}

fn view(state: &ClusterState, name: &RebootGroupName, group: RebootGroup) -> LockGroup {
    let holder = |(machine, holder): (MachineId, cluster::RebootHolder)| {
        let (is_drained, waits_for) = match drain_step(state, &machine) {
            DrainStep::Done => (true, None),
            DrainStep::Wait(units) => (false, units.first().map(ToString::to_string)),
            DrainStep::Move(_) => (false, None),
            DrainStep::Stuck(why) => (false, Some(why)),
        };
        let known = state.machines.get(&machine);
        let name = known.map(|machine| machine.info.name.clone()).unwrap_or_default();
        HolderView { machine, name, since: holder.since, drained: is_drained, waits_for }
    };
    LockGroup {
        group: name.to_string(),
        slots: group.slots,
        holders: group.holders.into_iter().map(holder).collect(),
    }
}

async fn release(
    State(room): State<Arc<Room>>,
    Extension(noted): Extension<Noted>,
    headers: HeaderMap,
    Payload(body): Payload,
) -> Result<Json<RebootLock>, Refusal> {
    expect_json(&headers)?;
    let wish: LockRelease = decode_body(&body)?;
    let state = room.read(false).await?;
    let machine = find(&state, &wish.machine)?;
    noted.asked([format!("release {machine}")]);
    let held = state.reboot_groups.iter().filter(|(_, group)| group.holders.contains_key(&machine));
    let held = held.map(|(name, _)| name.clone());
    let groups: Vec<RebootGroupName> =
        held.filter(|name| wish.group.as_deref().is_none_or(|only| only == name.as_str())).collect();
    for group in groups {
        let change = RebootChange::Release { machine: machine.clone() };
        room.propose_one(Command::RebootLock { group, change }).await?;
    }
    told(&room)
}

async fn set_slots(
    State(room): State<Arc<Room>>,
    Extension(noted): Extension<Noted>,
    headers: HeaderMap,
    Payload(body): Payload,
) -> Result<Json<RebootLock>, Refusal> {
    expect_json(&headers)?;
    let LockSlots { group, slots } = decode_body(&body)?;
    let group = RebootGroupName::new(&group).map_err(|error| Refusal::Invalid(error.to_string()))?;
    if slots > REBOOT_SLOTS_MAX {
        return Err(Refusal::Invalid(format!("a group has at most {REBOOT_SLOTS_MAX} slots")));
    }
    noted.asked([format!("{slots} slots for {group}")]);
    room.propose_one(Command::RebootLock { group, change: RebootChange::SetSlots(slots) }).await?;
    told(&room)
}

fn told(room: &Room) -> Result<Json<RebootLock>, Refusal> {
    let state = room.parts.store.state().borrow().clone();
    let groups = state.reboot_groups.iter();
    let groups = groups.map(|(name, group)| view(&state, name, (**group).clone())).collect();
    Ok(Json(RebootLock { groups }))
}
