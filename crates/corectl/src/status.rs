//! `status`: all that is known of units, laid out as systemctl does, with systemctl's exit codes.

use api::v1::{State, SystemdStatus, Unit, UnitState};
use api::{Client, ClientError};
use cluster::{Condition, DesiredState, MachineId};

use crate::cli::{self, Format};
use crate::machines::Machines;
use crate::{Exit, lookup, output};

pub async fn run(client: &Client, status: &cli::Status, format: Format) -> anyhow::Result<Exit> {
    let chosen = lookup::choose(client, &status.units, status.read.stale).await?;
    let units: Vec<Unit> = chosen.units.into_values().collect();
    let is_up = |state: &UnitState| Condition::of(&state.active) == Condition::Up;
    let is_active = |unit: &Unit| match unit.global {
        true => !unit.states.is_empty() && unit.states.iter().all(|state| state.stale || is_up(state)),
        false => home(unit).is_some_and(is_up),
    };
    let exit = match (chosen.unknown.is_empty(), units.iter().all(is_active)) {
        (false, _) => Exit::Unknown,
        (true, false) => Exit::NotActive,
        (true, true) => Exit::Done,
    };
    match format {
        Format::Json => output::json(&units)?,
        _ => {
            let machines = Machines::ask(client).await?;
            let mut first = true;
            for unit in &units {
                if !std::mem::take(&mut first) {
                    output::line("");
                }
                let told = if status.brief { Vec::new() } else { told(client, unit).await };
                let is_told = told.iter().any(|(_, told)| told.is_ok());
                output::text(&render(unit, &machines, !is_told));
                for (machine, told) in told {
                    match told {
                        Ok(told) => {
                            output::line(&format!("\n{}:", machines.label(&machine)));
                            output::text(&told.text);
                        }
                        Err(error) => {
                            let error = anyhow::Error::new(error);
                            output::problem(&format!("{}: {error:#}", machines.label(&machine)));
                        }
                    }
                }
            }
        }
    }
    chosen.unknown.iter().for_each(|unknown| output::problem(unknown));
    Ok(exit)
}

/// What the systemd of each machine that holds it says.
async fn told(client: &Client, unit: &Unit) -> Vec<(MachineId, Result<SystemdStatus, ClientError>)> {
    let mut all = Vec::new();
    for state in unit.states.iter().filter(|state| !state.stale) {
        all.push((state.machine.clone(), client.systemd_status(&unit.name, Some(&state.machine)).await));
    }
    all
}

/// What the unit's own machine says, if it is there.
fn home(unit: &Unit) -> Option<&UnitState> {
    unit.states.iter().find(|state| Some(&state.machine) == unit.machine.as_ref() && !state.stale)
}

/// `with_journal`: with the last lines that its machine wrote down when it failed.
fn render(unit: &Unit, machines: &Machines, with_journal: bool) -> String {
    let mut text = String::new();
    let own = home(unit);
    let shown = own.or_else(|| unit.states.iter().find(|state| unit.global && !state.stale));
    let dot = match shown.map(|state| Condition::of(&state.active)) {
        Some(Condition::Up | Condition::Starting | Condition::Stopping) => "●",
        Some(Condition::Failed) => "×",
        Some(Condition::Down) | None => "○",
    };
    let description =
        if unit.description.is_empty() { String::new() } else { format!(" - {}", unit.description) };
    text.push_str(&format!("{dot} {}{description}\n", unit.name));
    let mut put = |name: &str, value: &str| text.push_str(&format!("{name:>11}: {value}\n"));
    let hash: String = unit.hash.chars().take(7).collect();
    put("Loaded", &format!("{} (hash {hash})", shown.map_or("-", |state| state.load.as_str())));
    if !unit.global {
        put("Active", &own.map_or("inactive".into(), |state| format!("{} ({})", state.active, state.sub)));
    }
    let placed = match (&unit.machine, &unit.unplaced) {
        _ if unit.global => "every machine that suits it".into(),
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
            if unit.global { "On" } else { "Also on" },
            &format!("{}: {} ({}){note}", machines.label(&state.machine), state.active, state.sub),
        );
    }
    let failures: Vec<_> = unit.states.iter().filter_map(|state| state.failure.as_ref()).collect();
    failures.iter().for_each(|failure| put("Failure", &failure.reason));
    for failure in failures.iter().filter(|failure| with_journal && !failure.journal.is_empty()) {
        text.push('\n');
        failure.journal.iter().for_each(|line| text.push_str(&format!("{line}\n")));
    }
    text
}
