//! `list-unit-files`: what the cluster keeps, and what is wanted of it.

use std::collections::BTreeMap;

use api::Client;
use cluster::DesiredState;

use crate::cli::{Format, List};
use crate::list_units::machine_cell;
use crate::{Exit, output};

const HEADER: [&str; 5] = ["UNIT", "HASH", "DSTATE", "STATE", "TARGET"];

pub async fn run(client: &Client, list: &List, format: Format) -> anyhow::Result<Exit> {
    let units = client.units(&[], list.read.stale).await?;
    if format == Format::Json {
        output::json(&units)?;
        return Ok(Exit::Done);
    }
    let machines = client.machines(true).await?.machines;
    let machines: BTreeMap<_, _> = machines.into_iter().map(|m| (m.id.clone(), m)).collect();
    let row = |unit: &api::v1::Unit| {
        let hash = if list.full { unit.hash.clone() } else { unit.hash.chars().take(7).collect() };
        let machine = unit.machine.as_ref();
        vec![
            unit.name.to_string(),
            hash,
            DesiredState::from(unit.desired_state).to_string(),
            DesiredState::from(unit.current_state).to_string(),
            machine.map_or("-".into(), |machine| machine_cell(machine, &machines, list.full)),
        ]
    };
    let rows: Vec<Vec<String>> = units.units.iter().map(row).collect();
    output::text(&output::table((!list.no_legend).then_some(&HEADER), &rows));
    Ok(Exit::Done)
}
