//! What each role may do: one table, and the one place where every request passes by it. `docs/roles.md` has
//! the same table for people.
//!
//! Whatever a viewer may not do is a change, and is audited, whether it was allowed or not.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use cluster::PersonRole::{self, Admin, Operator, Viewer};

use super::Room;
use super::audit::{Line, Noted};
use super::caller::Caller;
use super::error::Refusal;
use super::fleet_lock;

/// Method, route, and the least role that may use it. fleet's API stands here under its last prefix.
const TABLE: &[(&str, &str, PersonRole)] = &[
    ("GET", "/v1/status", Viewer),
    ("GET", "/v1/units", Viewer),
    ("POST", "/v1/units", Operator),
    ("GET", "/v1/units/{name}", Viewer),
    ("GET", "/v1/units/{name}/journal", Viewer),
    ("GET", "/v1/units/{name}/status", Viewer),
    ("GET", "/v1/units/{name}/explain", Viewer),
    ("POST", "/v1/units/{name}/move", Operator),
    ("GET", "/v1/machines", Viewer),
    ("POST", "/v1/machines/{name}/cordon", Operator),
    ("POST", "/v1/machines/{name}/uncordon", Operator),
    ("GET", "/v1/rebalance", Viewer),
    ("GET", "/v1/events", Viewer),
    // The same, with its names in the body.
    ("POST", "/v1/events", Viewer),
    ("POST", "/v1/cluster/init", Admin),
    ("POST", "/v1/cluster/join", Admin),
    ("GET", "/v1/cluster/members", Viewer),
    ("GET", "/v1/cluster/tokens", Viewer),
    ("POST", "/v1/cluster/tokens", Admin),
    ("POST", "/v1/cluster/tokens/{name}/revoke", Admin),
    ("POST", "/v1/machines/{name}/remove", Admin),
    ("POST", "/v1/machines/{name}/readmit", Admin),
    ("GET", "/v1/cluster/rotation", Viewer),
    ("POST", "/v1/cluster/rotation", Admin),
    ("POST", "/v1/cluster/rotation/abort", Admin),
    ("GET", "/v1/cluster/backup", Admin),
    ("POST", "/v1/cluster/invite", Admin),
    ("POST", "/v1/cluster/uninvite", Admin),
    ("GET", "/v1/cluster/people", Viewer),
    ("GET", "/v1/reboot-lock", Viewer),
    ("POST", "/v1/reboot-lock/release", Operator),
    ("POST", "/v1/reboot-lock/slots", Operator),
    ("POST", "/v1/pre-reboot", Operator),
    ("POST", "/v1/steady-state", Operator),
    ("GET", "/metrics", Viewer),
    ("GET", "/healthz", Viewer),
    ("GET", "/readyz", Viewer),
    ("GET", "/", Viewer),
    ("GET", "/fleet/v1", Viewer),
    ("GET", "/fleet/v1/discovery", Viewer),
    ("GET", "/fleet/v1/units", Viewer),
    ("GET", "/fleet/v1/units/{name}", Viewer),
    ("PUT", "/fleet/v1/units/{name}", Operator),
    ("DELETE", "/fleet/v1/units/{name}", Operator),
    ("GET", "/fleet/v1/state", Viewer),
    ("GET", "/fleet/v1/state/{name}", Viewer),
    ("GET", "/fleet/v1/machines", Viewer),
    ("PATCH", "/fleet/v1/machines", Operator),
];

/// Every request that is served: its method, its route, and the least role that may make it. fleet's API is
/// listed under its last prefix.
pub fn requests() -> impl Iterator<Item = (&'static str, &'static str, PersonRole)> {
    TABLE.iter().copied()
}

/// What a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Need {
    role: PersonRole,
    /// It changes something, if it is allowed.
    is_change: bool,
}

/// `None` is a path that leads nowhere. A route that the table forgot is for administrators; a method that
/// is not served is told so by its handler, to whoever may change anything.
fn need(method: &str, route: Option<&str>) -> Need {
    let Some(route) = route else { return Need { role: Viewer, is_change: false } };
    let route = as_listed(route);
    let method = if method == "HEAD" { "GET" } else { method };
    let mut rows = TABLE.iter().filter(|(_, path, _)| *path == route).peekable();
    if rows.peek().is_none() {
        return Need { role: Admin, is_change: method != "GET" };
    }
    match rows.find(|(listed, ..)| *listed == method) {
        Some((.., role)) => Need { role: *role, is_change: *role > Viewer },
        None => Need { role: Operator, is_change: false },
    }
}

/// fleet's API under its last prefix.
fn as_listed(route: &str) -> String {
    let fleets = ["/flt/v1", "/v1-alpha"].into_iter().find_map(|prefix| route.strip_prefix(prefix));
    fleets.map_or_else(|| route.to_owned(), |rest| format!("/fleet/v1{rest}"))
}

/// Browsers name the page in whatever it sends that may change something, also where a name was made to lead
/// here (DNS rebinding). Where nobody has to show who he is, a page would act as whoever looks at it.
fn is_of_a_page(request: &Request) -> bool {
    let is_reading = matches!(*request.method(), Method::GET | Method::HEAD);
    !is_reading && request.headers().contains_key(header::ORIGIN)
}

/// Every request passes here, and nowhere else is it asked who may do what.
pub(super) async fn admit(State(room): State<Arc<Room>>, mut request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let need = need(request.method().as_str(), route.as_deref());
    let caller = request.extensions().get::<Caller>().cloned().unwrap_or_else(Caller::nobody);
    let noted = Noted::default();
    let in_fleet_lock = route.as_deref().is_some_and(fleet_lock::is_spoken_on);
    let mut line = need.is_change.then(|| Line::begin(&request, route, caller.clone(), noted.clone()));
    let role = caller.role(&room).await;
    if let (Some(line), Ok(role)) = (&mut line, &role) {
        line.role(*role);
    }
    let judged = role.and_then(|role| match role >= need.role {
        true if is_of_a_page(&request) => Err(Refusal::WebPage),
        true => Ok(()),
        false => Err(Refusal::Role { need: need.role, role, caller: caller.to_string() }),
    });
    let response = match judged {
        Ok(()) => {
            request.extensions_mut().insert(noted);
            caller.watched(&room, next.run(request).await)
        }
        Err(refusal) if in_fleet_lock => fleet_lock::Refused::from(refusal).into_response(),
        Err(refusal) => refusal.into_response(),
    };
    if let Some(line) = line {
        line.end(response.status());
    }
    response
}

#[cfg(test)]
#[path = "roles/tests.rs"]
mod tests;
