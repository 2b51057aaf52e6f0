//! `status`: all that is known of units, laid out as systemctl does, with systemctl's exit codes.

use api::Client;
use api::v1::{State, Unit, UnitState};
use cluster::{Condition, DesiredState};

use crate::cli::{self, Format};
use crate::machines::Machines;
use crate::{Exit, lookup, output};

pub async fn run(client: &Client, status: &cli::Status, format: Format) -> anyhow::Result<Exit> {
    let chosen = lookup::choose(client, &status.units, status.read.stale).await?;
    let units: Vec<Unit> = chosen.units.into_values().collect();
    let is_active =
        |unit: &Unit| home(unit).is_some_and(|state| Condition::of(&state.active) == Condition::Up);
    let exit = match (chosen.unknown.is_empty(), units.iter().all(is_active)) {
        (false, _) => Exit::Unknown,
        (true, false) => Exit::NotActive,
        (true, true) => Exit::Done,
    };
    match format {
        Format::Json => output::json(&units)?,
        Format::Plain => {
            let machines = Machines::ask(client).await?;
            let texts: Vec<String> = units.iter().map(|unit| render(unit, &machines)).collect();
            output::text(&texts.join("\n"));
        }
    }
    chosen.unknown.iter().for_each(|unknown| output::problem(unknown));
    Ok(exit)
}

/// What the unit's own machine says, if it is there.
fn home(unit: &Unit) -> Option<&UnitState> {
    unit.states.iter().find(|state| Some(&state.machine) == unit.machine.as_ref() && !state.stale)
}

fn render(unit: &Unit, machines: &Machines) -> String {
    let mut text = String::new();
    let own = home(unit);
    let dot = match own.map(|state| Condition::of(&state.active)) {
        Some(Condition::Up | Condition::Starting | Condition::Stopping) => "●",
        Some(Condition::Failed) => "×",
        Some(Condition::Down) | None => "○",
    };
    let description =
        if unit.description.is_empty() { String::new() } else { format!(" - {}", unit.description) };
    text.push_str(&format!("{dot} {}{description}\n", unit.name));
    let mut put = |name: &str, value: &str| text.push_str(&format!("{name:>11}: {value}\n"));
    let hash: String = unit.hash.chars().take(7).collect();
    put("Loaded", &format!("{} (hash {hash})", own.map_or("-", |state| state.load.as_str())));
    put("Active", &own.map_or("inactive".into(), |state| format!("{} ({})", state.active, state.sub)));
    let placed = match (&unit.machine, &unit.unplaced) {
        (Some(machine), why) => {
            let reason = unit.reason.as_ref().map(|reason| format!(", {reason}")).unwrap_or_default();
            let now = why.as_ref().map(|why| format!("; it has to go, but {why}")).unwrap_or_default();
            format!("{}{reason}{now}", machines.label(machine))
        }
        (None, Some(why)) => format!("none: {why}"),
        (None, None) if unit.desired_state == State::Inactive => "none".into(),
        (None, None) => "none yet".into(),
    };
    put("Machine", &placed);
    let desired = DesiredState::from(unit.desired_state);
    let done = match own {
        Some(state) if state.generation == Some(unit.generation) => "",
        Some(_) => ", not carried out yet",
        None => "",
    };
    put("Desired", &format!("{desired} (generation {}{done})", unit.generation));
    for state in unit.states.iter().filter(|state| own != Some(*state)) {
        let note = if state.stale { ", as last heard: the machine is lost" } else { "" };
        put(
            "Also on",
            &format!("{}: {} ({}){note}", machines.label(&state.machine), state.active, state.sub),
        );
    }
    let failures: Vec<_> = unit.states.iter().filter_map(|state| state.failure.as_ref()).collect();
    failures.iter().for_each(|failure| put("Failure", &failure.reason));
    for failure in failures.iter().filter(|failure| !failure.journal.is_empty()) {
        text.push('\n');
        failure.journal.iter().for_each(|line| text.push_str(&format!("{line}\n")));
    }
    text
}
