//! Stores of several machines, each at a port of its own of this one.

mod alone;
mod grown;
mod kept;
mod lead;
mod removed;
mod renewed;
mod twin;
mod versions;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cluster::{Command, DesiredState, MachineId, UnitFile, UnitName};
use raft::{Disk, EngineKind, FlushMode, Options, RaftStore, Tcp, Timing};
use store::{Role, Store};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const ELECTION_MS: u64 = 60;
const LIMIT: Duration = Duration::from_secs(30);

/// One running store.
struct Machine {
    store: RaftStore,
    stop: watch::Sender<bool>,
    driver: JoinHandle<()>,
    closed: JoinHandle<()>,
}

impl Machine {
    /// Its store is in `dir`; it joins what is at `join`, or waits for an init.
    async fn start(id: &str, dir: &Path, join: &[&str]) -> Machine {
        Machine::start_at("127.0.0.1:0", id, dir, join).await
    }

    /// It listens there.
    async fn start_at(listen: &str, id: &str, dir: &Path, join: &[&str]) -> Machine {
        Machine::start_on(EngineKind::Redb, listen, id, dir, join).await
    }

    async fn start_on(kind: EngineKind, listen: &str, id: &str, dir: &Path, join: &[&str]) -> Machine {
        let disk = Disk::open(dir, kind, FlushMode::Thread).unwrap();
        let closed = tokio::spawn(disk.closed());
        let timing = Timing {
            heartbeat_ms: ELECTION_MS / 3,
            election_ms_min: ELECTION_MS / 2,
            election_ms_max: ELECTION_MS,
            ..Timing::default()
        };
        let options = Options {
            machine: MachineId::new(id).unwrap(),
            version: "test".into(),
            listen: listen.into(),
            advertise: None,
            bootstrap_expect: 0,
            join: join.iter().map(|address| address.to_string()).collect(),
            lookup: std::sync::Arc::new(raft::AsWritten),
            cluster_name: "test".into(),
            timing,
            seed: None,
        };
        let (stop, stopping) = watch::channel(false);
        let (store, driver) = RaftStore::start(options, disk, Arc::new(Tcp), stopping).await.unwrap();
        Machine { store, stop, driver: tokio::spawn(driver), closed }
    }

    /// Waits for a role, and says it.
    async fn becomes(&self, is_it: impl Fn(&Role) -> bool) -> Role {
        let mut roles = self.store.role();
        let role = timeout(LIMIT, roles.wait_for(|role| is_it(role))).await;
        role.unwrap_or_else(|_| panic!("it stays {:?}", self.store.role().borrow())).unwrap().clone()
    }

    /// Another may open its store when this has ended.
    async fn stop(self) {
        self.stop.send_replace(true);
        self.driver.await.unwrap();
        drop(self.store);
        self.closed.await.unwrap();
    }
}

/// `m1`, which was initialised and leads, and others that have joined it; each has its store in the folder of
/// its place.
async fn clustered<const N: usize>(dirs: &[tempfile::TempDir]) -> [Machine; N] {
    let mut machines: Vec<Machine> = Vec::new();
    for (dir, number) in dirs.iter().zip(1..=N) {
        let join: Vec<&str> = machines.first().map(|first| first.store.address()).into_iter().collect();
        let machine = Machine::start(&format!("m{number}"), dir.path(), &join).await;
        if join.is_empty() {
            machine.store.init(None).await.unwrap();
            machine.becomes(leads).await;
        } else {
            machine.becomes(follows).await;
        }
        machines.push(machine);
    }
    machines.try_into().unwrap_or_else(|_| panic!("a folder for each machine"))
}

fn follows(role: &Role) -> bool {
    matches!(role, Role::Follower { .. })
}

fn leads(role: &Role) -> bool {
    matches!(role, Role::Leader { .. })
}

fn submit(name: &str) -> Vec<Command> {
    vec![Command::SetUnit {
        name: UnitName::new(name).unwrap(),
        file: Some(UnitFile::parse("[Service]\nExecStart=/bin/true\n").unwrap()),
        desired: Some(DesiredState::Inactive),
    }]
}
