//! `stop` and `unload`: units that are wanted less than before.

use api::Client;
use api::v1::{Operation, State};

use crate::wait::Goal;
use crate::{Exit, cli, wish};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Stop,
    Unload,
}

pub async fn run(client: &Client, kind: Kind, change: &cli::Change) -> anyhow::Result<Exit> {
    let names = wish::resolve(client, &change.units).await?;
    let (state, goal) = match kind {
        Kind::Stop => (State::Loaded, Goal::Stopped),
        Kind::Unload => (State::Inactive, Goal::Unloaded),
    };
    // A unit that is on no machine is stopped already: `loaded` would bring it to one.
    let known = client.units(&names, false).await?.units;
    let nowhere = |name: &cluster::UnitName| {
        known.iter().any(|u| u.name == *name && u.desired_state == State::Inactive)
    };
    let operations = names
        .iter()
        .filter(|name| kind == Kind::Unload || !nowhere(name))
        .map(|name| Operation::Set { name: name.to_string(), text: None, desired_state: Some(state) })
        .collect();
    let goals = names.iter().filter(|name| kind == Kind::Unload || !nowhere(name));
    let goals = goals.map(|name| (name.clone(), goal)).collect();
    wish::make(client, operations, goals, &change.wait).await
}
