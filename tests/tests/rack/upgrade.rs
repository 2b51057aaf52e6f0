//! Daemons that are replaced one after another, as an upgrade does it, while everybody writes.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use api::v1::{Operation, State};
use tests::deploy::{Cluster, DATA_DIR, next_daemon, probes, set};
use tests::wait::{eventually, pause};

const TEXT: &str = "[Service]\nExecStart=/bin/sleep infinity\n";
const DAEMON: &str = "coreinitd.service";
const LIMIT: Duration = Duration::from_secs(30);
/// Another daemon than /usr/bin/coreinitd, and what has systemd start it.
const OTHER: &str = "/opt/other/coreinitd";
const DROP_IN: &str = "/etc/systemd/system/coreinitd.service.d/other.conf";

/// The leader first: every other order is easier. In the end each machine has been the restarted one.
pub fn a_rolling_restart_loses_no_write_and_stops_no_unit(cluster: &Cluster) {
    rolled(cluster, "restarted", |host| drop(cluster.rack.exec(host, &["systemctl", "restart", DAEMON])));
}

/// From one version to the next, which knows one command more. While a machine is left that could not read
/// it, it is refused with that machine's name; then it works, and the version before is kept out.
///
/// The older version is today's build and the newer one has the feature `next`. `COREINIT_PREVIOUS` names a
/// folder with an older `coreinitd`, such as the last release's: then that is the older one, today's the
/// newer, and there is no command that only one of them has.
pub fn an_upgrade_under_load_waits_for_the_last_machine(cluster: &Cluster) {
    let rack = &cluster.rack;
    let previous =
        std::env::var_os("COREINIT_PREVIOUS").map(|folder| PathBuf::from(folder).join("coreinitd"));
    let other = previous.clone().unwrap_or_else(next_daemon);
    for host in rack.hosts() {
        rack.exec(host, &["mkdir", "-p", "/opt/other"]);
        rack.put(host, &other, OTHER);
        rack.exec(host, &["chmod", "755", OTHER]);
    }
    if previous.is_some() {
        // It forms the cluster: nothing goes back over versions.
        begin_anew(cluster, |host| use_other(cluster, host));
        rolled(cluster, "upgraded", |host| {
            use_usual(cluster, host);
            rack.exec(host, &["systemctl", "restart", DAEMON]);
        });
        return;
    }
    let mut upgraded: Vec<String> = Vec::new();
    rolled(cluster, "upgraded", |host| {
        if let Some(first) = upgraded.first() {
            let said = cluster.call(first, "POST", "/v1/next", RENAMING).expect("an answer");
            let waits_for = |host: &&String| {
                !upgraded.contains(host) && said.text().contains(&format!("{host} (machine"))
            };
            assert_eq!(said.status, 409, "{}", said.text());
            assert!(rack.hosts().iter().any(|host| waits_for(&host)), "{}", said.text());
            assert!(said.text().contains("upgrade coreinit there"), "{}", said.text());
        }
        use_other(cluster, host);
        rack.exec(host, &["systemctl", "restart", DAEMON]);
        upgraded.push(host.into());
    });
    let ((), took) = eventually(LIMIT, "the newer command to be taken", || {
        match cluster.call("h1", "POST", "/v1/next", RENAMING)? {
            answer if answer.status == 200 => Ok(()),
            answer => Err(answer.text()),
        }
    });
    println!("rack: upgrade: the newer command works {took:.1?} after the last machine is back");
    eventually(LIMIT, "all machines to know what came of it", || {
        rack.hosts().iter().try_for_each(|host| match cluster.status(host)?.cluster_name {
            Some(name) if name == "renamed" => Ok(()),
            name => Err(format!("{host}: {name:?}")),
        })
    });

    // Whoever goes back to what cannot read that command is told so, and touches nothing of it.
    use_usual(cluster, "h3");
    rack.exec("h3", &["systemctl", "restart", "--no-block", DAEMON]);
    eventually(LIMIT, "the older daemon to say what it lacks", || {
        let log = cluster.daemon_log("h3", 100);
        match ["upgrade coreinit", "newer version"].iter().any(|words| log.contains(words)) {
            true => Ok(()),
            false => Err(log),
        }
    });
    use_other(cluster, "h3");
    rack.exec("h3", &["systemctl", "restart", DAEMON]);
    cluster.formed();
    assert!(rack.shell("h3", "ls -d /data/coreinit.* || true").trim().is_empty(), "its store is no damage");
    begin_anew(cluster, |host| use_usual(cluster, host));
}

const RENAMING: &[u8] = b"{\"name\": \"renamed\"}";

fn use_other(cluster: &Cluster, host: &str) {
    let script = format!("printf '[Service]\\nExecStart=\\nExecStart={OTHER}\\n' >{DROP_IN}");
    cluster.rack.shell(host, &format!("{script}; systemctl daemon-reload"));
}

fn use_usual(cluster: &Cluster, host: &str) {
    cluster.rack.shell(host, &format!("rm -f {DROP_IN}; systemctl daemon-reload"));
}

/// A new cluster on the same hosts.
fn begin_anew(cluster: &Cluster, prepare: impl Fn(&str)) {
    let hosts = cluster.rack.hosts();
    for host in hosts {
        cluster.stop_daemon(host);
        cluster.rack.shell(host, &format!("rm -rf {DATA_DIR}*"));
        prepare(host);
    }
    hosts.iter().for_each(|host| cluster.start_daemon(host));
    cluster.formed();
}

/// Has `replace` done to one host after the other under writes, the leader's first. No write is lost, and no
/// unit is touched.
fn rolled(cluster: &Cluster, done: &str, mut replace: impl FnMut(&str)) {
    let rack = &cluster.rack;
    let units = probes("rolling", 9);
    cluster.launch("h1", &units);
    let (homes, _) = cluster.at_home(Duration::from_secs(20), "h1", &units);
    let before = cluster.main_pids(&homes);
    let leader = cluster.formed();
    let order: Vec<String> = [vec![leader.clone()], rack.others(&leader)].concat();
    let (written, refused) = under_writes(cluster, |goes_on| {
        for host in &order {
            let begin = Instant::now();
            replace(host);
            let replaced = begin.elapsed();
            // As the operator is told to: the next one when this one is back.
            cluster.formed();
            println!("rack: rolling: {host} {done} in {replaced:.1?}, back after {:.1?}", begin.elapsed());
            goes_on();
        }
    });

    for host in rack.hosts() {
        let stored = cluster.units(host).expect("an answer");
        let stored: BTreeSet<String> = stored.into_iter().map(|unit| unit.name.to_string()).collect();
        let lost: Vec<&String> = written.difference(&stored).collect();
        assert!(lost.is_empty(), "{host} has lost {lost:?}");
    }
    assert_eq!(cluster.at_home_now("h1", &units), Ok(homes.clone()), "nothing has moved");
    assert_eq!(cluster.main_pids(&homes), before, "no unit was touched");
    let (count, units) = (written.len(), units.len());
    println!(
        "rack: rolling: {count} writes acknowledged, {refused} refused, none lost; {units} units untouched"
    );
    let names: Vec<String> = written.into_iter().collect();
    for names in names.chunks(500) {
        let destroy = |name: &String| Operation::Destroy { name: name.clone() };
        cluster.batch("h1", names.iter().map(destroy).collect()).expect("they are destroyed");
    }
}

/// Writes on every host while `act` runs; it is given a way to wait until some more writes were made. Gives
/// what was acknowledged, and how much was not.
fn under_writes(cluster: &Cluster, act: impl FnOnce(&dyn Fn())) -> (BTreeSet<String>, usize) {
    let (stop, refused) = (AtomicBool::new(false), AtomicUsize::new(0));
    let acknowledged = AtomicUsize::new(0);
    let written = std::thread::scope(|scope| {
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
        let hosts = cluster.rack.hosts();
        let writers: Vec<_> = hosts.iter().map(|host| scope.spawn(writer(host.clone()))).collect();
        // They must not go on for ever when something fails.
        let acted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let goes_on = || {
                let from = acknowledged.load(Ordering::Relaxed);
                eventually(LIMIT, "writes to go on", || {
                    let now = acknowledged.load(Ordering::Relaxed);
                    if now >= from + 30 { Ok(()) } else { Err(format!("{from} and now {now}")) }
                });
            };
            goes_on();
            act(&goes_on);
        }));
        stop.store(true, Ordering::Relaxed);
        let written = writers.into_iter().flat_map(|writer| writer.join().expect("a writer ends")).collect();
        acted.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        written
    });
    (written, refused.load(Ordering::Relaxed))
}
