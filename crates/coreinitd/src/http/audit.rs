//! The audit: one line for each change that somebody asked for, allowed or not. Its target is
//! `audit`, so that
//! a filter can keep it apart. Reads are not audited.

use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::Request;
use axum::http::StatusCode;
use cluster::PersonRole;

use super::caller::Caller;

/// The names of a batch that are written out; of the others, the number.
const NAMES_MAX: usize = 20;
/// Of a path: longer than that of any unit.
const PATH_BYTES_MAX: usize = 400;

/// What a handler tells of its request: kept in the request's extensions.
#[derive(Clone, Default)]
pub(super) struct Noted(Arc<Mutex<Notes>>);

#[derive(Default)]
struct Notes {
    /// What is asked for, one after another.
    asked: Vec<String>,
    refused: usize,
}

impl Noted {
    /// Names that were checked, and words of our own: nothing that a caller could put a line's end into.
    pub(super) fn asked(&self, what: impl IntoIterator<Item = String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).asked.extend(what);
    }

    /// How many of a batch were refused one by one.
    pub(super) fn refused(&self, count: usize) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).refused = count;
    }

    fn told(&self) -> (String, usize, usize) {
        let notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut what = notes.asked.iter().take(NAMES_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
        if notes.asked.len() > NAMES_MAX {
            what.push_str(&format!(", and {} more", notes.asked.len() - NAMES_MAX));
        }
        (what, notes.asked.len(), notes.refused)
    }
}

/// The line of one request. It is written when the request ends, also when its caller does not wait for that.
pub(super) struct Line {
    method: String,
    route: String,
    path: String,
    caller: Caller,
    role: Option<PersonRole>,
    noted: Noted,
    is_written: bool,
}

impl Line {
    pub(super) fn begin(request: &Request, route: Option<String>, caller: Caller, noted: Noted) -> Line {
        let path = request.uri().path();
        Line {
            method: request.method().to_string(),
            route: route.unwrap_or_default(),
            path: path[..path.floor_char_boundary(PATH_BYTES_MAX)].into(),
            caller,
            role: None,
            noted,
            is_written: false,
        }
    }

    pub(super) fn role(&mut self, role: PersonRole) {
        self.role = Some(role);
    }

    pub(super) fn end(mut self, status: StatusCode) {
        self.write(Some(status));
    }

    fn write(&mut self, status: Option<StatusCode>) {
        self.is_written = true;
        let (what, count, refused) = self.noted.told();
        let outcome = match status {
            None => "unknown: the caller went away".into(),
            Some(status) if status.is_success() && refused > 0 => format!("done, but {refused} refused"),
            Some(status) if status.is_success() => "done".into(),
            Some(StatusCode::GATEWAY_TIMEOUT) => "unknown: no answer in time".into(),
            Some(status) if status.is_server_error() => "failed".into(),
            Some(_) => "refused".into(),
        };
        let caller = self.caller.to_string();
        let role = self.role.map_or("no role", PersonRole::as_str);
        let address = self.caller.address();
        let asked = if what.is_empty() { String::new() } else { format!(": {what}") };
        tracing::info!(
            target: "audit",
            caller,
            role,
            address,
            method = self.method,
            route = self.route,
            path = self.path,
            what,
            count,
            status = status.map(|status| status.as_u16()),
            outcome,
            "{caller} ({role}) from {address}: {} {}{asked}: {outcome}",
            self.method,
            self.path,
        );
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.is_written {
            self.write(None);
        }
    }
}
