//! A machine that is a cluster by itself: nobody acknowledges its heartbeats, and it leads all the same.

use std::sync::Arc;
use std::time::Duration;

use cluster::{Command, DesiredState, MachineId, UnitFile, UnitName};
use raft::{Disk, EngineKind, FlushMode, Options, RaftStore, Tcp, Timing};
use store::{Role, Store};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

const ELECTION_MS: u64 = 60;

fn submit(name: &str) -> Vec<Command> {
    vec![Command::SetUnit {
        name: UnitName::new(name).unwrap(),
        file: Some(UnitFile::parse("[Service]\nExecStart=/bin/true\n").unwrap()),
        desired: Some(DesiredState::Inactive),
    }]
}

#[tokio::test(flavor = "multi_thread")]
async fn it_leads_for_as_long_as_it_lives() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(dir.path(), EngineKind::Redb, FlushMode::Thread).unwrap();
    let timing = Timing {
        heartbeat_ms: ELECTION_MS / 3,
        election_ms_min: ELECTION_MS / 2,
        election_ms_max: ELECTION_MS,
        ..Timing::default()
    };
    let options = Options {
        machine: MachineId::new("m1").unwrap(),
        version: "test".into(),
        listen: "127.0.0.1:0".into(),
        advertise: Some("127.0.0.1:1".into()),
        bootstrap_expect: 0,
        join: Vec::new(),
        cluster_name: "test".into(),
        timing,
        seed: None,
    };
    let (stop, stopping) = watch::channel(false);
    let (store, driver) = RaftStore::start(options, disk, Arc::new(Tcp), stopping).await.unwrap();
    let driver = tokio::spawn(driver);
    store.init(None).await.unwrap();
    let mut role = store.role();
    let limit = Duration::from_secs(10);
    timeout(limit, role.wait_for(|role| matches!(role, Role::Leader { .. }))).await.unwrap().unwrap();
    store.propose(submit("before.service"), Instant::now() + limit).await.unwrap();

    // Many leases pass in which nothing is written.
    let lost = role.wait_for(|role| !matches!(role, Role::Leader { .. }));
    let idle = timeout(Duration::from_millis(30 * ELECTION_MS), lost).await;
    assert!(idle.is_err(), "it gave up its lead: {idle:?}");

    store.propose(submit("after.service"), Instant::now() + limit).await.unwrap();
    let state = store.read(Instant::now() + limit).await.unwrap();
    assert_eq!(state.units.len(), 2);
    stop.send_replace(true);
    driver.await.unwrap();
}
