//! A systemd that lives in memory, for tests of a whole cluster in one process and for simulation. It keeps
//! systemd's rules that matter to the agent: a text counts when it is loaded, a reload is needed after a
//! change, a job ends some time later.
//!
//! Time is tokio's; nothing here is left to chance.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use cluster::{Failure, UnitFile, UnitName};
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{JobEnd, Seen, UnitError, UnitManager};

/// Clones are the same systemd. It outlives the daemon, as the real one does.
#[derive(Clone)]
pub struct Memory(Arc<Shared>);

struct Shared {
    machine: Mutex<Machine>,
    changed: watch::Sender<u64>,
}

/// How a unit behaves when it is started and stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behaviour {
    pub start: Start,
    pub start_takes: Duration,
    pub stop_takes: Duration,
}

/// What becomes of a unit that is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Runs,
    Fails,
    /// It fails, and systemd waits before it tries again (`Restart=`).
    Retries,
    /// A oneshot: its start ends well when it has done its work, and leaves nothing behind.
    Completes,
}

impl Default for Behaviour {
    fn default() -> Behaviour {
        Behaviour { start: Start::Runs, start_takes: Duration::ZERO, stop_takes: Duration::ZERO }
    }
}

#[derive(Default)]
struct Machine {
    files: BTreeMap<UnitName, UnitFile>,
    linked: BTreeSet<UnitName>,
    loaded: BTreeMap<UnitName, Loaded>,
    /// Units of the machine's own, with their paths.
    foreign: BTreeMap<UnitName, String>,
    behaviours: BTreeMap<UnitName, Behaviour>,
    unreachable: bool,
    starts: BTreeMap<UnitName, u64>,
    stops: BTreeMap<UnitName, u64>,
    jobs: u64,
    reloads: u64,
}

struct Loaded {
    text: UnitFile,
    active: &'static str,
    sub: &'static str,
    job: Option<MemoryJob>,
    /// The number of the last job that ended by itself.
    ended: u64,
}

/// A job under way. It ends when its time has come, whether or not anybody waits for it.
#[derive(Clone, Copy)]
struct MemoryJob {
    number: u64,
    start: bool,
    ends: Instant,
    active: &'static str,
    sub: &'static str,
}

impl Memory {
    pub fn new() -> Memory {
        Memory(Arc::new(Shared { machine: Mutex::default(), changed: watch::Sender::new(0) }))
    }

    /// From the next start or stop on, the unit behaves so.
    pub fn behave(&self, unit: &UnitName, behaviour: Behaviour) {
        self.machine().behaviours.insert(unit.clone(), behaviour);
    }

    /// The machine has a unit of this name by itself.
    pub fn add_foreign(&self, unit: &UnitName, path: &str) {
        self.machine().foreign.insert(unit.clone(), path.into());
    }

    /// The unit's main process is killed.
    pub fn kill(&self, unit: &UnitName) {
        if let Some(unit) = self.machine().loaded.get_mut(unit) {
            (unit.active, unit.sub) = ("failed", "failed");
        }
        self.hint();
    }

    /// From here on every call fails, or works again.
    pub fn set_reachable(&self, reachable: bool) {
        self.machine().unreachable = !reachable;
        self.hint();
    }

    /// The machine boots: nothing of what was under `/run` is left.
    pub fn reboot(&self) {
        let mut machine = self.machine();
        let (foreign, behaviours) =
            (std::mem::take(&mut machine.foreign), std::mem::take(&mut machine.behaviours));
        *machine = Machine { foreign, behaviours, jobs: machine.jobs, ..Machine::default() };
        drop(machine);
        self.hint();
    }

    /// The clock that jobs were counted by is gone, as when a simulated daemon is killed: they end now.
    pub fn finish_jobs(&self) {
        for unit in self.0.machine.lock().expect("nothing panics while it holds the lock").loaded.values_mut()
        {
            if let Some(job) = unit.job {
                (unit.active, unit.sub, unit.job, unit.ended) = (job.active, job.sub, None, job.number);
            }
        }
    }

    /// The units that run, for whoever looks on from outside of the machine and has another clock: a job
    /// counts as ended when somebody on the machine has seen it end.
    pub fn up(&self) -> BTreeMap<UnitName, UnitFile> {
        running(&self.0.machine.lock().expect("nothing panics while it holds the lock"))
    }

    /// How often the unit was started since the machine booted.
    pub fn starts(&self, unit: &UnitName) -> u64 {
        self.machine().starts.get(unit).copied().unwrap_or(0)
    }

    /// How often the unit was stopped since the machine booted.
    pub fn stops(&self, unit: &UnitName) -> u64 {
        self.machine().stops.get(unit).copied().unwrap_or(0)
    }

    /// How often all unit files were read again since the machine booted.
    pub fn reloads(&self) -> u64 {
        self.machine().reloads
    }

    /// The text that systemd goes by, for each unit that runs.
    pub fn running(&self) -> BTreeMap<UnitName, UnitFile> {
        running(&self.machine())
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        let mut machine = self.0.machine.lock().expect("nothing panics while it holds the lock");
        let now = Instant::now();
        for unit in machine.loaded.values_mut() {
            if let Some(job) = unit.job.filter(|job| job.ends <= now) {
                (unit.active, unit.sub, unit.job, unit.ended) = (job.active, job.sub, None, job.number);
            }
        }
        machine
    }

    fn reach(&self) -> Result<MutexGuard<'_, Machine>, UnitError> {
        let machine = self.machine();
        match machine.unreachable {
            true => Err(UnitError::Unreachable { reason: "told to be so".into() }),
            false => Ok(machine),
        }
    }

    fn hint(&self) {
        self.0.changed.send_modify(|count| *count += 1);
    }

    /// Waits for the job's end; says whether it ended by itself.
    async fn ended(&self, unit: &UnitName, job: MemoryJob) -> bool {
        tokio::time::sleep_until(job.ends).await;
        let ended = self.machine().loaded.get(unit).is_some_and(|unit| unit.ended == job.number);
        self.hint();
        ended
    }
}

fn running(machine: &Machine) -> BTreeMap<UnitName, UnitFile> {
    let up = machine.loaded.iter().filter(|(_, unit)| unit.active == "active");
    up.map(|(name, unit)| (name.clone(), unit.text.clone())).collect()
}

impl Default for Memory {
    fn default() -> Memory {
        Memory::new()
    }
}

impl Machine {
    /// The unit, loaded from its file when systemd has not loaded it yet.
    fn load(&mut self, unit: &UnitName) -> Option<&mut Loaded> {
        if !self.loaded.contains_key(unit) {
            let text = self.files.get(unit).filter(|_| self.linked.contains(unit))?.clone();
            let loaded = Loaded { text, active: "inactive", sub: "dead", job: None, ended: 0 };
            self.loaded.insert(unit.clone(), loaded);
        }
        self.loaded.get_mut(unit)
    }

    fn begin_start(&mut self, unit: &UnitName) -> Result<MemoryJob, UnitError> {
        self.jobs += 1;
        let number = self.jobs;
        if self.load(unit).is_none() {
            let reason = format!("Unit {unit} not found.");
            return Err(UnitError::Refused { call: "StartUnit", reason });
        }
        let behaviour = self.behaviour(unit);
        let loaded = self.loaded.get_mut(unit).expect("it was loaded above");
        if let Some(job) = loaded.job.filter(|job| job.start) {
            return Ok(job);
        }
        let (active, sub) = match behaviour.start {
            Start::Runs => ("active", "running"),
            Start::Fails => ("failed", "failed"),
            Start::Retries => ("activating", "auto-restart"),
            Start::Completes => ("inactive", "dead"),
        };
        let mut job =
            MemoryJob { number, start: true, ends: Instant::now() + behaviour.start_takes, active, sub };
        if loaded.active == "active" {
            job = MemoryJob { ends: Instant::now(), active: loaded.active, sub: loaded.sub, ..job };
        } else {
            (loaded.active, loaded.sub) = ("activating", "start");
            *self.starts.entry(unit.clone()).or_default() += 1;
        }
        loaded.job = Some(job);
        Ok(job)
    }

    fn begin_stop(&mut self, unit: &UnitName) -> Option<MemoryJob> {
        self.jobs += 1;
        let (number, behaviour) = (self.jobs, self.behaviour(unit));
        let loaded = self.loaded.get_mut(unit)?;
        let ends = Instant::now() + behaviour.stop_takes;
        let mut job = MemoryJob { number, start: false, ends, active: "inactive", sub: "dead" };
        match loaded.active {
            "inactive" | "failed" => {
                job = MemoryJob { ends: Instant::now(), active: loaded.active, sub: loaded.sub, ..job };
            }
            _ => {
                (loaded.active, loaded.sub) = ("deactivating", "stop-sigterm");
                *self.stops.entry(unit.clone()).or_default() += 1;
            }
        }
        loaded.job = Some(job);
        Some(job)
    }

    fn behaviour(&self, unit: &UnitName) -> Behaviour {
        let oneshot =
            |text: &UnitFile| text.values("Service", "Type").last().is_some_and(|kind| kind == "oneshot");
        match self.behaviours.get(unit) {
            Some(behaviour) => behaviour.clone(),
            None if self.loaded.get(unit).is_some_and(|unit| oneshot(&unit.text)) => {
                Behaviour { start: Start::Completes, ..Behaviour::default() }
            }
            None => Behaviour::default(),
        }
    }
}

#[async_trait]
impl UnitManager for Memory {
    async fn held(&self) -> Result<BTreeMap<UnitName, UnitFile>, UnitError> {
        Ok(self.reach()?.files.clone())
    }

    async fn observe(&self, units: &BTreeSet<UnitName>) -> Result<BTreeMap<UnitName, Seen>, UnitError> {
        let mut machine = self.reach()?;
        let see = |name: &UnitName| {
            let linked = machine.linked.contains(name);
            let file = machine.files.get(name).cloned();
            let Some(unit) = machine.load(name) else { return (name.clone(), Seen::nothing()) };
            let seen = Seen {
                load: "loaded".into(),
                active: unit.active.into(),
                sub: unit.sub.into(),
                linked,
                needs_reload: file.as_ref() != Some(&unit.text),
            };
            (name.clone(), seen)
        };
        Ok(units.iter().map(see).collect())
    }

    async fn write(&self, unit: &UnitName, file: &UnitFile) -> Result<(), UnitError> {
        self.reach()?.files.insert(unit.clone(), file.clone());
        Ok(())
    }

    async fn link(&self, units: &[UnitName]) -> Result<BTreeMap<UnitName, UnitError>, UnitError> {
        let mut machine = self.reach()?;
        let mut refused = BTreeMap::new();
        for unit in units {
            match machine.foreign.get(unit) {
                Some(path) => {
                    refused.insert(unit.clone(), UnitError::Foreign { path: path.clone() });
                }
                None => {
                    machine.linked.insert(unit.clone());
                }
            }
        }
        Ok(refused)
    }

    async fn reload(&self) -> Result<(), UnitError> {
        let mut machine = self.reach()?;
        machine.reloads += 1;
        let machine = &mut *machine;
        for (name, unit) in &mut machine.loaded {
            if let Some(text) = machine.files.get(name).filter(|_| machine.linked.contains(name)) {
                unit.text = text.clone();
            }
        }
        Ok(())
    }

    fn start(&self, unit: &UnitName) -> BoxFuture<'static, JobEnd> {
        let (this, unit) = (self.clone(), unit.clone());
        let begun = self.reach().and_then(|mut machine| machine.begin_start(&unit));
        self.hint();
        Box::pin(async move {
            let job = match begun {
                Ok(job) => job,
                Err(UnitError::Unreachable { reason }) => return JobEnd::Lost { reason },
                Err(error) => return JobEnd::Failed { reason: error.to_string() },
            };
            match (this.ended(&unit, job).await, job.active) {
                (false, _) => JobEnd::Replaced,
                (true, "failed" | "activating") => JobEnd::Failed { reason: "failed".into() },
                (true, _) => JobEnd::Done,
            }
        })
    }

    fn stop(&self, unit: &UnitName) -> BoxFuture<'static, JobEnd> {
        let (this, unit) = (self.clone(), unit.clone());
        let begun = self.reach().map(|mut machine| machine.begin_stop(&unit));
        self.hint();
        Box::pin(async move {
            match begun {
                Err(error) => JobEnd::Lost { reason: error.to_string() },
                Ok(Some(job)) if !this.ended(&unit, job).await => JobEnd::Replaced,
                Ok(_) => JobEnd::Done,
            }
        })
    }

    async fn remove(&self, units: &[UnitName]) -> Result<BTreeMap<UnitName, UnitError>, UnitError> {
        let mut machine = self.reach()?;
        for unit in units {
            machine.files.remove(unit);
            machine.linked.remove(unit);
            if machine.loaded.get(unit).is_some_and(|unit| unit.job.is_none() && unit.active != "active") {
                machine.loaded.remove(unit);
            }
        }
        Ok(BTreeMap::new())
    }

    async fn failure(&self, unit: &UnitName) -> Failure {
        Failure { reason: "exit-code (status 1)".into(), journal: vec![format!("{unit} said no")] }
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }
}
