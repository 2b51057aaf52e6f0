//! This machine's part in a change of the cluster's authority: it does what the cluster's record asks of it,
//! and says so.

use std::sync::Arc;
use std::time::Duration;

use cluster::{Command, MachineId, RotationStep};
use store::Store;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::keys::Keys;

const PROPOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// After what could not be done or said.
const RETRY: Duration = Duration::from_secs(1);

/// Runs until `stop`.
pub async fn run(
    store: Arc<dyn Store>,
    keys: Arc<Keys>,
    machine: MachineId,
    mut stop: watch::Receiver<bool>,
) {
    let mut states = store.state();
    let mut told = None;
    loop {
        let cluster = states.borrow_and_update().cluster.clone();
        let followed = cluster.map_or(Ok(None), |cluster| keys.follow(&cluster, &machine));
        let trouble = followed.as_ref().err().map(|error| format!("{error:#}"));
        if let Some(error) = trouble.as_ref().filter(|_| trouble != told) {
            tracing::error!(error, "this machine cannot follow the change of the cluster's authority");
        }
        told = trouble;
        let due = followed.unwrap_or_default();
        if let Some((number, phase)) = due {
            let confirm = RotationStep::Confirm { machine: machine.clone(), number, phase };
            let proposing = store.propose(vec![Command::Rotate(confirm)], Instant::now() + PROPOSE_TIMEOUT);
            let confirmed = tokio::select! {
                // Not resumed when cancelled: it is harmless to repeat.
                confirmed = proposing => confirmed,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            if let Err(error) = confirmed {
                tracing::debug!(%error, "a step of the authority's change was not confirmed yet");
            }
        }
        tokio::select! {
            // Cancel-safe: all of these only wait.
            changed = states.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY), if due.is_some() || told.is_some() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}
