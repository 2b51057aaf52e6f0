//! `cat`, `status`, `journal` and `ssh`. What fleet fetched by ssh, the daemons fetch.

use api::JournalQuery;
use api::v1::{Machine, State, Unit};
use cluster::{MachineId, UnitFile, UnitName};

use super::create::mangled;
use super::{Fleet, Told};
use crate::machines::{self, Found};
use crate::{Exit, journal, output};

pub async fn cat(fleet: &Fleet, arguments: &[String]) -> Told<Exit> {
    let [argument] = arguments else { return Err("One unit file must be provided".into()) };
    let name = mangled(argument).map_err(|error| error.to_string())?;
    let unit = fleet.unit(&name).await.map_err(|error| {
        format!("Error retrieving Unit {name}: {}", fleet.error(&error, &format!("units/{name}")))
    })?;
    let Some(text) = unit.and_then(|unit| unit.text) else { return Err(format!("Unit {name} not found")) };
    let canonical = UnitFile::parse(&text).map(|file| file.canonical());
    output::text(&canonical.unwrap_or(text));
    Ok(Exit::Done)
}

/// The machines that hold a unit and are there.
fn holders(unit: &Unit) -> Vec<MachineId> {
    match (&unit.machine, unit.global) {
        (Some(machine), false) => vec![machine.clone()],
        _ => unit.states.iter().filter(|state| !state.stale).map(|state| state.machine.clone()).collect(),
    }
}

async fn existing(fleet: &Fleet, name: &UnitName) -> Told<Unit> {
    let unit = fleet.unit(name).await.map_err(|error| {
        format!("Error retrieving unit: {}", fleet.error(&error, &format!("units/{name}")))
    })?;
    unit.ok_or_else(|| format!("Unit {name} does not exist."))
}

pub async fn status(fleet: &Fleet, arguments: &[String]) -> Told<Exit> {
    let mut first = true;
    for argument in arguments {
        let name = mangled(argument).map_err(|error| error.to_string())?;
        let unit = existing(fleet, &name).await?;
        let holders = holders(&unit);
        if unit.desired_state == State::Inactive || holders.is_empty() {
            return Err(format!("Unit {name} does not appear to be loaded."));
        }
        for machine in holders {
            let told = fleet.client.systemd_status(&name, Some(&machine)).await;
            let told = told.map_err(|error| fleet.error(&error, &format!("units/{name}")))?;
            if !std::mem::take(&mut first) {
                output::line("");
            }
            output::text(&told.text);
            if told.exit_status != 0 {
                return Ok(Exit::Code(told.exit_status));
            }
        }
    }
    Ok(Exit::Done)
}

pub async fn journal(fleet: &Fleet, arguments: &[String]) -> Told<Exit> {
    let [argument] = arguments else { return Err("One unit file must be provided.".into()) };
    let name = mangled(argument).map_err(|error| error.to_string())?;
    let unit = existing(fleet, &name).await?;
    if unit.desired_state == State::Inactive || holders(&unit).is_empty() {
        return Err(format!("Unit {name} does not appear to be running."));
    }
    let query = JournalQuery {
        lines: u32::try_from(fleet.flags.number("lines")).unwrap_or(0),
        follow: fleet.flags.is_on("follow"),
        output: fleet.flags.text("output").into(),
        machine: None,
    };
    journal::print(&fleet.client, &unit, &query).await.map_err(|error| format!("{error:#}"))
}

pub async fn ssh(fleet: &Fleet, arguments: &[String]) -> Told<Exit> {
    let (machine, unit) = (fleet.flags.text("machine"), fleet.flags.text("unit"));
    let cannot = |why: &str| format!("Unable to proceed: {why}");
    let mut command = arguments;
    let found = match (machine, unit) {
        ("", "") => {
            let Some((target, rest)) = arguments.split_first() else {
                return Err(cannot("one machine or unit must be provided"));
            };
            command = rest;
            match (by_machine(fleet, target).await, by_unit(fleet, target).await) {
                (Ok(_), Ok(_)) => Err("ambiguous argument, both machine and unit found".to_string()),
                (Ok(machine), Err(_)) | (Err(_), Ok(machine)) => Ok(machine),
                (Err(several), Err(_)) if several.starts_with("found more") => Err(several),
                (Err(_), Err(_)) => Err("could not find matching unit or machine".to_string()),
            }
        }
        (machine, "") => by_machine(fleet, machine).await,
        ("", unit) => by_unit(fleet, unit).await,
        (_, _) => return Err("Both machine and unit flags provided, please specify only one.".into()),
    };
    let machine = found.map_err(|why| cannot(&why))?;
    if machine.address.is_empty() {
        return Err("Could not determine address of machine.".into());
    }
    let mut options = fleet.ssh.clone();
    options.forward_agent = fleet.flags.is_on("forward-agent");
    options.port = u16::try_from(fleet.flags.number("ssh-port")).ok();
    options.jump = Some(fleet.flags.text("tunnel").to_string()).filter(|tunnel| !tunnel.is_empty());
    let ran = options.run(&machine.address, command).await;
    ran.map_err(|error| format!("Failed building SSH client: {error:#}"))
}

async fn machines(fleet: &Fleet) -> Told<Vec<Machine>> {
    let machines = fleet.client.machines(true).await.map_err(|error| fleet.error(&error, "machines"))?;
    Ok(machines.machines)
}

async fn by_machine(fleet: &Fleet, text: &str) -> Told<Machine> {
    match machines::find(&machines(fleet).await?, text) {
        Found::One(machine) => Ok(machine.clone()),
        Found::None => Err("machine does not exist".into()),
        Found::Several => Err("found more than one machine".into()),
    }
}

async fn by_unit(fleet: &Fleet, text: &str) -> Told<Machine> {
    let name = mangled(text).map_err(|error| error.to_string())?;
    let unit = fleet.unit(&name).await.map_err(|error| fleet.error(&error, &format!("units/{name}")))?;
    let Some(unit) = unit else { return Err("unit does not exist".into()) };
    if unit.global {
        return Err("global units unsupported".into());
    }
    let home = unit.machine.ok_or("unit is on no machine")?;
    let found = machines(fleet).await?.into_iter().find(|machine| machine.id == home);
    found.ok_or_else(|| "machine does not exist".into())
}
