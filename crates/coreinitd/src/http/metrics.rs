//! `/metrics`, in Prometheus' text form: what this daemon knows of the cluster, and what it was asked. It
//! needs no leader.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use cluster::{DesiredState, Liveness};
use store::Role;

use super::Room;
use super::error::Refusal;
use super::view::current_state;

/// Requests by method, route and status. All three come from short lists, so this stays small.
#[derive(Default)]
pub(super) struct Requests(Mutex<BTreeMap<(&'static str, String, u16), u64>>);

impl Requests {
    fn count(&self, method: &'static str, route: String, status: u16) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((method, route, status)).or_default() += 1;
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
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let response = next.run(request).await;
    room.requests.count(method, route, response.status().as_u16());
    response
}

pub(super) async fn metrics(State(room): State<Arc<Room>>, method: Method) -> Result<Response, Refusal> {
    if method != Method::GET {
        return Err(Refusal::Method("only GET supported against this resource"));
    }
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text(&room)).into_response())
}

/// One value with its labels.
type Sample = (Vec<(&'static str, String)>, u64);

fn text(room: &Room) -> String {
    let store = &room.parts.store;
    let state = store.state().borrow().clone();
    let mut text = String::new();

    let states = [DesiredState::Inactive, DesiredState::Loaded, DesiredState::Launched];
    let pairs = states.into_iter().flat_map(|desired| states.map(|current| (desired, current)));
    let mut units: BTreeMap<(DesiredState, DesiredState), u64> = pairs.map(|pair| (pair, 0)).collect();
    for (name, unit) in &state.units {
        *units.entry((unit.desired, current_state(&state, name, unit))).or_default() += 1;
    }
    let units = units.into_iter().map(|((desired, current), count)| {
        (vec![("desired", desired.to_string()), ("current", current.to_string())], count)
    });
    family(
        &mut text,
        "coreinit_units",
        "gauge",
        "Units by what is asked of them and what came of it.",
        units,
    );

    let mut reported: BTreeMap<&str, u64> = BTreeMap::new();
    for (_, observed) in &state.observed {
        *reported.entry(&observed.active).or_default() += 1;
    }
    let reported = reported.into_iter().map(|(active, count)| (vec![("active", active.to_owned())], count));
    let help = "Units as the machines' systemds see them, by ActiveState.";
    family(&mut text, "coreinit_unit_states", "gauge", help, reported);

    let lost = state.machines.values().filter(|machine| machine.liveness == Liveness::Lost).count() as u64;
    let machines = [("ready", state.machines.len() as u64 - lost), ("lost", lost)];
    let machines = machines.into_iter().map(|(liveness, count)| (vec![("state", liveness.into())], count));
    family(&mut text, "coreinit_machines", "gauge", "Machines by liveness.", machines);

    let role = match &*store.role().borrow() {
        Role::Unformed { .. } => "unformed",
        Role::Leader { .. } => "leader",
        Role::Follower { .. } => "follower",
        Role::Leaderless => "leaderless",
    };
    let roles = ["unformed", "leader", "follower", "leaderless"].into_iter();
    let roles = roles.map(|name| (vec![("role", name.into())], u64::from(name == role)));
    family(&mut text, "coreinit_role", "gauge", "1 for the role of this daemon, 0 for the others.", roles);
    if let Some(leaderless) = room.leaderless.since() {
        let seconds = leaderless.elapsed().as_secs();
        let help = "Time since this daemon last knew a leader.";
        family(&mut text, "coreinit_leaderless_seconds", "gauge", help, one(seconds));
    }

    let help = "Revision of the state that this daemon answers from.";
    family(&mut text, "coreinit_revision", "gauge", help, one(state.revision.0));
    if let Some(voting) = store.voting() {
        family(&mut text, "coreinit_voters", "gauge", "Machines that vote.", one(voting.voters as u64));
        let help = "1 if this machine votes.";
        family(&mut text, "coreinit_votes", "gauge", help, one(u64::from(voting.votes)));
        let help = "Index of the last log entry that this daemon's state holds.";
        family(&mut text, "coreinit_applied_index", "gauge", help, one(voting.applied_index));
    }

    let version = (vec![("version", room.parts.version.clone())], 1);
    family(&mut text, "coreinit_build_info", "gauge", "The daemon's version.", [version]);
    let requests = room.requests.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let requests = requests.into_iter().map(|((method, route, status), count)| {
        (vec![("method", method.into()), ("route", route), ("status", status.to_string())], count)
    });
    let help = "Requests answered, by method, route and status.";
    family(&mut text, "coreinit_http_requests_total", "counter", help, requests);
    text
}

fn one(value: u64) -> [Sample; 1] {
    [(Vec::new(), value)]
}

fn family(text: &mut String, name: &str, kind: &str, help: &str, samples: impl IntoIterator<Item = Sample>) {
    text.extend(["# HELP ", name, " ", help, "\n# TYPE ", name, " ", kind, "\n"]);
    for (labels, value) in samples {
        let labels: Vec<String> =
            labels.into_iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(&value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name}{labels} {value}");
    }
}

/// As label values are written in Prometheus' text form.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut text = String::new();
        family(&mut text, "a", "gauge", "A.", [(vec![("b", "x\"y\\z\n".into()), ("c", "d".into())], 7)]);
        assert_eq!(text, "# HELP a A.\n# TYPE a gauge\na{b=\"x\\\"y\\\\z\\n\",c=\"d\"} 7\n");
    }
}
