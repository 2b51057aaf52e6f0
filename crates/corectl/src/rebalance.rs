//! `rebalance`: which moves would even out the machines and why; with `--yes`, one after another.

use api::Client;
use tokio::time::Instant;

use crate::cli::{self, Format};
use crate::machines::Machines;
use crate::moving::carry_out;
use crate::{Exit, output};

pub async fn run(client: &Client, rebalance: &cli::Rebalance, format: Format) -> anyhow::Result<Exit> {
    let plan = client.rebalance().await?;
    if format == Format::Json && !rebalance.yes {
        output::json(&plan)?;
        return Ok(Exit::Done);
    }
    if plan.moves.is_empty() {
        output::line("nothing to move");
        return Ok(Exit::Done);
    }
    let machines = Machines::ask(client).await?;
    if !rebalance.yes {
        let rows: Vec<Vec<String>> = plan
            .moves
            .iter()
            .map(|m| vec![m.unit.to_string(), machines.label(&m.from), machines.label(&m.to), m.why.clone()])
            .collect();
        output::text(&output::table(Some(output::header(&["unit", "from", "to", "why"])), &rows));
        output::note("`corectl rebalance --yes` makes these moves, one after another");
        return Ok(Exit::Done);
    }
    let deadline = rebalance.timeout.map(|limit| Instant::now() + limit);
    let mut exit = Exit::Done;
    for (at, planned) in plan.moves.iter().enumerate() {
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            output::problem(&format!("not in time: {} moves were not begun", plan.moves.len() - at));
            return Ok(Exit::Failed);
        }
        let Some(unit) = client.unit(&planned.unit, false).await? else { continue };
        // Somebody else has moved it meanwhile.
        if unit.machine.as_ref() != Some(&planned.from) {
            continue;
        }
        let moved = carry_out(client, &unit, &planned.from, Some(&planned.to), deadline, &machines).await?;
        moved.tell(&unit.name);
        if moved.exit() != Exit::Done {
            exit = Exit::Failed;
        }
    }
    Ok(exit)
}
