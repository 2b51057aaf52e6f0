//! `list-machines`: who belongs to the cluster, and who is there.

use api::Client;
use api::v1::{Machine, MachineState};

use crate::cli::{Format, ListMachines};
use crate::machines::short;
use crate::output::or_dash;
use crate::{Exit, output};

const COLUMNS: [&str; 6] = ["machine", "name", "ip", "state", "units", "metadata"];

pub async fn run(client: &Client, list: &ListMachines, format: Format) -> anyhow::Result<Exit> {
    let ListMachines { fields, list } = list;
    let machines = client.machines(list.read.stale).await?;
    if format == Format::Json {
        output::json(&machines)?;
        return Ok(Exit::Done);
    }
    let fields = output::fields(fields, &COLUMNS);
    let rows: Vec<Vec<String>> =
        machines.machines.iter().map(|machine| row(machine, &fields, list.full)).collect();
    output::text(&output::table((!list.no_legend).then(|| output::header(&fields)), &rows));
    Ok(Exit::Done)
}

/// Also what fleet's command shows.
pub fn row(machine: &Machine, fields: &[&str], full: bool) -> Vec<String> {
    let metadata = || {
        let pairs = machine.metadata.iter().map(|(key, value)| format!("{key}={value}"));
        pairs.collect::<Vec<String>>().join(",")
    };
    let state = match (machine.state, machine.schedulable) {
        (MachineState::Ready, true) => "ready",
        (MachineState::Ready, false) => "ready,cordoned",
        (MachineState::Lost, true) => "lost",
        (MachineState::Lost, false) => "lost,cordoned",
    };
    let cell = |field: &&str| match *field {
        "machine" => short(&machine.id, full),
        "name" => or_dash(&machine.name),
        "ip" => or_dash(&machine.address),
        "state" => state.into(),
        "units" => machine.units.to_string(),
        _ => or_dash(&metadata()),
    };
    fields.iter().map(cell).collect()
}
