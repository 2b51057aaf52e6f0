//! `drain`: a machine gets no new units, and its units leave it one after another, each only when the one
//! before is well elsewhere or has said why it stays.

use api::Client;
use api::v1::Unit;
use tokio::time::Instant;

use crate::machine_command::one;
use crate::machines::Machines;
use crate::moving::{Moved, carry_out};
use crate::{Exit, cli, output};

pub async fn run(client: &Client, drain: &cli::Drain) -> anyhow::Result<Exit> {
    let deadline = drain.timeout.map(|limit| Instant::now() + limit);
    let all = client.machines(false).await?.machines;
    let machine = one(&all, &drain.machine)?.id;
    let machines = Machines::of(all);
    let label = machines.label(&machine);
    client.set_schedulable(&machine, false).await?;
    output::line(&format!("{label}: gets no new units"));
    let is_here = |unit: &Unit| !unit.global && unit.machine.as_ref() == Some(&machine);
    let units = client.units(&[], false).await?.units;
    let (mut exit, mut is_late) = (Exit::Done, false);
    for unit in units.iter().filter(|unit| is_here(unit)) {
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            is_late = true;
            break;
        }
        // A unit may have left with one that it shares its machine with.
        let Some(unit) = client.unit(&unit.name, false).await?.filter(is_here) else { continue };
        let moved = carry_out(client, &unit, &machine, None, deadline, &machines).await?;
        moved.tell(&unit.name);
        if moved.exit() != Exit::Done {
            exit = Exit::Failed;
        }
        is_late |= matches!(moved, Moved::Late(_));
    }
    // Asked anew: what left and what came meanwhile is known then.
    let left = client.units(&[], false).await?.units;
    let left: Vec<&str> = left.iter().filter(|unit| is_here(unit)).map(|unit| unit.name.as_str()).collect();
    match (left.is_empty(), is_late) {
        (true, _) => output::line(&format!("{label}: drained")),
        (false, true) => output::problem(&format!("{label}: not in time; still there: {}", left.join(" "))),
        (false, false) => output::problem(&format!("{label}: still there: {}", left.join(" "))),
    }
    Ok(if left.is_empty() { exit } else { Exit::Failed })
}
