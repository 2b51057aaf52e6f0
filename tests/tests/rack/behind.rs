//! What others do to a machine's systemd behind the daemon's back: what is seen, what is mended, and what is
//! respected.

use std::collections::BTreeMap;
use std::time::Duration;

use tests::deploy::{Cluster, probes};
use tests::wait::{always, eventually};

const LIMIT: Duration = Duration::from_secs(30);
/// Longer than the daemon's slow pass: by then it has looked at everything.
const A_PASS: Duration = Duration::from_secs(11);

fn unit(kind: &str) -> String {
    format!("probe-{kind}.service")
}

fn file(unit: &str) -> String {
    format!("/run/coreinit/units/{unit}")
}

fn link(unit: &str) -> String {
    format!("/run/systemd/system/{unit}")
}

#[track_caller]
fn comes_to(cluster: &Cluster, unit: &str, expected: &str) {
    eventually(LIMIT, &format!("{unit} to be {expected}"), || match cluster.cluster_says("h1", unit)? {
        said if said == expected => Ok(()),
        said => Err(said),
    });
}

/// What somebody stopped, stays stopped, and is told as such; what somebody started, is told, and can be
/// stopped by the cluster. A daemon that comes back, and a look at everything, change nothing about that.
pub fn what_is_done_by_hand_is_respected(cluster: &Cluster) {
    let (stopped, killed, started, starting) =
        (unit("stopped"), unit("killed"), unit("started"), unit("starting"));
    let units = [stopped.clone(), killed.clone(), started.clone()];
    cluster.launch("h1", &units);
    let (mut homes, _) = cluster.at_home(LIMIT, "h1", &units);
    cluster.types("h1", &format!("stop {started}")).well();
    let slow = "[Service]\nExecStartPre=/bin/sleep 600\nExecStart=/bin/sleep infinity\nTimeoutStartSec=900\n";
    let slow = cluster.lay_out("h1", &[(&starting, slow)]);
    let by_hand = |homes: &BTreeMap<String, String>, verb: &str, unit: &String| {
        cluster.rack.exec(&homes[unit], &["systemctl", verb, unit]);
    };
    std::thread::scope(|scope| {
        let start = scope.spawn(|| cluster.types("h1", &format!("start --timeout 60s {slow}")));
        comes_to(cluster, &starting, "loaded activating start-pre");
        homes = cluster.homes("h1").expect("the daemon answers");
        by_hand(&homes, "stop", &starting);
        start.join().expect("it ends").is(1, &["another job took its place"]);
    });
    by_hand(&homes, "stop", &stopped);
    by_hand(&homes, "start", &started);
    cluster.rack.kill_main(&homes[&killed], &killed);
    comes_to(cluster, &stopped, "loaded inactive dead");
    comes_to(cluster, &killed, "loaded failed failed");
    comes_to(cluster, &started, "loaded active running");
    let status = cluster.types("h1", &format!("status {stopped}"));
    status.is(3, &["Active: inactive (dead)", "Desired: launched"]);
    cluster.types("h1", &format!("status {killed}")).is(3, &["signal (killed by signal 9)"]);

    for host in cluster.rack.hosts() {
        cluster.kill_daemon(host);
    }
    cluster.formed();
    always(A_PASS, "what was done by hand", || {
        let running = cluster.running(&["probe-*"]);
        let expected = BTreeMap::from([(started.clone(), vec![homes[&started].clone()])]);
        if running == expected { Ok(()) } else { Err(format!("{running:?}")) }
    });

    cluster.types("h1", &format!("stop {started}")).is(0, &["inactive (dead)"]);
    by_hand(&homes, "mask", &started);
    cluster.types("h1", &format!("start {started}")).is(1, &["masked"]);
    by_hand(&homes, "unmask", &started);
    cluster.types("h1", &format!("start {started}")).is(0, &["active (running)"]);
    cluster.types("h1", &format!("start {stopped} {killed}")).is(0, &["active (running)"]);
    let again = [stopped.clone(), killed.clone()];
    assert_eq!(cluster.at_home_now("h1", &again).map(|now| now.len()), Ok(2));
    cluster.types("h1", &format!("destroy {stopped} {killed} {started} {starting}")).well();
    eventually(LIMIT, "nothing to be left", || cluster.nothing_left_now());
}

/// Files and links that are deleted or edited are put right, and what runs runs on.
pub fn lost_files_are_put_back(cluster: &Cluster) {
    let rack = &cluster.rack;
    let kinds = ["file", "link", "both", "edited", "blinked", "stopped", "destroyed"];
    let units: Vec<String> = kinds.iter().map(|kind| unit(kind)).collect();
    cluster.launch("h1", &units);
    let (homes, _) = cluster.at_home(LIMIT, "h1", &units);
    let before = cluster.main_pids(&homes);
    let text = cluster.read(&homes[&unit("file")], &file(&unit("file")));
    assert!(text.contains("sleep infinity"), "{text}");

    for (kind, unit) in kinds.iter().zip(&units) {
        let (file, link) = (file(unit), link(unit));
        let deed = match *kind {
            "file" => format!("rm {file}"),
            "link" => format!("rm {link}"),
            "blinked" => continue,
            "edited" => format!("echo Restart=always >>{file}"),
            _ => format!("rm {file} {link}"),
        };
        rack.shell(&homes[unit], &deed);
    }
    rack.hosts().iter().for_each(|host| drop(rack.exec(host, &["systemctl", "daemon-reload"])));
    // Gone and back while nobody but systemd looks, which says no word of it when asked later.
    let blinked = unit("blinked");
    let deed = format!(
        "systemctl kill -s STOP coreinitd; mv {0} {0}.away; systemctl daemon-reload
         systemctl show -P LoadState {blinked}; mv {0}.away {0}; systemctl kill -s CONT coreinitd",
        file(&blinked)
    );
    let load = rack.shell(&homes[&blinked], &deed);
    assert!(!load.contains("loaded"), "{load}");
    cluster.types("h1", &format!("destroy {}", unit("destroyed"))).is(0, &["gone"]);
    let lost = unit("stopped");
    rack.exec(&homes[&lost], &["systemctl", "stop", &lost]);

    let kept: BTreeMap<String, String> = homes
        .iter()
        .filter(|(unit, _)| !unit.contains("destroyed"))
        .map(|(u, h)| (u.clone(), h.clone()))
        .collect();
    for (unit, home) in &kept {
        eventually(LIMIT, "the file and its link to be back", || {
            // The link leads to a place that only the host has.
            let read =
                |path: String| rack.try_exec(home, &["cat", &path]).map(|output| tests::rack::said(&output));
            let (file, linked) = (read(file(unit))?, read(link(unit))?);
            let reload = rack.exec(home, &["systemctl", "show", "-P", "NeedDaemonReload", unit]);
            let said = cluster.systemd_says(home, unit)?;
            let good = said == "loaded active running" || (*unit == lost && !said.contains(" active "));
            match file == text.trim() && linked == file && reload.trim() == "no" && good {
                true => Ok(()),
                false => Err(format!("{unit}: file {file:?}, link {linked:?}, {said}, reload {reload}")),
            }
        });
        comes_to(cluster, unit, if *unit == lost { "loaded inactive dead" } else { "loaded active running" });
    }
    let running: BTreeMap<_, _> = kept.clone().into_iter().filter(|(unit, _)| *unit != lost).collect();
    let after = cluster.main_pids(&running);
    assert!(after.iter().all(|(unit, pid)| before[unit] == *pid), "what runs runs on: {before:?} {after:?}");

    cluster.types("h1", &format!("start {lost}")).is(0, &["active (running)"]);
    let names = kept.keys().cloned().collect::<Vec<_>>().join(" ");
    cluster.types("h2", &format!("stop {names}")).well();
    cluster.types("h2", &format!("destroy {names}")).well();
    eventually(LIMIT, "nothing to be left", || cluster.nothing_left_now());
}

/// Units come and go while each of these happens on every host, and what runs is not touched.
pub fn work_goes_on_through_reloads_and_lost_buses(cluster: &Cluster) {
    let rack = &cluster.rack;
    let stay = probes("stay", 3);
    cluster.launch("h1", &stay);
    let (homes, _) = cluster.at_home(LIMIT, "h1", &stay);
    let before = cluster.main_pids(&homes);
    for (kind, deed) in [
        ("reload", "systemctl daemon-reload"),
        ("reexec", "systemctl daemon-reexec"),
        // As often as it is done here, systemd would not let it be done.
        ("bus", "systemctl reset-failed dbus.service; systemctl restart dbus.service"),
    ] {
        let units = probes(kind, 6);
        let files: Vec<(&str, &str)> =
            units.iter().map(|unit| (unit.as_str(), "[Service]\nExecStart=/bin/sleep infinity\n")).collect();
        let (files, names) = (cluster.lay_out("h1", &files), units.join(" "));
        for words in [format!("start {files}"), format!("stop {names}"), format!("destroy {names}")] {
            std::thread::scope(|scope| {
                let typed = scope.spawn(|| cluster.types("h1", &words));
                while !typed.is_finished() {
                    rack.hosts().iter().for_each(|host| drop(rack.shell(host, deed)));
                }
                typed.join().expect("it ends").well();
            });
            if words.starts_with("start") {
                cluster.at_home(LIMIT, "h2", &units);
            }
        }
        // The daemons hear of what happens by itself again.
        let killed = &stay[0];
        rack.kill_main(&homes[killed], killed);
        comes_to(cluster, killed, "loaded failed failed");
        cluster.types("h3", &format!("start {killed}")).is(0, &["active (running)"]);
    }
    let after = cluster.main_pids(&homes);
    assert!(stay[1..].iter().all(|unit| before[unit] == after[unit]), "{before:?} {after:?}");
}
