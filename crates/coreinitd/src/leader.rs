//! The leader's loop: while this machine leads, it gives units their homes and tells who is alive.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cluster::{ClusterState, Command, Decision, FEATURE_LEVEL, Liveness, MachineId, Scheduler};
use store::{ProposeError, Role, Store, changed_beyond_keys};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::signs::Signs;

/// How often the silence of machines is looked at.
const TICK: Duration = Duration::from_millis(250);
/// A proposal of the leader's is made to its own log: longer than this, and there is no quorum. The same
/// holds for its first read.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Decisions in one proposal: so many are committed at once, and units of one group are seldom torn apart.
const DECISIONS_MAX: usize = 1000;

/// This machine's lead, as far as decisions may be made in it. A new leader's state may be behind what the
/// leaders before it have made; what follows from such a state may be wrong, and be taken.
#[derive(Default)]
pub(crate) struct Lead {
    /// The term in which the state was brought up to date.
    known: Option<u64>,
}

impl Lead {
    /// The term in which to decide, from a state that is looked at afterwards; `None` while this machine does
    /// not lead, or does not know all yet. Not resumed when cancelled: asked again, it reads again.
    pub(crate) async fn term(&mut self, store: &dyn Store, role: &Role) -> Option<u64> {
        let Role::Leader { term } = role else { return None };
        if self.known != Some(*term) {
            match store.read(Instant::now() + PROPOSE_TIMEOUT).await {
                Ok(_) => self.known = Some(*term),
                Err(error) => tracing::debug!(%error, "nothing is decided before the state is up to date"),
            }
        }
        self.known.filter(|known| known == term)
    }
}

/// Runs until `stop`. While another machine leads, it only waits.
pub async fn run(
    store: Arc<dyn Store>,
    machine_lost_after: Duration,
    signs: Arc<Signs>,
    mut stop: watch::Receiver<bool>,
) {
    let mut state = store.state();
    let mut role = store.role();
    let mut scheduler = Scheduler::default();
    let mut lead = Lead::default();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        signs.leader.beat();
        let is = role.borrow_and_update().clone();
        let term = tokio::select! {
            // Not resumed when cancelled: the daemon is stopping.
            term = lead.term(&*store, &is) => term,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let now = state.borrow_and_update().clone();
        if let Some(term) = term {
            let begun = Instant::now();
            let decided = decide(&mut scheduler, &now, &store.silence(), machine_lost_after);
            signs.schedule.add(begun.elapsed());
            for commands in decided.chunks(DECISIONS_MAX) {
                tokio::select! {
                    // Not resumed when cancelled: the next leader decides anew.
                    proposed = propose(&*store, term, commands) => if proposed.is_err() { break },
                    _ = stop.wait_for(|stop| *stop) => return,
                }
            }
        }
        tokio::select! {
            // Cancel-safe: all of these only wait.
            changed = changed_beyond_keys(&mut state, &now) => if changed.is_err() { return },
            changed = role.changed() => if changed.is_err() { return },
            _ = tick.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// What has to be proposed: who was lost and who is back first, since homes follow from that.
fn decide(
    scheduler: &mut Scheduler,
    state: &ClusterState,
    silence: &BTreeMap<MachineId, Duration>,
    machine_lost_after: Duration,
) -> Vec<Command> {
    let mut commands = Vec::new();
    for (id, machine) in &state.machines {
        let Some(silent) = silence.get(id) else { continue };
        match machine.liveness {
            Liveness::Ready if *silent >= machine_lost_after => {
                tracing::warn!(machine = %id, "{} is lost: silent for {silent:.1?}", machine.info.name);
                commands.push(Command::MarkLost { machine: id.clone() });
            }
            Liveness::Lost if *silent < machine_lost_after / 2 => {
                tracing::info!(machine = %id, "{} is back", machine.info.name);
                commands.push(Command::MarkReady { machine: id.clone() });
            }
            Liveness::Ready | Liveness::Lost => {}
        }
    }
    if !commands.is_empty() {
        return commands;
    }
    let revision = state.revision.0;
    if let Some(raise) = state.next_feature_level(FEATURE_LEVEL) {
        tracing::info!(from = state.feature_level(), "every machine knows newer commands: {raise:?}");
        return vec![raise];
    }
    if let Some(step) = state.next_rotation_step() {
        tracing::info!("every machine is so far with the change of the authority: {step:?}");
        return vec![step];
    }
    let schedule = scheduler.schedule(state);
    for decision in &schedule.decisions {
        match decision {
            Decision::Assign { unit, machine, generation, reason } => {
                tracing::info!(%unit, %machine, %generation, revision, "{unit} goes to {machine}: {reason}")
            }
            Decision::Unassign { unit, machine, reason } => {
                tracing::info!(%unit, %machine, revision, "{unit} leaves {machine}: {reason}")
            }
            Decision::Forget { unit, machine } => {
                tracing::debug!(%unit, %machine, "{unit} on {machine} is forgotten")
            }
        }
    }
    schedule.decisions.into_iter().map(|decision| decision.into_command()).collect()
}

/// Proposes what was decided in that term.
pub(crate) async fn propose(store: &dyn Store, term: u64, commands: &[Command]) -> Result<(), ProposeError> {
    let committed = store.decide(term, commands.to_vec(), Instant::now() + PROPOSE_TIMEOUT).await;
    match &committed {
        Ok(committed) => {
            for (command, outcome) in commands.iter().zip(&committed.outcomes) {
                if let Err(rejected) = outcome {
                    tracing::debug!(?command, %rejected, "overtaken by another change");
                }
            }
        }
        Err(error) => tracing::warn!(%error, count = commands.len(), "decisions were not committed"),
    }
    committed.map(|_| ())
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use cluster::{DesiredState, MachineInfo, UnitFile, UnitName};
    use store::{Committed, MemoryStore, ReadError};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    /// A machine that has just taken the lead, and has not applied yet what the leader before it made.
    struct Behind {
        made: MemoryStore,
        shown: watch::Sender<Arc<ClusterState>>,
    }

    #[async_trait]
    impl Store for Behind {
        async fn propose(
            &self,
            commands: Vec<Command>,
            deadline: Instant,
        ) -> Result<Committed, ProposeError> {
            self.made.propose(commands, deadline).await
        }

        fn state(&self) -> watch::Receiver<Arc<ClusterState>> {
            self.shown.subscribe()
        }

        async fn read(&self, deadline: Instant) -> Result<Arc<ClusterState>, ReadError> {
            let all = self.made.read(deadline).await?;
            self.shown.send_replace(all.clone());
            Ok(all)
        }

        fn role(&self) -> watch::Receiver<Role> {
            self.made.role()
        }

        async fn here(&self, deadline: Instant) -> Result<(), ReadError> {
            self.made.here(deadline).await
        }

        fn silence(&self) -> BTreeMap<MachineId, Duration> {
            BTreeMap::new()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_leader_decides_nothing_from_an_old_state() {
        let id = |text| MachineId::new(text).unwrap();
        let unit = UnitName::new("web.service").unwrap();
        let made = MemoryStore::new(id("m1"));
        let propose = async |command| {
            let committed = made.propose(vec![command], Instant::now() + LIMIT).await.unwrap();
            committed.outcomes[0].clone().unwrap();
        };
        propose(Command::InitCluster { id: "c".into(), name: "c".into() }).await;
        for machine in ["m1", "m2"] {
            let info = MachineInfo { feature_level: FEATURE_LEVEL, ..MachineInfo::default() };
            propose(Command::RegisterMachine { id: id(machine), info }).await;
        }
        propose(Command::RaiseFeatureLevel { to: FEATURE_LEVEL }).await;
        let file = Some(UnitFile::parse("[Service]\nExecStart=/bin/true\n").unwrap());
        propose(Command::SetUnit { name: unit.clone(), file, desired: Some(DesiredState::Launched) }).await;
        let generation = made.state().borrow().units[&unit].generation;
        let (machine, reason) = (id("m2"), String::new());
        propose(Command::Assign { unit: unit.clone(), machine, generation, reason }).await;
        propose(Command::MarkLost { machine: id("m2") }).await;
        let behind = made.state().borrow().clone();
        // The last that the leader before made: the machine is back, and its unit stays there.
        propose(Command::MarkReady { machine: id("m2") }).await;
        let before = made.state().borrow().clone();

        let store = Arc::new(Behind { made, shown: watch::Sender::new(behind) });
        let (stop, stopping) = watch::channel(false);
        let leader = tokio::spawn(run(store.clone(), LIMIT, Arc::default(), stopping));
        let mut shown = store.state();
        let known = shown.wait_for(|state| state.revision == before.revision);
        tokio::time::timeout(LIMIT, known).await.expect("it asks what it does not know").unwrap();
        // It has decided, at its tick at the latest.
        tokio::time::sleep(4 * TICK).await;
        stop.send_replace(true);
        leader.await.unwrap();
        assert_eq!(store.made.state().borrow().revision, before.revision, "nothing was to be done");
    }

    /// While one machine knows less, the level stays; when the last one knows more, it rises by itself.
    #[tokio::test]
    async fn the_level_rises_with_the_last_machine() {
        let id = |text| MachineId::new(text).unwrap();
        let store = Arc::new(MemoryStore::new(id("m1")));
        let register = |machine, feature_level| {
            let info = MachineInfo { feature_level, ..MachineInfo::default() };
            vec![Command::RegisterMachine { id: id(machine), info }]
        };
        let propose = async |commands| store.propose(commands, Instant::now() + LIMIT).await.unwrap();
        propose(vec![Command::InitCluster { id: "c".into(), name: "c".into() }]).await;
        propose(register("m1", FEATURE_LEVEL)).await;
        propose(register("m2", FEATURE_LEVEL - 1)).await;
        let state = store.state().borrow().clone();
        let decided = decide(&mut Scheduler::default(), &state, &BTreeMap::new(), LIMIT);
        assert_eq!(decided, [], "m2 could not read more");

        let (stop, stopping) = watch::channel(false);
        let leader = tokio::spawn(run(store.clone(), LIMIT, Arc::default(), stopping));
        propose(register("m2", FEATURE_LEVEL)).await;
        let mut states = store.state();
        let raised = states.wait_for(|state| state.feature_level() == FEATURE_LEVEL);
        tokio::time::timeout(LIMIT, raised).await.expect("the level rises").unwrap();
        stop.send_replace(true);
        leader.await.unwrap();
    }
}
