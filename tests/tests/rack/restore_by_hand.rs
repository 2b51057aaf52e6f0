//! Everything lost on a cluster that was made by hand, and everything back by one file and a token.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tests::deploy::{Cluster, probes};
use tests::wait::eventually;

use crate::backup::{destroy_load, hashes, runs_by_hash, under_load};
use crate::by_hand::{HOSTS, USUAL_DIR, configured, join_line, unconfigured, voters};

const LIMIT: Duration = Duration::from_secs(60);
const DAEMON: &str = "coreinitd.service";
const BACKUP: &str = "/root/hands.backup";

/// A backup is taken while everybody writes; every machine loses its disk; the first one restores it, and the
/// others join it like any machine. The secret of before is gone, and with it what tokens it made.
pub fn a_backup_is_restored_by_hand(cluster: &Cluster) {
    let rack = &cluster.rack;
    unconfigured(cluster);
    let line = join_line(&cluster.types("h1", "cluster init --name hands").well().to_string());
    for host in ["h2", "h3"] {
        cluster.types(host, &line).well();
    }
    voters(cluster, 3, LIMIT);
    cluster.formed();
    let units = probes("restored", 9);
    cluster.launch("h1", &units);
    cluster.at_home(LIMIT, "h1", &units);
    let former = cluster.status("h1").expect("an answer").cluster_id.expect("a cluster");
    let (asked, acknowledged) = under_load(cluster, || {
        let acknowledged = hashes(cluster, "h1").expect("an answer");
        cluster.types("h2", &format!("cluster backup {BACKUP}")).is(0, &["units, 3 machines"]);
        acknowledged
    });
    let kept = tempfile::NamedTempFile::new().expect("a file");
    std::fs::copy(rack.path("h2", BACKUP).expect("the host is on"), kept.path()).expect("it can be copied");

    for host in HOSTS {
        rack.exec(host, &["systemctl", "disable", "--quiet", "--now", DAEMON]);
        rack.shell(host, &format!("rm -rf {USUAL_DIR}* {BACKUP}"));
        rack.kill(host);
    }
    for host in HOSTS {
        rack.start(host);
    }
    assert!(cluster.running(&["probe-*"]).is_empty(), "nothing runs");

    let begun = Instant::now();
    rack.put("h1", kept.path(), BACKUP);
    cluster.types("h1", &format!("cluster restore {BACKUP}")).is(0, &["restored cluster hands"]);
    for host in HOSTS {
        rack.exec(host, &["systemctl", "enable", "--quiet", "--now", DAEMON]);
    }
    eventually(LIMIT, "the restored cluster to take a token", || match cluster.types("h1", "token create") {
        said if said.code == 0 => Ok(()),
        said => Err(said.to_string()),
    });
    // The old line names another authority: nobody is shown that token.
    cluster.types("h2", &line).is(1, &["belongs to another cluster than the token"]);
    let line = join_line(&cluster.types("h1", "token create").well().to_string());
    for host in ["h2", "h3"] {
        cluster.types(host, &line).well();
    }
    voters(cluster, 3, LIMIT);
    cluster.formed();
    cluster.at_home(LIMIT, "h2", &units);
    println!("rack: restored by hand: three voters, everything runs after {:.1?}", begun.elapsed());
    let stored = hashes(cluster, "h3").expect("an answer");
    let wrong: Vec<_> = acknowledged.iter().filter(|(name, hash)| stored.get(*name) != Some(hash)).collect();
    assert!(wrong.is_empty(), "acknowledged before the backup, and not in it: {wrong:?}");
    let strange = stored.keys().find(|name| !asked.contains(*name) && !units.contains(name));
    assert_eq!(strange, None, "nobody asked for it");
    let mine: BTreeMap<_, _> = stored.into_iter().filter(|(name, _)| units.contains(name)).collect();
    eventually(LIMIT, "every unit to run, hash by hash", || {
        HOSTS.iter().try_for_each(|host| runs_by_hash(cluster, host, &mine))
    });
    let now = cluster.status("h3").expect("an answer").cluster_id.expect("a cluster");
    assert_ne!(now, former, "a new life has a new id");
    rack.exec("h1", &["rm", BACKUP]);
    destroy_load(cluster);
    configured(cluster);
}
