//! Where units are, and where else they could be: what speaks against each machine, moves, machines that take
//! no more.

use std::sync::Arc;
use std::time::Duration;

use api::v1;
use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use cluster::{Command, Outcome, UnitName, explain, move_unit, rebalance};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout_at};

use super::Room;
use super::error::Refusal;
use super::journal::find;
use super::request::{Name, Parameters, Payload, decode_body, unit_name};
use super::v1::only;

/// A unit that was placed a moment ago is started within a second; a machine that is slower than this may be
/// in trouble.
const MOVE_PATIENCE: Duration = Duration::from_secs(8);
const MOVE_PAUSE: Duration = Duration::from_millis(50);

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
    let commands = await_move(&room, &unit, wish.machine.as_deref()).await?;
    let units = commands.iter().filter_map(|command| match command {
        Command::MoveUnit { unit, .. } => Some(unit.clone()),
        _ => None,
    });
    let units = units.collect();
    if commands.is_empty() {
        return Ok(Json(v1::Moving { units }));
    }
    for outcome in room.propose(commands).await?.outcomes {
        outcome?;
    }
    Ok(Json(v1::Moving { units }))
}

/// What the move takes. A machine that is just starting the unit tells so in a moment, which is waited for.
async fn await_move(room: &Room, unit: &UnitName, to: Option<&str>) -> Result<Vec<Command>, Refusal> {
    let mut changes = room.parts.store.state();
    let deadline = Instant::now() + MOVE_PATIENCE;
    let mut from = None;
    loop {
        changes.mark_unchanged();
        let state = room.read(false).await?;
        if !state.units.contains_key(unit) {
            return Err(Refusal::NoUnit);
        }
        let to = to.map(|text| find(&state, text)).transpose()?;
        let home = state.assignments.get(unit).map(|assignment| assignment.machine.clone());
        if home != *from.get_or_insert_with(|| home.clone()) {
            return Err(Refusal::Nowhere(format!("{unit} has left its machine meanwhile")));
        }
        match move_unit(&state, unit, to.as_ref()) {
            Err(refused) if refused.is_passing && Instant::now() < deadline => {}
            ended => return ended.map_err(|refused| Refusal::Nowhere(refused.to_string())),
        }
        // Not each of a busy cluster's changes is worth another look.
        sleep(MOVE_PAUSE).await;
        let _ = timeout_at(deadline, changes.changed()).await;
    }
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
    // It takes long where there is much to move: not where requests are answered, and one after the other.
    static ONE: Semaphore = Semaphore::const_new(1);
    let turn = ONE.acquire().await;
    let plan = move || {
        // Until it has ended, also when its caller has gone.
        let _turn = turn;
        rebalance(&state)
    };
    let moves = tokio::task::spawn_blocking(plan).await;
    let moves = moves.map_err(|error| Refusal::Unanswered(format!("no plan was made: {error}")))?;
    let moves = moves.into_iter().map(|relocation| v1::PlannedMove {
        unit: relocation.unit,
        with: relocation.with,
        from: relocation.from,
        to: relocation.to,
        why: relocation.reason,
    });
    Ok(Json(v1::Rebalance { moves: moves.collect() }))
}
