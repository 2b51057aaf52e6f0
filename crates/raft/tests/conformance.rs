//! The store on Raft keeps what every store promises: three machines in one process, over real sockets and
//! files.

use std::sync::Arc;
use std::time::Duration;

use raft::{Disk, EngineKind, FlushMode, Options, RaftStore, Tcp, Timing};
use store::conformance::{Member, PATIENCE, machine, run};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn three_machines() {
    let dir = tempfile::tempdir().unwrap();
    let (stop, stopping) = watch::channel(false);
    let (mut members, mut drivers) = (Vec::new(), JoinSet::new());
    let mut join = Vec::new();
    for id in ["m1", "m2", "m3"] {
        let disk = Disk::open(&dir.path().join(id), EngineKind::Redb, FlushMode::Thread).unwrap();
        let options = Options {
            machine: machine(id),
            version: "test".into(),
            listen: "127.0.0.1:0".into(),
            advertise: None,
            bootstrap_expect: 0,
            join: join.clone(),
            cluster_name: "test".into(),
            timing: Timing::default(),
            seed: None,
        };
        let started = RaftStore::start(options, disk, Arc::new(Tcp), stopping.clone()).await;
        let (store, driver) = started.unwrap();
        drivers.spawn(driver);
        if join.is_empty() {
            store.init(None).await.unwrap();
            join = vec![store.address().to_string()];
        }
        members.push(Member { machine: machine(id), store: Arc::new(store) });
    }
    // All of them vote before the lead is handed from one to another.
    // As the daemons do: who is not heard does not vote.
    let heard = members.clone();
    let mut presence = JoinSet::new();
    presence.spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_millis(200));
        loop {
            tick.tick().await;
            for member in &heard {
                let _ = member.store.here(Instant::now() + Duration::from_secs(1)).await;
            }
        }
    });
    let three = || members.iter().all(|m| m.store.voting().is_some_and(|voting| voting.voters == 3));
    let begin = Instant::now();
    while !three() {
        assert!(begin.elapsed() < PATIENCE, "three voters");
        tokio::task::yield_now().await;
    }
    run(members).await;
    presence.shutdown().await;
    stop.send_replace(true);
    drivers.join_all().await;
}
