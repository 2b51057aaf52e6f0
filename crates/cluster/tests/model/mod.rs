//! A cluster without daemons: the state, the leader's schedule, and machines with a small systemd in each. It
//! carries out plans to the letter, and panics where systemd would do the wrong thing without a word.

#![allow(dead_code, reason = "each test program uses its own part")]

use std::collections::{BTreeMap, BTreeSet};

use cluster::{
    Action, ClusterState, Command, Condition, Current, Decision, Desired, Generation, Job, JobKind,
    MachineId, MachineInfo, Observed, Outcome, Revision, Scheduler, UnitFile, UnitHash, UnitName, plan,
    schedule, wanted_on,
};

pub fn unit(name: &str) -> UnitName {
    UnitName::new(name).expect("a unit name")
}

pub fn machine(id: &str) -> MachineId {
    MachineId::new(id).expect("a machine id")
}

pub fn file(text: &str) -> UnitFile {
    UnitFile::parse(text).expect("a unit file")
}

#[derive(Default)]
pub struct World {
    pub state: ClusterState,
    scheduler: Scheduler,
    pub hosts: BTreeMap<MachineId, Host>,
    /// Units whose jobs do not end by themselves.
    pub slow: BTreeSet<UnitName>,
    /// Units that cannot be started.
    pub broken: BTreeSet<UnitName>,
}

/// What happened in one round.
pub struct Round {
    pub decisions: Vec<Decision>,
    pub actions: Vec<(MachineId, Vec<Action>)>,
    pub is_quiet: bool,
}

/// One machine.
#[derive(Default)]
pub struct Host {
    pub units: BTreeMap<UnitName, Held>,
    /// It hears nothing of the cluster, and nobody hears it.
    pub is_cut: bool,
}

/// One unit on one machine.
#[derive(Clone, Debug, Default)]
pub struct Held {
    file: Option<UnitFile>,
    linked: bool,
    /// The text that systemd holds in memory; it forgets it when the unit is down and unlinked.
    known: Option<UnitHash>,
    /// The text of the running processes.
    running: Option<UnitHash>,
    pub condition: Option<Condition>,
    done: Option<Generation>,
    job: Option<Job>,
}

impl Held {
    pub fn condition(&self) -> Condition {
        self.condition.unwrap_or(Condition::Down)
    }

    pub fn is_running(&self) -> bool {
        matches!(self.condition(), Condition::Up | Condition::Starting | Condition::Stopping)
    }

    fn on_disk(&self) -> Option<UnitHash> {
        self.file.as_ref().map(UnitFile::hash)
    }

    fn begin(&mut self, kind: JobKind, generation: Option<Generation>) {
        self.job = Some(Job { kind, generation });
        if generation.is_none() {
            self.done = None;
        }
        self.condition = Some(match (kind, self.condition()) {
            (JobKind::Start, Condition::Up) => Condition::Up,
            (JobKind::Start, _) => Condition::Starting,
            (JobKind::Stop, Condition::Down) => Condition::Down,
            (JobKind::Stop, _) => Condition::Stopping,
        });
    }

    /// The job ends: the start in success or failure, the stop in success.
    fn end(&mut self, is_broken: bool) {
        let Some(job) = self.job.take() else { return };
        (self.condition, self.running) = match job.kind {
            JobKind::Stop => (Some(Condition::Down), None),
            JobKind::Start if is_broken => (Some(Condition::Failed), None),
            JobKind::Start => (Some(Condition::Up), self.running.or(self.known)),
        };
        self.done = job.generation.or(self.done);
    }
}

impl Host {
    /// What the cluster wants of this machine.
    pub fn desired(state: &ClusterState, id: &MachineId) -> BTreeMap<UnitName, Desired> {
        wanted_on(state, id)
    }

    pub fn current(&self) -> BTreeMap<UnitName, Current> {
        let show = |held: &Held| Current {
            file: held.on_disk(),
            linked: held.linked,
            condition: held.condition(),
            needs_reload: held.known.is_some() && held.known != held.on_disk(),
            done: held.done,
            job: held.job,
        };
        self.units.iter().map(|(name, held)| (name.clone(), show(held))).collect()
    }

    pub fn carry_out(&mut self, actions: &[Action]) {
        for action in actions {
            match action {
                Action::Write { unit, file } => {
                    self.units.entry(unit.clone()).or_default().file = Some(file.clone());
                }
                Action::Link { units } => units.iter().for_each(|unit| {
                    let held = self.units.get_mut(unit).expect("a linked unit has a file");
                    assert!(held.file.is_some(), "{unit} is linked without a file");
                    held.linked = true;
                }),
                Action::Reload => {
                    self.units.values_mut().filter(|h| h.known.is_some()).for_each(|h| h.known = h.on_disk());
                }
                Action::Start { unit, generation } => {
                    let held = self.units.get_mut(unit).expect("a started unit has a file");
                    assert!(held.linked, "{unit} is started without a link");
                    held.known = held.known.or(held.on_disk());
                    assert_eq!(held.known, held.on_disk(), "{unit} is started from an old text");
                    let running = held.running.filter(|_| held.condition() == Condition::Up);
                    assert!(
                        running.is_none_or(|r| Some(r) == held.known),
                        "{unit} keeps running an old text"
                    );
                    held.running = running;
                    held.begin(JobKind::Start, Some(*generation));
                }
                Action::Stop { unit, generation } => {
                    self.units
                        .get_mut(unit)
                        .expect("a stopped unit is known")
                        .begin(JobKind::Stop, *generation);
                }
                Action::Settle { unit, generation } => {
                    let held = self.units.get_mut(unit).expect("a settled unit has a file");
                    assert!(held.linked && held.file.is_some(), "{unit} is settled before it is there");
                    held.done = Some(*generation);
                }
                Action::Remove { units } => units.iter().for_each(|unit| {
                    let held = self.units.remove(unit).expect("a removed unit is known");
                    assert!(!held.is_running() && held.job.is_none(), "{unit} is removed while it runs");
                }),
            }
        }
    }

    /// Somebody calls a socket, or a timer's time has come: systemd starts the service by itself.
    pub fn activate(&mut self, name: &UnitName) {
        let held = self.units.get_mut(name).expect("the activated unit is known");
        held.known = held.known.or(held.on_disk());
        (held.running, held.condition) = (held.known, Some(Condition::Up));
    }

    pub fn end_jobs(&mut self, slow: &BTreeSet<UnitName>, broken: &BTreeSet<UnitName>) -> bool {
        let mut ended = false;
        for (name, held) in self.units.iter_mut().filter(|(name, _)| !slow.contains(*name)) {
            ended |= held.job.is_some();
            held.end(broken.contains(name));
        }
        ended
    }

    /// What has changed since the last report.
    pub fn reports(&self, state: &ClusterState, id: &MachineId) -> Vec<Command> {
        let known = state.observed.iter().filter(|((_, machine), _)| machine == id);
        let mut units: BTreeMap<&UnitName, Option<&Observed>> =
            known.map(|((unit, _), observed)| (unit, Some(&**observed))).collect();
        for unit in self.units.keys() {
            units.entry(unit).or_insert(None);
        }
        let report = |(unit, old): (&UnitName, Option<&Observed>)| {
            let new = self.units.get(unit).map(observed);
            let command = Command::Report { machine: id.clone(), unit: unit.clone(), observed: new.clone() };
            (old != new.as_ref()).then_some(command)
        };
        units.into_iter().filter_map(report).collect()
    }
}

fn observed(held: &Held) -> Observed {
    let (active, sub) = match held.condition() {
        Condition::Up => ("active", "running"),
        Condition::Starting => ("activating", "start"),
        Condition::Stopping => ("deactivating", "stop-sigterm"),
        Condition::Down => ("inactive", "dead"),
        Condition::Failed => ("failed", "failed"),
    };
    Observed {
        load: "loaded".into(),
        active: active.into(),
        sub: sub.into(),
        hash: held.on_disk().unwrap_or(UnitHash([0; 20])),
        generation: held.done,
        failure: None,
    }
}

impl World {
    pub fn propose(&mut self, command: Command) -> Outcome {
        let at = Revision(self.state.revision.0 + 1);
        let mut outcomes = self.state.apply_all(at, &[command]);
        self.state.check().expect("the invariants hold");
        outcomes.pop().expect("one outcome for one command")
    }

    pub fn add_machine(&mut self, id: &str) {
        let command = Command::RegisterMachine { id: machine(id), info: MachineInfo::default() };
        self.propose(command).expect("a machine can always register");
        self.hosts.entry(machine(id)).or_default();
    }

    /// The leader's turn: what it decided, in its words. Every decision has to be accepted.
    pub fn lead(&mut self) -> Vec<Decision> {
        let decided = self.scheduler.schedule(&self.state);
        assert_eq!(decided, schedule(&self.state), "the scheduler says what schedule says");
        let decisions = decided.decisions;
        for decision in &decisions {
            self.propose(decision.clone().into_command())
                .expect("the state accepts what schedule decided on it");
        }
        decisions
    }

    /// One round of everything; says what the machines did, and whether anything happened at all.
    pub fn round(&mut self) -> Round {
        let decisions = self.lead();
        let mut done = Vec::new();
        let mut reports = Vec::new();
        let mut ended = false;
        for (id, host) in self.hosts.iter_mut().filter(|(_, host)| !host.is_cut) {
            let actions = plan(&Host::desired(&self.state, id), &host.current());
            host.carry_out(&actions);
            if !actions.is_empty() {
                done.push((id.clone(), actions));
            }
            reports.extend(host.reports(&self.state, id));
            ended |= host.end_jobs(&self.slow, &self.broken);
            reports.extend(host.reports(&self.state, id));
        }
        let is_quiet = decisions.is_empty() && done.is_empty() && reports.is_empty() && !ended;
        for report in reports {
            self.propose(report).expect("a known machine can report");
        }
        Round { decisions, actions: done, is_quiet }
    }

    /// Rounds until nothing happens any more.
    pub fn settle(&mut self) {
        let is_quiet = (0..100).any(|_| self.round().is_quiet);
        assert!(is_quiet, "the cluster does not come to rest: {:?}", schedule(&self.state));
    }

    /// Where the unit runs.
    pub fn runs_on(&self, name: &UnitName) -> Vec<&MachineId> {
        let runs = |host: &&Host| host.units.get(name).is_some_and(Held::is_running);
        self.hosts.iter().filter(|(_, host)| runs(host)).map(|(id, _)| id).collect()
    }
}
