//! An answer that waits: its head is sent at once, its body when something happens.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use tokio::time::{Instant, timeout_at};

use super::ask::Watch;
use super::{Room, WATCH_TIMEOUT};

pub(super) fn answer(room: &Arc<Room>, watch: Watch) -> Response {
    let watching = match room.hub.watch(&watch) {
        Ok(watching) => watching,
        Err(fault) => return room.page(fault.index, None).fault(&fault),
    };
    let (index, revision) = watching.began;
    let until = Instant::now() + WATCH_TIMEOUT;
    let lines = futures::stream::unfold(watching, move |mut watching| async move {
        let line = timeout_at(until, watching.next()).await.ok()??;
        Some((Ok::<_, Infallible>(line), watching))
    });
    room.page(index, Some(revision)).answer(StatusCode::OK, Body::from_stream(lines))
}
