//! Changes of units that exist: names and patterns become units, the changes one batch, and each wish is waited for.

use std::collections::BTreeMap;

use api::Client;
use api::v1::{Batch, Operation, OperationOutcome};
use cluster::UnitName;

use crate::names::{is_pattern, matches, unit_name};
use crate::wait::{self, Goal};
use crate::{Exit, cli, output};

/// The units that the arguments mean. Names that are known to nobody are kept: the daemon says so.
pub async fn resolve(client: &Client, arguments: &[String]) -> anyhow::Result<Vec<UnitName>> {
    let mut names = Vec::new();
    let all = match arguments.iter().any(|argument| is_pattern(argument)) {
        true => client.units(&[], false).await?.units,
        false => Vec::new(),
    };
    for argument in arguments {
        if is_pattern(argument) {
            let found = all.iter().filter(|unit| matches(argument, unit.name.as_str()));
            let before = names.len();
            names.extend(found.map(|unit| unit.name.clone()));
            if names.len() == before {
                anyhow::bail!("no unit matches {argument:?}");
            }
        } else {
            names.push(unit_name(argument)?);
        }
    }
    names.sort();
    names.dedup();
    Ok(names)
}

/// Makes the changes and waits for what they wish. Changes that are refused are told; the others are made all the same.
pub async fn make(
    client: &Client,
    operations: Vec<Operation>,
    mut goals: BTreeMap<UnitName, Goal>,
    wait: &cli::Wait,
) -> anyhow::Result<Exit> {
    let done = client.batch(&Batch { operations }).await?;
    let mut exit = Exit::Done;
    for result in &done.results {
        if result.outcome == OperationOutcome::Refused {
            output::note(&format!(
                "corectl: {}: {}",
                result.name,
                result.message.as_deref().unwrap_or("refused")
            ));
            goals.retain(|name, _| name.as_str() != result.name);
            exit = Exit::Failed;
        }
    }
    if wait.no_block || goals.is_empty() {
        return Ok(exit);
    }
    match wait::until_reached(client, goals, wait.timeout).await? {
        Exit::Done => Ok(exit),
        failed => Ok(failed),
    }
}
