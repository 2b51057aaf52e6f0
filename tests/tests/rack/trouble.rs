//! Units that fail, take long, never get ready or do not want to stop: the commands say so, and nobody else
//! waits for them.

use std::time::Duration;

use tests::deploy::{Cluster, probes};
use tests::hands::Said;
use tests::wait::eventually;

const LIMIT: Duration = Duration::from_secs(60);
/// A file that units wait for.
const GATE: &str = "/run/probe-gate";
/// To wait for it.
const AT_GATE: &str = "until [ -e /run/probe-gate ]; do sleep 0.1; done";

fn every_host_has_a_gate(cluster: &Cluster) {
    cluster.rack.hosts().iter().for_each(|host| cluster.touch(host, GATE));
}

fn no_host_has_a_gate(cluster: &Cluster) {
    cluster.rack.hosts().iter().for_each(|host| drop(cluster.rack.exec(host, &["rm", "-f", GATE])));
}

#[track_caller]
fn comes_to(cluster: &Cluster, unit: &str, expected: &str) {
    eventually(LIMIT, &format!("{unit} to be {expected}"), || match cluster.cluster_says("h1", unit)? {
        said if said == expected => Ok(()),
        said => Err(said),
    });
}

/// One takes long before it starts, one is not ready for long, one is asked to stop and does not: their
/// commands wait, and the others' do not.
pub fn slow_units_are_waited_for_and_delay_no_other(cluster: &Cluster) {
    no_host_has_a_gate(cluster);
    let slow = format!(
        "[Service]\nExecStartPre=/bin/sh -c '{AT_GATE}'\nExecStart=/bin/sleep infinity\nTimeoutStartSec=600\n"
    );
    let late = format!(
        "[Service]\nType=notify\nNotifyAccess=all\nTimeoutStartSec=600\n\
         ExecStart=/bin/sh -c '{AT_GATE}; systemd-notify --ready; exec sleep infinity'\n"
    );
    let stubborn =
        format!("[Service]\nExecStart=/bin/sh -c 'trap \"\" TERM; {AT_GATE}'\nTimeoutStopSec=600\n");
    let file = |name: &str, text: &str| cluster.lay_out("h1", &[(name, text)]);
    let (slow, late) = (file("probe-slow.service", &slow), file("probe-late.service", &late));
    let stubborn = file("probe-stubborn.service", &stubborn);
    cluster.types("h1", &format!("start {stubborn}")).is(0, &["active (running)"]);

    let waiting = || {
        comes_to(cluster, "probe-slow.service", "loaded activating start-pre");
        comes_to(cluster, "probe-late.service", "loaded activating start");
        comes_to(cluster, "probe-stubborn.service", "loaded deactivating stop-sigterm");
    };
    std::thread::scope(|scope| {
        let typed = |words: String| scope.spawn(move || cluster.types("h1", &words));
        let starts = [typed(format!("start {slow}")), typed(format!("start {late}"))];
        let stop = typed("stop probe-stubborn".into());
        // Whatever goes wrong here, the threads must end for it to be told.
        let gate = Gate(cluster);
        waiting();
        cluster.types("h1", "status probe-slow").is(3, &["activating (start-pre)", "not carried out yet"]);
        let quick = probes("quick", 6);
        cluster.launch("h2", &quick);
        let names = quick.join(" ");
        cluster.types("h2", &format!("start {names}")).well();
        cluster.types("h3", &format!("restart {names}")).well();
        cluster.types("h3", &format!("stop {names}")).well();
        cluster.types("h1", &format!("destroy {names}")).well();
        cluster.types("h2", "start --timeout 300ms probe-slow").is(1, &["not in time; the wish stays"]);
        waiting();
        drop(gate);
        for start in starts {
            start.join().expect("it ends").is(0, &["active (running)"]);
        }
        stop.join().expect("it ends").is(0, &["inactive (dead)"]);
    });
    cluster.types("h1", "destroy probe-slow probe-late probe-stubborn").well();
    no_host_has_a_gate(cluster);
}

/// Opens when it goes.
struct Gate<'a>(&'a Cluster);

impl Drop for Gate<'_> {
    fn drop(&mut self) {
        every_host_has_a_gate(self.0);
    }
}

const FAILS: &str = "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo no luck today; exit 3'\n";
const NEVER_READY: &str = "[Service]\nType=notify\nTimeoutStartSec=1\nExecStart=/bin/sleep infinity\n";
const REFUSED: &str = "[Service]\nType=simple\n";
const ABSENT: &str = "[Service]\nExecStart=/nowhere/to/be/found\n";
const NEEDY: &str = "[Unit]\nRequires=probe-nobody.service\n[Service]\nExecStart=/bin/sleep infinity\n";

/// What `corectl` says of units that do not start, and that one may try again.
pub fn a_failed_start_says_why(cluster: &Cluster) {
    let check = |name: &str, text: &str, words: &[&str]| {
        let file = cluster.lay_out("h1", &[(name, text)]);
        cluster.types("h1", &format!("start {file}")).is(1, words);
        // The same again: it is tried again.
        cluster.types("h2", &format!("start {name}")).is(1, words);
        cluster.types("h2", &format!("status {name}")).is(3, &words[..1]);
        // What has failed need not be stopped.
        cluster.types("h2", &format!("stop {name}")).well();
        cluster.types("h3", &format!("destroy {name}")).is(0, &["gone"]);
    };
    check("probe-fails.service", FAILS, &["start job failed: exit-code (status 3)", "no luck today"]);
    check("probe-unready.service", NEVER_READY, &["start job failed: timeout"]);
    check("probe-refused.service", REFUSED, &["bad unit file setting"]);
    check("probe-needy.service", NEEDY, &["probe-nobody.service not found"]);

    // To systemd, and so to us, a simple service has started as soon as it has a process.
    let file = cluster.lay_out("h1", &[("probe-absent.service", ABSENT)]);
    in_time(cluster.types("h1", &format!("start --timeout 60s {file}")));
    comes_to(cluster, "probe-absent.service", "loaded failed failed");
    cluster.types("h2", "status probe-absent").is(3, &["exit-code (status 203)"]);
    cluster.types("h3", "destroy probe-absent").is(0, &["gone"]);
    eventually(LIMIT, "nothing to be left", || cluster.nothing_left_now());
}

/// It has ended by itself, well or badly.
#[track_caller]
fn in_time(said: Said) -> Said {
    assert!(!said.err.contains("not in time"), "{said}");
    said
}

/// Units that systemd starts again and again (`Restart=`).
pub fn a_unit_that_goes_round_is_told(cluster: &Cluster) {
    let text = |options: &str| {
        format!("[Service]\nExecStart=/bin/sh -c 'echo again >>/run/probe-rounds; exit 7'\n{options}")
    };
    // Until systemd has had enough.
    let limited =
        text("Restart=always\nRestartSec=50ms\n[Unit]\nStartLimitBurst=3\nStartLimitIntervalSec=600\n");
    let file = cluster.lay_out("h1", &[("probe-round.service", &limited)]);
    in_time(cluster.types("h1", &format!("start --timeout 60s {file}")));
    comes_to(cluster, "probe-round.service", "loaded failed failed");
    cluster.types("h2", "status probe-round").is(3, &["exit-code (status 7)"]);
    let home = cluster.homes("h1").expect("the daemon answers")["probe-round.service"].clone();
    let rounds = || cluster.read(&home, "/run/probe-rounds").lines().count();
    assert_eq!(rounds(), 3);
    in_time(cluster.types("h1", "start --timeout 60s probe-round"));
    eventually(LIMIT, "three more rounds", || match rounds() {
        6 => Ok(()),
        rounds => Err(format!("{rounds} rounds")),
    });
    comes_to(cluster, "probe-round.service", "loaded failed failed");
    cluster.types("h3", "destroy probe-round").is(0, &["gone"]);

    // For ever, with long pauses: nobody waits for what may never come.
    for kind in ["simple", "notify", "oneshot"] {
        let restart = if kind == "oneshot" { "on-failure" } else { "always" };
        let endless = text(&format!(
            "Type={kind}\nRestart={restart}\nRestartSec=1h\n[Unit]\nStartLimitIntervalSec=0\n"
        ));
        let name = format!("probe-{kind}.service");
        let file = cluster.lay_out("h1", &[(&name, &endless)]);
        let said = in_time(cluster.types("h1", &format!("start --timeout 60s {file}")));
        if kind != "simple" {
            said.is(1, &["activating (auto-restart)", "exit-code (status 7)"]);
        }
        comes_to(cluster, &name, "loaded activating auto-restart");
        cluster.types("h2", &format!("status {name}")).is(3, &["exit-code (status 7)"]);
        cluster.types("h2", &format!("stop {name}")).is(0, &["inactive (dead)"]);
        cluster.types("h3", &format!("destroy {name}")).is(0, &["gone"]);
    }
    eventually(LIMIT, "nothing to be left", || cluster.nothing_left_now());
}

/// systemd kills them when `TimeoutStopSec=` is over, and the commands wait for that.
pub fn a_unit_that_does_not_stop_is_killed(cluster: &Cluster) {
    let text = "[Service]\n\
        ExecStart=/bin/sh -c 'trap \"\" TERM; touch /run/probe-trap; while :; do sleep 1; done'\n\
        TimeoutStopSec=2\n";
    let file = cluster.lay_out("h1", &[("probe-stubborn.service", text)]);
    let started = |words: &str| {
        cluster.types("h1", &format!("start {words}")).is(0, &["active (running)"]);
        let home = cluster.homes("h1").expect("the daemon answers")["probe-stubborn.service"].clone();
        // Before, a SIGTERM would end it.
        eventually(LIMIT, "the trap to be set", || match cluster.rack.path(&home, "/run/probe-trap") {
            Some(path) => std::fs::remove_file(path).map_err(|e| e.to_string()),
            None => Err(format!("{home} is off")),
        });
    };
    started(&file);
    cluster.types("h2", "stop probe-stubborn").is(0, &["failed (failed)"]);
    cluster.types("h2", "status probe-stubborn").is(3, &["Failure: timeout"]);
    started("probe-stubborn");
    cluster.types("h3", "destroy probe-stubborn").is(0, &["gone"]);
    eventually(LIMIT, "nothing to be left", || cluster.nothing_left_now());
}
