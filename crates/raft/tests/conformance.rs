//! The store on Raft keeps what every store promises: three machines in one process, over real sockets and
//! files.

use std::net::TcpListener;
use std::sync::Arc;

use raft::{Disk, EngineKind, FlushMode, Options, RaftStore, Tcp, Timing};
use store::Role;
use store::conformance::{Member, machine, run};
use tokio::sync::watch;
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread")]
async fn three_machines() {
    let dir = tempfile::tempdir().unwrap();
    let (stop, stopping) = watch::channel(false);
    let (mut members, mut drivers) = (Vec::new(), JoinSet::new());
    // Founders know each other's addresses beforehand.
    let listeners: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let join: Vec<String> = listeners.iter().map(|l| l.local_addr().unwrap().to_string()).collect();
    drop(listeners);
    for (id, address) in ["m1", "m2", "m3"].into_iter().zip(&join) {
        let disk = Disk::open(&dir.path().join(id), EngineKind::Redb, FlushMode::Thread).unwrap();
        let options = Options {
            machine: machine(id),
            version: "test".into(),
            listen: address.clone(),
            advertise: None,
            bootstrap_expect: 3,
            join: join.clone(),
            lookup: std::sync::Arc::new(raft::AsWritten),
            cluster_name: "test".into(),
            timing: Timing::default(),
            seed: None,
        };
        let (store, driver) = RaftStore::start(options, disk, Arc::new(Tcp), stopping.clone()).await.unwrap();
        drivers.spawn(driver);
        members.push(Member { machine: machine(id), store: Arc::new(store) });
    }
    for member in &members {
        member
            .until_role("a leader", |role| matches!(role, Role::Leader { .. } | Role::Follower { .. }))
            .await;
    }
    run(members).await;
    stop.send_replace(true);
    drivers.join_all().await;
}
