//! `destroy`: units that the cluster should forget, and their machines too.

use api::Client;
use api::v1::Operation;

use crate::wait::Goal;
use crate::{Exit, cli, wish};

pub async fn run(client: &Client, change: &cli::Change) -> anyhow::Result<Exit> {
    let names = wish::resolve(client, &change.units).await?;
    let operations = names.iter().map(|name| Operation::Destroy { name: name.to_string() }).collect();
    let goals = names.into_iter().map(|name| (name, Goal::Gone)).collect();
    wish::make(client, operations, goals, &change.wait).await
}
