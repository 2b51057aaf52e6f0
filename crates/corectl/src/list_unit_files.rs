//! `list-unit-files`: what the cluster keeps, and what is wanted of it.

use api::Client;
use api::v1::Unit;
use cluster::DesiredState;

use crate::cli::{Format, ListUnitFiles};
use crate::lookup::listed;
use crate::machines::Machines;
use crate::{Exit, output};

const COLUMNS: [&str; 5] = ["unit", "hash", "dstate", "state", "target"];

pub async fn run(client: &Client, list: &ListUnitFiles, format: Format) -> anyhow::Result<Exit> {
    let (ListUnitFiles { units: wanted, fields, list }, stale) = (list, list.list.read.stale);
    let units = listed(client, wanted, stale).await?;
    if format == Format::Json {
        output::json(&units)?;
        return Ok(Exit::Done);
    }
    let machines = Machines::ask(client).await?;
    let fields = output::fields(fields, &COLUMNS);
    let rows: Vec<Vec<String>> =
        units.units.iter().map(|unit| row(unit, &machines, &fields, list.full)).collect();
    output::text(&output::table((!list.no_legend).then(|| output::header(&fields)), &rows));
    Ok(Exit::Done)
}

/// Also what fleet's command shows.
pub fn row(unit: &Unit, machines: &Machines, fields: &[&str], full: bool) -> Vec<String> {
    let cell = |field: &&str| match *field {
        "unit" => unit.name.to_string(),
        "hash" => output::hash(&unit.hash, full),
        "dstate" => DesiredState::from(unit.desired_state).to_string(),
        // Each machine has a state of its own.
        "state" if unit.global => "-".into(),
        "state" => DesiredState::from(unit.current_state).to_string(),
        "desc" => output::or_dash(&unit.description),
        "global" => unit.global.to_string(),
        _ if unit.global => "global".into(),
        _ => unit.machine.as_ref().map_or("-".into(), |machine| machines.cell(machine, full)),
    };
    fields.iter().map(cell).collect()
}
