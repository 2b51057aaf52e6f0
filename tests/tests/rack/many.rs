//! Many units at once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use api::v1::State;
use tests::deploy::{Cluster, probes, set};
use tests::wait::eventually;

const COUNT: usize = 200;

pub fn two_hundred_units_come_and_go(cluster: &Cluster) {
    let rack = &cluster.rack;
    let names = probes("many", COUNT);
    rack.shell(
        "h1",
        &format!(
            "mkdir -p /tmp/many; cd /tmp/many; for n in {{1..{COUNT}}}; do \
         printf '[Service]\\nExecStart=/bin/sleep infinity\\n' >probe-many-$n.service; done"
        ),
    );
    let begin = Instant::now();
    let output = rack.try_exec("h1", &["bash", "-c", "corectl start /tmp/many/*"]).expect("h1 is on");
    let returned = begin.elapsed();
    assert!(output.status.success(), "corectl start: {}", tests::rack::said(&output));
    let (homes, _) = cluster.at_home(Duration::from_secs(30), "h2", &names);
    println!("rack: {COUNT} units: corectl start took {returned:?}, all active after {:?}", begin.elapsed());
    let mut loads: BTreeMap<&String, usize> = BTreeMap::new();
    for home in homes.values() {
        *loads.entry(home).or_default() += 1;
    }
    let fair = COUNT / rack.hosts().len();
    assert!(
        loads.len() == rack.hosts().len() && loads.values().all(|load| load.abs_diff(fair) <= 1),
        "{loads:?}"
    );

    let begin = Instant::now();
    let output = rack.try_exec("h3", &["bash", "-c", "corectl destroy probe-many-{1..200}.service"]);
    let output = output.expect("h3 is on");
    assert!(output.status.success(), "corectl destroy: {}", tests::rack::said(&output));
    let gone = || {
        let running = cluster.running(&["probe-many-*"]).len();
        let stored = cluster.units("h1")?.len();
        if running + stored == 0 { Ok(()) } else { Err(format!("{running} run, {stored} are stored")) }
    };
    eventually(Duration::from_secs(30), "all units gone", gone);
    let took = begin.elapsed();
    println!("rack: {COUNT} units: all gone {took:?} after corectl destroy began");
    assert!(took <= Duration::from_secs(10), "gone only after {took:?}");
    for host in rack.hosts() {
        let left = rack.shell(host, "find /run/coreinit/units -name 'probe-many-*' | wc -l");
        assert_eq!(left.trim(), "0", "files left on {host}");
    }
}

const GOOD: &str = "[Service]\nExecStart=/bin/sleep infinity\n";
/// Names that come before the others', of three kinds, as many as there are hosts.
const BAD: [(&str, &str); 3] = [
    ("absent", "[Service]\nExecStart=/nowhere/to/be/found\n"),
    // Its start hangs until somebody stops it.
    ("hangs", "[Service]\nType=oneshot\nTimeoutStartSec=900\nExecStart=/bin/sleep infinity\n"),
    ("refused", "[Service]\nType=simple\n"),
];

/// A hundred units with bad ones on every host: the good ones run as soon as without them.
pub fn bad_units_among_a_hundred_delay_no_other(cluster: &Cluster) {
    let bad: Vec<(String, &str)> = (0..cluster.rack.hosts().len())
        .flat_map(|n| BAD.map(|(kind, text)| (format!("probe-crowd-{kind}-{n}.service"), text)))
        .collect();
    let good = probes("crowd-well", 100 - bad.len());
    let launch = |bad: &[(String, &str)]| {
        let bad = bad.iter().map(|(name, text)| set(name, Some(text), State::Launched));
        let sets = good.iter().map(|name| set(name, Some(GOOD), State::Launched));
        let begin = Instant::now();
        cluster.batch("h1", bad.chain(sets).collect()).expect("it is acknowledged");
        cluster.at_home(Duration::from_secs(60), "h1", &good);
        begin.elapsed()
    };
    let alone = launch(&[]);
    let names = |kind: &str| (0..3).map(|n| format!("probe-crowd-{kind}-{n}.service")).collect::<Vec<_>>();
    cluster.types("h2", &format!("destroy {}", good.join(" "))).well();
    let with_bad = launch(&bad);
    println!(
        "rack: {} units active after {alone:?}, beside {} bad ones after {with_bad:?}",
        good.len(),
        bad.len()
    );
    let homes = cluster.homes("h1").expect("the daemon answers");
    for unit in names("hangs") {
        let said = cluster.systemd_says(&homes[&unit], &unit);
        assert_eq!(said.as_deref(), Ok("loaded activating start"), "{unit} still hangs");
    }
    // The machine may be busy with something else during one of the two.
    assert!(with_bad <= alone * 3 + Duration::from_secs(1), "{with_bad:?} against {alone:?}");

    for (kind, state, why) in
        [("absent", "failed", "exit-code (status 203)"), ("refused", "inactive", "bad unit file")]
    {
        for unit in names(kind) {
            eventually(Duration::from_secs(30), "the failure to be told", || {
                let states = cluster.unit("h1", &unit)?.states;
                let told = states.iter().any(|one| {
                    one.active == state
                        && one.failure.as_ref().is_some_and(|failure| failure.reason.contains(why))
                });
                if told { Ok(()) } else { Err(format!("{unit}: {states:?}")) }
            });
        }
    }
    let all = bad.iter().map(|(name, _)| name).chain(&good).cloned().collect::<Vec<_>>();
    cluster.types("h3", &format!("destroy {}", all.join(" "))).well();
    eventually(Duration::from_secs(30), "nothing to be left", || cluster.nothing_left_now());
}
