//! The state as a file, from any machine, as of now: it holds all that was acknowledged before it was asked
//! for.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::Room;
use super::error::Refusal;
use super::v1::only;
use crate::backup;

pub(super) fn routes() -> Router<Arc<Room>> {
    Router::new().route("/v1/cluster/backup", only("GET", get(take)))
}

async fn take(State(room): State<Arc<Room>>) -> Result<Response, Refusal> {
    let state = room.read(false).await?;
    let version = room.parts.version.clone();
    // Megabytes are written and summed up: not where requests are answered.
    let made = tokio::task::spawn_blocking(move || Ok(backup::of(&state, &version)?.to_bytes())).await;
    let made: std::io::Result<Vec<u8>> = made.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    let bytes = made.map_err(|error| Refusal::NoBackup(error.to_string()))?;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"coreinit.backup\""),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, bytes).into_response())
}
