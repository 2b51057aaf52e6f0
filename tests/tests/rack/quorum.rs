//! Daemons that die and hosts that cannot reach each other: writes go on where a majority is, and no unit
//! ends.

use std::time::{Duration, Instant};

use api::v1::State;
use tests::deploy::{Cluster, probes, set};
use tests::wait::{always, eventually, median};

const TEXT: &str = "[Service]\nExecStart=/bin/sleep infinity\n";

/// Writes units that nobody runs until one is acknowledged; returns when, counted from `since`.
fn first_write(cluster: &Cluster, host: &str, name: &str, since: Instant) -> Duration {
    let write = || cluster.batch(host, vec![set(name, Some(TEXT), State::Inactive)]).map(drop);
    eventually(Duration::from_secs(20), "a write to be acknowledged", write);
    since.elapsed()
}

/// Writes on a host without a majority are never acknowledged, and soon say that there is no leader. One that
/// the leader had taken before it knew may say that its outcome is unknown.
fn refused(cluster: &Cluster, host: &str, name: &str) -> String {
    let write = || match cluster.batch(host, vec![set(name, Some(TEXT), State::Inactive)]) {
        Ok(done) => panic!("{host} acknowledged without a majority: {done:?}"),
        // Where the state is kept in an etcd, it is etcd that has none.
        Err(said) if said.contains("leader") || said.contains("etcd: ") => Ok(said),
        Err(said) => Err(said),
    };
    eventually(Duration::from_secs(20), "a write to be refused for want of a leader", write).0
}

pub fn a_killed_leader_is_replaced(cluster: &Cluster) {
    leaders_are_replaced(cluster, 3);
}

/// So many times.
pub fn leaders_are_replaced(cluster: &Cluster, rounds: usize) {
    let units = probes("leader", 6);
    cluster.launch("h1", &units);
    let (homes, _) = cluster.at_home(Duration::from_secs(20), "h1", &units);
    let before = cluster.main_pids(&homes);
    let mut times = Vec::new();
    for round in 0..rounds {
        let leader = cluster.formed();
        let other = cluster.rack.others(&leader)[0].clone();
        let killed = cluster.kill_daemon(&leader);
        times.push(first_write(cluster, &other, &format!("probe-write-{round}.service"), killed));
        cluster.formed();
        assert_eq!(cluster.main_pids(&homes), before, "no unit was touched");
    }
    println!("rack: leader killed: writes work again after {times:?}, median {:?}", median(&times));
    // A second and a little; three times that on a busy machine.
    assert!(median(&times) <= Duration::from_secs(4), "{times:?}");
    assert_eq!(cluster.at_home_now("h2", &units), Ok(homes), "nothing has moved");
}

/// The majority goes on without its leader and takes the leader's units over; afterwards there is one truth.
pub fn a_leader_in_the_minority_is_replaced(cluster: &Cluster) {
    leader_cut_off(cluster, Duration::from_secs(5));
}

/// Writes work again in the majority within `limit`.
pub fn leader_cut_off(cluster: &Cluster, limit: Duration) {
    let rack = &cluster.rack;
    let units = probes("split", 6);
    cluster.launch("h1", &units);
    cluster.at_home(Duration::from_secs(20), "h1", &units);
    let leader = cluster.formed();
    let others = rack.others(&leader);

    let since = Instant::now();
    rack.partition(&[&leader], &others.iter().map(String::as_str).collect::<Vec<_>>());
    let took = first_write(cluster, &others[0], "probe-written.service", since);
    println!("rack: leader cut off: writes work again in the majority after {took:?}");
    assert!(took <= limit, "{took:?}");
    refused(cluster, &leader, "probe-lonely.service");

    let moved = || {
        let homes = cluster.homes(&others[0])?;
        let here =
            units.iter().filter(|name| homes.get(*name).is_some_and(|home| others.contains(home))).count();
        if here == units.len() { Ok(()) } else { Err(format!("{homes:?}")) }
    };
    let ((), _) = eventually(Duration::from_secs(20), "the majority to take the units over", moved);
    println!("rack: leader cut off: its units have new homes after {:?}", since.elapsed());
    let running = cluster.running(&["probe-split-*"]);
    let here = |name: &String| running.get(name).is_some_and(|hosts| hosts.contains(&leader));
    println!(
        "rack: leader cut off: {} units still run there",
        units.iter().filter(|name| here(name)).count()
    );

    rack.heal();
    cluster.formed();
    let (homes, took) = cluster.at_home(Duration::from_secs(20), &leader, &units);
    println!("rack: healed: each unit on one host again after {took:?}");
    for host in rack.hosts() {
        eventually(Duration::from_secs(5), "one truth everywhere", || {
            let (homes_there, stored) = (cluster.homes(host)?, cluster.units(host)?);
            let written = stored.iter().any(|unit| unit.name.as_str() == "probe-written.service");
            let same = units.iter().all(|name| homes_there.get(name) == homes.get(name));
            if same && written { Ok(()) } else { Err(format!("{host}: {homes_there:?}")) }
        });
    }
}

/// Longer than a machine may be silent before it counts as lost.
const STANDSTILL: Duration = Duration::from_secs(9);

/// A leader that stood still has heard nobody meanwhile, and must not take that for their silence: all hosts
/// are held and let go together, as by a hypervisor, and each of them may be the first to look at its clock.
pub fn hosts_that_stood_still_keep_their_units(cluster: &Cluster) {
    let rack = &cluster.rack;
    let units = probes("still", 6);
    cluster.launch("h1", &units);
    let (homes, _) = cluster.at_home(Duration::from_secs(20), "h1", &units);
    let before = cluster.main_pids(&homes);
    let leader = cluster.formed();
    let mut order = rack.others(&leader);
    order.insert(0, leader);
    for round in 0..3 {
        order.iter().for_each(|host| rack.pause(host));
        let held =
            || order.iter().try_for_each(|host| rack.init_pid(host).map(drop).ok_or_else(|| host.clone()));
        always(STANDSTILL, "hosts that are held", held);
        // The leader is the first one, and the last one, and in between.
        order.iter().cycle().skip(round).take(order.len()).for_each(|host| rack.resume(host));
        cluster.formed();
        always(Duration::from_secs(5), "every unit where it was", || {
            let running = cluster.running(&["probe-still-*"]);
            let stays = |(name, home): (&String, &String)| {
                running.get(name).is_some_and(|hosts| hosts == std::slice::from_ref(home))
            };
            if homes.iter().all(stays) { Ok(()) } else { Err(format!("{running:?}")) }
        });
        assert_eq!(cluster.main_pids(&homes), before, "no unit was touched");
    }
    assert_eq!(cluster.at_home_now("h2", &units), Ok(homes), "nothing has moved");
}

/// Every host alone for a minute: all units run on, reads answer from what is known, writes say why they
/// cannot be.
pub fn without_a_quorum_nothing_stops(cluster: &Cluster) {
    every_host_alone(cluster, Duration::from_secs(60));
}

/// For so long.
pub fn every_host_alone(cluster: &Cluster, time: Duration) {
    let rack = &cluster.rack;
    let units = probes("alone", 6);
    cluster.launch("h1", &units);
    let (homes, _) = cluster.at_home(Duration::from_secs(20), "h1", &units);
    let before = cluster.main_pids(&homes);

    rack.partition(&["h1"], &["h2", "h3"]);
    rack.partition(&["h2"], &["h3"]);
    let asked = Instant::now();
    for host in rack.hosts() {
        let said = refused(cluster, host, "probe-refused.service");
        println!("rack: no quorum: {said} ({:?} after the cut)", asked.elapsed());
        let output = cluster.corectl(host, &["list-units", "--stale"]);
        let said = tests::rack::said(&output);
        assert!(output.status.success(), "{host}: {said}");
        assert!(units.iter().all(|name| said.contains(name.as_str())), "{host}: {said}");
    }
    let running = || {
        let running = cluster.running(&["probe-alone-*"]);
        let stays = homes
            .iter()
            .all(|(name, home)| running.get(name).is_some_and(|hosts| hosts == std::slice::from_ref(home)));
        if stays { Ok(()) } else { Err(format!("{running:?}")) }
    };
    always(time, "every unit where it was", running);
    assert_eq!(cluster.main_pids(&homes), before, "no unit was touched");

    rack.heal();
    let begin = Instant::now();
    cluster.formed();
    println!("rack: no quorum: one leader and all machines ready {:?} after healing", begin.elapsed());
    always(Duration::from_secs(8), "every unit where it was, after healing", running);
    assert_eq!(cluster.at_home_now("h3", &units), Ok(homes.clone()), "nothing has moved");
    assert_eq!(cluster.main_pids(&homes), before, "no unit was touched");
}
