//! `stop`, `unload` and `destroy`: units of which less is wanted than before. What cannot be done for one
//! unit is told; for the others it is done.

use std::collections::BTreeMap;

use api::Client;
use api::v1::{Operation, State};

use crate::start::is_up;
use crate::verdict::Goal;
use crate::{Exit, cli, lookup, output, wish};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Stop,
    Unload,
    Destroy,
}

pub async fn run(client: &Client, kind: Kind, change: &cli::Change) -> anyhow::Result<Exit> {
    let chosen = lookup::choose(client, &change.units, false).await?;
    for unknown in &chosen.unknown {
        output::problem(unknown);
    }
    let (mut operations, mut goals) = (Vec::new(), BTreeMap::new());
    for (name, unit) in chosen.units {
        let set = |state| Operation::Set { name: name.to_string(), text: None, desired_state: Some(state) };
        let (operation, goal) = match kind {
            // `loaded` would bring it to a machine.
            Kind::Stop if unit.desired_state == State::Inactive => {
                output::line(&format!("{name}: inactive already"));
                continue;
            }
            Kind::Stop => {
                if unit.desired_state == State::Loaded && is_up(&unit) {
                    // Its socket, its timer or another unit has started it. To be stopped it needs a new
                    // wish, which the same one again would not be; no machine sees what comes between.
                    operations.push(set(State::Launched));
                }
                (set(State::Loaded), Goal::Stopped)
            }
            Kind::Unload => (set(State::Inactive), Goal::Unloaded),
            Kind::Destroy => (Operation::Destroy { name: name.to_string() }, Goal::Gone),
        };
        operations.push(operation);
        goals.insert(name, goal);
    }
    let exit = wish::make(client, operations).await?.wait(goals, &change.wait).await?;
    Ok(if chosen.unknown.is_empty() { exit } else { Exit::Failed })
}
