//! One machine, in a process of its own: this program, started again with one test and a task for it. The
//! store and the daemon's loops are those that ship, over real sockets and files; systemd is in memory.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cluster::{MachineId, MachineInfo};
use coreinitd::agent::AgentParts;
use coreinitd::http::{Access, HttpParts};
use coreinitd::systemd::Memory;
use coreinitd::{agent, http, leader, presence};
use futures::FutureExt;
use raft::{Disk, EngineKind, FlushMode, Options, RaftStore, Tcp, Timing};
use store::{Role, Store};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// `MACHINE FOLDER ADDRESS [JOIN...]`.
const TASK: &str = "COREINIT_PROCESS_TASK";
/// In the machine's folder: the API's socket, each lead that it had, and what its process said.
pub const SOCKET: &str = "socket";
pub const LEADS: &str = "leads";
pub const LOG: &str = "log";
const LOST_AFTER: Duration = Duration::from_secs(6);
const TIMING: Timing = Timing {
    heartbeat_ms: 200,
    election_ms_min: 350,
    election_ms_max: 550,
    // Often enough for some to lag behind a snapshot.
    snapshot_entries: 400,
    log_entries_kept: 100,
    // Longer than one that was killed is away, on a slow machine.
    voter_grace_ms: 6_000,
};

/// The process of that machine, which joins those, or forms a cluster when there are none.
pub fn process(machine: &str, folder: &Path, address: &str, join: &[String]) -> Command {
    let log = File::options().create(true).append(true).open(folder.join(LOG)).expect("a log");
    let mut command = Command::new(std::env::current_exe().expect("the test knows where it is"));
    command.args(["--exact", "child::child", "--nocapture"]);
    command.env(TASK, format!("{machine} {} {address} {}", folder.display(), join.join(" ")));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command
}

/// No test but the child's whole life, when there is a task. It ends when the machine was removed.
#[test]
fn child() {
    let Ok(task) = std::env::var(TASK) else { return };
    let words: Vec<&str> = task.split_whitespace().collect();
    let [machine, folder, address, join @ ..] = &words[..] else { panic!("the task is {task:?}") };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(live(machine, Path::new(folder), address, join));
}

async fn live(name: &str, folder: &Path, address: &str, join: &[&str]) {
    let machine = MachineId::new(name).unwrap();
    let disk = Disk::open(&folder.join("store"), EngineKind::Sled, FlushMode::Thread).unwrap();
    let options = Options {
        machine: machine.clone(),
        version: "test".into(),
        listen: address.into(),
        advertise: None,
        bootstrap_expect: 0,
        join: join.iter().map(|address| address.to_string()).collect(),
        lookup: Arc::new(raft::AsWritten),
        cluster_name: "processes".into(),
        timing: TIMING,
        seed: None,
    };
    let (stop, stopping) = watch::channel(false);
    let (store, driver) = RaftStore::start(options, disk, Arc::new(Tcp), stopping.clone()).await.unwrap();
    let mut expelled = store.expelled();
    let dynamic: Arc<dyn Store> = Arc::new(store.clone());
    let mut rooms = JoinSet::new();
    rooms.spawn(driver);
    rooms.spawn(note_leads(dynamic.role(), folder.join(LEADS), stopping.clone()));
    if join.is_empty() {
        // A machine that has a cluster already says so.
        let store = store.clone();
        tokio::spawn(async move { drop(store.init(None).await) });
    }
    let info = MachineInfo {
        name: name.into(),
        address: address.into(),
        feature_level: cluster::FEATURE_LEVEL,
        ..MachineInfo::default()
    };
    rooms.spawn(leader::run(dynamic.clone(), LOST_AFTER, Arc::default(), stopping.clone()));
    rooms.spawn(presence::run(dynamic.clone(), machine.clone(), info, Arc::default(), stopping.clone()));
    let parts = AgentParts {
        machine: machine.clone(),
        store: dynamic.clone(),
        units: Arc::new(Memory::new()),
        marks_dir: folder.join("done"),
        signs: Arc::default(),
    };
    rooms.spawn(agent::run(parts, stopping.clone()));
    let parts = HttpParts {
        store: dynamic,
        machine,
        version: "test".into(),
        signs: Arc::default(),
        init: Arc::new(|_: api::v1::ClusterInit| async { Ok(()) }.boxed()),
        ask: Arc::new(|_: MachineId, _: http::Question| {
            async { Err("no machine answers here".to_string()) }.boxed()
        }),
        membership: None,
        access: Access::default(),
    };
    let door = http::bind(&folder.join(SOCKET)).await.unwrap();
    rooms.spawn(async move { http::run(parts, vec![door], stopping).await.unwrap() });
    tokio::select! {
        // Cancel-safe: both only wait.
        _ = expelled.wait_for(|expelled| *expelled) => {}
        Some(ended) = rooms.join_next() => panic!("a room ended by itself: {ended:?}"),
    }
    stop.send_replace(true);
    while rooms.join_next().await.is_some() {}
}

/// Writes down each term in which this machine leads, before anything else of it may be seen.
async fn note_leads(mut role: watch::Receiver<Role>, path: PathBuf, mut stop: watch::Receiver<bool>) {
    let mut file = File::options().create(true).append(true).open(path).unwrap();
    loop {
        let term = match &*role.borrow_and_update() {
            Role::Leader { term } => Some(*term),
            _ => None,
        };
        if let Some(term) = term {
            writeln!(file, "{term}").unwrap();
        }
        tokio::select! {
            // Cancel-safe: both only wait.
            changed = role.changed() => if changed.is_err() { return },
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}
