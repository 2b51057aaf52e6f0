//! `list-unit-files`: what the cluster keeps, and what is wanted of it.

use api::Client;
use cluster::DesiredState;

use crate::cli::{Format, ListOf};
use crate::lookup::listed;
use crate::machines::Machines;
use crate::{Exit, output};

const HEADER: [&str; 5] = ["UNIT", "HASH", "DSTATE", "STATE", "TARGET"];

pub async fn run(client: &Client, list: &ListOf, format: Format) -> anyhow::Result<Exit> {
    let (ListOf { units: wanted, list }, stale) = (list, list.list.read.stale);
    let units = listed(client, wanted, stale).await?;
    if format == Format::Json {
        output::json(&units)?;
        return Ok(Exit::Done);
    }
    let machines = Machines::ask(client).await?;
    let row = |unit: &api::v1::Unit| {
        let hash = if list.full { unit.hash.clone() } else { unit.hash.chars().take(7).collect() };
        let machine = unit.machine.as_ref();
        vec![
            unit.name.to_string(),
            hash,
            DesiredState::from(unit.desired_state).to_string(),
            DesiredState::from(unit.current_state).to_string(),
            machine.map_or("-".into(), |machine| machines.cell(machine, list.full)),
        ]
    };
    let rows: Vec<Vec<String>> = units.units.iter().map(row).collect();
    output::text(&output::table((!list.no_legend).then_some(&HEADER), &rows));
    Ok(Exit::Done)
}
