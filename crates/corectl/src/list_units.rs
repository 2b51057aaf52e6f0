//! `list-units`: what the machines say of their units, and which units wait for a machine.

use api::Client;
use api::v1::{State, Unit};

use crate::cli::{Format, ListOf};
use crate::lookup::listed;
use crate::machines::Machines;
use crate::output::{or_dash, shortened};
use crate::{Exit, output};

const HEADER: [&str; 6] = ["UNIT", "LOAD", "ACTIVE", "SUB", "DESC", "MACHINE"];

/// Of a description on a terminal; a program that reads gets all of it.
const DESCRIPTION_COLUMNS: usize = 40;

pub async fn run(client: &Client, list: &ListOf, format: Format) -> anyhow::Result<Exit> {
    let (ListOf { units: wanted, list }, stale) = (list, list.list.read.stale);
    let units = listed(client, wanted, stale).await?;
    if format == Format::Json {
        output::json(&units)?;
        return Ok(Exit::Done);
    }
    let machines = Machines::ask(client).await?;
    let columns = if list.full || !output::is_terminal() { usize::MAX } else { DESCRIPTION_COLUMNS };
    let rows: Vec<Vec<String>> =
        units.units.iter().flat_map(|unit| rows(unit, &machines, list.full, columns)).collect();
    output::text(&output::table((!list.no_legend).then_some(&HEADER), &rows));
    let waiting = units.units.iter().filter(|unit| unit.unplaced.is_some()).count();
    if waiting > 0 && !list.no_legend {
        let units = if waiting == 1 { "1 unit waits" } else { &format!("{waiting} units wait") };
        output::note(&format!("{units} for a machine; `corectl status UNIT` says why"));
    }
    Ok(Exit::Done)
}

/// A row for each machine that holds the unit; one without a machine for a unit that is wanted and held by
/// none.
fn rows(unit: &Unit, machines: &Machines, full: bool, columns: usize) -> Vec<Vec<String>> {
    let cells = |load: &str, active: &str, sub: &str, machine: String| {
        let description = or_dash(&shortened(&unit.description, columns));
        vec![unit.name.to_string(), load.into(), active.into(), sub.into(), description, machine]
    };
    if unit.states.is_empty() && unit.desired_state != State::Inactive {
        return vec![cells("-", "-", "-", "-".into())];
    }
    let row = |state: &api::v1::UnitState| {
        let lost = if state.stale { " (lost)" } else { "" };
        let machine = format!("{}{lost}", machines.cell(&state.machine, full));
        cells(&state.load, &state.active, &state.sub, machine)
    };
    unit.states.iter().map(row).collect()
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
                rows(&unit, &machines, full, 6).iter().map(|row| row.join("|")).collect();
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
