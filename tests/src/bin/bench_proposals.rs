//! How many changes a cluster of three takes in each of the places that can keep its state, beside what the
//! same disk takes of the same bytes.
//!
//!     cargo run --release -p tests --bin bench_proposals [-- SECONDS [DIR]]
//!
//! Three stores in one process, each with its own directory, talking over loopback as three daemons do; those
//! on etcd talk to a real etcd of three members on the same disk, over its v3 or its v2 interface. Callers
//! propose units of some 200 bytes to the leader's store, one after the other each. Beside it: one file, to
//! which the same bytes are appended and fdatasync'ed, one record at a time and one file a caller. Ratios are
//! of one run; the disk's mood cancels out.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::{Command, DesiredState, MachineId, UnitFile, UnitName};
use etcd_compat::{Api, EtcdStore};
use etcd_process::{Etcd, free_port};
use raft::{Disk, EngineKind, FlushMode, Options, RaftStore, Tcp, Timing};
use store::{Role, Store};
use tokio::sync::watch;
use tokio::task::JoinHandle;

fn main() {
    let mut args = std::env::args().skip(1);
    let seconds: f64 = args.next().and_then(|s| s.parse().ok()).unwrap_or(3.0);
    let dir: PathBuf = args.next().map_or_else(|| PathBuf::from("target/bench-proposals"), PathBuf::from);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("the directory can be made");
    let span = Duration::from_secs_f64(seconds);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(bench(&dir, span));
    let _ = std::fs::remove_dir_all(&dir);
}

type Three = (Vec<Arc<dyn Store>>, Vec<JoinHandle<()>>);

async fn bench(dir: &Path, span: Duration) {
    println!("store    callers  changes/s  p50 ms  p99 ms  file/s  ratio");
    for engine in [EngineKind::Sled, EngineKind::Redb] {
        let (stop, stopping) = watch::channel(false);
        let three = three(&dir.join(engine.name()), engine.clone(), stopping).await;
        measure(engine.name(), &dir.join("plain"), span, three, stop).await;
    }
    for (name, api) in [("etcd v3", Api::V3), ("etcd v2", Api::V2)] {
        let home = dir.join(name.replace(' ', "-"));
        let etcd = Etcd::start_in(&home, 3).await;
        let (stop, stopping) = watch::channel(false);
        let three = three_on_etcd(&home, &etcd, api, stopping);
        measure(name, &dir.join("plain"), span, three, stop).await;
    }
}

async fn measure(name: &str, file: &Path, span: Duration, three: Three, stop: watch::Sender<bool>) {
    let (stores, drivers) = three;
    let leader = leader(&stores).await;
    for callers in [1, 16, 256] {
        let file = tokio::task::block_in_place(|| plain(file, span));
        let (rate, latencies) = propose(leader.clone(), callers, span).await;
        let at = |q: f64| latencies[((latencies.len() - 1) as f64 * q) as usize].as_secs_f64() * 1e3;
        println!(
            "{name:7}  {callers:7}  {rate:9.0}  {:6.2}  {:6.2}  {file:6.0}  {:5.2}",
            at(0.5),
            at(0.99),
            rate / file
        );
    }
    stop.send_replace(true);
    drop((leader, stores));
    for driver in drivers {
        let _ = driver.await;
    }
}

/// Each begins with a member of its own.
fn three_on_etcd(dir: &Path, etcd: &Etcd, api: Api, stop: watch::Receiver<bool>) -> Three {
    let (mut stores, mut drivers): Three = (Vec::new(), Vec::new());
    for number in 0..3 {
        let mut endpoints = etcd.endpoints();
        endpoints.rotate_left(number);
        let options = etcd_compat::Options {
            machine: MachineId::new(&format!("m{number}")).expect("a good id"),
            endpoints,
            api: Some(api),
            prefix: etcd_compat::PREFIX.into(),
            user: None,
            tls: None,
            cluster_name: "bench".into(),
            peer: None,
            dir: dir.join(format!("m{number}")),
        };
        let (store, driver) = EtcdStore::start(options, stop.clone()).expect("the folder can be made");
        stores.push(Arc::new(store));
        drivers.push(tokio::spawn(driver));
    }
    (stores, drivers)
}

async fn three(dir: &Path, engine: EngineKind, stop: watch::Receiver<bool>) -> Three {
    let ports: Vec<u16> = (0..3).map(|_| free_port()).collect();
    let join: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let (mut stores, mut drivers): Three = (Vec::new(), Vec::new());
    for (i, address) in join.iter().enumerate() {
        let home = dir.join(format!("m{i}"));
        std::fs::create_dir_all(&home).expect("the directory can be made");
        let disk = Disk::open(&home, engine.clone(), FlushMode::Thread).expect("a new store opens");
        let options = Options {
            machine: MachineId::new(&format!("m{i}")).expect("a good id"),
            version: "bench".into(),
            listen: address.clone(),
            advertise: None,
            bootstrap_expect: 3,
            join: join.clone(),
            lookup: std::sync::Arc::new(raft::AsWritten),
            cluster_name: "bench".into(),
            timing: Timing::default(),
            seed: None,
        };
        let started = RaftStore::start(options, disk, Arc::new(Tcp), stop.clone()).await;
        let (store, driver) = started.expect("the port is free");
        stores.push(Arc::new(store));
        drivers.push(tokio::spawn(driver));
    }
    (stores, drivers)
}

async fn leader(stores: &[Arc<dyn Store>]) -> Arc<dyn Store> {
    loop {
        for store in stores {
            if matches!(*store.role().borrow(), Role::Leader { .. }) {
                return store.clone();
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A unit file such as people write; every call gives another.
fn unit(caller: usize, number: usize) -> Command {
    let text = format!(
        "[Unit]\nDescription=Caller {caller}, change {number:08}\nAfter=network.target\n\n[Service]\n\
         ExecStart=/usr/bin/python3 -m http.server {number:08}\nRestart=always\n\n\
         [Install]\nWantedBy=multi-user.target\n"
    );
    Command::SetUnit {
        name: UnitName::new(&format!("bench-{caller}-{}.service", number % 4)).expect("a good name"),
        file: Some(UnitFile::parse(&text).expect("a good file")),
        desired: Some(DesiredState::Inactive),
    }
}

/// Proposals a second, and how long each took, sorted.
async fn propose(store: Arc<dyn Store>, callers: usize, span: Duration) -> (f64, Vec<Duration>) {
    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for caller in 0..callers {
        let store = store.clone();
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            while started.elapsed() < span {
                let asked = Instant::now();
                let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
                let committed = store.propose(vec![unit(caller, latencies.len())], deadline).await;
                committed.expect("a healthy cluster commits").outcomes[0].clone().expect("is accepted");
                latencies.push(asked.elapsed());
            }
            latencies
        });
    }
    let mut latencies: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    latencies.sort_unstable();
    (latencies.len() as f64 / started.elapsed().as_secs_f64(), latencies)
}

/// Appends and fdatasyncs a second, of as many bytes as one such command takes.
fn plain(path: &Path, span: Duration) -> f64 {
    let record = vec![7; 260];
    let mut file = File::create(path).expect("the file can be made");
    let started = Instant::now();
    let mut count = 0;
    while started.elapsed() < span {
        file.write_all(&record).expect("the disk has room");
        file.sync_data().expect("the disk syncs");
        count += 1;
    }
    f64::from(count) / started.elapsed().as_secs_f64()
}
