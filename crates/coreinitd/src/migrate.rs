//! Moving a cluster's state from one backend to the other while no daemon runs: read there, written here,
//! read again and compared record by record. The source is left as it is. `corectl cluster migrate` runs
//! this.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use cluster::{ClusterState, differences};
use tokio::time::Instant;

use crate::config::{Backend, Config, Etcd};
use crate::run::kind;

/// A daemon that has just stopped is seen in etcd until its lease ends, 5 s after its last word.
const STOPPED_AFTER: Duration = Duration::from_secs(8);
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What is in the configuration: an etcd, a data folder, this machine.
pub async fn migrate(config: &Config, etcd: &Etcd, to: Backend) -> anyhow::Result<String> {
    let mut options = etcd.options(config);
    // Nothing may be written down of a cluster that this machine does not belong to yet.
    let aside = config.data_dir.with_extension("migrating");
    options.dir = aside.clone();
    let done = moved(config, &options, to).await;
    if aside.exists() {
        std::fs::remove_dir_all(&aside).with_context(|| format!("cannot remove {}", aside.display()))?;
    }
    done
}

async fn moved(config: &Config, options: &etcd_compat::Options, to: Backend) -> anyhow::Result<String> {
    let dir = &config.data_dir;
    let read = async || {
        let read = etcd_compat::offline::read(options).await.map_err(anyhow::Error::msg);
        read.context("cannot read etcd")
    };
    let (mut in_etcd, begin) = (read().await?, Instant::now());
    while !in_etcd.alive.is_empty() && begin.elapsed() < STOPPED_AFTER {
        tokio::time::sleep(LOOK_EVERY).await;
        in_etcd = read().await?;
    }
    if let Some(machine) = in_etcd.alive.first() {
        let count = in_etcd.alive.len();
        bail!("{count} daemons still keep their state in etcd, {machine} among them; stop all of them first");
    }
    let place = format!("{} of etcd", options.prefix);
    match to {
        Backend::Raft => {
            let state = in_etcd.state;
            ensure!(state.cluster.is_some(), "there is no cluster under {place}");
            let address = config.peer_address();
            raft::offline::found(dir, kind(config.engine), &config.machine, address, &state).await?;
            let written = raft::offline::read(dir, kind(config.engine)).await?;
            same(&state, &written)?;
            Ok(format!("{} from {place} to {}", told(&state), dir.display()))
        }
        Backend::Etcd => {
            ensure!(in_etcd.state.cluster.is_none(), "there is a cluster under {place} already");
            let mut state = raft::offline::read(dir, kind(config.engine)).await?;
            // They are the cluster's only where it keeps its state itself, and stay where they are.
            let keys = std::mem::take(&mut state.keys);
            ensure!(state.cluster.is_some(), "the store in {} is of no cluster", dir.display());
            etcd_compat::offline::write(options, &state).await.map_err(anyhow::Error::msg)?;
            let written = etcd_compat::offline::read(options).await.map_err(anyhow::Error::msg)?.state;
            same(&state, &written)?;
            let left = match keys.count() {
                0 => String::new(),
                count => format!(
                    "; the {count} keys of etcd_listen stay in {}: from now on that etcd serves keys itself, \
                     and what units keep there has to be set anew",
                    dir.display()
                ),
            };
            Ok(format!("{} from {} to {place}{left}", told(&state), dir.display()))
        }
    }
}

fn told(state: &ClusterState) -> String {
    let all: usize = state.counts().iter().map(|(_, count)| count).sum();
    let (units, machines) = (state.units.len(), state.machines.len());
    format!("moved {units} units, {machines} machines and {} other records", all - units - machines)
}

/// Record by record; the revision may only have grown.
fn same(from: &ClusterState, to: &ClusterState) -> anyhow::Result<()> {
    let units = differences(&from.units, &to.units).map(|(name, ..)| format!("unit {name}"));
    let homes = differences(&from.assignments, &to.assignments).map(|(name, ..)| format!("home of {name}"));
    let machines = differences(&from.machines, &to.machines).map(|(id, ..)| format!("machine {id}"));
    let first = units.chain(homes).chain(machines).next();
    // All that a state holds, also what has no words here.
    if (ClusterState { revision: to.revision, ..from.clone() }) != *to {
        let counts = |state: &ClusterState| {
            let counts = state.counts().map(|(what, count)| format!("{count} {what}"));
            counts.join(", ")
        };
        bail!(
            "what was written is not what was read: {} differs ({}; written: {}). Do not use the copy",
            first.unwrap_or_else(|| "a record".into()),
            counts(from),
            counts(to)
        );
    }
    ensure!(from.revision <= to.revision, "the copy's revision is behind. Do not use it");
    Ok(())
}

#[cfg(test)]
mod tests {
    use cluster::{Command, Revision};
    use store::conformance::chance::{Dice, Plan};

    use super::*;

    /// Whatever one record more, less or other there is, of whatever kind.
    #[test]
    fn no_difference_is_overlooked() {
        let mut state = ClusterState::default();
        let init = Command::InitCluster { id: "c".into(), name: "c".into() };
        state.apply_all(Revision(1), &[init]);
        let (mut dice, mut differences) = (Dice(5), 0);
        for at in 2..2_000 {
            let before = state.clone();
            let command = Plan::draw(&mut dice).command(&state);
            state.apply_all(Revision(at), std::slice::from_ref(&command));
            let is_changed = ClusterState { revision: state.revision, ..before.clone() } != state;
            assert_eq!(same(&before, &state).is_err(), is_changed, "{command:?}");
            differences += usize::from(is_changed);
        }
        assert!(differences > 200, "{differences}");
        assert!(same(&state, &ClusterState { revision: Revision(1), ..state.clone() }).is_err());
    }
}
