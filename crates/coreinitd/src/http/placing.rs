//! Where units are, and where else they could be: what speaks against each machine, moves, machines that take
//! no more.

use std::sync::Arc;

use api::v1;
use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use cluster::{Command, Outcome, explain, move_unit, rebalance};

use super::Room;
use super::error::Refusal;
use super::journal::find;
use super::request::{Name, Parameters, Payload, decode_body, unit_name};
use super::v1::only;

pub(super) fn routes() -> Router<Arc<Room>> {
    Router::new()
        .route("/v1/units/{name}/explain", only("GET", get(explanation)))
        .route("/v1/units/{name}/move", only("POST", post(relocate)))
        .route("/v1/machines/{name}/cordon", only("POST", post(cordon)))
        .route("/v1/machines/{name}/uncordon", only("POST", post(uncordon)))
        .route("/v1/rebalance", only("GET", get(rebalancing)))
}

async fn explanation(
    State(room): State<Arc<Room>>,
    Name(name): Name,
    query: Parameters,
) -> Result<Json<v1::Explanation>, Refusal> {
    let unit = unit_name(&name)?;
    let state = room.read(query.stale()?).await?;
    if !state.units.contains_key(&unit) {
        return Err(Refusal::NoUnit);
    }
    let explained = explain(&state, &unit);
    let machines = explained.machines.into_iter().map(|opinion| {
        let machine = state.machines.get(&opinion.machine);
        v1::ExplainedMachine {
            name: machine.map(|machine| machine.info.name.clone()).unwrap_or_default(),
            id: opinion.machine,
            fits: opinion.reasons.is_empty(),
            home: opinion.is_home,
            units: opinion.units,
            reasons: opinion.reasons,
        }
    });
    Ok(Json(v1::Explanation {
        placed: state.assignments.get(&unit).map(|assignment| assignment.machine.clone()),
        summary: explained.summary,
        machines: machines.collect(),
        unit,
    }))
}

/// The unit and those that hang together with it are asked to leave; the leader carries it out.
async fn relocate(
    State(room): State<Arc<Room>>,
    Name(name): Name,
    Payload(body): Payload,
) -> Result<Json<v1::Moving>, Refusal> {
    let unit = unit_name(&name)?;
    let wish: v1::Move = if body.is_empty() { v1::Move::default() } else { decode_body(&body)? };
    let state = room.read(false).await?;
    if !state.units.contains_key(&unit) {
        return Err(Refusal::NoUnit);
    }
    let to = wish.machine.map(|text| find(&state, &text)).transpose()?;
    let commands =
        move_unit(&state, &unit, to.as_ref()).map_err(|refused| Refusal::Nowhere(refused.to_string()))?;
    let units = commands.iter().filter_map(|command| match command {
        Command::MoveUnit { unit, .. } => Some(unit.clone()),
        _ => None,
    });
    let units = units.collect();
    for outcome in room.propose(commands).await?.outcomes {
        outcome?;
    }
    Ok(Json(v1::Moving { units }))
}

async fn cordon(State(room): State<Arc<Room>>, Name(name): Name) -> Result<Json<v1::Machine>, Refusal> {
    set_schedulable(&room, &name, false).await
}

async fn uncordon(State(room): State<Arc<Room>>, Name(name): Name) -> Result<Json<v1::Machine>, Refusal> {
    set_schedulable(&room, &name, true).await
}

async fn set_schedulable(room: &Room, name: &str, schedulable: bool) -> Result<Json<v1::Machine>, Refusal> {
    let id = find(&*room.read(false).await?, name)?;
    let outcomes: Vec<Outcome> =
        room.propose(vec![Command::SetSchedulable { id: id.clone(), schedulable }]).await?.outcomes;
    for outcome in outcomes {
        outcome?;
    }
    let snapshot = room.placement.of(&room.parts.store.state().borrow().clone());
    let units = snapshot.unit_counts().get(&id).copied().unwrap_or(0);
    let gone = || Refusal::Nowhere(format!("no machine is called {name:?}"));
    snapshot.machine(&id, units).map(Json).ok_or_else(gone)
}

async fn rebalancing(
    State(room): State<Arc<Room>>,
    query: Parameters,
) -> Result<Json<v1::Rebalance>, Refusal> {
    let state = room.read(query.stale()?).await?;
    let moves = rebalance(&state).into_iter().map(|relocation| v1::PlannedMove {
        unit: relocation.unit,
        with: relocation.with,
        from: relocation.from,
        to: relocation.to,
        why: relocation.reason,
    });
    Ok(Json(v1::Rebalance { moves: moves.collect() }))
}
