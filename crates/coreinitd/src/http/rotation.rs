//! Replacing the cluster's authority: beginning it, giving it up, and how far it is.

use std::sync::Arc;

use api::membership::{Rotate, RotationView};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use cluster::{ClusterState, Command, RotationStep};

use super::Room;
use super::audit::Noted;
use super::caller::Caller;
use super::error::Refusal;
use super::request::{Payload, decode_body, expect_json};
use super::v1::only;
use super::view::is_lost;

pub(super) fn routes() -> Router<Arc<Room>> {
    Router::new()
        .route("/v1/cluster/rotation", only("GET and POST", get(rotation).post(begin)))
        .route("/v1/cluster/rotation/abort", only("POST", post(abort)))
}

/// What is made of an authority that is about to go would be worth nothing in a moment.
pub(super) fn unrotating(state: &ClusterState) -> Result<(), Refusal> {
    match state.cluster.as_ref().is_some_and(|cluster| cluster.rotation.is_some()) {
        true => Err(Refusal::Nowhere(
            "the cluster's authority is being replaced; `corectl cluster rotate-ca --watch` tells how far \
             that is, and what is made of the old one now would soon be worth nothing"
                .into(),
        )),
        false => Ok(()),
    }
}

fn view(state: &ClusterState) -> RotationView {
    let cluster = state.cluster.as_deref();
    let running = cluster.and_then(|cluster| cluster.rotation.as_ref());
    let awaited = running.into_iter().flat_map(|rotation| {
        let left = state.machines.iter().filter(|(id, _)| !rotation.confirmed.contains(*id));
        left.map(|(id, machine)| match is_lost(state, id) {
            true => format!("{} (lost)", machine.info.name),
            false => machine.info.name.clone(),
        })
    });
    RotationView {
        number: running.map(|rotation| rotation.number),
        phase: running.map(|rotation| rotation.phase),
        awaited: awaited.collect(),
        authority: cluster.and_then(|cluster| cluster.authority.clone()),
        ended: cluster.map_or(0, |cluster| cluster.rotations),
    }
}

/// In words, for `corectl cluster status`.
pub(super) fn concern(state: &ClusterState) -> Option<String> {
    let RotationView { number, awaited, .. } = view(state);
    number?;
    Some(format!(
        "the cluster's authority is being replaced, which waits for {}: a machine that is lost is waited for \
         until it comes back, or until `corectl cluster remove`",
        if awaited.is_empty() { "the leader".into() } else { awaited.join(", ") }
    ))
}

async fn rotation(State(room): State<Arc<Room>>) -> Result<Json<RotationView>, Refusal> {
    Ok(Json(view(&*room.read(false).await?)))
}

async fn begin(
    State(room): State<Arc<Room>>,
    Extension(caller): Extension<Caller>,
    Extension(noted): Extension<Noted>,
    headers: HeaderMap,
    Payload(body): Payload,
) -> Result<Json<RotationView>, Refusal> {
    expect_json(&headers)?;
    let wish: Rotate = decode_body(&body)?;
    noted.asked(["replace the authority".to_string()]);
    if !caller.is_local() {
        return Err(Refusal::Invalid(
            "replacing the authority makes every person's certificate worthless, this caller's too: run \
             `corectl cluster rotate-ca` on one of the machines"
                .into(),
        ));
    }
    let state = room.read(false).await?;
    unrotating(&state)?;
    let secret = match &wish.secret {
        None => None,
        Some(digits) => {
            let bytes = identity::unhex(digits);
            Some(bytes.ok_or_else(|| Refusal::Invalid("the secret is not in hexadecimal".into()))?)
        }
    };
    let begin = room.membership()?.rotation(secret.as_deref()).map_err(Refusal::Nowhere)?;
    let mut commands = vec![Command::Rotate(begin)];
    // They name the old authority, and no machine would find in by them.
    commands.extend(state.tokens.keys().map(|id| Command::RevokeToken { id: id.clone() }));
    room.propose(commands).await?.outcomes.into_iter().next().transpose()?;
    Ok(Json(view(&*room.read(false).await?)))
}

async fn abort(
    State(room): State<Arc<Room>>,
    Extension(noted): Extension<Noted>,
) -> Result<Json<RotationView>, Refusal> {
    noted.asked(["keep the old authority".to_string()]);
    let state = room.read(false).await?;
    let number =
        view(&state).number.ok_or_else(|| Refusal::Nowhere("no authority is being replaced".into()))?;
    room.propose_one(Command::Rotate(RotationStep::Abort { number })).await?;
    Ok(Json(view(&*room.read(false).await?)))
}
