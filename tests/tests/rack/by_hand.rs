//! A cluster that is made, changed and mended by hand: no configuration, only what `corectl` is told.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tests::deploy::{Cluster, probes};
use tests::wait::eventually;

use crate::rotating::the_authority_is_replaced;

/// Aim: 10 s from nothing to three voters. These hosts share two processors with whatever else runs.
const FORMING_LIMIT: Duration = Duration::from_secs(30);
const LIMIT: Duration = Duration::from_secs(60);
pub const HOSTS: [&str; 3] = ["h1", "h2", "h3"];
const CONFIGURED: &str = "/etc/coreinit/coreinitd.toml";
/// Where the daemon keeps its share when nobody says otherwise, and what it keeps of the membership.
pub const USUAL_DIR: &str = "/var/lib/coreinit";

/// init, join, a token that was revoked, leave, a dead machine that is removed and comes back, a leader that
/// leaves. Then everything is as it was.
pub fn a_cluster_is_made_by_hand(cluster: &Cluster) {
    let rack = &cluster.rack;
    unconfigured(cluster);
    cluster.types("h2", "cluster status").is(0, &["not part of a cluster", "`cluster join`"]);

    let begun = Instant::now();
    let said = cluster.types("h1", "cluster init --name hands").is(0, &["hands", "leader"]).to_string();
    let line = join_line(&said);
    for host in ["h2", "h3"] {
        cluster.types(host, &line).is(0, &["follower"]);
    }
    voters(cluster, 3, FORMING_LIMIT);
    println!("rack: by hand: from nothing to three voters: {:.1?}", begun.elapsed());
    for host in HOSTS {
        let show = "systemctl show --value -p SubState -p NRestarts coreinitd.service";
        let shown = rack.shell(host, show);
        let shown: BTreeSet<&str> = shown.split_whitespace().collect();
        assert_eq!(shown, BTreeSet::from(["0", "running"]), "{host}");
    }
    let mut tokens = vec![secret_of(&line)];

    crash_while_joining(cluster);

    let units = probes("hand", 6);
    cluster.launch("h2", &units);
    cluster.at_home(LIMIT, "h1", &units);

    // One that leaves, and comes back only by a token that is good.
    cluster.types("h3", "cluster leave").is(0, &["has left the cluster"]);
    cluster.types("h3", "cluster status").is(0, &["not part of a cluster"]);
    assert!(cluster.running(&["probe-hand-*"]).values().all(|hosts| !hosts.contains(&"h3".to_string())));
    let revoked =
        join_line(&cluster.types("h2", "token create --uses 1").is(0, &["one machine"]).to_string());
    let name = revoked.split('-').nth(3).expect("a token has a name").to_string();
    cluster.types("h1", &format!("token revoke {name}")).well();
    cluster.types("h3", &revoked).is(1, &["no such token", "corectl token create"]);
    tokens.push(secret_of(&revoked));
    cluster.types("h3", &line).well();
    tokens.push(used_up(cluster));

    // One that dies, is removed, and comes back: it is told so, nothing of it runs, and a token takes it
    // back.
    voters(cluster, 3, LIMIT);
    let h2 = cluster.status("h2").expect("it answers").machine;
    rack.kill("h2");
    cluster.types("h1", "cluster remove h2").is(1, &["is alive"]);
    eventually(LIMIT, "the dead machine to be lost", || {
        match cluster.machines("h1")?.machines.iter().find(|machine| machine.id == h2) {
            Some(machine) if machine.state == api::v1::MachineState::Lost => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    cluster.types("h1", "cluster remove h2").is(0, &["removed", "corectl cluster join"]);
    rack.start("h2");
    eventually(LIMIT, "the removed machine to be nobody's", || match cluster.status("h2")? {
        status if status.cluster_id.is_none() => Ok(()),
        status => Err(format!("{status:?}")),
    });
    assert!(cluster.running(&["probe-hand-*"]).values().all(|hosts| !hosts.contains(&"h2".to_string())));
    cluster.types("h2", &line).well();
    voters(cluster, 3, LIMIT);
    cluster.formed();

    // The leader itself.
    let leader = cluster.formed();
    cluster.types(&leader, "cluster leave").is(0, &["has left"]);
    let other = HOSTS.iter().find(|host| **host != leader).expect("two are left");
    cluster.types(other, "cluster members").is(0, &["leader", "learner"]);
    cluster.at_home(LIMIT, other, &units);
    // Nobody listens any more where the first token was made, if that was the leader.
    let line = join_line(&cluster.types(other, "token create").well().to_string());
    tokens.push(secret_of(&line));
    joined_unseen(cluster, &leader, &line);
    voters(cluster, 3, LIMIT);

    the_authority_is_replaced(cluster, &units);

    let units: Vec<&str> = units.iter().map(String::as_str).collect();
    cluster.types("h1", &format!("destroy {}", units.join(" "))).well();
    nothing_is_told(cluster, &tokens);
    configured(cluster);
}

/// Hosts whose daemons were told nothing.
pub fn unconfigured(cluster: &Cluster) {
    for host in HOSTS {
        cluster.stop_daemon(host);
        cluster.rack.shell(host, &format!("mv {CONFIGURED} /root/ && rm -rf {USUAL_DIR} {USUAL_DIR}.*"));
        cluster.start_daemon(host);
    }
    for host in HOSTS {
        eventually(LIMIT, "the daemon to answer", || cluster.status(host));
    }
}

/// As they were before that.
pub fn configured(cluster: &Cluster) {
    for host in HOSTS {
        cluster.stop_daemon(host);
        cluster.rack.shell(host, &format!("mv /root/coreinitd.toml {CONFIGURED} && rm -rf {USUAL_DIR}*"));
    }
    HOSTS.iter().for_each(|host| cluster.start_daemon(host));
    cluster.formed();
}

/// A token for one machine is worth nothing to a second one, nor to the first once that was removed. Gives
/// its secret part; h3 is a member before and after.
fn used_up(cluster: &Cluster) -> String {
    voters(cluster, 3, LIMIT);
    for host in ["h2", "h3"] {
        cluster.types(host, "cluster leave").well();
    }
    let line = join_line(&cluster.types("h1", "token create --uses 1").well().to_string());
    cluster.types("h3", &line).well();
    cluster.types("h2", &line).is(1, &["used up", "corectl token create"]);
    cluster.types("h3", "cluster leave").well();
    cluster.types("h3", &line).is(1, &["used up", "corectl token create"]);
    let two = join_line(&cluster.types("h1", "token create --uses 2").well().to_string());
    for host in ["h2", "h3"] {
        cluster.types(host, &two).well();
    }
    secret_of(&line)
}

/// Joins by a token from standard input. While it does, no process of the host has it in its arguments or its
/// environment.
fn joined_unseen(cluster: &Cluster, host: &str, line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    let ["cluster", "join", token, address] = words[..] else { panic!("another line: {line}") };
    for (file, text) in [("token", token.to_string()), ("secrets", secret_of(line))] {
        let path = cluster.rack.path(host, &format!("/root/{file}")).expect("the host is on");
        std::fs::write(path, text + "\n").expect("the file can be written");
    }
    let script = format!(
        "corectl cluster join - {address} </root/token >/root/joined 2>&1 & looks=0
         while kill -0 $! 2>/dev/null; do
           looks=$((looks + 1))
           cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | grep -aqFf /root/secrets && echo seen
         done
         wait $! || cat /root/joined; echo looks $looks; rm /root/token /root/secrets"
    );
    let said = cluster.rack.exec(host, &["bash", "-c", &script]);
    let looks: u32 =
        said.trim().strip_prefix("looks ").and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{said}"));
    assert!(looks > 3, "it was looked at {looks} times");
}

/// Neither the tokens' secret parts nor the cluster's secret are in a journal, in what a process of a host
/// was started with, or in an answer of the API.
fn nothing_is_told(cluster: &Cluster, tokens: &[String]) {
    let trust: serde_json::Value =
        serde_json::from_str(&cluster.read("h1", &format!("{USUAL_DIR}/trust.json")))
            .expect("h1 is a member");
    let mut secrets = tokens.to_vec();
    secrets.push(trust["secret"].as_str().expect("it has the secret").into());
    assert!(secrets.iter().all(|secret| secret.len() >= 32), "they are whole");
    let answers = [
        "/v1/status",
        "/v1/units",
        "/v1/machines",
        "/v1/cluster/members",
        "/v1/cluster/tokens",
        "/v1/cluster/people",
        "/v1/cluster/backup",
        "/metrics",
        "/healthz",
        "/readyz",
        "/fleet/v1/units",
        "/fleet/v1/state",
        "/fleet/v1/machines",
    ];
    for host in HOSTS {
        let journal = cluster.rack.exec(host, &["journalctl", "--no-pager", "-o", "export", "-a"]);
        assert!(journal.contains("was let in by a token") || host != "h1", "the journal is all there");
        let processes =
            cluster.rack.shell(host, "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null || true");
        let told = answers.iter().map(|path| {
            let answer = cluster.call(host, "GET", path, b"").unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(answer.status, 200, "{host}: {path}: {}", answer.text());
            (*path, answer.text())
        });
        for (place, text) in told.chain([("the journal", journal), ("what processes were given", processes)])
        {
            for secret in &secrets {
                assert!(!text.contains(secret.as_str()), "{host}: {secret} is in {place}");
            }
        }
    }
}

/// The part of the token in such a line that lets a machine in.
fn secret_of(line: &str) -> String {
    let token = line.split(' ').nth(2).expect("a line has a token");
    token.rsplit('-').next().expect("a token has parts").into()
}

/// The daemon is killed at several moments of joining with a token for one machine. It is a member afterwards
/// by itself, or by showing the same token again.
fn crash_while_joining(cluster: &Cluster) {
    for ms in [0, 30, 100, 250, 600] {
        cluster.types("h3", "cluster leave").well();
        let said = cluster.types("h1", "token create --uses 1").well().to_string();
        let line = join_line(&said);
        let script = format!(
            "corectl {line} >/dev/null 2>&1 & sleep {}.{:03}; pkill -9 -x coreinitd; wait $! && echo joined",
            ms / 1000,
            ms % 1000
        );
        let script = format!("timeout 20 sh -c '{script}' || true");
        let outcome = cluster.rack.shell("h3", &script);
        eventually(LIMIT, "the daemon to be back", || cluster.status("h3"));
        let again = cluster.types("h3", &line);
        let is_in = again.code == 0 || again.err.contains("is a member of a cluster already");
        assert!(is_in, "killed after {ms} ms, which said {outcome:?}; then {again}");
        voters(cluster, 3, LIMIT);
        println!("rack: by hand: killed after {ms} ms of joining: {}", outcome.trim());
    }
}

/// What follows `corectl` in the line that is printed.
pub fn join_line(said: &str) -> String {
    let line = said.lines().find_map(|line| line.trim().strip_prefix("corectl "));
    line.unwrap_or_else(|| panic!("no command is printed: {said}")).to_string()
}

#[track_caller]
pub fn voters(cluster: &Cluster, count: usize, limit: Duration) {
    eventually(limit, "the machines to vote", || {
        for host in HOSTS {
            match cluster.status(host)?.voters {
                Some(voters) if voters == count => {}
                voters => return Err(format!("{host}: {voters:?}")),
            }
        }
        Ok(())
    });
}
