//! The same daemons on an etcd of three members, one on each host: the rack's main scenarios once more, and
//! what happens to etcd alone. Whatever it is, no unit ends, and when etcd is back everything goes on by
//! itself.
//!
//! One scenario of many steps, since moving the cluster there and back is dear. Each step begins with a
//! formed
//! and empty cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use api::v1::State;
use cluster::UnitFile;
use tests::deploy::{Cluster, DATA_DIR, probes, set};
use tests::wait::{always, eventually, pause};

use crate::{loss, quorum, start};

const TEXT: &str = "[Service]\nExecStart=/bin/sleep infinity\n";
const CONFIG: &str = "/etc/coreinit/coreinitd.toml";
const ETCD: &str = "etcd.service";
/// All of etcd is away for so long.
const AWAY: Duration = Duration::from_secs(120);
/// An etcd that has just lost its leader keeps a write for 5 s before its outcome is unknown.
const WRITE_LIMIT: Duration = Duration::from_secs(12);
/// The lease of a leader ends first, and then the next one gives everybody a full period.
const LOSS_LIMIT: Duration = Duration::from_secs(18);

type Step = fn(&Cluster);

const STEPS: &[(&str, Step)] = &[
    ("the examples", start::examples_run),
    ("journals of other machines", journals_come_from_other_machines),
    ("a fleet taken over", a_fleet_is_taken_over),
    ("daemons killed", |cluster| quorum::leaders_are_replaced(cluster, 2)),
    ("the leader and its member of etcd cut off", |cluster| quorum::leader_cut_off(cluster, WRITE_LIMIT)),
    ("every host alone", |cluster| quorum::every_host_alone(cluster, Duration::from_secs(15))),
    ("power cuts", |cluster| loss::power_cuts(cluster, 2, LOSS_LIMIT)),
    ("all hosts without power", loss::nothing_acknowledged_is_lost),
    ("members of etcd killed under load", members_are_killed_under_load),
    ("two of three members stopped", two_of_three_members_are_stopped),
    ("all of etcd away", all_of_etcd_is_away),
];

pub fn the_state_may_be_kept_in_etcd(cluster: &Cluster) {
    let running = Running::begin(cluster, "moved");
    move_to_etcd(cluster);
    for host in cluster.rack.hosts() {
        let said = cluster.daemon_log(host, 100);
        assert!(said.contains("the state is kept there") && said.contains("using etcd 3."), "{host}: {said}");
    }
    running.untouched(cluster);
    for (name, step) in STEPS {
        cluster.clean();
        let begin = Instant::now();
        step(cluster);
        println!("rack: etcd: {name}: {:.0?} in all", begin.elapsed());
    }
    cluster.clean();
    let running = Running::begin(cluster, "moves");
    move_back(cluster);
    running.untouched(cluster);
}

/// Stops the daemons, gives each host a member of a new etcd, moves the state there, and starts the
/// daemons on
/// it.
fn move_to_etcd(cluster: &Cluster) {
    let rack = &cluster.rack;
    let hosts = rack.hosts();
    let peers: Vec<String> = hosts.iter().map(|host| format!("{host}=http://{host}:2380")).collect();
    for host in hosts {
        cluster.stop_daemon(host);
        // Debian's own unit is not used: it waits for a network that the rack does not have to wait for. The
        // write-ahead log takes 64 MB at once, which is all that /data has.
        let address = rack.address(host);
        let unit = format!(
            "[Service]\nType=notify\nRestart=always\nRestartSec=500ms\nExecStart=/usr/bin/etcd --name={host} \
             --data-dir=/var/lib/etcd-rack --enable-v2 --advertise-client-urls=http://{host}:2379 \
             --listen-client-urls=http://{address}:2379,http://127.0.0.1:2379 \
             --listen-peer-urls=http://{address}:2380 \
             --initial-advertise-peer-urls=http://{host}:2380 --initial-cluster={}\n\
             [Install]\nWantedBy=multi-user.target\n",
            peers.join(",")
        );
        rack.shell(host, &format!("printf %s '{unit}' >/etc/systemd/system/{ETCD}; systemctl daemon-reload"));
        rack.exec(host, &["systemctl", "enable", "--quiet", "--now", "--no-block", ETCD]);
        let endpoints =
            rack.others(host).iter().map(|host| format!(", \"http://{host}:2379\"")).collect::<String>();
        let more = format!("backend = \"etcd\"\netcd_endpoints = [\"http://127.0.0.1:2379\"{endpoints}]\n");
        // Nothing is formed and nobody is joined; all else stays.
        let script = format!(
            "mv {CONFIG} {CONFIG}.raft; grep -Ev '^(bootstrap_expect|join) ' {CONFIG}.raft >{CONFIG}
             printf %s '{more}' >>{CONFIG}"
        );
        rack.shell(host, &script);
    }
    healthy(cluster, "h1");
    let said = cluster.types("h1", "cluster migrate --from raft --to etcd").is(0, &["moved 6 units"]);
    println!("rack: etcd: {}", said.out.trim());
    hosts.iter().for_each(|host| cluster.start_daemon(host));
    cluster.formed();
}

/// On one host, which the others join.
fn move_back(cluster: &Cluster) {
    let rack = &cluster.rack;
    let hosts = rack.hosts();
    hosts.iter().for_each(|host| cluster.stop_daemon(host));
    hosts.iter().for_each(|host| drop(rack.exec(host, &["rm", "-r", DATA_DIR])));
    cluster.types("h1", "cluster migrate --from etcd --to raft").is(0, &["moved 6 units"]);
    for host in hosts {
        let script = format!(
            "systemctl disable --quiet --now {ETCD}; rm -r /var/lib/etcd-rack /etc/systemd/system/{ETCD}
             systemctl daemon-reload; mv {CONFIG}.raft {CONFIG}"
        );
        rack.shell(host, &script);
        cluster.start_daemon(host);
    }
    cluster.formed();
}

fn healthy(cluster: &Cluster, host: &str) {
    let healthy = || match cluster.rack.try_exec(host, &["etcdctl", "endpoint", "health"])? {
        output if output.status.success() => Ok(()),
        output => Err(tests::rack::said(&output)),
    };
    eventually(Duration::from_secs(30), "the member of etcd to serve", healthy);
}

/// Writes a unit that nobody runs until that is acknowledged.
fn write(cluster: &Cluster, host: &str, name: &str) -> Duration {
    let write = || cluster.batch(host, vec![set(name, Some(TEXT), State::Inactive)]).map(drop);
    eventually(Duration::from_secs(30), "a write to be acknowledged", write).1
}

/// Units that are at home, and the processes that must outlive whatever comes.
struct Running {
    homes: BTreeMap<String, String>,
    pids: BTreeMap<String, (String, u32)>,
    pattern: String,
}

impl Running {
    fn begin(cluster: &Cluster, kind: &str) -> Running {
        let units = probes(kind, 6);
        cluster.launch("h1", &units);
        let (homes, _) = cluster.at_home(Duration::from_secs(20), "h2", &units);
        let pids = cluster.main_pids(&homes);
        Running { homes, pids, pattern: format!("probe-{kind}-*") }
    }

    /// As systemd says, whatever the daemons know.
    fn stay(&self, cluster: &Cluster) -> Result<(), String> {
        let running = cluster.running(&[&self.pattern]);
        let at_home = |(name, home): (&String, &String)| {
            running.get(name).is_some_and(|hosts| hosts == std::slice::from_ref(home))
        };
        if self.homes.iter().all(at_home) { Ok(()) } else { Err(format!("{running:?}")) }
    }

    /// After all is well again: each is where it was, and none was started anew.
    fn untouched(&self, cluster: &Cluster) {
        let units: Vec<String> = self.homes.keys().cloned().collect();
        always(Duration::from_secs(8), "every unit where it was, after etcd came back", || {
            match cluster.at_home_now("h3", &units)? {
                now if now == self.homes => Ok(()),
                now => Err(format!("{now:?}")),
            }
        });
        assert_eq!(cluster.main_pids(&self.homes), self.pids, "no unit was touched");
    }
}

fn journals_come_from_other_machines(cluster: &Cluster) {
    let names = probes("word", 3);
    let text = "[Service]\nExecStart=/bin/sh -c 'echo a word of %H; exec sleep infinity'\n";
    let launch = |name: &String| set(name, Some(text), State::Launched);
    cluster.batch("h1", names.iter().map(launch).collect()).unwrap_or_else(|e| panic!("{e}"));
    let (homes, _) = cluster.at_home(Duration::from_secs(20), "h1", &names);
    for (name, home) in &homes {
        for host in cluster.rack.hosts() {
            let words = format!("a word of {home}");
            eventually(Duration::from_secs(10), "the journal", || {
                let said = cluster.types(host, &format!("journal {name}"));
                if said.code == 0 && said.out.contains(&words) { Ok(()) } else { Err(said.to_string()) }
            });
            // What systemd shows, the cluster knows a moment later.
            eventually(Duration::from_secs(10), "the status", || {
                let said = cluster.types(host, &format!("status {name}"));
                if said.code == 0 && said.out.contains("active (running)") {
                    Ok(())
                } else {
                    Err(said.to_string())
                }
            });
        }
    }
    let used: BTreeSet<&String> = homes.values().collect();
    assert!(used.len() > 1, "some are on other machines: {homes:?}");
}

/// A fleet's keys, written as fleet does it, become units that run, and nothing is given to the cluster by
/// hand.
fn a_fleet_is_taken_over(cluster: &Cluster) {
    let names = probes("fleet", 3);
    let text = "[Service]\nExecStart=/bin/sleep infinity\n\n[X-Fleet]\nConflicts=probe-fleet-*.service\n";
    let file = UnitFile::parse(text).expect("it is good");
    let bytes: Vec<String> = file.hash().0.iter().map(u8::to_string).collect();
    let mut keys = vec![
        (format!("unit/{}", file.hash()), format!("{{\"Raw\":{text:?}}}")),
        ("engine/version".into(), "1".into()),
        ("lease/engine-leader".into(), "{\"MachineID\":\"0a1b\",\"Version\":1}".into()),
        ("machines/0a1b/object".into(), "{\"ID\":\"0a1b\",\"PublicIP\":\"192.0.2.1\"}".into()),
    ];
    for name in &names {
        let object = format!("{{\"Name\":\"{name}\",\"UnitHash\":[{}]}}", bytes.join(","));
        keys.push((format!("job/{name}/object"), object));
        keys.push((format!("job/{name}/target-state"), "launched".into()));
        keys.push((format!("job/{name}/target"), "0a1b".into()));
        keys.push((format!("job/{name}/job-state"), "0a1b".into()));
    }
    for (key, value) in keys {
        let key = format!("/_coreos.com/fleet/{key}");
        let set = ["env", "ETCDCTL_API=2", "etcdctl", "set", "--", &key, &value];
        cluster.rack.exec("h2", &set);
    }
    cluster.types("h1", "import fleet --etcd http://h2:2379").is(0, &["probe-fleet-1.service is launched"]);
    let (homes, took) = cluster.at_home(Duration::from_secs(20), "h3", &names);
    println!("rack: etcd: a fleet's units run {took:?} after they were taken over");
    let used: BTreeSet<&String> = homes.values().collect();
    assert_eq!(used.len(), 3, "they conflict with each other: {homes:?}");
}

fn members_are_killed_under_load(cluster: &Cluster) {
    let rack = &cluster.rack;
    let running = Running::begin(cluster, "load");
    let (stop, refused) = (AtomicBool::new(false), AtomicUsize::new(0));
    let written: BTreeSet<String> = std::thread::scope(|scope| {
        let writer = |host: String| {
            let (stop, refused) = (&stop, &refused);
            move || {
                let mut written = Vec::new();
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let name = format!("probe-wrote-{host}-{n}.service");
                    match cluster.batch(&host, vec![set(&name, Some(TEXT), State::Inactive)]) {
                        Ok(_) => written.push(name),
                        // Its outcome is unknown, or no member answers yet.
                        Err(_) => {
                            refused.fetch_add(1, Ordering::Relaxed);
                            pause(Duration::from_millis(20));
                        }
                    }
                }
                written
            }
        };
        let writers: Vec<_> = rack.hosts().iter().map(|host| scope.spawn(writer(host.clone()))).collect();
        for host in rack.hosts() {
            rack.kill_main(host, ETCD);
            healthy(cluster, host);
            running.stay(cluster).unwrap_or_else(|seen| panic!("{host} killed: {seen}"));
        }
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().flat_map(|writer| writer.join().expect("a writer ends")).collect()
    });
    let refused = refused.into_inner();
    println!("rack: etcd: members killed under load: {} writes acknowledged, {refused} not", written.len());
    cluster.formed();
    for host in rack.hosts() {
        assert!(written.iter().any(|name| name.contains(host.as_str())), "{host} has written");
        let stored = cluster.units(host).expect("it answers");
        let stored: BTreeSet<String> = stored.into_iter().map(|unit| unit.name.to_string()).collect();
        let lost: Vec<_> = written.difference(&stored).collect();
        assert!(lost.is_empty(), "{host}: lost {lost:?}");
    }
    running.untouched(cluster);
}

/// Writes are refused in words that name etcd; what is known is still told.
fn refused(cluster: &Cluster, host: &str) {
    let refused = || match cluster.batch(host, vec![set("probe-no.service", Some(TEXT), State::Inactive)]) {
        Err(said) if said.contains("etcd") && said.contains("2379") => Ok(said),
        other => Err(format!("{other:?}")),
    };
    let (said, took) = eventually(Duration::from_secs(30), "a write to be refused for want of etcd", refused);
    println!("rack: etcd: {said} (after {took:?})");
    let output = cluster.corectl(host, &["list-units", "--stale"]);
    assert!(output.status.success(), "{host}: {}", tests::rack::said(&output));
}

/// Both ends of being away, with the same units in between: nothing stops, nothing moves, and it catches up
/// by itself.
fn away(cluster: &Cluster, kind: &str, hosts: &[String], time: Duration) {
    let rack = &cluster.rack;
    let running = Running::begin(cluster, kind);
    for host in hosts {
        rack.exec(host, &["systemctl", "stop", ETCD]);
    }
    for host in rack.hosts() {
        refused(cluster, host);
    }
    always(time, "every unit where it was, without etcd", || running.stay(cluster));
    for host in hosts {
        rack.exec(host, &["systemctl", "start", "--no-block", ETCD]);
    }
    let back = Instant::now();
    cluster.formed();
    println!("rack: etcd: back: one leader and all machines ready after {:?}", back.elapsed());
    running.untouched(cluster);
    write(cluster, "h2", "probe-again.service");
}

fn two_of_three_members_are_stopped(cluster: &Cluster) {
    away(cluster, "two", &cluster.rack.hosts()[..2], Duration::from_secs(12));
}

fn all_of_etcd_is_away(cluster: &Cluster) {
    away(cluster, "away", cluster.rack.hosts(), AWAY);
}
