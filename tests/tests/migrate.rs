//! A cluster's state moves from the daemons into a real etcd and back: it is the same afterwards, and a store
//! on it leads and takes writes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cluster::{
    Assignment, Change, Cluster, ClusterState, Command, DesiredState, Expelled, FEATURE_LEVEL, Failure,
    Generation, KeyChange, KeyPath, KeySpace, Leaving, MachineId, MachineInfo, Observed, Person, PersonName,
    PersonRole, RebootChange, RebootGroupName, Revision, Token, UnitFile, UnitHash, UnitName,
};
use coreinitd::config::{Backend, Config, Flags};
use coreinitd::migrate::migrate;
use etcd_compat::EtcdStore;
use etcd_process::Etcd;
use raft::{Disk, EngineKind, FlushMode, Options, RaftStore, Tcp, Timing};
use store::conformance::chance::{Dice, Plan};
use store::{Role, Store};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

const PATIENCE: Duration = Duration::from_secs(60);

/// Something of every kind that a state holds, with generations far beyond what a new etcd counts to by
/// itself.
fn state() -> ClusterState {
    let unit = |number: usize| UnitName::new(&format!("unit-{number}.service")).unwrap();
    let machine = MachineId::new("m1").unwrap();
    let mut state = ClusterState::default();
    let mut make = |at: u64, command: Command| {
        let outcomes = state.apply_all(Revision(at), std::slice::from_ref(&command));
        assert!(outcomes[0].is_ok(), "{command:?}: {outcomes:?}");
    };
    make(1, Command::InitCluster { id: "c1".into(), name: "moved".into() });
    make(2, Command::RegisterMachine { id: machine.clone(), info: MachineInfo::default() });
    let set = BTreeMap::from([("disk".to_string(), Some("ssd".to_string())), ("gone".to_string(), None)]);
    make(3, Command::SetMachineMetadata { id: machine.clone(), set });
    for number in 0..300 {
        let at = 50_000 + 10 * number as u64;
        let text = format!("# unit \u{e4} {number}\n[Service]\nExecStart=/bin/echo \"{number}\"\n");
        let file = Some(UnitFile::parse(&text).unwrap());
        make(at, Command::SetUnit { name: unit(number), file, desired: Some(DesiredState::Launched) });
        let (generation, reason) = (Generation(at), "fewest units".to_string());
        make(at + 1, Command::Assign { unit: unit(number), machine: machine.clone(), generation, reason });
        let observed = Observed {
            load: "loaded".into(),
            active: "active".into(),
            sub: "running".into(),
            hash: UnitHash([7; 20]),
            generation: Some(generation),
            failure: None,
        };
        let observed = Some(observed);
        make(at + 2, Command::Report { machine: machine.clone(), unit: unit(number), observed });
    }
    let at = 60_000;
    let far = MachineId::new("m2").unwrap();
    let info = MachineInfo { name: "far".into(), feature_level: FEATURE_LEVEL, ..MachineInfo::default() };
    make(at, Command::RegisterMachine { id: far.clone(), info: info.clone() });
    make(at + 1, Command::RegisterMachine { id: machine.clone(), info });
    make(at + 2, Command::RaiseFeatureLevel { to: FEATURE_LEVEL });
    make(at + 3, Command::SetSchedulable { id: machine.clone(), schedulable: false });
    make(at + 4, Command::MarkLost { machine: far.clone() });
    make(at + 5, Command::MoveUnit { unit: unit(0), machine: machine.clone(), to: None });
    let token = Token {
        digest: "5e".repeat(32),
        created_at: 1,
        expires_at: Some(9),
        uses_left: Some(3),
        used_by: Default::default(),
    };
    make(at + 6, Command::CreateToken { id: "t1".into(), token });
    let (id, digest, machine) = ("t1".into(), "5e".repeat(32), MachineId::new("m3").unwrap());
    make(at + 7, Command::UseToken { id, digest, machine, at: 2 });
    let expelled = Expelled { at: 7, name: "gone \u{e4}".into() };
    make(at + 8, Command::Expel { machine: MachineId::new("m4").unwrap(), expelled });
    let person = Person {
        role: PersonRole::Operator,
        fingerprint: "ab".repeat(32),
        expires: 1 << 40,
        invited_by: "root".into(),
    };
    let name = PersonName::new("ann").unwrap();
    make(at + 9, Command::InvitePerson { name, person, replace: false });
    let (group, change) = (RebootGroupName::default(), RebootChange::SetSlots(2));
    make(at + 10, Command::RebootLock { group, change });
    for name in ["services/web", "message"] {
        let (path, value) = (KeyPath::new(name).unwrap(), Some("Hello world".into()));
        make(at + 11, Command::Keys { at: 1, change: KeyChange::Create { path, value, expires: None } });
    }
    // What no command makes by itself: a cluster that goes on from others, a unit with a named way, words.
    let cluster = state.cluster.as_deref().unwrap().renewed("c2".into());
    state.put(Change::Cluster(Cluster { name: "\"moved\"".into(), ..cluster }));
    let leaving = Some(Leaving { to: Some(far.clone()) });
    let home = Assignment { leaving, ..(*state.assignments[&unit(1)]).clone() };
    state.put(Change::Assignment(unit(1), Some(home)));
    let failure = Some(Failure { reason: "exit-code".into(), journal: vec!["a\tb".into(), String::new()] });
    let observed = Observed { failure, ..(**state.observed.values().next().unwrap()).clone() };
    state.put(Change::Observed(unit(2), far, Some(observed)));
    assert!(state.counts().iter().all(|(_, count)| *count > 0), "{:?}", state.counts());
    state
}

/// What commands by chance make.
fn by_chance(seed: u64) -> ClusterState {
    let mut dice = Dice(seed);
    let mut state = ClusterState::default();
    state.apply_all(Revision(1), &[Command::InitCluster { id: "c1".into(), name: "c".into() }]);
    for at in 2..300 + 10 * seed {
        let command = Plan::draw(&mut dice).command(&state);
        state.apply_all(Revision(at << 20), &[command]);
    }
    state
}

/// The data of one name are in a folder and below a prefix of their own.
fn config(dir: &Path, name: &str, data: &str, etcd: &Etcd, api: &str) -> Config {
    let endpoint = &etcd.endpoints()[0];
    let text = format!(
        "backend = 'etcd'\netcd_endpoints = ['{endpoint}']\netcd_api = '{api}'\nengine = 'redb'\n\
         etcd_prefix = '/{name}/'\n"
    );
    std::fs::create_dir_all(dir.join(name)).unwrap();
    let path = dir.join("coreinitd.toml");
    std::fs::write(&path, text).unwrap();
    let flags = Flags {
        config: Some(path),
        machine_id: Some("m1".into()),
        data_dir: Some(dir.join(name).join(data)),
        ..Flags::default()
    };
    Config::load(&flags).unwrap()
}

/// Leads, holds `expected`, and gives a new wish a generation that was never used.
async fn works(store: Arc<dyn Store>, expected: &ClusterState) {
    let mut role = store.role();
    // What is waited for is let go at once: it holds up whoever changes the role.
    let leads = timeout(PATIENCE, role.wait_for(|role| matches!(role, Role::Leader { .. }))).await.is_ok();
    assert!(leads, "{:?}", store.role().borrow());
    let now = store.read(Instant::now() + PATIENCE).await.unwrap();
    assert_eq!((&now.units, &now.cluster), (&expected.units, &expected.cluster));
    assert_eq!(now.machines, expected.machines);
    let name = UnitName::new("unit-1.service").unwrap();
    let set = Command::SetUnit { name: name.clone(), file: None, desired: Some(DesiredState::Loaded) };
    store.propose(vec![set], Instant::now() + PATIENCE).await.unwrap();
    let generation = store.read(Instant::now() + PATIENCE).await.unwrap().units[&name].generation;
    assert!(expected.revision.0 < generation.0, "{} < {generation}", expected.revision);
}

async fn go(config: &Config, to: Backend) -> Result<String, String> {
    let done = migrate(config, config.etcd.as_ref().unwrap(), to).await;
    done.map_err(|error| format!("{error:#}"))
}

/// From a store of the daemons into etcd, and from there into another store. The first and the last.
async fn moved(dir: &Path, name: &str, etcd: &Etcd, api: &str, state: &ClusterState) -> (Config, Config) {
    let (first, second) = (config(dir, name, "first", etcd, api), config(dir, name, "second", etcd, api));
    let found = raft::offline::found(&first.data_dir, EngineKind::Redb, &first.machine, "127.0.0.1:1", state);
    found.await.unwrap();
    let counts = state.counts();
    let all: usize = counts.iter().map(|(_, count)| count).sum();
    let (units, machines) = (state.units.len(), state.machines.len());
    let others = all - units - machines;
    let said = go(&first, Backend::Etcd).await.unwrap();
    let keys = state.keys.count();
    assert_eq!(said.contains(&format!("the {keys} keys of etcd_listen stay in")), keys > 0, "{said}");
    assert!(
        said.contains(&format!("{units} units, {machines} machines and {others} other records")),
        "{said}"
    );
    go(&second, Backend::Raft).await.unwrap();
    let source = raft::offline::read(&first.data_dir, EngineKind::Redb).await.unwrap();
    let copy = raft::offline::read(&second.data_dir, EngineKind::Redb).await.unwrap();
    assert_eq!(source, *state, "the source is untouched");
    assert!(state.revision <= copy.revision);
    let (revision, keys) = (state.revision, KeySpace::default());
    let expected = ClusterState { keys, ..state.clone() };
    assert_eq!(ClusterState { revision, ..copy }, expected, "there and back is the same, but for keys");
    (first, second)
}

async fn there_and_back(api: &str) {
    let dir = tempfile::tempdir().unwrap();
    let etcd = Etcd::start(1, &[]).await;
    for seed in 0..6 {
        moved(dir.path(), &format!("chance-{seed}"), &etcd, api, &by_chance(seed)).await;
    }
    let state = state();
    let (first, second) = moved(dir.path(), "made", &etcd, api, &state).await;
    let again = go(&first, Backend::Etcd).await.unwrap_err();
    assert!(again.contains("there is a cluster under"), "{again}");
    let again = go(&second, Backend::Raft).await.unwrap_err();
    assert!(again.contains("there is a store in"), "{again}");
    let copy = raft::offline::read(&second.data_dir, EngineKind::Redb).await.unwrap();

    // Both ends work.
    let (stop, stopping) = watch::channel(false);
    let disk = Disk::open(&second.data_dir, EngineKind::Redb, FlushMode::Thread).unwrap();
    let options = Options {
        machine: second.machine.clone(),
        version: "test".into(),
        listen: "127.0.0.1:0".into(),
        advertise: None,
        bootstrap_expect: 0,
        join: Vec::new(),
        lookup: std::sync::Arc::new(raft::AsWritten),
        cluster_name: "test".into(),
        timing: Timing::default(),
        seed: None,
    };
    let (store, driver) = RaftStore::start(options, disk, Arc::new(Tcp), stopping.clone()).await.unwrap();
    let driver = tokio::spawn(driver);
    works(Arc::new(store), &copy).await;
    let mut options = first.etcd.as_ref().unwrap().options(&first);
    options.dir = dir.path().join("belonging");
    let (store, etcd_driver) = EtcdStore::start(options, stopping).unwrap();
    let etcd_driver = tokio::spawn(etcd_driver);
    works(Arc::new(store), &state).await;
    stop.send_replace(true);
    driver.await.unwrap();
    etcd_driver.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn there_and_back_on_v3() {
    there_and_back("v3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_and_back_on_v2() {
    there_and_back("v2").await;
}
