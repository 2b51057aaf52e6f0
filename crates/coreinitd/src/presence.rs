//! This machine's presence in the cluster: it says who it is, once and when that changes, and that it is
//! alive, every second.

use std::sync::Arc;
use std::time::Duration;

use cluster::{Command, MachineId, MachineInfo};
use store::Store;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::signs::Signs;

/// How often the leader hears from this machine; a machine is lost after several of them.
const INTERVAL: Duration = Duration::from_secs(1);

/// Runs until `stop`.
pub async fn run(
    store: Arc<dyn Store>,
    machine: MachineId,
    info: MachineInfo,
    signs: Arc<Signs>,
    mut stop: watch::Receiver<bool>,
) {
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut role, mut state) = (store.role(), store.state());
    loop {
        signs.presence.beat();
        let work = async {
            let deadline = Instant::now() + INTERVAL;
            // Silence is how the leader learns of trouble; the next beat is the retry.
            if let Err(error) = store.here(deadline).await {
                tracing::debug!(%error, "the leader did not hear this machine");
                return;
            }
            let known = store.state().borrow().machines.get(&machine).is_some_and(|m| m.info == info);
            if !known {
                let register = Command::RegisterMachine { id: machine.clone(), info: info.clone() };
                match store.propose(vec![register], Instant::now() + 5 * INTERVAL).await {
                    Ok(committed) => {
                        for rejected in committed.outcomes.into_iter().filter_map(Result::err) {
                            tracing::error!("the cluster does not take this machine: {rejected}");
                        }
                    }
                    Err(error) => tracing::debug!(%error, "this machine is not registered yet"),
                }
            }
        };
        tokio::select! {
            // Not resumed when cancelled: the daemon is stopping.
            () = work => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let registered = state.borrow_and_update().machines.contains_key(&machine);
        tokio::select! {
            // Cancel-safe: all of these only wait.
            _ = tick.tick() => {}
            // A new leader hears at once who is there.
            changed = role.changed() => if changed.is_err() { return },
            // The cluster's first moments are not spent on waiting for a beat.
            changed = state.changed(), if !registered => if changed.is_err() { return },
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}
