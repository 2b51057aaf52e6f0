//! `list-machines`, `list-units` and `list-unit-files` in fleet's columns.

use api::v1::{MachineState, Unit, UnitState};

use super::table::table;
use super::{Fleet, Told, words};
use crate::machines::Machines;
use crate::{Exit, list_machines, list_unit_files, output};

pub async fn machines(fleet: &Fleet) -> Told<Exit> {
    let fields = fields(fleet, &["machine", "ip", "metadata"])?;
    let machines = fleet.client.machines(false).await.map_err(|error| {
        let error = words::error(&error, fleet.client.endpoint(), "machines");
        format!(
            "Error retrieving list of active machines from fleet API ({error})\nPossible issues:\n  \
             coreinitd does not run on that machine\n  \
             the cluster has no leader, since too few machines are there"
        )
    })?;
    let ready = machines.machines.iter().filter(|machine| machine.state == MachineState::Ready);
    let full = fleet.flags.is_on("full");
    print(fleet, &fields, ready.map(|machine| list_machines::row(machine, &fields, full)).collect());
    Ok(Exit::Done)
}

pub async fn units(fleet: &Fleet) -> Told<Exit> {
    let fields = fields(fleet, &["unit", "load", "active", "sub", "machine", "hash"])?;
    let (units, machines) = ask(fleet, "state").await?;
    let full = fleet.flags.is_on("full");
    let rows = units.iter().flat_map(|unit| {
        // fleet forgot what a machine had said when it lost the machine.
        let told = unit.states.iter().filter(|state| !state.stale);
        told.map(|state| unit_row(unit, state, &machines, &fields, full)).collect::<Vec<_>>()
    });
    print(fleet, &fields, rows.collect());
    Ok(Exit::Done)
}

fn unit_row(unit: &Unit, state: &UnitState, machines: &Machines, fields: &[&str], full: bool) -> Vec<String> {
    let cell = |field: &&str| match *field {
        "unit" => unit.name.to_string(),
        "load" => output::or_dash(&state.load),
        "active" => output::or_dash(&state.active),
        "sub" => output::or_dash(&state.sub),
        "hash" => output::hash(&state.hash, full),
        _ => machines.cell(&state.machine, full),
    };
    fields.iter().map(cell).collect()
}

pub async fn unit_files(fleet: &Fleet) -> Told<Exit> {
    let valid = ["unit", "hash", "desc", "dstate", "state", "target", "tmachine", "global"];
    let fields = fields(fleet, &valid)?;
    if fields.contains(&"tmachine") {
        output::note("WARNING: The \"tmachine\" field is deprecated. Use \"target\" instead");
    }
    let (units, machines) = ask(fleet, "units").await?;
    let full = fleet.flags.is_on("full");
    let rows = units.iter().map(|unit| list_unit_files::row(unit, &machines, &fields, full));
    print(fleet, &fields, rows.collect());
    Ok(Exit::Done)
}

async fn ask(fleet: &Fleet, path: &str) -> Told<(Vec<Unit>, Machines)> {
    let told = |error| {
        let error = words::error(&error, fleet.client.endpoint(), path);
        format!("Error retrieving list of units from repository: {error}")
    };
    let units = fleet.client.units(&[], false).await.map_err(told)?.units;
    let machines = fleet.client.machines(true).await.map_err(told)?.machines;
    Ok((units, Machines::of(machines)))
}

/// The columns that were asked for.
fn fields<'a>(fleet: &'a Fleet, valid: &[&str]) -> Told<Vec<&'a str>> {
    let text = fleet.flags.text("fields");
    if text.is_empty() {
        return Err("Must define output format".into());
    }
    let fields: Vec<&str> = text.split(',').collect();
    match fields.iter().find(|field| !valid.contains(field)) {
        Some(wrong) => Err(format!("Invalid key in output format: {wrong:?}")),
        None => Ok(fields),
    }
}

fn print(fleet: &Fleet, fields: &[&str], rows: Vec<Vec<String>>) {
    let mut all = Vec::new();
    if !fleet.flags.is_on("no-legend") {
        all.push(output::header(fields));
    }
    all.extend(rows);
    output::text(&table(&all));
}
