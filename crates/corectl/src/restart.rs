//! `restart`: each unit is stopped and, when it has stopped, started again, one after another. A unit that
//! does not come back ends it: the others are left as they are.

use std::collections::BTreeMap;

use api::Client;
use api::v1::{Operation, State};
use cluster::UnitName;

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
        wait::Plain.gave_up(unit, goal, text, why);
    }
}

pub async fn run(client: &Client, change: &cli::Change) -> anyhow::Result<Exit> {
    let chosen = lookup::choose(client, &change.units, false).await?;
    chosen.unknown.iter().for_each(|unknown| output::problem(unknown));
    if !chosen.unknown.is_empty() {
        anyhow::bail!("nothing was restarted");
    }
    let names: Vec<UnitName> = chosen.units.keys().cloned().collect();
    for (at, (name, unit)) in chosen.units.into_iter().enumerate() {
        let was = unit.desired_state;
        let exit = one(client, &name, was, &change.wait, &mut StoppedOnTheWay, &mut wait::Plain).await?;
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
pub async fn one(
    client: &Client,
    name: &UnitName,
    was: State,
    limits: &cli::Wait,
    stopping: &mut dyn Voice,
    starting: &mut dyn Voice,
) -> anyhow::Result<Exit> {
    let set = |state| Operation::Set { name: name.to_string(), text: None, desired_state: Some(state) };
    if was == State::Launched {
        let made = wish::make(client, vec![set(State::Loaded)]).await?;
        let waits = cli::Wait { no_block: false, timeout: limits.limit(), block_attempts: None };
        let exit = made.wait_as(BTreeMap::from([(name.clone(), Goal::Stopped)]), &waits, stopping).await?;
        if exit != Exit::Done {
            return Ok(exit);
        }
    }
    let made = wish::make(client, vec![set(State::Launched)]).await?;
    made.wait_as(BTreeMap::from([(name.clone(), Goal::Launched)]), limits, starting).await
}
