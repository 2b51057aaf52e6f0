//! `cat`: a unit's file, as it was given.

use anyhow::bail;
use api::Client;

use crate::names::unit_name;
use crate::{Exit, cli, output};

pub async fn run(client: &Client, cat: &cli::Cat) -> anyhow::Result<Exit> {
    let name = unit_name(&cat.unit)?;
    match client.unit(&name, cat.read.stale).await?.and_then(|unit| unit.text) {
        Some(text) => output::text(&text),
        None => bail!("unit {name} is not in the cluster"),
    }
    Ok(Exit::Done)
}
