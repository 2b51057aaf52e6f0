//! `explain`: where a unit is or could be, and what each machine has against it.

use anyhow::bail;
use api::Client;
use api::v1::Explanation;

use crate::cli::{self, Format};
use crate::machines::Machines;
use crate::names::unit_name;
use crate::{Exit, output};

pub async fn run(client: &Client, explain: &cli::Explain, format: Format) -> anyhow::Result<Exit> {
    let name = unit_name(&explain.unit)?;
    let explanation = match client.explain(&name).await {
        Err(error) if error.status() == Some(404) => bail!("unit {name} is not in the cluster"),
        explained => explained?,
    };
    match format {
        Format::Json => output::json(&explanation)?,
        _ => output::text(&render(&explanation, &Machines::ask(client).await?)),
    }
    Ok(Exit::Done)
}

fn render(explanation: &Explanation, machines: &Machines) -> String {
    let placed = explanation.placed.as_ref().map_or("no machine".into(), |id| machines.label(id));
    let mut text = format!("{} is on {placed}\n", explanation.unit);
    if !explanation.summary.is_empty() {
        text.push_str(&format!("{}\n", explanation.summary));
    }
    text.push('\n');
    let rows = explanation.machines.iter().flat_map(|machine| {
        let is_home = machine.home || explanation.placed.as_ref() == Some(&machine.id);
        let word = match (is_home, machine.fits) {
            (true, true) => "is there",
            (true, false) => "is there, has to go",
            (false, true) => "fits",
            (false, false) => "no",
        };
        let mut reasons = machine.reasons.clone();
        if reasons.is_empty() {
            reasons.push("-".into());
        }
        let label = machines.label(&machine.id);
        // The second reason and those after it stand below the first.
        let line = move |(at, reason): (usize, String)| match at {
            0 => vec![label.clone(), word.to_string(), reason],
            _ => vec![String::new(), String::new(), reason],
        };
        reasons.into_iter().enumerate().map(line).collect::<Vec<_>>()
    });
    let rows: Vec<Vec<String>> = rows.collect();
    text.push_str(&output::table(Some(output::header(&["machine", "fits", "against it"])), &rows));
    text
}
