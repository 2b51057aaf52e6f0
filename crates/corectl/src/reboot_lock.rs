//! `reboot-lock`: who may reboot, and slots taken and given back. A machine's own reboot is in `own_reboot`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::bail;
use api::reboot_lock::{HolderView, LockGroup, LockRelease, LockSlots};
use api::{Client, ClientError};
use cluster::MachineId;
use tokio::time::{Instant, sleep, timeout_at};

use crate::cli::{Format, RebootLockCommand, Slot};
use crate::machine_command::one;
use crate::machines::Machines;
use crate::token::span;
use crate::{Exit, output, own_reboot};

/// Others may reboot for minutes.
pub const RETRY_PAUSE: Duration = Duration::from_secs(5);
const COLUMNS: [&str; 6] = ["group", "slots", "machine", "name", "since", "state"];

pub async fn run(client: &Client, command: &RebootLockCommand, format: Format) -> anyhow::Result<Exit> {
    match command {
        RebootLockCommand::List => list(client, format).await,
        RebootLockCommand::Release { machine, group } => release(client, machine, group.as_deref()).await,
        RebootLockCommand::SetMax { slots, group } => {
            client.set_reboot_slots(&LockSlots { group: group.clone(), slots: *slots }).await?;
            output::line(&format!("{group}: {slots} at a time may reboot"));
            Ok(Exit::Done)
        }
        RebootLockCommand::Take { machine, slot } => {
            let id = match machine {
                None => client.status().await?.machine,
                Some(name) => one(&client.machines(false).await?.machines, name)?.id,
            };
            take(client, &id, &slot.group, deadline(slot)).await
        }
        RebootLockCommand::Reboot { strategy, slot } => own_reboot::run(client, *strategy, slot).await,
        RebootLockCommand::Done { group } => done(client, group).await,
    }
}

async fn list(client: &Client, format: Format) -> anyhow::Result<Exit> {
    let lock = client.reboot_lock(false).await?;
    if format == Format::Json {
        output::json(&lock)?;
        return Ok(Exit::Done);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let rows: Vec<Vec<String>> = lock.groups.iter().flat_map(|group| rows(group, now)).collect();
    output::text(&output::table(Some(output::header(&COLUMNS)), &rows));
    Ok(Exit::Done)
}

/// One for each holder; a group without any has one too.
fn rows(group: &LockGroup, now: u64) -> Vec<Vec<String>> {
    let used = format!("{}/{}", group.holders.len(), group.slots);
    let line = |machine: &str, name: &str, since: &str, state: &str| {
        let cells = [&group.group, used.as_str(), machine, name, since, state];
        cells.iter().map(|cell| cell.to_string()).collect()
    };
    if group.holders.is_empty() {
        return vec![line("-", "-", "-", "free")];
    }
    let holder = |holder: &HolderView| {
        let state = match (holder.drained, &holder.waits_for) {
            (true, _) => "drained".into(),
            (false, Some(what)) => format!("draining: {what}"),
            (false, None) => "draining".into(),
        };
        let since = format!("{} ago", span(now.saturating_sub(holder.since)));
        line(holder.machine.as_str(), &holder.name, &since, &state)
    };
    group.holders.iter().map(holder).collect()
}

async fn release(client: &Client, name: &str, group: Option<&str>) -> anyhow::Result<Exit> {
    let all = client.machines(false).await?.machines;
    let machine = one(&all, name)?.id;
    let label = Machines::of(all).label(&machine).to_string();
    client
        .release_reboot(&LockRelease { machine: machine.to_string(), group: group.map(str::to_string) })
        .await?;
    output::line(&format!("{label}: holds no slot, and gets units again"));
    Ok(Exit::Done)
}

/// When the time that was given is over.
pub fn deadline(slot: &Slot) -> Option<Instant> {
    slot.timeout.map(|limit| Instant::now() + limit)
}

pub async fn take(
    client: &Client,
    id: &MachineId,
    group: &str,
    deadline: Option<Instant>,
) -> anyhow::Result<Exit> {
    if !granted(client, id.as_str(), group, deadline).await? {
        return Ok(Exit::Failed);
    }
    output::line(&format!("{id}: holds a slot and is drained; it may reboot"));
    Ok(Exit::Done)
}

/// Asks again until the slot is given, or until time is over.
async fn granted(client: &Client, id: &str, group: &str, deadline: Option<Instant>) -> anyhow::Result<bool> {
    let mut last = String::new();
    loop {
        let asked = client.pre_reboot(id, group);
        let asked = match deadline {
            None => asked.await,
            Some(deadline) => match timeout_at(deadline, asked).await {
                Ok(asked) => asked,
                Err(_) => return Ok(late(&last)),
            },
        };
        match asked {
            Ok(()) => return Ok(true),
            Err(ClientError::Answer { status: 400 | 403, message }) => bail!("{message}"),
            Err(error) => {
                let said = format!("{:#}", anyhow::Error::new(error));
                if said != last {
                    output::note(&format!("waiting: {said}"));
                }
                last = said;
            }
        }
        if deadline.is_some_and(|deadline| deadline <= Instant::now() + RETRY_PAUSE) {
            return Ok(late(&last));
        }
        sleep(RETRY_PAUSE).await;
    }
}

/// Says that time is over; never true.
pub fn late(last: &str) -> bool {
    let why = if last.is_empty() { "the machine is still being drained" } else { last };
    output::problem(&format!("not in time: {why}"));
    false
}

/// This machine runs again.
async fn done(client: &Client, group: &str) -> anyhow::Result<Exit> {
    let machine = client.status().await?.machine;
    client.steady_state(machine.as_str(), group).await?;
    output::line(&format!("{machine}: holds no slot, and gets units"));
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_a_line_for_each_holder() {
        let holder = |id: &str, drained, waits_for: Option<&str>| HolderView {
            machine: MachineId::new(id).unwrap(),
            name: format!("host-{id}"),
            since: 940,
            drained,
            waits_for: waits_for.map(str::to_string),
        };
        let check = |holders: Vec<HolderView>, expected: &[&str]| {
            let group = LockGroup { group: "default".into(), slots: 2, holders };
            let lines: Vec<String> = rows(&group, 1000).iter().map(|row| row.join("|")).collect();
            assert_eq!(lines, expected);
        };
        check(vec![], &["default|0/2|-|-|-|free"]);
        check(
            vec![holder("m1", true, None), holder("m2", false, Some("a.service"))],
            &[
                "default|2/2|m1|host-m1|60 s ago|drained",
                "default|2/2|m2|host-m2|60 s ago|draining: a.service",
            ],
        );
    }
}
