//! Answers as etcd gives them: the headers, the JSON, the numbers of errors and the status that goes with
//! each.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use cluster::{KeyAction, KeyError, KeyEvent, KeyFault, KeyNode, KeyPath, KeySeen};
use serde::Serialize;

/// etcd's error numbers, as far as they can occur here, and one of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    Key(KeyFault),
    PrevValueRequired,
    TtlNotANumber,
    IndexNotANumber,
    Field,
    Form,
    RefreshValue,
    RefreshWithoutTtl,
    Internal,
    Leaderless,
    /// Of the same number as `Internal`, but it passes: too many watch.
    Busy,
}

/// What a request could not be answered for.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    what: Code,
    pub cause: String,
    pub index: u64,
}

impl From<KeyError> for Fault {
    fn from(error: KeyError) -> Fault {
        Fault { what: Code::Key(error.fault), cause: error.cause, index: error.index }
    }
}

impl Fault {
    /// About the request alone, whatever the keys are.
    pub fn of_form(what: Code, cause: String) -> Fault {
        Fault { what, cause, index: 0 }
    }

    pub fn field(cause: String) -> Fault {
        Fault::of_form(Code::Field, cause)
    }

    pub fn form(cause: String) -> Fault {
        Fault::of_form(Code::Form, cause)
    }

    pub fn internal(cause: String) -> Fault {
        Fault::of_form(Code::Internal, cause)
    }

    pub fn leaderless(cause: String) -> Fault {
        Fault::of_form(Code::Leaderless, cause)
    }

    #[cfg(test)]
    pub fn code(&self) -> u16 {
        self.what().0
    }

    /// Number, text and status.
    fn what(&self) -> (u16, &'static str, StatusCode) {
        let bad = StatusCode::BAD_REQUEST;
        match self.what {
            Code::Key(KeyFault::NotFound) => (100, "Key not found", StatusCode::NOT_FOUND),
            Code::Key(KeyFault::CompareFailed) => (101, "Compare failed", StatusCode::PRECONDITION_FAILED),
            Code::Key(KeyFault::NotFile) => (102, "Not a file", StatusCode::FORBIDDEN),
            Code::Key(KeyFault::NotDirectory) => (104, "Not a directory", bad),
            Code::Key(KeyFault::Exists) => (105, "Key already exists", StatusCode::PRECONDITION_FAILED),
            Code::Key(KeyFault::ReadOnly) => (107, "Root is read only", bad),
            Code::Key(KeyFault::NotEmpty) => (108, "Directory not empty", StatusCode::FORBIDDEN),
            // etcd's clients take a 5xx for a member that is down, and do not show the text.
            Code::Key(KeyFault::Full) => (112, "Key space is full", StatusCode::FORBIDDEN),
            Code::PrevValueRequired => (201, "PrevValue is Required in POST form", bad),
            Code::TtlNotANumber => (202, "The given TTL in POST form is not a number", bad),
            Code::IndexNotANumber => (203, "The given index in POST form is not a number", bad),
            Code::Field | Code::Key(KeyFault::TooLarge) => (209, "Invalid field", bad),
            Code::Form => (210, "Invalid POST form", bad),
            Code::RefreshValue => (211, "Value provided on refresh", bad),
            Code::RefreshWithoutTtl => (212, "A TTL must be provided on refresh", bad),
            Code::Internal => (300, "Raft Internal Error", StatusCode::INTERNAL_SERVER_ERROR),
            Code::Busy => (300, "Raft Internal Error", StatusCode::SERVICE_UNAVAILABLE),
            Code::Leaderless => (301, "During Leader Election", StatusCode::INTERNAL_SERVER_ERROR),
            Code::Key(KeyFault::HistoryCleared) => {
                (401, "The event in requested index is outdated and cleared", bad)
            }
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FaultView<'a> {
    error_code: u16,
    message: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    cause: &'a str,
    index: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EventView<'a> {
    action: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<NodeView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_node: Option<NodeView>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeView {
    #[serde(skip_serializing_if = "String::is_empty")]
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Arc<str>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dir: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    ttl: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    nodes: Vec<NodeView>,
    #[serde(skip_serializing_if = "is_zero")]
    modified_index: u64,
    #[serde(skip_serializing_if = "is_zero")]
    created_index: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl NodeView {
    /// At `now`, in milliseconds since 1970.
    fn of_seen(path: &KeyPath, seen: &KeySeen, now: u64) -> NodeView {
        NodeView {
            key: shown(path.as_str()),
            value: seen.value.clone(),
            dir: seen.is_dir,
            expiration: seen.expires.map(written),
            ttl: seen.expires.map_or(0, |at| at.saturating_sub(now).div_ceil(1000)),
            nodes: Vec::new(),
            modified_index: seen.modified,
            created_index: seen.created,
        }
    }

    /// With what is in it, `depth` levels down; without what is hidden there.
    fn of_node(path: &str, node: &KeyNode, depth: usize, now: u64) -> NodeView {
        let within = node.nodes().filter(|_| 0 < depth).into_iter().flatten();
        let nodes = within.filter(|(name, _)| !name.starts_with('_')).map(|(name, node)| {
            let path = if path == "/" { format!("/{name}") } else { format!("{path}/{name}") };
            NodeView::of_node(&path, node, depth - 1, now)
        });
        NodeView {
            key: shown(path),
            value: node.value().cloned(),
            dir: node.nodes().is_some(),
            expiration: node.expires.map(written),
            ttl: node.expires.map_or(0, |at| at.saturating_sub(now).div_ceil(1000)),
            nodes: nodes.collect(),
            modified_index: node.modified,
            created_index: node.created,
        }
    }
}

/// etcd does not name the root.
fn shown(path: &str) -> String {
    if path == "/" { String::new() } else { path.into() }
}

/// Milliseconds since 1970 as RFC 3339 has them. From Howard Hinnant's algorithms for dates.
pub(super) fn written(millis: u64) -> String {
    let (days, rest) = (millis / 86_400_000, millis % 86_400_000);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let leaps = day_of_era / 1460 + day_of_era / 146_096 - day_of_era / 36_524;
    let year_of_era = (day_of_era - leaps) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (seconds, millis) = (rest / 1000, rest % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// The line that an event is, with a newline at its end.
pub(super) fn line(event: &KeyEvent, terse: bool) -> Vec<u8> {
    let quiet = match event.action {
        KeyAction::Set | KeyAction::CompareAndSwap | KeyAction::Create | KeyAction::Update => terse,
        KeyAction::Delete | KeyAction::CompareAndDelete | KeyAction::Expire => false,
    };
    let view = |seen: &KeySeen| NodeView::of_seen(&event.path, seen, event.at);
    json(&EventView {
        action: name(event.action),
        node: (!quiet).then(|| view(&event.node)),
        prev_node: event.before.as_ref().filter(|_| !quiet).map(view),
    })
}

fn name(action: KeyAction) -> &'static str {
    match action {
        KeyAction::Set => "set",
        KeyAction::Create => "create",
        KeyAction::Update => "update",
        KeyAction::CompareAndSwap => "compareAndSwap",
        KeyAction::Delete => "delete",
        KeyAction::CompareAndDelete => "compareAndDelete",
        KeyAction::Expire => "expire",
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(value).expect("what is answered has string keys only");
    bytes.push(b'\n');
    bytes
}

/// What stands above every answer about keys.
pub(super) struct Page {
    pub cluster: u64,
    pub index: u64,
    /// Index and term.
    pub raft: Option<(u64, u64)>,
}

impl Page {
    pub fn fault(&self, fault: &Fault) -> Response {
        let (error_code, message, status) = fault.what();
        let (cause, index) = (fault.cause.as_str(), fault.index);
        let view = FaultView { error_code, message, cause, index };
        let page = Page { index, ..*self };
        page.answer(status, Body::from(json(&view)))
    }

    pub fn event(&self, event: &KeyEvent, terse: bool) -> Response {
        let status = if event.is_created() { StatusCode::CREATED } else { StatusCode::OK };
        self.answer(status, Body::from(line(event, terse)))
    }

    pub fn node(&self, path: &KeyPath, node: &KeyNode, recursive: bool, now: u64) -> Response {
        let depth = if recursive { usize::MAX } else { 1 };
        let node = Some(NodeView::of_node(path.as_str(), node, depth, now));
        self.answer(StatusCode::OK, Body::from(json(&EventView { action: "get", node, prev_node: None })))
    }

    pub fn answer(&self, status: StatusCode, body: Body) -> Response {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert("x-etcd-cluster-id", hexadecimal(self.cluster));
        headers.insert("x-etcd-index", self.index.into());
        if let Some((index, term)) = self.raft {
            headers.insert("x-raft-index", index.into());
            headers.insert("x-raft-term", term.into());
        }
        response
    }
}

fn hexadecimal(number: u64) -> HeaderValue {
    HeaderValue::try_from(format!("{number:x}")).unwrap_or(HeaderValue::from_static("0"))
}

/// An answer that is no JSON.
pub(super) fn text(status: u16, text: impl Into<Body>) -> Response {
    let mut response = Response::new(text.into());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

pub(super) fn not_allowed(allowed: &'static str) -> Response {
    let mut response = text(405, "Method Not Allowed");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

/// An answer about something else than keys.
pub(super) fn plain_json(status: StatusCode, cluster: Option<u64>, value: &impl Serialize) -> Response {
    let mut response = Response::new(Body::from(json(value)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(cluster) = cluster {
        headers.insert("x-etcd-cluster-id", hexadecimal(cluster));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written() {
        let check = |millis: u64, expected: &str| assert_eq!(written(millis), expected);
        check(0, "1970-01-01T00:00:00.000Z");
        check(951_782_400_000, "2000-02-29T00:00:00.000Z");
        check(1_795_291_871_234, "2026-11-21T20:11:11.234Z");
        check(253_402_300_799_000, "9999-12-31T23:59:59.000Z");
    }
}
