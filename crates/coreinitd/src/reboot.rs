//! Machines that hold a slot of the reboot lock are emptied: while this machine leads, it has their units
//! leave one after another, each when the one before is well elsewhere. Who asked may be gone long ago.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cluster::{
    ClusterState, Command, Condition, DrainStep, Liveness, MachineId, RebootChange, UnitName, drain_step,
};
use store::Store;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::leader::{Lead, propose};

/// How often it is looked whether a unit has been waited for in vain.
const TICK: Duration = Duration::from_secs(1);
/// A unit that is not well elsewhere by then holds up the others no longer. systemd gives a start 90 s.
const SETTLE_MAX: Duration = Duration::from_secs(90);

/// The last units that were asked to leave a machine, and when.
type UnderWay = BTreeMap<MachineId, (Vec<UnitName>, Instant)>;

/// Runs until `stop`. While another machine leads, it only waits.
pub async fn run(store: Arc<dyn Store>, mut stop: watch::Receiver<bool>) {
    let mut state = store.state();
    let mut role = store.role();
    // What a new leader does not know only makes it wait less.
    let mut under_way = UnderWay::new();
    let mut lead = Lead::default();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let is = role.borrow_and_update().clone();
        let term = tokio::select! {
            // Not resumed when cancelled: the daemon is stopping.
            term = lead.term(&*store, &is) => term,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        if let Some(term) = term {
            let now = state.borrow_and_update().clone();
            let commands = decide(&now, &mut under_way);
            if !commands.is_empty() {
                tokio::select! {
                    // Not resumed when cancelled: the next leader decides anew.
                    _ = propose(&*store, term, &commands) => {}
                    _ = stop.wait_for(|stop| *stop) => return,
                }
            }
        } else {
            under_way.clear();
        }
        tokio::select! {
            // Cancel-safe: all of these only wait.
            changed = state.changed() => if changed.is_err() { return },
            changed = role.changed() => if changed.is_err() { return },
            _ = tick.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

fn decide(state: &ClusterState, under_way: &mut UnderWay) -> Vec<Command> {
    let mut commands = Vec::new();
    under_way.retain(|machine, _| state.reboots(machine));
    let held = state
        .reboot_groups
        .iter()
        .flat_map(|(name, group)| group.holders.keys().map(move |machine| (machine, name)));
    let mut groups: BTreeMap<&MachineId, Vec<_>> = BTreeMap::new();
    held.for_each(|(machine, name)| groups.entry(machine).or_default().push(name));
    for (machine, groups) in groups {
        // The units of one that is lost are moved as every lost machine's, or wait for it.
        let is_ready = state.machines.get(machine).is_some_and(|known| known.liveness == Liveness::Ready);
        let is_held_up = under_way.get(machine).is_some_and(|(units, since)| {
            since.elapsed() < SETTLE_MAX && !units.iter().all(|u| is_well(state, u))
        });
        if !is_ready || is_held_up {
            continue;
        }
        match drain_step(state, machine) {
            DrainStep::Done | DrainStep::Wait(_) => {}
            DrainStep::Move(moves) => {
                let units: Vec<UnitName> = moves.iter().filter_map(moved).cloned().collect();
                tracing::info!(%machine, "{machine} is to reboot: {} leaves it", listed(&units));
                under_way.insert(machine.clone(), (units, Instant::now()));
                commands.extend(moves);
            }
            DrainStep::Stuck(why) => {
                tracing::warn!(%machine, "{machine} is not to reboot, and takes units again: {why}");
                commands.extend(groups.into_iter().map(|group| Command::RebootLock {
                    group: group.clone(),
                    change: RebootChange::Release { machine: machine.clone() },
                }));
            }
        }
    }
    commands
}

fn moved(command: &Command) -> Option<&UnitName> {
    match command {
        Command::MoveUnit { unit, .. } => Some(unit),
        _ => None,
    }
}

fn listed(units: &[UnitName]) -> String {
    units.iter().map(UnitName::as_str).collect::<Vec<_>>().join(", ")
}

/// Whether the unit has come to an end, good or bad, where it went; or is not wanted anywhere.
fn is_well(state: &ClusterState, name: &UnitName) -> bool {
    let Some(unit) = state.units.get(name) else { return true };
    let Some(home) = state.assignments.get(name) else {
        return unit.desired == cluster::DesiredState::Inactive;
    };
    let observed = state.observed.get(&(name.clone(), home.machine.clone()));
    home.leaving.is_none()
        && observed.is_some_and(|observed| {
            observed.generation == Some(unit.generation) || observed.condition() == Condition::Failed
        })
}

#[cfg(test)]
#[path = "reboot/tests.rs"]
mod tests;
