//! One round: look, plan, act, report.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cluster::{
    Action, ClusterState, Current, Generation, Job, JobKind, MachineId, UnitHash, UnitName, plan, wanted_on,
};
use tokio::time::Instant;

use super::AgentParts;
use super::jobs::{Jobs, Lesson};
use super::marks::Marks;
use super::report::{QUIET, Reporter, condition, has_failed};
use crate::systemd::{Seen, UnitError, UnitManager};

/// What the agent knows between two rounds.
pub struct Agent {
    machine: MachineId,
    units: Arc<dyn UnitManager>,
    marks: Marks,
    jobs: Jobs,
    reporter: Reporter,
    /// The files in our directory.
    held: BTreeMap<UnitName, UnitHash>,
    /// Units that something could not be done with. They are left alone until the wish changes or the slow
    /// pass comes.
    stuck: BTreeMap<UnitName, Stuck>,
    /// Stops that did not work, since the last round.
    stops_failed: BTreeMap<UnitName, String>,
}

/// Why a unit is left alone for now.
pub struct Stuck {
    /// The wish that could not be carried out; `None`: that the unit goes.
    pub wish: Option<Generation>,
    pub reason: String,
}

impl Agent {
    pub fn new(parts: AgentParts) -> Agent {
        let AgentParts { machine, store, units, marks_dir, signs: _ } = parts;
        Agent {
            marks: Marks::open(marks_dir),
            jobs: Jobs::new(units.clone()),
            reporter: Reporter::new(machine.clone(), store),
            held: BTreeMap::new(),
            stuck: BTreeMap::new(),
            stops_failed: BTreeMap::new(),
            machine,
            units,
        }
    }

    /// Looks, acts, reports. Gives the time of the next round, when one is due without any change.
    pub async fn round(&mut self, state: &ClusterState, full: bool) -> Result<Option<Instant>, UnitError> {
        if full {
            let held = self.units.held().await?;
            self.held = held.into_iter().map(|(name, file)| (name, file.hash())).collect();
            self.stuck.clear();
        }
        let mut desired = wanted_on(state, &self.machine);
        let names: BTreeSet<UnitName> = desired.keys().chain(self.held.keys()).cloned().collect();
        let seen = self.units.observe(&names).await?;
        let wish = |name: &UnitName| desired.get(name).map(|desired| desired.generation);
        self.stuck.retain(|name, stuck| names.contains(name) && wish(name) == stuck.wish);
        for (name, reason) in std::mem::take(&mut self.stops_failed) {
            self.stuck.insert(name.clone(), Stuck { wish: wish(&name), reason });
        }
        self.marks.retain(|name| names.contains(name));
        self.jobs.retain(|name| names.contains(name));
        for (name, seen) in &seen {
            let failed = has_failed(seen);
            self.jobs.seen(name, condition(seen), failed);
            if failed && self.jobs.of(name).is_none() {
                self.jobs.ask_why(name);
            }
        }

        let mut current: BTreeMap<UnitName, Current> =
            seen.iter().map(|(name, seen)| (name.clone(), self.current(name, seen))).collect();
        let wishes: BTreeMap<UnitName, Generation> =
            desired.iter().map(|(name, desired)| (name.clone(), desired.generation)).collect();
        let hashes: BTreeMap<UnitName, UnitHash> =
            desired.iter().map(|(name, desired)| (name.clone(), desired.file.hash())).collect();
        for name in self.stuck.keys() {
            desired.remove(name);
            current.remove(name);
        }
        let actions = plan(&desired, &current);
        let touched = self.carry_out(actions, &wishes).await?;

        let mut reports = BTreeMap::new();
        let mut wake_at = (!touched.is_empty()).then(Instant::now);
        for (name, seen) in &seen {
            let quiet_until = self.jobs.since(name).map(|since| since + QUIET);
            if let Some(until) = quiet_until.filter(|until| *until > Instant::now()) {
                wake_at = Some(wake_at.map_or(until, |at| at.min(until)));
                continue;
            }
            let failure = self.jobs.failure(name);
            let being_asked = has_failed(seen) && failure.is_none();
            if touched.contains(name) || being_asked && !self.stuck.contains_key(name) {
                continue;
            }
            let Some(hash) = self.held.get(name).or(hashes.get(name)) else { continue };
            let observed =
                super::report::observed(seen, *hash, self.marks.get(name), failure, self.stuck.get(name));
            reports.insert(name.clone(), observed);
        }
        let due = self.reporter.report(state, &names, reports);
        Ok(match (wake_at, due) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        })
    }

    /// A leader was elected, or lost: what it did not hear may be said again.
    pub fn leader_may_hear(&mut self) {
        self.reporter.do_not_wait();
    }

    /// Waits until a job, a question or a report has ended. Cancel-safe.
    pub async fn task_ended(&mut self) {
        tokio::select! {
            // Cancel-safe: an end that was received is noted before anything else is awaited.
            lesson = self.jobs.ended() => learn(&mut self.marks, &mut self.stops_failed, lesson),
            () = self.reporter.ended() => {}
        }
    }

    pub fn note_ended_tasks(&mut self) {
        while let Some(lesson) = self.jobs.ended_by_now() {
            learn(&mut self.marks, &mut self.stops_failed, lesson);
        }
    }

    fn current(&self, name: &UnitName, seen: &Seen) -> Current {
        Current {
            file: self.held.get(name).copied(),
            linked: seen.linked,
            condition: condition(seen),
            needs_reload: seen.needs_reload,
            done: self.marks.get(name),
            job: self.jobs.of(name),
        }
    }

    /// Carries the actions out, in order. What fails for one unit is remembered with it and holds up no
    /// other; gives the units that something was done with.
    async fn carry_out(
        &mut self,
        actions: Vec<Action>,
        wishes: &BTreeMap<UnitName, Generation>,
    ) -> Result<BTreeSet<UnitName>, UnitError> {
        let mut touched = BTreeSet::new();
        for action in actions {
            match action {
                Action::Write { unit, file } => {
                    match self.units.write(&unit, &file).await {
                        Ok(()) => drop(self.held.insert(unit.clone(), file.hash())),
                        Err(error) => self.stick(&unit, error, wishes)?,
                    }
                    touched.insert(unit);
                }
                Action::Link { units } => {
                    let units = self.not_stuck(units);
                    for (unit, error) in self.units.link(&units).await? {
                        self.stick(&unit, error, wishes)?;
                    }
                    touched.extend(units);
                }
                Action::Reload => self.units.reload().await?,
                Action::Start { unit, generation } => {
                    let job = Job { kind: JobKind::Start, generation: Some(generation) };
                    self.begin(unit, job, &mut touched);
                }
                Action::Stop { unit, generation } => {
                    // It may be back, in the same generation, before it is gone.
                    if generation.is_none() {
                        self.marks.forget(&unit);
                    }
                    self.begin(unit, Job { kind: JobKind::Stop, generation }, &mut touched);
                }
                Action::Settle { unit, generation } => {
                    if !self.stuck.contains_key(&unit) {
                        self.marks.put(&unit, generation);
                        touched.insert(unit);
                    }
                }
                Action::Remove { units } => {
                    let mut failed = self.units.remove(&units).await?;
                    for unit in units {
                        match failed.remove(&unit) {
                            Some(error) => self.stick(&unit, error, wishes)?,
                            None => {
                                tracing::info!(%unit, "unit removed");
                                self.held.remove(&unit);
                            }
                        }
                        touched.insert(unit);
                    }
                }
            }
        }
        Ok(touched)
    }

    fn begin(&mut self, unit: UnitName, job: Job, touched: &mut BTreeSet<UnitName>) {
        if !self.stuck.contains_key(&unit) && self.jobs.begin(&unit, job) {
            touched.insert(unit);
        }
    }

    fn not_stuck(&self, units: Vec<UnitName>) -> Vec<UnitName> {
        units.into_iter().filter(|unit| !self.stuck.contains_key(unit)).collect()
    }

    /// Leaves the unit alone for now; an error that concerns all of them ends the round instead.
    fn stick(
        &mut self,
        unit: &UnitName,
        error: UnitError,
        wishes: &BTreeMap<UnitName, Generation>,
    ) -> Result<(), UnitError> {
        if matches!(error, UnitError::Unreachable { .. }) {
            return Err(error);
        }
        let reason = with_causes(&error);
        tracing::warn!(%unit, reason, "unit is left alone for now");
        self.stuck.insert(unit.clone(), Stuck { wish: wishes.get(unit).copied(), reason });
        Ok(())
    }
}

fn learn(marks: &mut Marks, stops_failed: &mut BTreeMap<UnitName, String>, lesson: Option<Lesson>) {
    match lesson {
        None => {}
        Some(Lesson::Done { unit, generation }) => marks.put(&unit, generation),
        Some(Lesson::StopFailed { unit, reason }) => drop(stops_failed.insert(unit, reason)),
    }
}

fn with_causes(error: &UnitError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
