//! The agent: it makes its machine's systemd as the cluster wants it, and tells the cluster what systemd
//! says.
//!
//! One loop: something may have changed, so look at all that is wanted and all that is there, do what `plan`
//! says, report the difference. It acts only after one read that the cluster vouches for, since a machine
//! that was away must not start what lives elsewhere by now; from then on a cluster without a leader changes
//! nothing. When it stops, units go on.

mod jobs;
mod marks;
mod pace;
mod report;
mod round;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cluster::{MachineId, Revision};
use store::{Store, changed_beyond_keys};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::signs::Signs;
use crate::systemd::UnitManager;
use pace::Pace;
use round::Agent;

/// Without any hint of a change everything is looked at so often: a hint that was lost must not matter.
const SLOW_PASS: Duration = Duration::from_secs(10);
/// A look at systemd that failed is repeated so soon.
const RETRY: Duration = Duration::from_secs(1);
/// The first read is asked for so often while the cluster cannot give it.
const READ_TIMEOUT: Duration = Duration::from_secs(3);

/// What the agent works with.
pub struct AgentParts {
    pub machine: MachineId,
    pub store: Arc<dyn Store>,
    pub units: Arc<dyn UnitManager>,
    /// Where it notes what it has done, for as long as the machine is up.
    pub marks_dir: PathBuf,
    pub signs: Arc<Signs>,
}

/// Runs until `stop`, or until the store has gone.
pub async fn run(parts: AgentParts, mut stop: watch::Receiver<bool>) {
    tokio::select! {
        // Not resumed when cancelled: jobs go on in systemd, and the next start compares anew.
        () = work(parts) => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

async fn work(parts: AgentParts) {
    let Some(known) = first_read(&*parts.store, &parts.signs).await else { return };
    let (mut state, mut role) = (parts.store.state(), parts.store.role());
    let mut hints = parts.units.changed();
    let signs = parts.signs.clone();
    let mut agent = Agent::new(parts);
    let (mut pace, mut full_at) = (Pace::new(), Instant::now());
    loop {
        signs.agent.beat();
        let begun = Instant::now();
        let full = full_at <= begun;
        hints.borrow_and_update();
        let now = state.borrow_and_update().clone();
        let mut wake_at = begun + SLOW_PASS;
        // A state older than the first read's, or of no cluster at all, says nothing about units.
        let is_known = known <= now.revision && now.cluster.is_some();
        if is_known {
            match agent.round(&now, full).await {
                Ok(due) => {
                    signs.systemd(None);
                    if full {
                        full_at = begun + SLOW_PASS;
                    }
                    wake_at = due.map_or(full_at, |due| due.min(full_at));
                }
                Err(error) => {
                    tracing::warn!(%error, "systemd cannot be driven now");
                    signs.systemd(Some(error.to_string()));
                    full_at = begun;
                    wake_at = Instant::now() + RETRY;
                }
            }
        }
        signs.reconcile.add(begun.elapsed());
        pace.took(begun);
        let changed = async {
            // What units tell each other is no reason to look at them.
            if is_known { changed_beyond_keys(&mut state, &now).await } else { state.changed().await }
        };
        tokio::select! {
            // Cancel-safe: all of these only wait, and an end that was received is noted at once.
            changed = changed => if changed.is_err() { return },
            changed = role.changed() => match changed {
                Ok(()) => agent.leader_may_hear(),
                Err(_) => return,
            },
            changed = hints.changed() => if changed.is_err() { return },
            () = agent.task_ended() => {}
            () = tokio::time::sleep_until(wake_at) => {}
        }
        tokio::time::sleep_until(pace.next_round()).await;
        agent.note_ended_tasks();
    }
}

/// Waits until the cluster vouches for its state once; `None` when the store has gone.
async fn first_read(store: &dyn Store, signs: &Signs) -> Option<Revision> {
    let (mut state, mut role) = (store.state(), store.role());
    loop {
        signs.agent.beat();
        match store.read(Instant::now() + READ_TIMEOUT).await {
            Ok(read) => return Some(read.revision),
            Err(error) => {
                tracing::debug!(%error, "not acting yet: the cluster's state is not known for sure")
            }
        }
        let again_at = Instant::now() + RETRY;
        tokio::select! {
            // Cancel-safe: all of these only wait.
            changed = state.changed() => changed.ok()?,
            changed = role.changed() => changed.ok()?,
            () = tokio::time::sleep_until(again_at) => {}
        }
    }
}
