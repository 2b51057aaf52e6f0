//! `/healthz` and `/readyz`, for load balancers and whoever watches: does this daemon work, and does its
//! machine belong to a cluster that has a leader. The body says what is missing, one line each.
//!
//! They are answered from what the rooms have told of themselves: asking costs nothing, however often.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use store::Role;

use super::Room;
use super::v1::only;
use crate::signs::ROOM_SILENCE_MAX;

/// A disk with less than that takes no new file of the store.
const FREE_BYTES_MIN: u64 = 1 << 20;

pub(super) fn routes() -> Router<Arc<Room>> {
    Router::new().route("/healthz", only("GET", get(healthz))).route("/readyz", only("GET", get(readyz)))
}

async fn healthz(State(room): State<Arc<Room>>) -> (StatusCode, String) {
    let ills = ills(&room);
    match ills.is_empty() {
        true => (StatusCode::OK, "ok\n".into()),
        false => (StatusCode::SERVICE_UNAVAILABLE, ills.join("\n") + "\n"),
    }
}

async fn readyz(State(room): State<Arc<Room>>) -> (StatusCode, String) {
    let missing = |what: String| (StatusCode::SERVICE_UNAVAILABLE, what + "\n");
    match &*room.parts.store.role().borrow() {
        Role::Leader { .. } => (StatusCode::OK, "ready: this machine leads\n".into()),
        Role::Follower { leader } => (StatusCode::OK, format!("ready: {leader} leads\n")),
        Role::Leaderless => {
            let trouble = room.parts.store.trouble().unwrap_or_else(|| "no leader is known".into());
            missing(format!("the cluster has no leader: {trouble}"))
        }
        Role::Unformed { hint } => missing(format!("this machine is not part of a cluster: {hint}")),
    }
}

/// What keeps the daemon from doing its work, in words; nothing, when it does it.
pub(super) fn ills(room: &Room) -> Vec<String> {
    let signs = &room.parts.signs;
    let mut ills = Vec::new();
    if let Some(failure) = room.parts.store.vitals().failure {
        ills.push(format!("the store failed and is not used further: {failure}"));
    }
    let disk = &signs.disk;
    if disk.read_only.load(Ordering::Relaxed) {
        ills.push("the disk under the store can only be read".into());
    } else if 0 < disk.total_bytes.load(Ordering::Relaxed)
        && disk.free_bytes.load(Ordering::Relaxed) < FREE_BYTES_MIN
    {
        ills.push("the disk under the store is full; make room there".into());
    }
    for (name, silence) in signs.rooms() {
        if let Some(silence) = silence.filter(|silence| ROOM_SILENCE_MAX < *silence) {
            let seconds = silence.as_secs();
            ills.push(format!("the daemon's {name} has been stuck for {seconds} s; restart coreinitd"));
        }
    }
    if let Some(trouble) = signs.systemd_trouble() {
        ills.push(format!("{trouble}; are systemd and dbus running?"));
    }
    ills
}
