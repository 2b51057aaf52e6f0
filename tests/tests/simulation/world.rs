//! What everybody outside of the machines knows: which daemons live, what callers were told, and what must
//! hold at every moment, by name.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash};
use std::sync::{Arc, Mutex};

use cluster::{ClusterState, DesiredState, Revision, UnitName, wanted_on};
use raft::RaftStore;
use store::{Role, Store};
use tests::linearizable::{Call, Heard, Wish, check};

use crate::machine::{Machine, id};

/// A unit that moved was started elsewhere while its first machine could not be heard. Once both hear the
/// cluster again, this is how long the first one may take to stop its copy, as the README says.
const BOTH_RUN_MS_MAX: u64 = 2_000;
/// A machine that has heard no leader for so long has carried out all that it had heard before.
const DEAF_MS_MIN: u64 = 2_000;
const VOTERS_MAX: usize = 5;

pub type Shared = Arc<Mutex<World>>;

#[derive(Default)]
pub struct World {
    pub stores: BTreeMap<usize, RaftStore>,
    /// Of each unit, by the moment of the call.
    pub calls: BTreeMap<UnitName, BTreeMap<u64, Call<Heard>>>,
    /// No more chaos: callers read once more.
    pub calm: bool,
    pub read_in_calm: BTreeSet<usize>,
    pub writes: u64,
    pub reads: u64,
    /// Callers rest for less than this between two calls.
    pub rest_ms: u64,
    pub broken: Vec<String>,
    pub digest: DefaultHasher,
    /// Which cluster each machine was ever seen in.
    pub clusters: BTreeSet<String>,
    /// Machines that are on their way out of the cluster.
    pub leaving: BTreeSet<usize>,
    /// Those whose removal was acknowledged.
    pub removed: BTreeSet<usize>,
    /// Those that have heard of it, and belong to nobody any more.
    pub out: BTreeSet<usize>,
    moments: u64,
    files: u32,
    newest: Revision,
    leaders: BTreeMap<u64, usize>,
    last_revision: BTreeMap<usize, Revision>,
    /// The longest that a unit ran on two machines that both heard the cluster.
    pub both_run_ms_max: u64,
    both_run: BTreeMap<(UnitName, usize, usize), u64>,
    deaf: BTreeMap<usize, Deaf>,
    /// What ran on a machine when its daemon began, for as long as it has heard no leader.
    fresh: BTreeMap<usize, BTreeSet<UnitName>>,
    /// Changes whose outcome nobody knows.
    pub unknown: u64,
    /// What a machine was and ran when it was last told of, where somebody wants to read it.
    pub told: Option<BTreeMap<usize, String>>,
}

/// A machine without a leader.
struct Deaf {
    since_ms: u64,
    /// The last that it heard; more of it means that there is a leader, though the role does not say so yet.
    revision: Revision,
    /// What ran there when it had carried out all that it had heard.
    ran: Option<BTreeSet<UnitName>>,
}

/// When a call began, and what had been acknowledged to anybody before.
pub struct Moment {
    pub called: u64,
    newest: Revision,
}

impl World {
    pub fn new(rest_ms: u64) -> Shared {
        Arc::new(Mutex::new(World { rest_ms, ..World::default() }))
    }

    pub fn moment(&mut self) -> Moment {
        self.moments += 1;
        Moment { called: self.moments, newest: self.newest }
    }

    /// A machine that somebody has to take out of the cluster yet.
    pub fn next_leaver(&self) -> Option<usize> {
        self.leaving.difference(&self.removed).next().copied()
    }

    pub fn next_file(&mut self) -> u32 {
        self.files += 1;
        self.files
    }

    /// *Real Time*: what was acknowledged before a call began is part of what the call sees.
    pub fn acknowledged(&mut self, moment: &Moment, revision: Revision, is_write: bool) {
        (moment.called, revision.0, is_write).hash(&mut self.digest);
        if revision < moment.newest || is_write && revision == moment.newest {
            self.broken.push(format!(
                "Real Time: a call was answered with revision {revision}, after {} had been acknowledged",
                moment.newest
            ));
        }
        self.newest = self.newest.max(revision);
    }

    /// The daemon was killed, or its machine lost power.
    pub fn fell(&mut self, machine: usize) {
        self.stores.remove(&machine);
        self.last_revision.remove(&machine);
        self.read_in_calm.remove(&machine);
        self.deaf.remove(&machine);
    }

    /// A daemon begins on it.
    pub fn rises(&mut self, machine: &Machine) {
        self.fresh.insert(machine.number, machine.systemd.up().into_keys().collect());
    }

    /// Looks at every living daemon and its machine's units.
    pub fn look(&mut self, ms: u64, machines: &[Machine]) {
        let mut found = Vec::new();
        for (machine, store) in &self.stores {
            let (role, state) = (store.role().borrow().clone(), store.state().borrow().clone());
            format!("{machine} {role:?} {}", state.revision).hash(&mut self.digest);
            let voters = store.voting().map(|voting| voting.voters);
            found.push((*machine, role, state, voters));
        }
        if let Some(told) = &mut self.told {
            for (machine, role, state, _) in &found {
                let up: Vec<_> = machines[*machine].systemd.up().into_keys().collect();
                let homes: Vec<_> =
                    state.assignments.iter().map(|(unit, home)| format!("{unit}@{}", home.machine)).collect();
                let now = format!("{role:?}, revision {}, runs {up:?} of {homes:?}", state.revision);
                if told.get(machine) != Some(&now) {
                    eprintln!("{ms} ms: m{machine}: {now}");
                    told.insert(*machine, now);
                }
            }
        }
        for (machine, role, state, voters) in &found {
            self.look_at(*machine, role, state);
            // A leader that leaves may give a vote to the one who is to lead next before it gives up its own.
            let may_be_even = !self.leaving.is_empty();
            let is_odd = |voters: usize| voters == 0 || voters % 2 == 1 || may_be_even;
            if voters.is_some_and(|voters| voters > VOTERS_MAX || !is_odd(voters)) {
                self.broken.push(format!("Odd Voters: m{machine} counts {voters:?} of them"));
            }
        }
        let hears = &|machine: usize| {
            let heard = found.iter().find(|(other, ..)| *other == machine);
            heard.is_some_and(|(_, role, ..)| matches!(role, Role::Leader { .. } | Role::Follower { .. }))
        };
        self.look_at_the_deaf(ms, machines, hears);
        self.look_for_two(ms, machines, hears);
    }

    fn look_at(&mut self, machine: usize, role: &Role, state: &ClusterState) {
        if let Role::Leader { term } = role {
            let first = *self.leaders.entry(*term).or_insert(machine);
            if first != machine {
                self.broken.push(format!("One Leader: m{first} and m{machine} lead in term {term}"));
            }
        }
        if let Some(cluster) = &state.cluster
            && self.clusters.insert(cluster.id.clone())
            && self.clusters.len() > 1
        {
            self.broken.push(format!("One Cluster: {:?}", self.clusters));
        }
        let before = self.last_revision.insert(machine, state.revision).unwrap_or_default();
        if state.revision < before {
            let now = state.revision;
            self.broken.push(format!("Forward Only: m{machine} went from revision {before} to {now}"));
        }
    }

    /// *Hands Off*: a machine without a leader stops nothing, and starts nothing. *Read First*: one that
    /// comes back starts nothing before it has heard that it may; its units may live elsewhere by now.
    fn look_at_the_deaf(&mut self, ms: u64, machines: &[Machine], hears: impl Fn(usize) -> bool) {
        for machine in machines {
            let m = machine.number;
            let revision = self.stores.get(&m).map(|store| store.state().borrow().revision);
            let Some(revision) = revision.filter(|_| !hears(m)) else {
                self.deaf.remove(&m);
                if hears(m) {
                    self.fresh.remove(&m);
                }
                continue;
            };
            let now: BTreeSet<UnitName> = machine.systemd.up().into_keys().collect();
            if let Some(before) = self.fresh.get(&m).filter(|before| !now.is_subset(before)) {
                self.broken.push(format!("Read First: m{m} ran {before:?}, heard nobody, and runs {now:?}"));
            }
            let deaf = self.deaf.entry(m).or_insert(Deaf { since_ms: ms, revision, ran: None });
            if deaf.revision != revision {
                *deaf = Deaf { since_ms: ms, revision, ran: None };
            }
            if ms - deaf.since_ms < DEAF_MS_MIN {
                continue;
            }
            let ran = deaf.ran.get_or_insert_with(|| now.clone());
            if *ran != now {
                self.broken.push(format!("Hands Off: m{m} has no leader, ran {ran:?} and runs {now:?}"));
            }
        }
    }

    /// *One Copy*: a unit does not run on two machines for long that both hear the cluster.
    fn look_for_two(&mut self, ms: u64, machines: &[Machine], hears: impl Fn(usize) -> bool) {
        let mut now = BTreeMap::new();
        let mut at: BTreeMap<UnitName, Vec<usize>> = BTreeMap::new();
        for machine in machines {
            for unit in machine.systemd.up().into_keys() {
                (machine.number, &unit).hash(&mut self.digest);
                if hears(machine.number) {
                    at.entry(unit).or_default().push(machine.number);
                }
            }
        }
        for (unit, machines) in at {
            for pair in machines.windows(2) {
                let key = (unit.clone(), pair[0], pair[1]);
                let since = self.both_run.get(&key).copied().unwrap_or(ms);
                self.both_run_ms_max = self.both_run_ms_max.max(ms - since);
                if ms - since > BOTH_RUN_MS_MAX {
                    let (a, b) = (pair[0], pair[1]);
                    self.broken.push(format!("One Copy: {unit} has run on m{a} and m{b} since {since} ms"));
                }
                now.insert(key, since);
            }
        }
        self.both_run = now;
    }

    /// *Linearizable*: one order of all calls explains every answer.
    pub fn check_history(&self) -> Result<(), String> {
        for (unit, calls) in &self.calls {
            let calls: Vec<Call<Heard>> = calls.values().cloned().collect();
            check(&Wish::default(), &calls).map_err(|fault| format!("Linearizable: {unit}: {fault}"))?;
        }
        Ok(())
    }

    /// *Convergence*, *One Truth*: what must be so once faults have ended, on all of these machines; the
    /// text says what is not yet.
    pub fn settled(&self, machines: &[&Machine]) -> Result<(), String> {
        let mut leaders = Vec::new();
        let mut first: Option<(usize, Arc<ClusterState>)> = None;
        for machine in machines {
            let m = machine.number;
            let store = self.stores.get(&m).ok_or(format!("m{m} does not run"))?;
            match &*store.role().borrow() {
                Role::Leader { .. } => leaders.push(m),
                Role::Follower { .. } => {}
                role => return Err(format!("m{m} is {role:?}")),
            }
            if !self.read_in_calm.contains(&m) {
                return Err(format!("m{m} has not been read from"));
            }
            let state = store.state().borrow().clone();
            match &first {
                Some((other, same)) if **same != *state => {
                    let (a, b) = (same.revision, state.revision);
                    return Err(format!("m{m} holds another state ({b}) than m{other} ({a})"));
                }
                Some(_) => {}
                None => first = Some((m, state)),
            }
        }
        let [_] = leaders[..] else { return Err(format!("{leaders:?} lead")) };
        let Some((_, state)) = first else { return Err("nobody is there".into()) };
        state.check()?;
        match machines.iter().find(|machine| machine.works) {
            Some(_) => settled_units(&state, machines),
            None => Ok(()),
        }
    }
}

/// Each wanted unit runs once, where it is assigned, from its text; and nothing else does.
fn settled_units(state: &ClusterState, machines: &[&Machine]) -> Result<(), String> {
    for (unit, record) in &state.units {
        let is_home = state.assignments.get(unit).map(|home| home.machine.clone());
        if (record.desired == DesiredState::Inactive) != is_home.is_none() {
            return Err(format!("{unit} is to be {}, and lives on {is_home:?}", record.desired));
        }
    }
    for machine in machines {
        let m = machine.number;
        let wanted = wanted_on(state, &id(m));
        let wanted = wanted.into_iter().filter(|(_, desired)| desired.launched);
        let wanted: BTreeMap<_, _> = wanted.map(|(unit, desired)| (unit, desired.file)).collect();
        let runs = machine.systemd.up();
        if wanted != runs {
            let known = wanted.keys().map(|unit| {
                let record = state.units.get(unit);
                (
                    unit.to_string(),
                    record.map(|r| (r.generation, r.desired)),
                    state.observed.get(&(unit.clone(), id(m))),
                )
            });
            let known: Vec<_> = known.collect();
            let (wanted, runs): (Vec<_>, Vec<_>) = (wanted.keys().collect(), runs.keys().collect());
            return Err(format!(
                "m{m} runs {runs:?}, and wanted are {wanted:?}, or other texts of them; known: {known:?}"
            ));
        }
        for (unit, by) in state.observed.keys().filter(|(_, by)| *by == id(m)) {
            if state.assignments.get(unit).is_none_or(|home| home.machine != *by) {
                return Err(format!("m{m} still tells of {unit}, which does not live there"));
            }
        }
    }
    Ok(())
}
