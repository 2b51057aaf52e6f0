//! etcd's key API out of the daemons' own state: the story of the CoreOS guides, on hosts without an etcd.

use std::time::Duration;

use tests::deploy::Cluster;
use tests::rack::said;
use tests::wait::{always, eventually};

const CONFIG: &str = "/etc/coreinit/coreinitd.toml";
const LIMIT: Duration = Duration::from_secs(30);

/// What etcdctl says on a host, in its old tongue; `Err` when it fails.
fn etcdctl(cluster: &Cluster, host: &str, arguments: &[&str]) -> Result<String, String> {
    let command =
        [&["env", "ETCDCTL_API=2", "etcdctl", "--endpoints", "http://127.0.0.1:4001"], arguments].concat();
    let output = cluster.rack.try_exec(host, &command)?;
    if output.status.success() { Ok(said(&output)) } else { Err(said(&output)) }
}

/// Sets, however often it takes while there is no leader.
fn set(cluster: &Cluster, host: &str, arguments: &[&str]) {
    let arguments = [&["set"], arguments].concat();
    eventually(LIMIT, "a key to be set", || etcdctl(cluster, host, &arguments));
}

/// Every host comes to say so.
fn says(cluster: &Cluster, arguments: &[&str], expected: Result<&str, &str>) {
    for host in cluster.rack.hosts() {
        let what = format!("{host} to say {expected:?} of {arguments:?}");
        eventually(LIMIT, &what, || match (etcdctl(cluster, host, arguments), expected) {
            (Ok(said), Ok(expected)) if said == expected => Ok(()),
            (Err(said), Err(expected)) if said.contains(expected) => Ok(()),
            (other, _) => Err(format!("{other:?}")),
        });
    }
}

pub fn units_announce_themselves_without_an_etcd(cluster: &Cluster) {
    let rack = &cluster.rack;
    for host in rack.hosts() {
        let listen = "etcd_listen = \"127.0.0.1:4001\"";
        rack.shell(host, &format!("cp {CONFIG} {CONFIG}.before; sed -i '1i {listen}' {CONFIG}"));
        rack.exec(host, &["systemctl", "restart", "--no-block", "coreinitd"]);
    }
    let listens = |host: &String| match cluster.daemon_log(host, 100) {
        log if log.contains("etcd's key API is served") => Ok(()),
        log => Err(log),
    };
    for host in rack.hosts() {
        eventually(LIMIT, "the keys to be served", || listens(host));
    }
    let leader = cluster.formed();

    // The two lines of every guide.
    set(cluster, "h1", &["/message", "Hello world"]);
    says(cluster, &["get", "/message"], Ok("Hello world"));
    for host in rack.hosts() {
        assert_eq!(etcdctl(cluster, host, &["get", "--quorum", "/message"]).as_deref(), Ok("Hello world"));
    }

    // A service announces itself for a while, and a sidekick on another machine acts on it.
    let sidekick = "[Service]\nEnvironment=ETCDCTL_API=2\nExecStart=/usr/bin/etcdctl --endpoints \
                    http://127.0.0.1:4001 exec-watch --recursive /services -- \
                    /bin/sh -c 'echo $$ETCD_WATCH_ACTION $$ETCD_WATCH_KEY >>/root/probe-seen'\n";
    rack.shell("h3", &format!("cat >/run/systemd/system/probe-watch.service <<'END'\n{sidekick}END"));
    rack.shell("h3", "rm -f /root/probe-seen; systemctl daemon-reload; systemctl start probe-watch");
    let watched = || match rack.shell("h3", "curl -s http://127.0.0.1:4001/v2/stats/store") {
        stats if stats.contains("\"watchers\":1") => Ok(()),
        stats => Err(stats),
    };
    eventually(LIMIT, "the sidekick to watch", watched);
    set(cluster, "h2", &["/services/web", "10.0.0.2:80", "--ttl", "4"]);

    // Nothing of it hangs on the leader: keys stay, and those whose time is over go.
    cluster.kill_daemon(&leader);
    set(cluster, &rack.others(&leader)[0], &["/message", "Hello again"]);
    cluster.formed();
    says(cluster, &["get", "/services/web"], Err("100: Key not found"));
    says(cluster, &["get", "/message"], Ok("Hello again"));
    let seen = || match rack.shell("h3", "cat /root/probe-seen") {
        seen if seen.contains("set") && seen.contains("expire") => Ok(()),
        seen => Err(seen),
    };
    if leader != "h3" {
        eventually(LIMIT, "the sidekick to see both", seen);
    }
    rack.shell("h3", "systemctl stop probe-watch; rm /run/systemd/system/probe-watch.service");

    // All power is cut.
    for host in rack.hosts() {
        rack.kill(host);
    }
    for host in rack.hosts() {
        rack.start(host);
    }
    cluster.formed();
    says(cluster, &["get", "/message"], Ok("Hello again"));
    always(Duration::from_secs(1), "the key stays", || {
        etcdctl(cluster, "h1", &["get", "/message"]).map(drop)
    });
    set(cluster, "h1", &["/message", "bye"]);
    eventually(LIMIT, "the key to go", || etcdctl(cluster, "h2", &["rm", "/message"]));
    for host in rack.hosts() {
        rack.shell(host, &format!("mv {CONFIG}.before {CONFIG}; systemctl restart --no-block coreinitd"));
    }
    cluster.formed();
}
