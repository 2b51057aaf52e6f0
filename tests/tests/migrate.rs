//! A cluster's state moves from the daemons into a real etcd and back: it is the same afterwards, and a store
//! on it leads and takes writes.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command as Program, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cluster::{
    ClusterState, Command, DesiredState, Generation, MachineId, MachineInfo, Observed, Revision, UnitFile,
    UnitHash, UnitName,
};
use coreinitd::config::{Backend, Config, Flags};
use coreinitd::migrate::migrate;
use etcd_compat::EtcdStore;
use raft::{Disk, EngineKind, FlushMode, Options, RaftStore, Tcp, Timing};
use store::{Role, Store};
use tests::wait::eventually;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

const PATIENCE: Duration = Duration::from_secs(60);

struct Etcd(Child);

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn etcd(dir: &Path) -> (Etcd, String) {
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (client, peer) = (free(), free());
    let child = Program::new("etcd")
        .arg(format!("--data-dir={}", dir.display()))
        .args([
            format!("--listen-client-urls=http://{client}"),
            format!("--advertise-client-urls=http://{client}"),
        ])
        .args([format!("--listen-peer-urls=http://{peer}"), "--enable-v2".into(), "--log-level=error".into()])
        .args([format!("--initial-advertise-peer-urls=http://{peer}")])
        .arg(format!("--initial-cluster=default=http://{peer}"))
        .stderr(Stdio::null())
        .spawn();
    let etcd = Etcd(child.expect("etcd is installed (Debian: etcd-server)"));
    eventually(PATIENCE, "etcd to listen", || {
        std::net::TcpStream::connect(client).map_err(|e| e.to_string())
    });
    (etcd, format!("http://{client}"))
}

/// Far beyond what a new etcd counts to by itself.
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
    state
}

fn config(dir: &Path, data: &str, endpoint: &str, api: &str) -> Config {
    let text =
        format!("backend = 'etcd'\netcd_endpoints = ['{endpoint}']\netcd_api = '{api}'\nengine = 'redb'\n");
    let path = dir.join("coreinitd.toml");
    std::fs::write(&path, text).unwrap();
    let flags = Flags {
        config: Some(path),
        machine_id: Some("m1".into()),
        data_dir: Some(dir.join(data)),
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

async fn there_and_back(api: &str) {
    let dir = tempfile::tempdir().unwrap();
    let (_etcd, endpoint) = etcd(&dir.path().join("etcd"));
    let state = state();
    let (first, second) =
        (config(dir.path(), "first", &endpoint, api), config(dir.path(), "second", &endpoint, api));
    let found =
        raft::offline::found(&first.data_dir, EngineKind::Redb, &first.machine, "127.0.0.1:1", &state);
    found.await.unwrap();
    let go = async |config: &Config, to| migrate(config, config.etcd.as_ref().unwrap(), to).await;
    // etcd may not serve yet.
    let begin = Instant::now();
    let said = loop {
        match go(&first, Backend::Etcd).await {
            Ok(said) => break said,
            Err(error) => assert!(begin.elapsed() < PATIENCE, "{error:#}"),
        }
    };
    assert!(said.contains("300 units, 1 machines and 600 other records"), "{said}");
    let again = go(&first, Backend::Etcd).await.unwrap_err();
    assert!(format!("{again:#}").contains("there is a cluster under"), "{again:#}");
    go(&second, Backend::Raft).await.unwrap();
    let again = go(&second, Backend::Raft).await.unwrap_err();
    assert!(format!("{again:#}").contains("there is a store in"), "{again:#}");

    let source = raft::offline::read(&first.data_dir, EngineKind::Redb).await.unwrap();
    let copy = raft::offline::read(&second.data_dir, EngineKind::Redb).await.unwrap();
    assert_eq!(source, state, "the source is untouched");
    assert!(state.revision <= copy.revision);
    assert_eq!(
        ClusterState { revision: state.revision, ..copy.clone() },
        state,
        "there and back is the same"
    );

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
