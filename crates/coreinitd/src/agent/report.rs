//! What this machine tells the cluster: the difference between what systemd says now and what the cluster has
//! heard.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cluster::{
    ClusterState, Command, Condition, Failure, Generation, MachineId, Observed, UnitHash, UnitName,
};
use store::{ProposeError, Store};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::round::Stuck;
use crate::systemd::Seen;

/// A start that ends so soon is told in one report, without its stages.
pub const QUIET: Duration = Duration::from_millis(200);
/// Reports in one proposal: a proposal of some tens of kilobytes does not hold up others.
const REPORTS_MAX: usize = 200;
/// A proposal that takes longer is given up; the difference is found again.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// After a proposal that failed, unless a leader appears before.
const PAUSE: Duration = Duration::from_secs(1);

/// Sends one series of proposals at a time.
pub struct Reporter {
    machine: MachineId,
    store: Arc<dyn Store>,
    task: JoinSet<Result<(), ProposeError>>,
    not_before: Option<Instant>,
}

impl Reporter {
    pub fn new(machine: MachineId, store: Arc<dyn Store>) -> Reporter {
        Reporter { machine, store, task: JoinSet::new(), not_before: None }
    }

    /// Begins to tell what differs. `units` are all that this machine has to do with; those without a report
    /// keep the one that the cluster has. Gives the time at which to come again, if not at the task's end.
    pub fn report(
        &mut self,
        state: &ClusterState,
        units: &BTreeSet<UnitName>,
        reports: BTreeMap<UnitName, Observed>,
    ) -> Option<Instant> {
        // Nobody takes a report of a machine that has not said yet who it is.
        if !self.task.is_empty() || !state.machines.contains_key(&self.machine) {
            return None;
        }
        let machine = &self.machine;
        let known: BTreeMap<&UnitName, &Arc<Observed>> = state
            .observed
            .iter()
            .filter(|((_, by), _)| by == machine)
            .map(|((unit, _), observed)| (unit, observed))
            .collect();
        let report = |unit: &UnitName, observed| Command::Report {
            machine: machine.clone(),
            unit: unit.clone(),
            observed,
        };
        let gone = known.keys().filter(|unit| !units.contains(**unit)).map(|unit| report(unit, None));
        let mut commands: Vec<Command> = gone.collect();
        for (unit, observed) in reports {
            // What the cluster keeps in fewer words is no news.
            let kept = state.kept(&unit, machine, &observed);
            if known.get(&unit).is_none_or(|known| ***known != *kept) {
                commands.push(report(&unit, Some(observed)));
            }
        }
        if commands.is_empty() {
            return None;
        }
        if let Some(not_before) = self.not_before.filter(|not_before| Instant::now() < *not_before) {
            return Some(not_before);
        }
        let store = self.store.clone();
        self.task.spawn(async move {
            for commands in commands.chunks(REPORTS_MAX) {
                store.propose(commands.to_vec(), Instant::now() + PROPOSE_TIMEOUT).await?;
            }
            Ok(())
        });
        None
    }

    /// The next report need not wait.
    pub fn do_not_wait(&mut self) {
        self.not_before = None;
    }

    /// Waits for the proposals' end, for ever if there are none. Cancel-safe.
    pub async fn ended(&mut self) {
        match self.task.join_next().await {
            Some(ended) => match ended.expect("a report's task does not panic and is not aborted") {
                Ok(()) => self.not_before = None,
                Err(error) => {
                    tracing::debug!(%error, "a report was not heard");
                    self.not_before = Some(Instant::now() + PAUSE);
                }
            },
            None => std::future::pending().await,
        }
    }
}

/// The report on one unit.
pub fn observed(
    seen: &Seen,
    hash: UnitHash,
    done: Option<Generation>,
    failure: Option<&Failure>,
    stuck: Option<&Stuck>,
) -> Observed {
    let mut observed = Observed {
        load: seen.load.clone(),
        active: seen.active.clone(),
        sub: seen.sub.clone(),
        hash,
        generation: done,
        failure: failure.cloned(),
    };
    if let Some(Stuck { wish, reason }) = stuck {
        let journal = failure.map(|failure| failure.journal.clone()).unwrap_or_default();
        observed.failure = Some(Failure { reason: reason.clone(), journal });
        // To whoever waits for this wish it has failed, as far as one can tell now.
        if wish.is_some() {
            observed.generation = *wish;
            if condition(seen) == Condition::Down {
                (observed.active, observed.sub) = ("failed".into(), "failed".into());
            }
        }
    }
    observed
}

pub fn condition(seen: &Seen) -> Condition {
    Condition::of(&seen.active)
}

/// Whether the unit has failed: for good, or for as long as systemd waits before it tries again (`Restart=`),
/// which it calls `activating` with the sub state `auto-restart`, from systemd 254 on also
/// `auto-restart-queued`.
pub fn has_failed(seen: &Seen) -> bool {
    condition(seen) == Condition::Failed || seen.sub.starts_with("auto-restart")
}
