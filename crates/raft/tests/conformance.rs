//! The store on Raft keeps what every store promises: three machines in one process, over real sockets and
//! files.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use raft::{Disk, EngineKind, FlushMode, Options, RaftStore, Tcp, Timing};
use store::Role;
use store::conformance::{Member, found, leave, machine, run};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Three machines whose stores are in folders of this one.
struct Machines {
    members: Vec<Member>,
    stop: watch::Sender<bool>,
    drivers: JoinSet<()>,
    closed: JoinSet<()>,
}

impl Machines {
    /// Founders know each other's addresses beforehand.
    async fn start(dir: &Path, join: &[String]) -> Machines {
        let (stop, stopping) = watch::channel(false);
        let (mut members, mut drivers, mut closed) = (Vec::new(), JoinSet::new(), JoinSet::new());
        for (id, address) in ["m1", "m2", "m3"].into_iter().zip(join) {
            let disk = Disk::open(&dir.join(id), EngineKind::Redb, FlushMode::Thread).unwrap();
            closed.spawn(disk.closed());
            let options = Options {
                machine: machine(id),
                version: "test".into(),
                listen: address.clone(),
                advertise: None,
                bootstrap_expect: 3,
                join: join.to_vec(),
                lookup: Arc::new(raft::AsWritten),
                cluster_name: "test".into(),
                timing: Timing::default(),
                seed: None,
            };
            let started = RaftStore::start(options, disk, Arc::new(Tcp), stopping.clone()).await;
            let (store, driver) = started.unwrap();
            drivers.spawn(driver);
            members.push(Member { machine: machine(id), store: Arc::new(store) });
        }
        for member in &members {
            member
                .until_role("a leader", |role| matches!(role, Role::Leader { .. } | Role::Follower { .. }))
                .await;
        }
        Machines { members, stop, drivers, closed }
    }

    async fn end(self) {
        drop(self.members);
        self.stop.send_replace(true);
        self.drivers.join_all().await;
        self.closed.join_all().await;
    }
}

fn addresses() -> Vec<String> {
    let listeners: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|l| l.local_addr().unwrap().to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_machines() {
    let dir = tempfile::tempdir().unwrap();
    let machines = Machines::start(dir.path(), &addresses()).await;
    run(machines.members.clone()).await;
    machines.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_outlives_all_daemons() {
    let dir = tempfile::tempdir().unwrap();
    let join = addresses();
    let machines = Machines::start(dir.path(), &join).await;
    let kept = leave(machines.members.clone()).await;
    machines.end().await;
    let machines = Machines::start(dir.path(), &join).await;
    found(machines.members.clone(), &kept).await;
    machines.end().await;
}
