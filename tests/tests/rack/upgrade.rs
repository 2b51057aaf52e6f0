//! Daemons that are replaced one after another, as an upgrade does it, while everybody writes.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use api::v1::{Operation, State};
use tests::deploy::{Cluster, probes, set};
use tests::wait::{eventually, pause};

const TEXT: &str = "[Service]\nExecStart=/bin/sleep infinity\n";
const DAEMON: &str = "coreinitd.service";

/// The leader first: every other order is easier. In the end each machine has been the restarted one.
pub fn a_rolling_restart_loses_no_write_and_stops_no_unit(cluster: &Cluster) {
    let rack = &cluster.rack;
    let units = probes("rolling", 9);
    cluster.launch("h1", &units);
    let (homes, _) = cluster.at_home(Duration::from_secs(20), "h1", &units);
    let before = cluster.main_pids(&homes);
    let leader = cluster.formed();
    let order: Vec<String> = [vec![leader.clone()], rack.others(&leader)].concat();

    let (stop, refused) = (AtomicBool::new(false), AtomicUsize::new(0));
    let acknowledged = AtomicUsize::new(0);
    let written: BTreeSet<String> = std::thread::scope(|scope| {
        let writer = |host: String| {
            let (stop, refused, acknowledged) = (&stop, &refused, &acknowledged);
            move || {
                let mut written = Vec::new();
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let name = format!("probe-rolled-{host}-{n}.service");
                    match cluster.batch(&host, vec![set(&name, Some(TEXT), State::Inactive)]) {
                        Ok(_) => {
                            written.push(name);
                            acknowledged.fetch_add(1, Ordering::Relaxed);
                        }
                        // Its daemon is the one that is being replaced, or the lead is on its way.
                        Err(_) => {
                            refused.fetch_add(1, Ordering::Relaxed);
                            pause(Duration::from_millis(5));
                        }
                    }
                }
                written
            }
        };
        let writers: Vec<_> = rack.hosts().iter().map(|host| scope.spawn(writer(host.clone()))).collect();
        let goes_on = |more: usize| {
            let from = acknowledged.load(Ordering::Relaxed);
            eventually(Duration::from_secs(30), "writes to go on", || {
                let now = acknowledged.load(Ordering::Relaxed);
                if now >= from + more { Ok(()) } else { Err(format!("{from} and now {now}")) }
            });
        };
        goes_on(30);
        for host in &order {
            let begin = Instant::now();
            rack.exec(host, &["systemctl", "restart", DAEMON]);
            let restarted = begin.elapsed();
            // As the operator is told to: the next one when this one is back.
            cluster.formed();
            println!(
                "rack: rolling: {host} restarted in {restarted:.1?}, back after {:.1?}; {} writes so far, {} \
                 refused",
                begin.elapsed(),
                acknowledged.load(Ordering::Relaxed),
                refused.load(Ordering::Relaxed)
            );
            goes_on(30);
        }
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().flat_map(|writer| writer.join().expect("a writer ends")).collect()
    });

    for host in rack.hosts() {
        let stored = cluster.units(host).expect("an answer");
        let stored: BTreeSet<String> = stored.into_iter().map(|unit| unit.name.to_string()).collect();
        let lost: Vec<&String> = written.difference(&stored).collect();
        assert!(lost.is_empty(), "{host} has lost {lost:?}");
    }
    assert_eq!(cluster.at_home_now("h1", &units), Ok(homes.clone()), "nothing has moved");
    assert_eq!(cluster.main_pids(&homes), before, "no unit was touched");
    println!(
        "rack: rolling: {} writes acknowledged, {} refused, none lost; {} units untouched",
        written.len(),
        refused.load(Ordering::Relaxed),
        units.len()
    );
    let names: Vec<String> = written.into_iter().collect();
    for names in names.chunks(500) {
        let destroy = |name: &String| Operation::Destroy { name: name.clone() };
        cluster.batch("h1", names.iter().map(destroy).collect()).expect("they are destroyed");
    }
}
