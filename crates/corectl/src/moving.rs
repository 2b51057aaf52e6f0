//! `move`, and the waiting that `drain` and `rebalance` do too: a unit has moved when it is on another
//! machine, as was wished there, and gone from the first.

use std::time::Duration;

use anyhow::bail;
use api::v1::{Event, State, Unit};
use api::{Client, ClientError};
use cluster::{MachineId, UnitName};
use tokio::time::{Instant, sleep_until};

use crate::cli;
use crate::machine_command::one;
use crate::machines::Machines;
use crate::names::unit_name;
use crate::verdict::{Goal, Known, Verdict, judge};
use crate::{Exit, output};

/// A daemon that restarts is sought for so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// What has come of a move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moved {
    /// It is where it should be.
    There(String),
    /// It left, and is not well; or it was not taken anywhere.
    Failed(String),
    /// Time was over.
    Late(String),
    /// It stays where it is, for this reason.
    Refused(String),
}

impl Moved {
    /// Says it.
    pub fn tell(&self, unit: &UnitName) {
        match self {
            Moved::There(text) => output::line(&format!("{unit}: {text}")),
            Moved::Failed(text) => output::problem(&format!("{unit}: {text}")),
            Moved::Late(text) => output::problem(&format!("{unit}: {text} (not in time; the move goes on)")),
            Moved::Refused(text) => output::problem(&format!("{unit} stays: {text}")),
        }
    }

    pub fn exit(&self) -> Exit {
        if matches!(self, Moved::There(_)) { Exit::Done } else { Exit::Failed }
    }
}

pub async fn run(client: &Client, moved: &cli::Move) -> anyhow::Result<Exit> {
    let name = unit_name(&moved.unit)?;
    let Some(unit) = client.unit(&name, false).await? else { bail!("unit {name} is not in the cluster") };
    let machines = client.machines(false).await?.machines;
    let to = moved.machine.as_ref().map(|text| one(&machines, text)).transpose()?.map(|machine| machine.id);
    let labels = Machines::of(machines);
    if to.is_some() && to == unit.machine {
        output::line(&format!("{name}: there already"));
        return Ok(Exit::Done);
    }
    let Some(from) = unit.machine.clone() else { bail!("unit {name} is on no machine") };
    if moved.wait.no_block {
        match refusal(client.move_unit(&name, to.as_ref().map(MachineId::as_str)).await)? {
            Some(why) => Moved::Refused(why).tell(&name),
            None => {
                output::line(&format!("{name}: will be moved"));
                return Ok(Exit::Done);
            }
        }
        return Ok(Exit::Failed);
    }
    let deadline = moved.wait.limit().map(|limit| Instant::now() + limit);
    let ended = carry_out(client, &unit, &from, to.as_ref(), deadline, &labels).await?;
    ended.tell(&name);
    Ok(ended.exit())
}

/// Why the cluster refused it, if it did.
fn refusal(asked: Result<(), ClientError>) -> Result<Option<String>, ClientError> {
    match asked {
        Ok(()) => Ok(None),
        Err(ClientError::Answer { status: 409, message }) => Ok(Some(message)),
        Err(error) => Err(error),
    }
}

/// Asks for one move and waits for it.
pub async fn carry_out(
    client: &Client,
    unit: &Unit,
    from: &MachineId,
    to: Option<&MachineId>,
    deadline: Option<Instant>,
    machines: &Machines,
) -> anyhow::Result<Moved> {
    let name = &unit.name;
    if let Some(why) = refusal(client.move_unit(name, to.map(MachineId::as_str)).await)? {
        return Ok(Moved::Refused(why));
    }
    let goal = match unit.desired_state {
        State::Launched => Goal::Launched,
        State::Loaded | State::Inactive => Goal::Loaded,
    };
    let mut events = client.events(None, std::slice::from_ref(name)).with_patience(Some(PATIENCE));
    let mut so_far = format!("still on {}", machines.label(from));
    loop {
        let heard = tokio::select! {
            // Both are cancel-safe.
            heard = events.next() => heard?,
            () = at(deadline) => return Ok(Moved::Late(so_far)),
        };
        let known = match heard.1 {
            Event::Unit { unit } => Known::Unit(unit),
            Event::Gone { states, .. } => Known::Gone(states),
            Event::Synced { .. } | Event::Reset | Event::Machine { .. } | Event::MachineGone { .. } => {
                continue;
            }
        };
        if let Known::Unit(unit) = &known {
            let is_held = unit.states.iter().any(|state| state.machine == *from && !state.stale);
            if unit.machine.as_ref() == Some(from) || is_held {
                so_far = format!("still on {}", machines.label(from));
                continue;
            }
        }
        match judge(goal, &known, &|id| machines.label(id)) {
            Verdict::Reached(text) | Verdict::Settling(text) => return Ok(Moved::There(text)),
            Verdict::Failed { why, .. } => return Ok(Moved::Failed(why)),
            Verdict::Pending(text) | Verdict::Unplaced(text) => so_far = text,
        }
    }
}

/// Never, without a time.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
