//! `/metrics`, in Prometheus' text form: what this daemon knows of the cluster, how it fares, and what it was
//! asked. It needs no leader, and asks nobody.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use cluster::{ClusterState, DesiredState, Liveness};
use store::{Role, Vitals};

use super::Room;
use super::error::Refusal;
use super::prometheus::{family, histogram, in_seconds, of_machines, one};
use super::view::current_state;

/// Requests by route, and there by method and status. All three come from short lists, so this stays small;
/// counting one that was seen before takes no memory.
#[derive(Default)]
pub(super) struct Requests(Mutex<BTreeMap<String, Counts>>);

/// By method and status.
type Counts = BTreeMap<(&'static str, u16), u64>;

impl Requests {
    fn count(&self, method: &'static str, route: &str, status: u16) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(route) {
            Some(route) => *route.entry((method, status)).or_default() += 1,
            None => drop(counts.insert(route.to_owned(), BTreeMap::from([((method, status), 1)]))),
        }
    }
}

/// Counts each request once it is answered.
pub(super) async fn count(State(room): State<Arc<Room>>, request: Request, next: Next) -> Response {
    let method = match *request.method() {
        Method::GET => "GET",
        Method::PUT => "PUT",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    };
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    room.requests.count(method, route, response.status().as_u16());
    response
}

pub(super) async fn metrics(State(room): State<Arc<Room>>, method: Method) -> Result<Response, Refusal> {
    if method != Method::GET {
        return Err(Refusal::Method("only GET supported against this resource"));
    }
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text(&room)).into_response())
}

fn text(room: &Room) -> String {
    let store = &room.parts.store;
    let state = store.state().borrow().clone();
    let role = store.role().borrow().clone();
    let mut text = String::new();
    units(&mut text, &state);
    machines(&mut text, &state);
    roles(&mut text, room, &role);

    let help = "Revision of the state that this daemon answers from.";
    family(&mut text, "coreinit_revision", "gauge", help, one(state.revision.0));
    if let Some(voting) = store.voting() {
        family(&mut text, "coreinit_voters", "gauge", "Machines that vote.", one(voting.voters as u64));
        let help = "1 if this machine votes.";
        family(&mut text, "coreinit_votes", "gauge", help, one(u64::from(voting.votes)));
    }
    let (keys, bytes) = (state.keys.count() as u64, state.keys.bytes() as u64);
    family(&mut text, "coreinit_keys", "gauge", "Keys and directories of etcd's key API.", one(keys));
    let help = "What they count towards their limit.";
    family(&mut text, "coreinit_keys_bytes", "gauge", help, one(bytes));
    log(&mut text, &store.vitals());
    members(&mut text, room, &role);
    daemon(&mut text, room);

    let version = (vec![("version", room.parts.version.clone())], 1);
    family(&mut text, "coreinit_build_info", "gauge", "The daemon's version.", [version]);
    let requests = room.requests.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let requests = requests.iter().flat_map(|(route, counts)| {
        counts.iter().map(move |((method, status), count)| {
            let status = ("status", status.to_string());
            (vec![("method", (*method).into()), ("route", route.clone()), status], *count)
        })
    });
    let help = "Requests answered, by method, route and status.";
    family(&mut text, "coreinit_http_requests_total", "counter", help, requests);
    text
}

fn units(text: &mut String, state: &ClusterState) {
    let states = [DesiredState::Inactive, DesiredState::Loaded, DesiredState::Launched];
    let pairs = states.into_iter().flat_map(|desired| states.map(|current| (desired, current)));
    let mut units: BTreeMap<(DesiredState, DesiredState), u64> = pairs.map(|pair| (pair, 0)).collect();
    for (name, unit) in &state.units {
        *units.entry((unit.desired, current_state(state, name, unit))).or_default() += 1;
    }
    let units = units.into_iter().map(|((desired, current), count)| {
        (vec![("desired", desired.to_string()), ("current", current.to_string())], count)
    });
    let help = "Units by what is asked of them and what came of it.";
    family(text, "coreinit_units", "gauge", help, units);

    let mut reported: BTreeMap<&str, u64> = BTreeMap::new();
    for (_, observed) in &state.observed {
        *reported.entry(&observed.active).or_default() += 1;
    }
    let reported = reported.into_iter().map(|(active, count)| (vec![("active", active.to_owned())], count));
    let help = "Units as the machines' systemds see them, by ActiveState.";
    family(text, "coreinit_unit_states", "gauge", help, reported);
}

fn machines(text: &mut String, state: &ClusterState) {
    let lost = state.machines.values().filter(|machine| machine.liveness == Liveness::Lost).count() as u64;
    let machines = [("ready", state.machines.len() as u64 - lost), ("lost", lost)];
    let machines = machines.into_iter().map(|(liveness, count)| (vec![("state", liveness.into())], count));
    family(text, "coreinit_machines", "gauge", "Machines by liveness.", machines);
}

fn roles(text: &mut String, room: &Room, role: &Role) {
    let (name, leader) = match role {
        Role::Unformed { .. } => ("unformed", None),
        Role::Leader { .. } => ("leader", Some(&room.parts.machine)),
        Role::Follower { leader } => ("follower", Some(leader)),
        Role::Leaderless => ("leaderless", None),
    };
    let all = ["unformed", "leader", "follower", "leaderless"].into_iter();
    let roles = all.map(|one| (vec![("role", one.into())], u64::from(one == name)));
    family(text, "coreinit_role", "gauge", "1 for the role of this daemon, 0 for the others.", roles);
    let leader = leader.map(|leader| (vec![("machine", leader.to_string())], 1));
    family(text, "coreinit_leader", "gauge", "The machine that leads, while one is known.", leader);
    if let Some(leaderless) = room.leaderless.since() {
        let seconds = leaderless.elapsed().as_secs();
        let help = "Time since this daemon last knew a leader.";
        family(text, "coreinit_leaderless_seconds", "gauge", help, one(seconds));
    }
}

fn log(text: &mut String, vitals: &Vitals) {
    if let Some(log) = &vitals.log {
        family(
            text,
            "coreinit_raft_term",
            "gauge",
            "Raft's term; each election is a new one.",
            one(log.term),
        );
        let help = "Index of the newest entry of this daemon's log.";
        family(text, "coreinit_last_log_index", "gauge", help, one(log.last_index));
        let help = "Index of the last log entry that this daemon knows to be committed.";
        family(text, "coreinit_committed_index", "gauge", help, one(log.committed_index));
        let help = "Index of the last log entry that this daemon's state holds.";
        family(text, "coreinit_applied_index", "gauge", help, one(log.applied_index));
    }
    if let Some(syncs) = &vitals.syncs {
        let help = "Time until writes to the log were durable on this machine's disk.";
        histogram(text, "coreinit_log_sync_seconds", help, syncs);
    }
    let errors = vitals.call_errors.iter().map(|(kind, count)| (vec![("kind", (*kind).into())], *count));
    let help = "Calls to other machines that came to nothing, by kind.";
    family(text, "coreinit_rpc_errors_total", "counter", help, errors);
}

/// What only the leader knows of the members.
fn members(text: &mut String, room: &Room, role: &Role) {
    let Role::Leader { .. } = role else { return };
    let vitals = room.parts.store.vitals();
    let lag = vitals.members.iter().filter_map(|member| {
        let votes = ("votes", u64::from(member.votes).to_string());
        Some((vec![("machine", member.machine.to_string()), votes], member.lag?))
    });
    let help = "On the leader: entries of the log that each member is not known to hold.";
    family(text, "coreinit_member_lag_entries", "gauge", help, lag);
    let silence = room.parts.store.silence();
    let help = "On the leader: time since each machine was last heard.";
    of_machines(text, "coreinit_member_silence_seconds", help, &silence);
}

/// What this daemon's rooms tell of themselves.
fn daemon(text: &mut String, room: &Room) {
    let signs = &room.parts.signs;
    let help = "Rounds of the agent: looking at this machine's units, acting, and reporting.";
    histogram(text, "coreinit_reconcile_seconds", help, &signs.reconcile);
    let help = "Decisions of this daemon, while it leads, about where units go.";
    histogram(text, "coreinit_schedule_seconds", help, &signs.schedule);
    let healthy = u64::from(super::health::ills(room).is_empty());
    family(text, "coreinit_healthy", "gauge", "What /healthz says: 1, or 0.", one(healthy));
    if let Some(ends) = signs.certificate_ends() {
        let help = "When this machine's certificate ends, in Unix time.";
        let ends = ends.duration_since(UNIX_EPOCH).unwrap_or_default();
        in_seconds(text, "coreinit_certificate_expiry_timestamp_seconds", help, ends);
        let left = ends.saturating_sub(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
        let help = "For how long this machine's certificate is still good.";
        in_seconds(text, "coreinit_certificate_left_seconds", help, left);
    }
    let ahead = signs.clocks_ahead();
    let help = "By how much a machine's clock differs from this one's, as the leader, or of the leader.";
    let ahead: Vec<_> =
        ahead.iter().map(|(id, micros)| (id, Duration::from_micros(micros.unsigned_abs()))).collect();
    let ahead = ahead.iter().map(|(id, differs)| (*id, differs));
    of_machines(text, "coreinit_clock_difference_seconds", help, ahead);
    let gauge = |text: &mut String, name: &str, help: &str, value: &AtomicU64| {
        family(text, name, "gauge", help, one(value.load(Ordering::Relaxed)));
    };
    let disk = &signs.disk;
    gauge(text, "coreinit_store_bytes", "What the store takes of its disk.", &disk.store_bytes);
    gauge(text, "coreinit_disk_free_bytes", "What is free on the store's disk.", &disk.free_bytes);
    gauge(text, "coreinit_disk_total_bytes", "The size of the store's disk.", &disk.total_bytes);
    gauge(text, "coreinit_http_connections", "Connections to the API that are open.", &signs.doors.open);
    let help = "Connections to the API that were cut off for new ones, which had no room else.";
    let evicted = signs.doors.evicted.load(Ordering::Relaxed);
    family(text, "coreinit_http_connections_evicted_total", "counter", help, one(evicted));
}
