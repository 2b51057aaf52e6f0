//! `status`: all that is known of units, as systemctl lays it out.

use api::Client;
use api::v1::Unit;

use crate::cli::{self, Format};
use crate::names::unit_name;
use crate::wait::Machines;
use crate::{Exit, output};

pub async fn run(client: &Client, status: &cli::Status, format: Format) -> anyhow::Result<Exit> {
    let mut machines = Machines::default();
    machines.ask(client).await;
    let (mut exit, mut found) = (Exit::Done, Vec::new());
    for (number, argument) in status.units.iter().enumerate() {
        let name = unit_name(argument)?;
        let Some(unit) = client.unit(&name, status.read.stale).await? else {
            output::note(&format!("corectl: there is no unit {name} in the cluster"));
            exit = Exit::Unknown;
            continue;
        };
        let active = unit.states.iter().any(|state| state.active == "active");
        if !active && exit == Exit::Done {
            exit = Exit::NotActive;
        }
        match format {
            Format::Json => found.push(unit),
            Format::Plain => {
                if number > 0 {
                    output::line("");
                }
                output::text(&render(&unit, &machines));
            }
        }
    }
    if format == Format::Json {
        output::json(&found)?;
    }
    Ok(exit)
}

fn render(unit: &Unit, machines: &Machines) -> String {
    let mut text = match unit.description.as_str() {
        "" => format!("{}\n", unit.name),
        description => format!("{} - {description}\n", unit.name),
    };
    let mut put = |name: &str, value: &str| text.push_str(&format!("{name:>10}: {value}\n"));
    put(
        "Desired",
        &format!("{} (generation {})", cluster::DesiredState::from(unit.desired_state), unit.generation),
    );
    match (&unit.machine, &unit.unplaced) {
        (Some(machine), _) => {
            let reason = unit.reason.as_ref().map(|reason| format!(", {reason}")).unwrap_or_default();
            put("Machine", &format!("{}{reason}", machines.label(machine)));
        }
        (None, Some(why)) => put("Machine", &format!("none: {why}")),
        (None, None) => put("Machine", "none"),
    }
    for state in &unit.states {
        let label = machines.label(&state.machine);
        let on = if unit.machine.as_ref() == Some(&state.machine) {
            String::new()
        } else {
            format!(" on {label}")
        };
        put("Loaded", &format!("{}{on}", state.load));
        let stale = if state.stale { ", as last heard: the machine is lost" } else { "" };
        put("Active", &format!("{} ({}){on}{stale}", state.active, state.sub));
        if let Some(failure) = &state.failure {
            put("Failure", &failure.reason);
            failure.journal.iter().for_each(|line| put("", line));
        }
    }
    text.replace("          : ", "            ")
}
