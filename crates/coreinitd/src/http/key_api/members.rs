//! What etcd's clients ask beside keys: the version, the health, the members, some numbers.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::{Method, StatusCode};
use axum::response::Response;
use cluster::{ClusterState, MachineId};
use serde_json::{Value, json};
use store::Role;

use super::Room;
use super::answer::{not_allowed, plain_json, text, written};

/// The last etcd that had this interface alone. Clients look whether it is new enough for what they do.
const ETCD_VERSION: &str = "2.3.8";
const ETCD_CLUSTER_VERSION: &str = "2.3.0";

/// `host` is what the client calls this machine.
pub(super) fn answer(room: &Arc<Room>, path: &str, method: &Method, host: Option<&str>) -> Response {
    let state = room.states.borrow().clone();
    let cluster = state.cluster.as_ref().map(|cluster| number(&cluster.id));
    if path.starts_with("/v2/members") && [Method::POST, Method::PUT, Method::DELETE].contains(method) {
        let message = "machines come and go by `corectl cluster join`, `leave` and `remove`";
        return plain_json(StatusCode::FORBIDDEN, cluster, &json!({ "message": message }));
    }
    if ![Method::GET, Method::HEAD].contains(method) {
        return not_allowed("GET,HEAD");
    }
    let ok = |value: Value| plain_json(StatusCode::OK, cluster, &value);
    let members = Members { room, state: &state, host };
    match path.trim_end_matches('/') {
        "/version" => ok(json!({
            "etcdserver": ETCD_VERSION,
            "etcdcluster": ETCD_CLUSTER_VERSION,
            "coreinit": room.parts.version,
        })),
        "/health" => match members.leader() {
            Some(_) => ok(json!({ "health": "true" })),
            None => plain_json(StatusCode::SERVICE_UNAVAILABLE, cluster, &json!({ "health": "false" })),
        },
        "/v2/members" => ok(json!({ "members": members.all() })),
        "/v2/members/leader" => match members.leader() {
            Some(leader) => ok(members.one(&leader)),
            None => {
                let message = json!({ "message": "During election" });
                plain_json(StatusCode::SERVICE_UNAVAILABLE, cluster, &message)
            }
        },
        "/v2/machines" => text(200, members.own_url()),
        "/v2/stats/self" => ok(members.own_stats()),
        "/v2/stats/leader" => match members.leader() {
            Some(leader) if leader == room.parts.machine => {
                ok(json!({ "leader": hexadecimal(&leader), "followers": {} }))
            }
            _ => {
                let message = json!({ "message": "not current leader" });
                plain_json(StatusCode::FORBIDDEN, cluster, &message)
            }
        },
        "/v2/stats/store" => ok(room.counts.shown(room.hub.count())),
        "/v2/auth/enable" => ok(json!({ "enabled": false })),
        _ => text(404, "404 page not found"),
    }
}

struct Members<'a> {
    room: &'a Room,
    state: &'a ClusterState,
    host: Option<&'a str>,
}

impl Members<'_> {
    fn leader(&self) -> Option<MachineId> {
        match &*self.room.parts.store.role().borrow() {
            Role::Leader { .. } => Some(self.room.parts.machine.clone()),
            Role::Follower { leader } => Some(leader.clone()),
            Role::Leaderless | Role::Unformed { .. } => None,
        }
    }

    fn all(&self) -> Vec<Value> {
        self.state.machines.keys().map(|machine| self.one(machine)).collect()
    }

    /// Only this machine has an address that this client is known to reach: others may serve the keys on
    /// their loopback, elsewhere, or not at all.
    fn one(&self, machine: &MachineId) -> Value {
        let is_own = *machine == self.room.parts.machine;
        let urls: Vec<String> = if is_own { vec![self.own_url()] } else { Vec::new() };
        json!({
            "id": hexadecimal(machine),
            "name": self.name(machine),
            "peerURLs": [],
            "clientURLs": urls,
        })
    }

    fn name(&self, machine: &MachineId) -> String {
        let known = self.state.machines.get(machine);
        known.map_or_else(|| machine.to_string(), |known| known.info.name.clone())
    }

    fn own_url(&self) -> String {
        format!("http://{}", self.host.unwrap_or("127.0.0.1:4001"))
    }

    fn own_stats(&self) -> Value {
        let own = &self.room.parts.machine;
        let leader = self.leader();
        let led = *self.room.led_since.lock().unwrap_or_else(PoisonError::into_inner);
        let uptime = led.elapsed().unwrap_or_default();
        json!({
            "name": self.name(own),
            "id": hexadecimal(own),
            "state": if leader.as_ref() == Some(own) { "StateLeader" } else { "StateFollower" },
            "startTime": date(self.room.since),
            "leaderInfo": {
                "leader": leader.as_ref().map(hexadecimal).unwrap_or_default(),
                "uptime": format!("{:.3}s", uptime.as_secs_f64()),
                "startTime": date(led),
            },
            "recvAppendRequestCnt": 0,
            "sendAppendRequestCnt": 0,
            "term": self.room.term.load(Ordering::Relaxed),
        })
    }
}

fn date(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    written(u64::try_from(since.as_millis()).unwrap_or_default())
}

fn hexadecimal(machine: &MachineId) -> String {
    format!("{:x}", number(machine.as_str()))
}

/// etcd's ids are numbers of 64 bits: FNV-1a of ours.
pub(super) fn number(id: &str) -> u64 {
    id.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
