//! The same daemons on an etcd of three members, one on each host: whatever happens to etcd, no unit ends,
//! and when it is back everything goes on by itself.

use std::time::{Duration, Instant};

use api::v1::State;
use tests::deploy::{Cluster, DATA_DIR, probes, set};
use tests::wait::{always, eventually};

const TEXT: &str = "[Service]\nExecStart=/bin/sleep infinity\n";
const CONFIG: &str = "/etc/coreinit/coreinitd.toml";
const ETCD: &str = "etcd.service";

/// Stops the daemons, gives each host a member of a new etcd, and starts the daemons on it.
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
             --initial-advertise-peer-urls=http://{host}:2380 --initial-cluster={}\n",
            peers.join(",")
        );
        rack.shell(host, &format!("printf %s '{unit}' >/etc/systemd/system/{ETCD}; systemctl daemon-reload"));
        rack.exec(host, &["systemctl", "start", "--no-block", ETCD]);
    }
    for host in hosts {
        let endpoints =
            rack.others(host).iter().map(|host| format!(", \"http://{host}:2379\"")).collect::<String>();
        let config = format!(
            "backend = \"etcd\"\netcd_endpoints = [\"http://127.0.0.1:2379\"{endpoints}]\n\
             data_dir = \"{DATA_DIR}\"\nmachine_lost_after = \"6s\"\nsocket = \"/run/coreinit.sock\"\n"
        );
        rack.shell(host, &format!("cp {CONFIG} {CONFIG}.raft; printf %s '{config}' >{CONFIG}"));
        cluster.start_daemon(host);
    }
    cluster.formed();
}

fn move_back(cluster: &Cluster) {
    for host in cluster.rack.hosts() {
        cluster.stop_daemon(host);
        cluster.rack.shell(host, &format!("systemctl stop {ETCD}; mv {CONFIG}.raft {CONFIG}"));
        cluster.start_daemon(host);
    }
    cluster.formed();
}

/// Writes a unit that nobody runs until that is acknowledged.
fn write(cluster: &Cluster, host: &str, name: &str) -> Duration {
    let write = || cluster.batch(host, vec![set(name, Some(TEXT), State::Inactive)]).map(drop);
    eventually(Duration::from_secs(30), "a write to be acknowledged", write).1
}

pub fn the_state_may_be_kept_in_etcd(cluster: &Cluster) {
    let rack = &cluster.rack;
    move_to_etcd(cluster);
    for host in rack.hosts() {
        let said = cluster.daemon_log(host, 100);
        assert!(said.contains("the state is kept there") && said.contains("using etcd 3."), "{said}");
    }
    let units = probes("etcd", 6);
    cluster.launch("h1", &units);
    let (homes, took) = cluster.at_home(Duration::from_secs(20), "h2", &units);
    println!("rack: etcd: 6 units at home {took:?} after they were written");
    let before = cluster.main_pids(&homes);
    let stays = || match cluster.at_home_now("h3", &units) {
        Ok(now) if now == homes => Ok(()),
        other => Err(format!("{other:?}")),
    };

    for host in rack.hosts() {
        rack.kill_main(host, ETCD);
        let took = write(cluster, host, &format!("probe-without-{host}.service"));
        println!("rack: etcd: member {host} killed: its daemon writes again after {took:?}");
        let healthy = || rack.try_exec(host, &["etcdctl", "endpoint", "health"]);
        eventually(Duration::from_secs(30), "the member to be back", || match healthy()? {
            output if output.status.success() => Ok(()),
            output => Err(tests::rack::said(&output)),
        });
    }
    let leader = cluster.formed();
    let other = rack.others(&leader)[0].clone();
    cluster.kill_daemon(&leader);
    let took = write(cluster, &other, "probe-leaderless.service");
    cluster.formed();
    println!("rack: etcd: leading daemon killed: writes after {took:?}");
    assert_eq!(cluster.main_pids(&homes), before, "no unit was touched");

    // Nobody has an etcd, for longer than it takes to be lost.
    for host in rack.hosts() {
        rack.exec(host, &["systemctl", "stop", ETCD]);
    }
    let refused = || match cluster.batch("h1", vec![set("probe-no.service", Some(TEXT), State::Inactive)]) {
        Err(said) if said.contains("etcd") => Ok(said),
        other => Err(format!("{other:?}")),
    };
    let (said, _) = eventually(Duration::from_secs(20), "a write to be refused for want of etcd", refused);
    println!("rack: etcd: all of it away: {said}");
    let running = || {
        let running = cluster.running(&["probe-etcd-*"]);
        let at_home = |(name, home): (&String, &String)| {
            running.get(name).is_some_and(|hosts| hosts == std::slice::from_ref(home))
        };
        if homes.iter().all(at_home) { Ok(()) } else { Err(format!("{running:?}")) }
    };
    always(Duration::from_secs(15), "every unit where it was, without etcd", running);
    for host in rack.hosts() {
        rack.exec(host, &["systemctl", "start", "--no-block", ETCD]);
    }
    let back = Instant::now();
    cluster.formed();
    println!("rack: etcd: back: one leader and all machines ready after {:?}", back.elapsed());
    always(Duration::from_secs(8), "every unit where it was, after etcd came back", stays);
    assert_eq!(cluster.main_pids(&homes), before, "no unit was touched");
    write(cluster, "h2", "probe-again.service");

    // A machine without power loses its units, as ever.
    let lost = rack.others(&cluster.formed())[0].clone();
    let rest = rack.others(&lost);
    rack.kill(&lost);
    let moved = || {
        let homes = cluster.homes(&rest[0])?;
        let here = units.iter().filter(|name| homes.get(*name).is_some_and(|home| rest.contains(home)));
        if here.count() == units.len() { Ok(()) } else { Err(format!("{homes:?}")) }
    };
    let ((), took) = eventually(Duration::from_secs(40), "the others to take the units over", moved);
    println!("rack: etcd: {lost} without power: its units have new homes after {took:?}");
    rack.start(&lost);
    rack.exec(&lost, &["systemctl", "start", "--no-block", ETCD]);
    cluster.start_daemon(&lost);
    cluster.formed();
    cluster.at_home(Duration::from_secs(30), &lost, &units);
    cluster.clean();
    move_back(cluster);
}
