//! Many units at once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tests::deploy::{Cluster, probes};
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
