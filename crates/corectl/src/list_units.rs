//! `list-units`: what the machines say of their units, and which units wait for a machine.

use api::Client;
use api::v1::{State, Unit, UnitState};

use crate::cli::{Format, ListUnits};
use crate::lookup::listed;
use crate::machines::Machines;
use crate::output::{or_dash, shortened};
use crate::{Exit, output};

const COLUMNS: [&str; 6] = ["unit", "load", "active", "sub", "desc", "machine"];

/// Of a description on a terminal; a program that reads gets all of it.
const DESCRIPTION_COLUMNS: usize = 40;

pub async fn run(client: &Client, list: &ListUnits, format: Format) -> anyhow::Result<Exit> {
    let (ListUnits { units: wanted, fields, list }, stale) = (list, list.list.read.stale);
    let units = listed(client, wanted, stale).await?;
    if format == Format::Json {
        output::json(&units)?;
        return Ok(Exit::Done);
    }
    let machines = Machines::ask(client).await?;
    let fields = output::fields(fields, &COLUMNS);
    let columns = if list.full || !output::is_terminal() { usize::MAX } else { DESCRIPTION_COLUMNS };
    let shape = Shape { fields: &fields, full: list.full, description: columns };
    let rows: Vec<Vec<String>> = units.units.iter().flat_map(|unit| rows(unit, &machines, &shape)).collect();
    output::text(&output::table((!list.no_legend).then(|| output::header(&fields)), &rows));
    let waiting = units.units.iter().filter(|unit| unit.unplaced.is_some()).count();
    if waiting > 0 && !list.no_legend {
        let units = if waiting == 1 { "1 unit waits" } else { &format!("{waiting} units wait") };
        output::note(&format!("{units} for a machine; `corectl status UNIT` says why"));
    }
    Ok(Exit::Done)
}

/// A row for each machine that holds the unit; one without a machine for a unit that is wanted and held by
/// none.
fn rows(unit: &Unit, machines: &Machines, shape: &Shape<'_>) -> Vec<Vec<String>> {
    let row = |state: Option<&UnitState>| {
        let of = |part: fn(&UnitState) -> &str| state.map_or("-", part).to_string();
        let cell = |field: &&str| match *field {
            "unit" => unit.name.to_string(),
            "load" => of(|state| &state.load),
            "active" => of(|state| &state.active),
            "sub" => of(|state| &state.sub),
            "desc" => or_dash(&shortened(&unit.description, shape.description)),
            "hash" => output::hash(state.map_or("", |state| &state.hash), shape.full),
            _ => state.map_or("-".into(), |state| {
                let lost = if state.stale { " (lost)" } else { "" };
                format!("{}{lost}", machines.cell(&state.machine, shape.full))
            }),
        };
        shape.fields.iter().map(cell).collect()
    };
    if unit.states.is_empty() && unit.desired_state != State::Inactive {
        return vec![row(None)];
    }
    unit.states.iter().map(|state| row(Some(state))).collect()
}

/// How rows are to look.
struct Shape<'a> {
    fields: &'a [&'a str],
    full: bool,
    /// Columns of a description.
    description: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_say_where_and_how() {
        let machines: Vec<api::v1::Machine> = serde_json::from_value(serde_json::json!([
            {"id": "113f16a7aaaaaaaaaaaaaaaaaaaaaaaa", "name": "h1", "address": "172.17.8.103", "version": "",
             "metadata": {}, "state": "ready", "units": 1},
        ]))
        .unwrap();
        let machines = Machines::of(machines);
        let check = |states: serde_json::Value, desired: &str, full: bool, expected: &[&str]| {
            let unit: Unit = serde_json::from_value(serde_json::json!({
                "name": "a.service", "desiredState": desired, "currentState": "inactive", "generation": 1,
                "hash": "", "description": "Say hello", "machine": null, "reason": null,
                "unplaced": null, "states": states,
            }))
            .unwrap();
            let lines: Vec<String> =
                rows(&unit, &machines, &Shape { fields: &COLUMNS, full, description: 6 })
                    .iter()
                    .map(|row| row.join("|"))
                    .collect();
            assert_eq!(lines, expected);
        };
        let state = |machine: &str, stale: bool| {
            serde_json::json!({"machine": machine, "load": "loaded", "active": "active", "sub": "running",
                "hash": "", "generation": 1, "stale": stale})
        };
        let here = || state("113f16a7aaaaaaaaaaaaaaaaaaaaaaaa", false);
        let elsewhere = || state("m2", true);
        check(serde_json::json!([]), "inactive", false, &[]);
        check(serde_json::json!([]), "launched", false, &["a.service|-|-|-|Say h…|-"]);
        check(
            serde_json::json!([here(), elsewhere()]),
            "launched",
            false,
            &[
                "a.service|loaded|active|running|Say h…|113f16a7.../172.17.8.103",
                "a.service|loaded|active|running|Say h…|m2 (lost)",
            ],
        );
        check(
            serde_json::json!([here()]),
            "launched",
            true,
            &["a.service|loaded|active|running|Say h…|113f16a7aaaaaaaaaaaaaaaaaaaaaaaa/172.17.8.103"],
        );
    }
}
