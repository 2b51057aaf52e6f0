//! Changes: one batch for all units of a command, and then the wait for what was wished.

use std::collections::{BTreeMap, BTreeSet};

use api::Client;
use api::v1::{Batch, BatchDone, Operation, OperationOutcome};
use cluster::{Revision, UnitName};

use crate::verdict::Goal;
use crate::wait::{self, Voice};
use crate::{Exit, cli, output};

/// What has come of a batch.
pub struct Made<'a> {
    client: &'a Client,
    revision: Revision,
    refused: BTreeSet<String>,
    pub exit: Exit,
}

/// Makes the changes. Those that are refused are told; the others are made all the same.
pub async fn make(client: &Client, operations: Vec<Operation>) -> anyhow::Result<Made<'_>> {
    let done = match operations.is_empty() {
        true => BatchDone { revision: Revision(0), results: Vec::new() },
        false => client.batch(&Batch { operations }).await?,
    };
    let mut made = Made { client, revision: done.revision, refused: BTreeSet::new(), exit: Exit::Done };
    for result in done.results.into_iter().filter(|result| result.outcome == OperationOutcome::Refused) {
        output::problem(&format!("{}: {}", result.name, result.message.as_deref().unwrap_or("refused")));
        made.refused.insert(result.name);
        made.exit = Exit::Failed;
    }
    Ok(made)
}

impl Made<'_> {
    /// Waits for those goals whose changes were made, unless nobody wants to wait.
    pub async fn wait(&self, goals: BTreeMap<UnitName, Goal>, wait: &cli::Wait) -> anyhow::Result<Exit> {
        self.wait_as(goals, wait, &mut wait::Plain).await
    }

    /// The same in another's words.
    pub async fn wait_as(
        &self,
        mut goals: BTreeMap<UnitName, Goal>,
        wait: &cli::Wait,
        voice: &mut dyn Voice,
    ) -> anyhow::Result<Exit> {
        goals.retain(|name, _| !self.refused.contains(name.as_str()));
        if wait.no_block {
            goals.iter().for_each(|(name, goal)| output::line(&format!("{name}: {}", asked(*goal))));
            return Ok(self.exit);
        }
        let waited = wait::until_reached(self.client, goals, self.revision, wait.limit(), voice).await?;
        Ok(if waited == Exit::Done { self.exit } else { waited })
    }
}

fn asked(goal: Goal) -> &'static str {
    match goal {
        Goal::Launched => "will be started",
        Goal::Loaded => "will be loaded",
        Goal::Stopped => "will be stopped",
        Goal::Unloaded => "will be unloaded",
        Goal::Gone => "will be destroyed",
    }
}
