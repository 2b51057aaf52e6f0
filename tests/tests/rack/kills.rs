//! Daemons killed at random moments while everybody writes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use api::v1::{Operation, State};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use tests::deploy::{Cluster, set};
use tests::wait::pause;

const ROUNDS: usize = 100;
/// Rounds between two looks at what is there. Within them a daemon may be killed while it still starts.
const ROUNDS_AT_ONCE: usize = 10;
const TEXT: &str = "[Service]\nExecStart=/bin/sleep infinity\n";

pub fn killed_daemons_lose_nothing(cluster: &Cluster) {
    let seed: u64 = rand::random();
    println!("rack: killed daemons: seed {seed}");
    let mut rng = SmallRng::seed_from_u64(seed);
    let (begin, mut total, mut refused) = (Instant::now(), 0, 0);
    for turn in 0..ROUNDS / ROUNDS_AT_ONCE {
        let (written, failed) = write_and_kill(cluster, turn, &mut rng);
        let leader = cluster.formed();
        total += written.len();
        refused += failed;
        assert!(!written.is_empty(), "nothing was written in turn {turn}");
        let lost_on = |host: &String| {
            let units = cluster.units(host).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            let stored: BTreeSet<String> = units.into_iter().map(|unit| unit.name.to_string()).collect();
            (host.clone(), written.difference(&stored).cloned().collect::<Vec<_>>())
        };
        let lost: BTreeMap<String, Vec<String>> = cluster.rack.hosts().iter().map(lost_on).collect();
        assert!(lost.values().all(Vec::is_empty), "seed {seed}, turn {turn}, leader {leader}: lost {lost:?}");
        let all = cluster.units(&leader).expect("the leader answers");
        let destroy = |unit: api::v1::Unit| Operation::Destroy { name: unit.name.to_string() };
        cluster.batch(&leader, all.into_iter().map(destroy).collect()).unwrap_or_else(|e| panic!("{e}"));
    }
    println!(
        "rack: {ROUNDS} rounds of kill -9 in {:.0?}: {total} writes acknowledged, {refused} not, none lost",
        begin.elapsed()
    );
}

/// Every host is written to while daemons are killed; returns what was acknowledged, and how many were not.
fn write_and_kill(cluster: &Cluster, turn: usize, rng: &mut SmallRng) -> (BTreeSet<String>, usize) {
    let (stop, failed) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let writer = |host: String| {
            let (stop, failed) = (&stop, &failed);
            move || {
                let mut written = Vec::new();
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let name = format!("probe-kill-{turn}-{host}-{n}.service");
                    match cluster.batch(&host, vec![set(&name, Some(TEXT), State::Inactive)]) {
                        Ok(_) => written.push(name),
                        // The daemon is dead or has no leader: its outcome is unknown.
                        Err(_) => {
                            failed.fetch_add(1, Ordering::Relaxed);
                            pause(Duration::from_millis(5));
                        }
                    }
                }
                written
            }
        };
        let writers: Vec<_> =
            cluster.rack.hosts().iter().map(|host| scope.spawn(writer(host.clone()))).collect();
        for _ in 0..ROUNDS_AT_ONCE {
            pause(Duration::from_millis(rng.random_range(0..1500)));
            let count = *[1, 1, 2, 3].choose(rng).expect("there are four");
            for host in cluster.rack.hosts().sample(rng, count) {
                // One that is just down is a round as well: its systemd starts it again.
                let kill = ["systemctl", "kill", "--kill-who=main", "-s", "KILL", "coreinitd.service"];
                cluster.rack.try_exec(host, &kill).unwrap_or_else(|e| panic!("{e}"));
            }
        }
        stop.store(true, Ordering::Relaxed);
        let written = writers.into_iter().flat_map(|writer| writer.join().expect("a writer ends"));
        (written.collect(), failed.load(Ordering::Relaxed))
    })
}
