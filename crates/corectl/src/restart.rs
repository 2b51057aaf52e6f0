//! `restart`: each unit is stopped and, when it has stopped, started again, one after another. A unit that
//! does not come back ends it: the others are left as they are.
//!
//! Whatever ends the wait for a stop, the unit is wanted launched afterwards: systemd starts it once it is
//! down.

use std::collections::BTreeMap;

use api::Client;
use api::v1::{Operation, State};
use cluster::UnitName;

use crate::signals::Signals;
use crate::verdict::Goal;
use crate::wait::{self, Voice};
use crate::{Exit, cli, lookup, output, wish};

/// Says nothing of the stop that is on the way.
struct StoppedOnTheWay;

impl Voice for StoppedOnTheWay {
    fn reached(&mut self, _ended: &wait::Ended<'_>, _text: &str) {}

    fn failed(&mut self, ended: &wait::Ended<'_>, why: &str, journal: &[String]) {
        wait::Plain.failed(ended, why, journal);
    }

    fn gave_up(&mut self, unit: &UnitName, goal: Goal, text: &str, why: wait::GivenUp) {
        match why {
            wait::GivenUp::Unplaced => wait::Plain.gave_up(unit, goal, text, why),
            wait::GivenUp::Late => output::problem(&format!("{unit}: {text} (not stopped in time)")),
        }
    }
}

pub async fn run(client: &Client, change: &cli::Change) -> anyhow::Result<Exit> {
    let chosen = lookup::choose(client, &change.units, false).await?;
    chosen.unknown.iter().for_each(|unknown| output::problem(unknown));
    if !chosen.unknown.is_empty() {
        anyhow::bail!("nothing was restarted");
    }
    let names: Vec<UnitName> = chosen.units.keys().cloned().collect();
    let mut signals = Signals::catch()?;
    for (at, (name, unit)) in chosen.units.into_iter().enumerate() {
        let exit = one(client, &name, unit.desired_state, &change.wait, &mut signals).await?;
        if exit != Exit::Done {
            let left: Vec<&str> = names[at + 1..].iter().map(UnitName::as_str).collect();
            if !left.is_empty() {
                output::problem(&format!("not restarted, since {name} was not: {}", left.join(" ")));
            }
            return Ok(exit);
        }
    }
    Ok(Exit::Done)
}

/// One unit. The stop is always waited for: a start that overtakes it would be none.
async fn one(
    client: &Client,
    name: &UnitName,
    was: State,
    limits: &cli::Wait,
    signals: &mut Signals,
) -> anyhow::Result<Exit> {
    if was == State::Launched {
        let stopped = tokio::select! {
            stopped = stop(client, name, limits) => stopped,
            exit = signals.next() => Ok(exit),
        };
        if !matches!(stopped, Ok(Exit::Done)) {
            let wanted = tokio::select! {
                wanted = again(client, name) => wanted,
                _ = signals.next() => Err(anyhow::anyhow!("there was no time to ask for it")),
            };
            match wanted {
                Ok(true) => output::problem(&format!("{name}: starts again as soon as it has stopped")),
                Ok(false) => {}
                Err(error) => output::problem(&format!(
                    "{name}: may stay stopped: {error:#}; `corectl start {name}` starts it"
                )),
            }
            return stopped;
        }
    }
    let start = async {
        let made = wish::make(client, vec![set(name, State::Launched)]).await?;
        made.wait_as(BTreeMap::from([(name.clone(), Goal::Launched)]), limits, &mut wait::Plain).await
    };
    tokio::select! {
        started = start => started,
        exit = signals.next() => Ok(exit),
    }
}

fn set(name: &UnitName, state: State) -> Operation {
    Operation::Set { name: name.to_string(), text: None, desired_state: Some(state) }
}

async fn stop(client: &Client, name: &UnitName, limits: &cli::Wait) -> anyhow::Result<Exit> {
    let made = wish::make(client, vec![set(name, State::Loaded)]).await?;
    let waits = cli::Wait { no_block: false, timeout: limits.limit(), block_attempts: None };
    made.wait_as(BTreeMap::from([(name.clone(), Goal::Stopped)]), &waits, &mut StoppedOnTheWay).await
}

/// Wants a unit launched again that was to stop only for a restart, unless somebody else wants it otherwise
/// by now. A start that meets a stop waits for it, in the machine's systemd.
pub async fn again(client: &Client, name: &UnitName) -> anyhow::Result<bool> {
    match client.unit(name, false).await? {
        Some(unit) if unit.desired_state == State::Loaded => {
            Ok(wish::make(client, vec![set(name, State::Launched)]).await?.exit == Exit::Done)
        }
        Some(_) | None => Ok(false),
    }
}
