//! A request that only the next version's daemon serves, for [`Command::Next`]: see the feature `next`.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use cluster::Command;
use serde::Deserialize;

use super::Room;
use super::error::Refusal;
use super::request::{Payload, decode_body, expect_json};
use super::v1::only;

#[derive(Deserialize)]
struct Renaming {
    name: String,
}

pub(super) fn routes() -> Router<Arc<Room>> {
    Router::new().route("/v1/next", only("POST", post(rename)))
}

async fn rename(
    State(room): State<Arc<Room>>,
    headers: HeaderMap,
    Payload(body): Payload,
) -> Result<(), Refusal> {
    expect_json(&headers)?;
    let Renaming { name } = decode_body(&body)?;
    for outcome in room.propose(vec![Command::Next { name }]).await?.outcomes {
        outcome?;
    }
    Ok(())
}
