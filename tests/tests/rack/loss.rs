//! Power cuts: the units of a dead host run elsewhere, a host that returns starts none of them, and what was
//! acknowledged outlives everything losing power at once.

use std::time::{Duration, Instant};

use tests::deploy::{Cluster, probes, set};
use tests::rack::Watch;
use tests::wait::{always, eventually, median};

const ROUNDS: usize = 5;

pub fn a_machine_without_power_loses_its_units(cluster: &Cluster) {
    // Six seconds of silence, and a busy machine.
    power_cuts(cluster, ROUNDS, Duration::from_secs(12));
}

/// One host after another, so many times; in the middle its units run elsewhere within `limit`.
pub fn power_cuts(cluster: &Cluster, rounds: usize, limit: Duration) {
    let rack = &cluster.rack;
    let units = probes("cut", 6);
    cluster.launch("h1", &units);
    cluster.at_home(Duration::from_secs(20), "h1", &units);
    let mut times = Vec::new();
    for round in 0..rounds {
        let host = rack.hosts()[round % rack.hosts().len()].clone();
        let other = rack.others(&host)[0].clone();
        cluster.formed();
        let homes = cluster.at_home(Duration::from_secs(20), &other, &units).0;
        let lost: Vec<String> =
            homes.iter().filter(|(_, home)| **home == host).map(|(name, _)| name.clone()).collect();

        let cut = Instant::now();
        rack.kill(&host);
        let elsewhere = || {
            let running = cluster.running(&["probe-cut-*"]);
            let missing = lost.iter().find(|name| !running.contains_key(*name));
            missing.map_or(Ok(()), |name| Err(format!("{name} runs nowhere")))
        };
        eventually(Duration::from_secs(30), "the dead host's units to run elsewhere", elsewhere);
        let took = cut.elapsed();
        println!("rack: power cut of {host}: its {} units active elsewhere after {took:?}", lost.len());
        // Nothing to move says nothing about moving.
        times.extend((!lost.is_empty()).then_some(took));
        let (homes, _) = cluster.at_home(Duration::from_secs(5), &other, &units);

        let watch = Watch::begin(rack, "probe-cut-*");
        let back = Instant::now();
        rack.start(&host);
        cluster.formed();
        always(Duration::from_secs(3), "every unit on its one home", || {
            cluster.at_home_now(&other, &units).map(drop)
        });
        let seen = watch.end();
        let looks = seen.iter().filter(|look| look.host == host && look.at > back).count();
        assert!(looks > 5, "the host was watched: {looks} looks");
        for look in seen {
            let strange = look.units.iter().find(|name| homes.get(*name) != Some(&look.host));
            assert_eq!(strange, None, "ran on {} {:?} after the power came back", look.host, look.at - back);
        }
        assert_eq!(cluster.at_home_now(&host, &units), Ok(homes), "nothing moves when a host returns");
        // Some work for the host again, so that the next rounds have something to lose.
        let fresh = format!("probe-more-{round}.service");
        cluster.launch(&other, std::slice::from_ref(&fresh));
        cluster.at_home(Duration::from_secs(10), &other, &[fresh]);
    }
    println!("rack: power cut: {times:?}, p50 {:?}", median(&times));
    assert!(rounds <= 2 * times.len(), "too few rounds had units to move: {times:?}");
    assert!(median(&times) <= limit, "{times:?}");
}

pub fn nothing_acknowledged_is_lost(cluster: &Cluster) {
    let rack = &cluster.rack;
    let units = probes("kept", 12);
    cluster.launch("h1", &units);
    let (homes, _) = cluster.at_home(Duration::from_secs(20), "h2", &units);
    let before = cluster.main_pids(&homes);

    for host in rack.hosts() {
        cluster.kill_daemon(host);
    }
    eventually(Duration::from_secs(20), "the daemons to be started again", || {
        let log = |host: &String| cluster.status(host).map(drop);
        rack.hosts().iter().try_for_each(log)
    });
    cluster.formed();
    assert_eq!(cluster.at_home_now("h1", &units), Ok(homes.clone()), "nothing has moved");
    assert_eq!(cluster.main_pids(&homes), before, "no unit was touched");

    // The last is acknowledged just before the power goes.
    let last = "probe-kept-last.service";
    let text = "[Service]\nExecStart=/bin/sleep infinity\n";
    cluster.batch("h3", vec![set(last, Some(text), api::v1::State::Launched)]).expect("it is acknowledged");
    for host in rack.hosts() {
        rack.kill(host);
    }
    for host in rack.hosts() {
        rack.start(host);
    }
    let begin = Instant::now();
    cluster.formed();
    println!("rack: all hosts without power: formed {:?} after the last one booted", begin.elapsed());
    let all: Vec<String> = units.into_iter().chain([last.to_string()]).collect();
    let (_, took) = cluster.at_home(Duration::from_secs(30), "h1", &all);
    println!("rack: all hosts without power: all {} units active after another {took:?}", all.len());
    for host in rack.hosts() {
        let stored = cluster.unit(host, last).expect("it is stored");
        assert_eq!(
            stored.hash,
            cluster::UnitFile::parse(text).expect("it is good").hash().to_string(),
            "{host}"
        );
    }
}
