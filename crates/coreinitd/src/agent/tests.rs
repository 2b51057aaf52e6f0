//! The agent on a store and a systemd in memory, in paused time: what it does, and what it leaves alone.

use std::sync::Arc;
use std::time::Duration;

use cluster::{
    ClusterState, Command, DesiredState, Generation, MachineId, MachineInfo, Observed, UnitFile, UnitName,
};
use store::{MemoryStore, Role, Store};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{AgentParts, run};
use crate::systemd::{Behaviour, Memory, Start};

/// A cluster of one machine, and its agent.
struct World {
    store: Arc<MemoryStore>,
    systemd: Memory,
    machine: MachineId,
    marks: tempfile::TempDir,
    agent: Option<(watch::Sender<bool>, JoinHandle<()>)>,
}

impl World {
    /// With its agent running.
    async fn new() -> World {
        let mut world = World::without_agent().await;
        world.begin();
        world
    }

    async fn without_agent() -> World {
        let machine = MachineId::new("m1").unwrap();
        let store = Arc::new(MemoryStore::new(machine.clone()));
        let marks = tempfile::tempdir().unwrap();
        let world = World { store, systemd: Memory::new(), machine, marks, agent: None };
        let register = Command::RegisterMachine { id: world.machine.clone(), info: MachineInfo::default() };
        world.propose(vec![Command::InitCluster { id: "c".into(), name: "c".into() }, register]).await;
        world
    }

    fn begin(&mut self) {
        let parts = AgentParts {
            machine: self.machine.clone(),
            store: self.store.clone(),
            units: Arc::new(self.systemd.clone()),
            marks_dir: self.marks.path().join("done"),
            signs: Arc::default(),
        };
        let (stop, stopping) = watch::channel(false);
        self.agent = Some((stop, tokio::spawn(run(parts, stopping))));
    }

    async fn end(&mut self) {
        let (stop, task) = self.agent.take().unwrap();
        let asked = Instant::now();
        stop.send_replace(true);
        task.await.unwrap();
        assert_eq!(asked.elapsed(), Duration::ZERO, "it ends promptly");
    }

    async fn propose(&self, commands: Vec<Command>) {
        let committed = self.store.propose(commands, Instant::now()).await.unwrap();
        assert!(committed.outcomes.iter().all(Result::is_ok), "{committed:?}");
    }

    /// Asks for the unit, and gives it its home.
    async fn set(&self, unit: &str, text: &str, desired: DesiredState) -> Generation {
        let (name, file) = (name(unit), Some(UnitFile::parse(text).unwrap()));
        self.propose(vec![Command::SetUnit { name: name.clone(), file, desired: Some(desired) }]).await;
        let generation = self.store.state().borrow().units[&name].generation;
        let (machine, reason) = (self.machine.clone(), String::new());
        self.propose(vec![Command::Assign { unit: name, machine, generation, reason }]).await;
        generation
    }

    async fn launch(&self, unit: &str, text: &str) -> Observed {
        self.set(unit, text, DesiredState::Launched).await;
        self.settled(unit).await
    }

    async fn destroy(&self, unit: &str) {
        let (unit, machine) = (name(unit), self.machine.clone());
        let gone = unit.clone();
        self.propose(vec![Command::DestroyUnit { name: unit.clone() }, Command::Unassign { unit, machine }])
            .await;
        self.wait(|state| state.observed_of(&gone).next().is_none()).await;
    }

    /// Waits until the newest wish is carried out.
    async fn settled(&self, unit: &str) -> Observed {
        let wanted = self.store.state().borrow().units[&name(unit)].generation;
        self.reported(unit, |observed| observed.generation == Some(wanted)).await
    }

    async fn reported(&self, unit: &str, holds: impl Fn(&Observed) -> bool) -> Observed {
        let found = |state: &ClusterState| state.observed_of(&name(unit)).next().map(|(_, o)| (**o).clone());
        let state = self.wait(|state| found(state).is_some_and(|observed| holds(&observed))).await;
        found(&state).unwrap()
    }

    async fn wait(&self, mut holds: impl FnMut(&ClusterState) -> bool) -> Arc<ClusterState> {
        let mut state = self.store.state();
        let found = tokio::time::timeout(Duration::from_secs(60), state.wait_for(|state| holds(state))).await;
        let known = self.store.state().borrow().observed.clone();
        found.unwrap_or_else(|_| panic!("waited in vain; reported is {known:#?}")).unwrap().clone()
    }

    /// Lets everything happen that happens by itself.
    async fn rest(&self) {
        tokio::time::sleep(Duration::from_secs(35)).await;
    }

    fn revision(&self) -> u64 {
        self.store.state().borrow().revision.0
    }

    fn runs(&self, unit: &str) -> Option<String> {
        self.systemd.running().get(&name(unit)).map(|file| file.text().to_string())
    }
}

fn name(unit: &str) -> UnitName {
    UnitName::new(unit).unwrap()
}

const WEB: &str = "[Service]\nExecStart=/bin/web\n";
const ONCE: &str = "[Service]\nType=oneshot\nExecStart=/bin/once\n";

#[tokio::test(start_paused = true)]
async fn a_launched_unit_is_started_once_and_told_once() {
    let world = World::new().await;
    let observed = world.launch("web.service", WEB).await;
    assert_eq!((&*observed.load, &*observed.active, &*observed.sub), ("loaded", "active", "running"));
    assert_eq!((observed.hash, observed.failure), (UnitFile::parse(WEB).unwrap().hash(), None));
    let revision = world.revision();
    world.rest().await;
    assert_eq!((world.systemd.starts(&name("web.service")), world.revision()), (1, revision));
    // Registered and formed; wanted; given a home; reported.
    assert_eq!(revision, 4);
}

#[tokio::test(start_paused = true)]
async fn a_long_start_is_told_in_its_stages() {
    let world = World::new().await;
    let slow = Behaviour { start_takes: Duration::from_secs(30), ..Behaviour::default() };
    world.systemd.behave(&name("web.service"), slow);
    world.set("web.service", WEB, DesiredState::Launched).await;
    let observed = world.reported("web.service", |observed| &*observed.active == "activating").await;
    assert_eq!(observed.generation, None);
    // Other units do not wait for it.
    assert_eq!(&*world.launch("other.service", WEB).await.active, "active");
    assert_eq!(&*world.settled("web.service").await.active, "active");
    assert_eq!(world.systemd.starts(&name("web.service")), 1);
}

#[tokio::test(start_paused = true)]
async fn what_ended_by_itself_is_not_started_again() {
    let mut world = World::new().await;
    world.systemd.behave(&name("bad.service"), Behaviour { start: Start::Fails, ..Behaviour::default() });
    let failed = world.launch("bad.service", WEB).await;
    let failure = failed.failure.unwrap();
    assert_eq!((&*failed.active, &*failure.reason), ("failed", "start job failed: exit-code (status 1)"));
    assert_eq!(failure.journal, ["bad.service said no"]);
    assert_eq!(&*world.launch("once.service", ONCE).await.active, "inactive");
    world.launch("web.service", WEB).await;
    world.systemd.kill(&name("web.service"));
    let killed = world.reported("web.service", |observed| observed.failure.is_some()).await;
    assert_eq!(killed.failure.unwrap().reason, "exit-code (status 1)");
    world.end().await;
    world.begin();
    world.rest().await;
    for unit in ["bad.service", "once.service", "web.service"] {
        assert_eq!(world.systemd.starts(&name(unit)), 1, "{unit}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_waits_to_be_tried_again_says_why() {
    let mut world = World::new().await;
    world.systemd.behave(&name("bad.service"), Behaviour { start: Start::Retries, ..Behaviour::default() });
    let waits = world.launch("bad.service", WEB).await;
    let failure = waits.failure.unwrap();
    assert_eq!((&*waits.sub, &*failure.reason), ("auto-restart", "start job failed: exit-code (status 1)"));
    // An agent that comes back asks again.
    world.end().await;
    world.begin();
    let waits = world.reported("bad.service", |observed| {
        observed.failure.as_ref().is_some_and(|failure| failure.reason == "exit-code (status 1)")
    });
    assert_eq!(&*waits.await.active, "activating");
    world.systemd.behave(&name("bad.service"), Behaviour::default());
    let observed = world.launch("bad.service", "[Service]\nExecStart=/bin/better\n").await;
    assert_eq!((&*observed.active, observed.failure), ("active", None));
}

#[tokio::test(start_paused = true)]
async fn a_new_wish_is_carried_out_whatever_came_of_the_old_one() {
    let world = World::new().await;
    world.systemd.behave(&name("web.service"), Behaviour { start: Start::Fails, ..Behaviour::default() });
    assert_eq!(&*world.launch("web.service", WEB).await.active, "failed");
    world.systemd.behave(&name("web.service"), Behaviour::default());
    let new = "[Service]\nExecStart=/bin/better\n";
    let observed = world.launch("web.service", new).await;
    assert_eq!((&*observed.active, observed.failure), ("active", None));
    assert_eq!(world.runs("web.service").as_deref(), Some(new));
}

#[tokio::test(start_paused = true)]
async fn a_new_text_takes_the_place_of_the_old_one() {
    let world = World::new().await;
    world.launch("web.service", WEB).await;
    let new = "[Service]\nExecStart=/bin/web --new\n";
    let observed = world.launch("web.service", new).await;
    assert_eq!(observed.hash, UnitFile::parse(new).unwrap().hash());
    assert_eq!(world.runs("web.service").as_deref(), Some(new));
    let web = name("web.service");
    assert_eq!((world.systemd.stops(&web), world.systemd.starts(&web), world.systemd.reloads()), (1, 2, 1));
}

#[tokio::test(start_paused = true)]
async fn loaded_means_known_and_stopped() {
    let world = World::new().await;
    world.set("web.service", WEB, DesiredState::Loaded).await;
    let observed = world.settled("web.service").await;
    assert_eq!((&*observed.load, &*observed.active), ("loaded", "inactive"));
    assert_eq!(&*world.launch("web.service", WEB).await.active, "active");
    world.set("web.service", WEB, DesiredState::Loaded).await;
    assert_eq!(&*world.settled("web.service").await.active, "inactive");
    assert_eq!(world.systemd.starts(&name("web.service")), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_destroyed_is_stopped_and_forgotten() {
    let world = World::new().await;
    let slow = Behaviour { stop_takes: Duration::from_secs(5), ..Behaviour::default() };
    world.systemd.behave(&name("web.service"), slow);
    world.launch("web.service", WEB).await;
    world.destroy("web.service").await;
    assert_eq!(world.runs("web.service"), None);
    assert_eq!(std::fs::read_dir(world.marks.path().join("done")).unwrap().count(), 0);
    let new = "[Service]\nExecStart=/bin/other\n";
    world.launch("web.service", new).await;
    assert_eq!(world.runs("web.service").as_deref(), Some(new));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_done_before_the_cluster_has_vouched_for_its_state() {
    let mut world = World::without_agent().await;
    world.set("web.service", WEB, DesiredState::Launched).await;
    world.store.set_role(Role::Leaderless);
    world.begin();
    world.rest().await;
    assert_eq!(world.runs("web.service"), None);
    world.store.set_role(Role::Leader { term: 2 });
    assert_eq!(&*world.settled("web.service").await.active, "active");
}

#[tokio::test(start_paused = true)]
async fn hands_off_while_there_is_no_leader() {
    let world = World::new().await;
    world.launch("web.service", WEB).await;
    world.launch("victim.service", WEB).await;
    world.store.set_role(Role::Leaderless);
    world.systemd.kill(&name("victim.service"));
    world.rest().await;
    assert!(world.runs("web.service").is_some());
    world.store.set_role(Role::Leader { term: 2 });
    world.reported("victim.service", |observed| &*observed.active == "failed").await;
    assert_eq!(world.systemd.stops(&name("web.service")), 0);
}

#[tokio::test(start_paused = true)]
async fn a_boot_starts_what_lives_here() {
    let mut world = World::new().await;
    world.launch("web.service", WEB).await;
    world.launch("once.service", ONCE).await;
    world.end().await;
    world.systemd.reboot();
    std::fs::remove_dir_all(world.marks.path().join("done")).unwrap();
    world.begin();
    world.rest().await;
    for unit in ["web.service", "once.service"] {
        assert_eq!(world.systemd.starts(&name(unit)), 1, "{unit}");
    }
    assert!(world.runs("web.service").is_some());
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_was_away_catches_up() {
    let mut world = World::new().await;
    let slow = Behaviour { start_takes: Duration::from_secs(20), ..Behaviour::default() };
    world.systemd.behave(&name("slow.service"), slow);
    world.launch("leaves.service", WEB).await;
    world.set("slow.service", WEB, DesiredState::Launched).await;
    world.reported("slow.service", |observed| &*observed.active == "activating").await;
    world.end().await;
    let (unit, machine) = (name("leaves.service"), world.machine.clone());
    world
        .propose(vec![Command::DestroyUnit { name: unit.clone() }, Command::Unassign { unit, machine }])
        .await;
    assert!(world.runs("leaves.service").is_some());
    world.begin();
    assert_eq!(&*world.settled("slow.service").await.active, "active");
    assert_eq!(world.systemd.starts(&name("slow.service")), 1);
    assert_eq!(world.runs("leaves.service"), None);
}

#[tokio::test(start_paused = true)]
async fn the_machines_own_unit_is_refused_and_holds_up_no_other() {
    let world = World::new().await;
    world.systemd.add_foreign(&name("dbus.service"), "/lib/systemd/system/dbus.service");
    let observed = world.launch("dbus.service", WEB).await;
    let reason = observed.failure.unwrap().reason;
    assert_eq!(&*observed.active, "failed");
    assert!(reason.contains("/lib/systemd/system/dbus.service"), "{reason}");
    assert_eq!(&*world.launch("web.service", WEB).await.active, "active");
    let revision = world.revision();
    world.rest().await;
    assert_eq!(world.revision(), revision, "it is tried again in silence");
    world.destroy("dbus.service").await;
}

#[tokio::test(start_paused = true)]
async fn a_systemd_that_cannot_be_reached_is_waited_for() {
    let world = World::new().await;
    world.systemd.set_reachable(false);
    world.set("web.service", WEB, DesiredState::Launched).await;
    world.rest().await;
    assert_eq!(world.runs("web.service"), None);
    world.systemd.set_reachable(true);
    assert_eq!(&*world.settled("web.service").await.active, "active");
}

#[tokio::test(start_paused = true)]
async fn many_units_take_few_proposals() {
    let world = World::new().await;
    let names: Vec<UnitName> = (0..500).map(|i| name(&format!("many-{i}.service"))).collect();
    let file = Some(UnitFile::parse(WEB).unwrap());
    let set = |name: &UnitName| Command::SetUnit {
        name: name.clone(),
        file: file.clone(),
        desired: Some(DesiredState::Launched),
    };
    world.propose(names.iter().map(set).collect()).await;
    let generation = world.store.state().borrow().units[&names[0]].generation;
    let assign = |unit: &UnitName| {
        let (unit, machine, reason) = (unit.clone(), world.machine.clone(), String::new());
        Command::Assign { unit, machine, generation, reason }
    };
    world.propose(names.iter().map(assign).collect()).await;
    let before = world.revision();
    let state =
        world.wait(|state| state.observed.values().filter(|o| &*o.active == "active").count() == 500).await;
    assert!(state.revision.0 - before <= 6, "{} proposals", state.revision.0 - before);
    assert_eq!(world.systemd.reloads(), 0);
}

/// Nobody gives a global unit a home: the machine knows by itself that the unit belongs there.
#[tokio::test(start_paused = true)]
async fn a_global_unit_runs_without_an_assignment() {
    let world = World::new().await;
    let text = "[Service]\nExecStart=/bin/g\n[X-Fleet]\nGlobal=true\nMachineMetadata=disk=ssd\n";
    let (unit, desired) = (name("g.service"), Some(DesiredState::Launched));
    let file = Some(UnitFile::parse(text).unwrap());
    world.propose(vec![Command::SetUnit { name: unit.clone(), file, desired }]).await;
    world.rest().await;
    assert_eq!(world.runs("g.service"), None, "its metadata does not suit the machine");
    let set = |disk: &str| Command::SetMachineMetadata {
        id: world.machine.clone(),
        set: [("disk".into(), Some(disk.into()))].into(),
    };
    world.propose(vec![set("ssd")]).await;
    assert_eq!(&*world.settled("g.service").await.active, "active");
    assert_eq!(world.runs("g.service").as_deref(), Some(text));
    world.propose(vec![set("hdd")]).await;
    world.wait(|state| state.observed_of(&unit).next().is_none()).await;
    assert_eq!(world.runs("g.service"), None);
}

/// The assignment stays until the leader gives the unit its next home; the unit stops all the same.
#[tokio::test(start_paused = true)]
async fn a_unit_that_was_asked_to_leave_is_stopped_and_removed() {
    let world = World::new().await;
    world.launch("web.service", WEB).await;
    let (unit, machine) = (name("web.service"), world.machine.clone());
    world.propose(vec![Command::MoveUnit { unit: unit.clone(), machine, to: None }]).await;
    let state = world.wait(|state| state.observed_of(&unit).next().is_none()).await;
    assert!(state.assignments.contains_key(&unit) && world.runs("web.service").is_none());
    // Nobody else takes it: it is given back, and started again in the same generation.
    let (machine, generation) = (world.machine.clone(), state.units[&unit].generation);
    world.propose(vec![Command::Assign { unit, machine, generation, reason: String::new() }]).await;
    assert_eq!(&*world.settled("web.service").await.active, "active");
    assert!(world.runs("web.service").is_some());
}
