//! How long a whole list takes through fleet's API, page by page, and what the longest page takes.
//!
//!     cargo run --release -p tests --bin bench_listing [-- UNITS...]
//!     cargo run --release -p tests --bin bench_listing hosts [UNITS]
//!
//! The daemon's API over a store in memory, on a Unix socket; a caller that asks for one page after the
//! other, each on a connection of its own. What a page costs beyond this is one round of the leader's to a
//! majority, since each read is linearizable: the second form shows it, on the rack's three hosts, with units
//! that are not started. Beside it: `/v1/units`, everything in one answer.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::v1::State;
use cluster::{Command, DesiredState, MachineId, MachineInfo, Observed, UnitFile, UnitName};
use coreinitd::http::{self, Access, HttpParts, InitError};
use futures::FutureExt;
use store::{MemoryStore, Store};
use tests::deploy::{Cluster, set};
use tests::http::call;
use tokio::sync::watch;

const LIMIT: Duration = Duration::from_secs(60);
/// Units in one proposal.
const CHUNK: usize = 2500;

fn main() {
    let mut words = std::env::args().skip(1);
    if words.next().is_some_and(|word| word == "hosts") {
        return on_hosts(words.next().and_then(|text| text.parse().ok()).unwrap_or(5000));
    }
    let units: Vec<usize> = std::env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    let units = if units.is_empty() { vec![1000, 5000, 20_000, 100_000] } else { units };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    println!("list             units  pages    all ms  p50 ms  max ms");
    for count in units {
        runtime.block_on(bench(count));
    }
}

async fn bench(count: usize) {
    let store = Arc::new(MemoryStore::new(MachineId::new("m0").expect("an id")));
    fill(&store, count).await;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("coreinit.sock");
    let parts = HttpParts {
        store,
        machine: MachineId::new("m0").expect("an id"),
        version: "0".into(),
        signs: Arc::default(),
        init: Arc::new(|_| async { Err(InitError::Exists { id: "c".into() }) }.boxed()),
        ask: Arc::new(|_, _| async { Err("there is no other machine".into()) }.boxed()),
        membership: None,
        access: Access::default(),
    };
    let (stop, stopping) = watch::channel(false);
    let socket = http::bind(&path).await.expect("a socket");
    let server = tokio::spawn(http::run(parts, vec![socket], stopping));
    let asked = tokio::task::spawn_blocking(move || {
        for list in ["units", "state"] {
            // Once to warm up.
            pages(&path, list);
            tell(&format!("/fleet/v1/{list}"), count, pages(&path, list));
        }
        whole(&path);
        tell("/v1/units", count, vec![whole(&path)]);
    });
    asked.await.expect("the caller does not panic");
    stop.send_replace(true);
    let _ = server.await;
}

fn on_hosts(count: usize) {
    let cluster = Cluster::up(3);
    let leader = cluster.formed();
    let unit =
        |number: usize| set(&format!("unit-{number:06}.service"), Some(&text(number)), State::Inactive);
    let units: Vec<_> = (0..count).map(unit).collect();
    for chunk in units.chunks(250) {
        cluster.batch(&leader, chunk.to_vec()).expect("they are stored");
    }
    println!("list             units  pages    all ms  p50 ms  max ms");
    for host in cluster.rack.hosts() {
        println!("{host}, {}", if *host == leader { "the leader" } else { "a follower" });
        let socket = cluster.socket(host).expect("the host is on");
        pages(&socket, "units");
        tell("/fleet/v1/units", count, pages(&socket, "units"));
        tell("/v1/units", count, vec![whole(&socket)]);
    }
}

fn tell(list: &str, count: usize, mut times: Vec<Duration>) {
    let all: Duration = times.iter().sum();
    times.sort();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let (p50, max) = (ms(times[times.len() / 2]), ms(times[times.len() - 1]));
    println!("{list:15} {count:6} {:6} {:9.1} {p50:7.2} {max:7.2}", times.len(), ms(all));
}

/// What each page of the list takes.
fn pages(socket: &Path, list: &str) -> Vec<Duration> {
    let (mut times, mut query) = (Vec::new(), String::new());
    loop {
        let begun = Instant::now();
        let answer = call(socket, "GET", &format!("/fleet/v1/{list}{query}"), b"", LIMIT);
        let answer = answer.expect("an answer");
        times.push(begun.elapsed());
        assert_eq!(answer.status, 200, "{}", answer.text());
        let page: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        match page["nextPageToken"].as_str() {
            Some(token) => query = format!("?nextPageToken={token}"),
            None => return times,
        }
    }
}

fn whole(socket: &Path) -> Duration {
    let begun = Instant::now();
    let answer = call(socket, "GET", "/v1/units", b"", LIMIT).expect("an answer");
    assert_eq!(answer.status, 200);
    begun.elapsed()
}

/// Units of some 200 bytes over ten machines, each launched and seen running.
async fn fill(store: &MemoryStore, count: usize) {
    let propose = async |commands: Vec<Command>| {
        let deadline = tokio::time::Instant::now() + LIMIT;
        let committed = store.propose(commands, deadline).await.expect("it is committed");
        assert!(committed.outcomes.iter().all(Result::is_ok));
    };
    let machine = |number: usize| MachineId::new(&format!("m{}", number % 10)).expect("an id");
    let info = MachineInfo::default();
    let register = (0..10).map(|n| Command::RegisterMachine { id: machine(n), info: info.clone() });
    propose(register.collect()).await;
    let name = |number: usize| UnitName::new(&format!("unit-{number:06}.service")).expect("a name");
    let numbers: Vec<usize> = (0..count).collect();
    for chunk in numbers.chunks(CHUNK) {
        let desired = Some(DesiredState::Launched);
        let set = chunk.iter().map(|n| {
            let file = Some(UnitFile::parse(&text(*n)).expect("a unit file"));
            Command::SetUnit { name: name(*n), file, desired }
        });
        propose(set.collect()).await;
        let state = store.state().borrow().clone();
        let generation = |n: usize| state.units[&name(n)].generation;
        let seen = |n: usize| Observed {
            load: "loaded".into(),
            active: "active".into(),
            sub: "running".into(),
            hash: state.units[&name(n)].file.hash(),
            generation: Some(generation(n)),
            failure: None,
        };
        let homes = chunk.iter().flat_map(|n| {
            let (unit, generation, reason) = (name(*n), generation(*n), "fewest units".to_owned());
            [
                Command::Assign { unit: unit.clone(), machine: machine(*n), generation, reason },
                Command::Report { machine: machine(*n), unit, observed: Some(seen(*n)) },
            ]
        });
        propose(homes.collect()).await;
    }
}

fn text(number: usize) -> String {
    format!(
        "[Unit]\nDescription=Number {number} of many\nAfter=network-online.target\n\n[Service]\n\
         ExecStart=/usr/bin/server --number {number}\nRestart=always\nRestartSec=1s\n\n\
         [X-Fleet]\nMachineMetadata=disk=ssd\n"
    )
}
