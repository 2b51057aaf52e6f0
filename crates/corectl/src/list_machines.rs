//! `list-machines`: who belongs to the cluster, and who is there.

use api::Client;
use api::v1::MachineState;

use crate::cli::{Format, List};
use crate::machines::short;
use crate::output::or_dash;
use crate::{Exit, output};

const HEADER: [&str; 6] = ["MACHINE", "NAME", "IP", "STATE", "UNITS", "METADATA"];

pub async fn run(client: &Client, list: &List, format: Format) -> anyhow::Result<Exit> {
    let machines = client.machines(list.read.stale).await?;
    if format == Format::Json {
        output::json(&machines)?;
        return Ok(Exit::Done);
    }
    let row = |machine: &api::v1::Machine| {
        let id = short(&machine.id, list.full);
        let state = match machine.state {
            MachineState::Ready => "ready",
            MachineState::Lost => "lost",
        };
        let metadata: Vec<String> =
            machine.metadata.iter().map(|(key, value)| format!("{key}={value}")).collect();
        vec![
            id,
            or_dash(&machine.name),
            or_dash(&machine.address),
            state.into(),
            machine.units.to_string(),
            or_dash(&metadata.join(",")),
        ]
    };
    let rows: Vec<Vec<String>> = machines.machines.iter().map(row).collect();
    output::text(&output::table((!list.no_legend).then_some(&HEADER), &rows));
    Ok(Exit::Done)
}
