//! `list-units`: what the machines say of their units, and which units wait for a machine.

use std::collections::BTreeMap;

use api::Client;
use api::v1::{Machine, State, Unit};
use cluster::MachineId;

use crate::cli::{Format, List};
use crate::output::or_dash;
use crate::{Exit, output};

const HEADER: [&str; 6] = ["UNIT", "LOAD", "ACTIVE", "SUB", "DESC", "MACHINE"];

pub async fn run(client: &Client, list: &List, format: Format) -> anyhow::Result<Exit> {
    let units = client.units(&[], list.read.stale).await?;
    if format == Format::Json {
        output::json(&units)?;
        return Ok(Exit::Done);
    }
    let machines = client.machines(true).await?.machines;
    let machines: BTreeMap<MachineId, Machine> = machines.into_iter().map(|m| (m.id.clone(), m)).collect();
    let rows: Vec<Vec<String>> =
        units.units.iter().flat_map(|unit| rows(unit, &machines, list.full)).collect();
    output::text(&output::table((!list.no_legend).then_some(&HEADER), &rows));
    let waiting = units.units.iter().filter(|unit| unit.unplaced.is_some()).count();
    if waiting > 0 && !list.no_legend {
        output::note(&format!("{waiting} units wait for a machine; `corectl status UNIT` says why"));
    }
    Ok(Exit::Done)
}

fn rows(unit: &Unit, machines: &BTreeMap<MachineId, Machine>, full: bool) -> Vec<Vec<String>> {
    let cells = |load: &str, active: &str, sub: &str, machine: String| {
        vec![
            unit.name.to_string(),
            load.into(),
            active.into(),
            sub.into(),
            or_dash(&unit.description),
            machine,
        ]
    };
    if unit.states.is_empty() && unit.desired_state != State::Inactive {
        return vec![cells("-", "-", "-", "-".into())];
    }
    let row = |state: &api::v1::UnitState| {
        let sub = if state.stale { format!("{} (lost)", state.sub) } else { state.sub.clone() };
        cells(&state.load, &state.active, &sub, machine_cell(&state.machine, machines, full))
    };
    unit.states.iter().map(row).collect()
}

/// As fleet wrote it: `113f16a7.../172.17.8.103`.
pub fn machine_cell(id: &MachineId, machines: &BTreeMap<MachineId, Machine>, full: bool) -> String {
    let id_text = if full { id.to_string() } else { format!("{}...", id.short()) };
    match machines.get(id).map(|machine| machine.address.as_str()) {
        None | Some("") => id_text,
        Some(address) => format!("{id_text}/{address}"),
    }
}
