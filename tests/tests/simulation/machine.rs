//! One simulated machine: its disk, its systemd, and the daemon's own loops over the store, as `coreinitd`
//! runs them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cluster::{MachineId, MachineInfo};
use coreinitd::agent::AgentParts;
use coreinitd::systemd::{Behaviour, Memory, Start};
use coreinitd::{agent, leader, leave, presence};
use raft::{Disk, DiskError, EngineKind, FlushMode, Forgetful, Options, RaftStore, Timing, Unsynced};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use store::Store;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client;
use crate::net::SimNet;
use crate::world::Shared;

/// Shorter than the default, and still several beats of presence.
pub const LOST_AFTER: Duration = Duration::from_secs(3);
const PORT: u16 = 7340;

pub fn name(machine: usize) -> String {
    format!("m{machine}")
}

pub fn id(machine: usize) -> MachineId {
    MachineId::new(&name(machine)).expect("a good id")
}

fn address(machine: usize) -> String {
    format!("{}:{PORT}", name(machine))
}

/// What a machine is told, and what it has that outlives its daemon.
#[derive(Clone)]
pub struct Machine {
    pub number: usize,
    pub disk: Forgetful,
    pub systemd: Memory,
    /// `/run`: lost with the power.
    pub marks: PathBuf,
    pub expect: usize,
    pub join: Vec<usize>,
    pub voter_grace_ms: u64,
    /// The daemon's loops run, and clients ask it.
    pub works: bool,
}

impl Machine {
    /// Some units need a moment to start and to stop.
    pub fn take_time(&self, chance: &mut SmallRng) {
        for number in 0..client::UNITS {
            let takes = |chance: &mut SmallRng| Duration::from_millis(chance.random_range(0..400));
            if chance.random() {
                let (start_takes, stop_takes) = (takes(chance), takes(chance));
                let behaviour = Behaviour { start: Start::Runs, start_takes, stop_takes };
                self.systemd.behave(&client::unit(number), behaviour);
            }
        }
    }

    /// The daemon is killed; its units go on.
    pub fn kill(&self) {
        self.disk.kill();
        self.systemd.finish_jobs();
    }

    /// The power goes.
    pub fn cut(&self, unsynced: Unsynced) {
        self.disk.power_cut(unsynced);
        self.systemd.finish_jobs();
        self.systemd.reboot();
        match std::fs::remove_dir_all(&self.marks) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
            _ => {}
        }
    }

    fn options(&self, chance: u64) -> Options {
        Options {
            machine: id(self.number),
            version: "sim".into(),
            listen: format!("0.0.0.0:{PORT}"),
            advertise: Some(address(self.number)),
            bootstrap_expect: self.expect,
            join: self.join.iter().copied().map(address).collect(),
            lookup: std::sync::Arc::new(raft::AsWritten),
            cluster_name: "sim".into(),
            timing: Timing {
                snapshot_entries: 60,
                log_entries_kept: 10,
                voter_grace_ms: self.voter_grace_ms,
                ..Timing::default()
            },
            seed: Some(chance),
        }
    }

    /// One life of the daemon, and of those who ask it. Ends only when it is killed.
    pub async fn live(self, chance: u64, world: Shared) -> turmoil::Result {
        let kind = EngineKind::Forgetful(self.disk.clone());
        let opened = Disk::open(Path::new("/nowhere"), kind, FlushMode::Slow { seed: chance });
        let disk = match opened {
            Ok(disk) => disk,
            // The disk fails or the power goes meanwhile: the daemon ends, and is started again.
            Err(DiskError::Io { .. }) => std::future::pending().await,
            // Nothing here damages a store.
            Err(error) => return Err(error.to_string().into()),
        };
        let mut failed = disk.failed();
        let (stop, stopping) = watch::channel(false);
        let started = RaftStore::start(self.options(chance), disk, Arc::new(SimNet), stopping.clone()).await;
        let (store, driver) = match started {
            Ok(started) => started,
            Err(error) => return Err(error.into()),
        };
        let mut expelled = store.expelled();
        world.lock().expect("alone").stores.insert(self.number, store.clone());
        if self.expect == 0 && self.join.is_empty() {
            // As an administrator does once; a machine that has a cluster says so.
            let store = store.clone();
            tokio::spawn(async move { drop(store.init(Some("sim".into())).await) });
        }
        let mut rooms = JoinSet::new();
        rooms.spawn(driver);
        if self.works {
            let dynamic: Arc<dyn Store> = Arc::new(store.clone());
            let feature_level = cluster::FEATURE_LEVEL;
            let info = MachineInfo { name: name(self.number), feature_level, ..MachineInfo::default() };
            rooms.spawn(leader::run(dynamic.clone(), LOST_AFTER, Arc::default(), stopping.clone()));
            rooms.spawn(presence::run(
                dynamic.clone(),
                id(self.number),
                info,
                Arc::default(),
                stopping.clone(),
            ));
            let parts = AgentParts {
                machine: id(self.number),
                store: dynamic,
                units: Arc::new(self.systemd.clone()),
                marks_dir: self.marks.clone(),
                signs: Arc::default(),
            };
            rooms.spawn(agent::run(parts, stopping));
        } else {
            rooms.spawn(presence_only(store.clone(), stopping));
        }
        let mut callers = JoinSet::new();
        callers.spawn(client::ask(
            self.number,
            store,
            world.clone(),
            SmallRng::seed_from_u64(chance ^ 0xc11e),
        ));
        tokio::select! {
            // Cancel-safe: both only wait. A daemon whose disk has failed ends at once, with all its rooms.
            _ = failed.wait_for(Option::is_some) => {
                callers.shutdown().await;
                rooms.shutdown().await;
                world.lock().expect("alone").stores.remove(&self.number);
                std::future::pending().await
            }
            // Its units run elsewhere; then the daemon would begin anew, as nobody's. Here that is its end.
            _ = expelled.wait_for(|expelled| *expelled) => {
                callers.shutdown().await;
                world.lock().expect("alone").stores.remove(&self.number);
                stop.send_replace(true);
                while rooms.join_next().await.is_some() {}
                leave::leave(&self.systemd, &self.marks).await;
                self.disk.wipe();
                world.lock().expect("alone").out.insert(self.number);
                std::future::pending().await
            }
            Some(ended) = rooms.join_next() => Err(format!("a room ended by itself: {ended:?}").into()),
            Some(ended) = callers.join_next() => Err(format!("a caller ended by itself: {ended:?}").into()),
        }
    }
}

/// The leader has to hear who is there, or nobody gets a vote.
async fn presence_only(store: RaftStore, mut stop: watch::Receiver<bool>) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        let _ = store.here(tokio::time::Instant::now() + Duration::from_secs(1)).await;
        tokio::select! {
            // Cancel-safe: both only wait.
            _ = tick.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}
