//! The jobs under way, and what is known of failures. Each job, and each question after a failure's reason,
//! is a task that ends by itself; the agent never waits for one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cluster::{Condition, Failure, Generation, Job, JobKind, UnitName};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::systemd::{JobEnd, UnitManager};

/// Starts, and likewise stops, that are under way at a time. systemd queues as many as it is given; more than
/// some hundred at once only makes each of them slower, and those that never end must not use up its memory.
const JOBS_MAX: usize = 1000;

/// Jobs in systemd that this agent asked for.
pub struct Jobs {
    units: Arc<dyn UnitManager>,
    tasks: JoinSet<Ended>,
    under_way: BTreeMap<UnitName, UnderWay>,
    asked: BTreeSet<UnitName>,
    failures: BTreeMap<UnitName, Known>,
    count: u64,
}

struct UnderWay {
    job: Job,
    number: u64,
    since: Instant,
}

struct Known {
    failure: Failure,
    /// Of a job, which may leave the unit inactive; otherwise of the unit itself.
    of_job: bool,
}

/// A task's result.
enum Ended {
    Job { unit: UnitName, job: Job, number: u64, end: JobEnd, failure: Option<Failure> },
    Question { unit: UnitName, failure: Failure },
}

/// What the end of a job means.
pub enum Lesson {
    /// It was carried out, well or badly.
    Done { unit: UnitName, generation: Generation },
    /// A stop that must come before anything else did not work.
    StopFailed { unit: UnitName, reason: String },
}

impl Jobs {
    pub fn new(units: Arc<dyn UnitManager>) -> Jobs {
        Jobs {
            units,
            tasks: JoinSet::new(),
            under_way: BTreeMap::new(),
            asked: BTreeSet::new(),
            failures: BTreeMap::new(),
            count: 0,
        }
    }

    pub fn of(&self, unit: &UnitName) -> Option<Job> {
        self.under_way.get(unit).map(|under_way| under_way.job)
    }

    pub fn since(&self, unit: &UnitName) -> Option<Instant> {
        self.under_way.get(unit).map(|under_way| under_way.since)
    }

    /// Asks for a job, unless too many are under way: then the round after the end of one asks again.
    pub fn begin(&mut self, unit: &UnitName, job: Job) -> bool {
        if self.under_way.values().filter(|other| other.job.kind == job.kind).count() >= JOBS_MAX {
            return false;
        }
        self.count += 1;
        let (number, since) = (self.count, Instant::now());
        let end = match job.kind {
            JobKind::Start => self.units.start(unit),
            JobKind::Stop => self.units.stop(unit),
        };
        self.under_way.insert(unit.clone(), UnderWay { job, number, since });
        self.failures.remove(unit);
        let (unit, units) = (unit.clone(), self.units.clone());
        self.tasks.spawn(async move {
            let end = end.await;
            let failure = match &end {
                JobEnd::Done | JobEnd::Lost { .. } => None,
                JobEnd::Replaced => Some(told(job.kind, "another job took its place".into(), Vec::new())),
                JobEnd::Failed { reason } => {
                    let Failure { reason: of_unit, journal } = units.failure(&unit).await;
                    // The unit itself says more, if it is the unit that failed; else its journal is of
                    // another time.
                    let says_more = matches!(reason.as_str(), "failed" | "timeout")
                        && !matches!(of_unit.as_str(), "" | "success");
                    Some(match says_more {
                        true => told(job.kind, of_unit, journal),
                        false => told(job.kind, reason.clone(), Vec::new()),
                    })
                }
            };
            Ended::Job { unit, job, number, end, failure }
        });
        true
    }

    /// Asks why that unit failed, unless that is known or being asked.
    pub fn ask_why(&mut self, unit: &UnitName) {
        if self.failures.contains_key(unit) || !self.asked.insert(unit.clone()) {
            return;
        }
        let (unit, units) = (unit.clone(), self.units.clone());
        self.tasks.spawn(async move {
            let mut failure = units.failure(&unit).await;
            if failure.reason.is_empty() {
                failure.reason = "failed".into();
            }
            Ended::Question { unit, failure }
        });
    }

    pub fn failure(&self, unit: &UnitName) -> Option<&Failure> {
        self.failures.get(unit).map(|known| &known.failure)
    }

    /// Forgets a failure that is over. `failed`: the unit has failed, whatever comes next.
    pub fn seen(&mut self, unit: &UnitName, condition: Condition, failed: bool) {
        let over = match condition {
            _ if failed => false,
            Condition::Up | Condition::Starting => true,
            Condition::Down | Condition::Stopping => {
                self.failures.get(unit).is_some_and(|known| !known.of_job)
            }
            Condition::Failed => false,
        };
        if over {
            self.failures.remove(unit);
        }
    }

    /// Forgets the failures of units that are not kept.
    pub fn retain(&mut self, keep: impl Fn(&UnitName) -> bool) {
        self.failures.retain(|unit, _| keep(unit));
    }

    /// Waits for a task's end, for ever if there is none. Cancel-safe.
    pub async fn ended(&mut self) -> Option<Lesson> {
        match self.tasks.join_next().await {
            Some(ended) => self.learn(ended.expect("a job's task does not panic and is not aborted")),
            None => std::future::pending().await,
        }
    }

    /// A task that has ended by now, if there is one, and what is learned from it.
    pub fn ended_by_now(&mut self) -> Option<Option<Lesson>> {
        let ended = self.tasks.try_join_next()?;
        Some(self.learn(ended.expect("a job's task does not panic and is not aborted")))
    }

    fn learn(&mut self, ended: Ended) -> Option<Lesson> {
        let (unit, job, number, end, failure) = match ended {
            Ended::Question { unit, failure } => {
                if self.asked.remove(&unit) {
                    self.failures.insert(unit, Known { failure, of_job: false });
                }
                return None;
            }
            Ended::Job { unit, job, number, end, failure } => (unit, job, number, end, failure),
        };
        if self.under_way.get(&unit).is_none_or(|now| now.number != number) {
            return None;
        }
        self.under_way.remove(&unit);
        let generation = job.generation.map(|generation| generation.0);
        let what = match job.kind {
            JobKind::Start => "start",
            JobKind::Stop => "stop",
        };
        tracing::info!(%unit, generation, kind = what, ?end, "{what} of {unit} has ended: {end:?}");
        let reason = failure.as_ref().map(|failure| failure.reason.clone()).unwrap_or_default();
        if let Some(failure) = failure {
            self.failures.insert(unit.clone(), Known { failure, of_job: true });
        }
        match (end, job.generation) {
            (JobEnd::Lost { .. }, _) | (JobEnd::Done | JobEnd::Replaced, None) => None,
            (JobEnd::Failed { .. }, None) => Some(Lesson::StopFailed { unit, reason }),
            (JobEnd::Done | JobEnd::Replaced | JobEnd::Failed { .. }, Some(generation)) => {
                Some(Lesson::Done { unit, generation })
            }
        }
    }
}

fn told(kind: JobKind, reason: String, journal: Vec<String>) -> Failure {
    let kind = match kind {
        JobKind::Start => "start",
        JobKind::Stop => "stop",
    };
    Failure { reason: format!("{kind} job failed: {reason}"), journal }
}
