//! Three equal configurations, and nobody's hands: the cluster forms itself, whichever machine comes first.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use api::v1::Role;
use tests::deploy::{Cluster, DATA_DIR};
use tests::wait::{always, eventually};

/// Aim: 10 s from nothing to three voters. These hosts share two processors with whatever else runs.
const LIMIT: Duration = Duration::from_secs(30);
/// How many seconds the others wait for the last machine in one of the rounds, unless `LATE_SECONDS` says so.
const LATE: &str = "8";
/// The order of starting, who is killed, and how many milliseconds after the last start.
const ROUNDS: [([&str; 3], &str, u32); 6] = [
    (["h1", "h2", "h3"], "h1", 0),
    (["h1", "h3", "h2"], "h2", 40),
    (["h2", "h1", "h3"], "h3", 120),
    (["h2", "h3", "h1"], "h2", 300),
    (["h3", "h1", "h2"], "h1", 700),
    (["h3", "h2", "h1"], "h1", 1200),
];

/// Every order; in each a daemon is killed at another moment of forming, and in one the last machine is late.
pub fn a_cluster_forms_itself_in_any_order(cluster: &Cluster) {
    let rack = &cluster.rack;
    let late = std::env::var("LATE_SECONDS").unwrap_or_else(|_| LATE.into());
    let late = Duration::from_secs(late.parse().expect("LATE_SECONDS is a number"));
    let mut seen = BTreeSet::new();
    for (round, (order, killed, after_ms)) in ROUNDS.iter().enumerate() {
        for host in rack.hosts() {
            cluster.stop_daemon(host);
            rack.shell(host, &format!("rm -rf {DATA_DIR}*"));
        }
        let [early @ .., last] = order;
        early.iter().for_each(|host| cluster.start_daemon(host));
        let waits = |host: &&str| match cluster.status(host)? {
            status if status.role == Role::Unformed && status.cluster_id.is_none() => Ok(()),
            status => Err(format!("{host}: {status:?}")),
        };
        eventually(LIMIT, "the first two to wait", || early.iter().try_for_each(waits));
        if round == 3 {
            println!("rack: forming: {last} is {late:?} late");
            always(late, "waiting for the third", || early.iter().try_for_each(waits));
        }
        cluster.start_daemon(last);
        let begun = Instant::now();
        let seconds = format!("{}.{:03}", after_ms / 1000, after_ms % 1000);
        rack.shell(killed, &format!("sleep {seconds}; until pkill -9 -x coreinitd; do sleep 0.01; done"));
        eventually(LIMIT, "three voters", || {
            rack.hosts().iter().try_for_each(|host| match cluster.status(host)? {
                status if status.voters == Some(3) => Ok(()),
                status => Err(format!("{host}: {status:?}")),
            })
        });
        cluster.formed();
        println!(
            "rack: forming: {}, with {killed} killed after {after_ms} ms: three voters after {:.1?}",
            order.join(" "),
            begun.elapsed()
        );
        let ids: BTreeSet<_> =
            rack.hosts().iter().filter_map(|host| cluster.status(host).ok()?.cluster_id).collect();
        assert!(ids.len() == 1 && seen.is_disjoint(&ids), "{ids:?}, and before {seen:?}");
        seen.extend(ids);
    }
}
