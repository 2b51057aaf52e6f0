//! Backups of a cluster that is written to, everything lost, everything back; and a cluster of which one
//! machine is left.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::v1::{Operation, Role, State};
use tests::deploy::{Cluster, DATA_DIR, probes, set};
use tests::wait::{always, eventually};

const TEXT: &str = "[Service]\nExecStart=/bin/sleep infinity\n";
const DAEMON: &str = "coreinitd.service";
const BACKUP: &str = "/root/cluster.backup";

/// Writes on every host while `act` runs; gives what was asked for, what was acknowledged, and what `act`
/// gave.
pub fn under_load<T>(cluster: &Cluster, act: impl FnOnce() -> T) -> (BTreeSet<String>, T) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = |host: String| {
            let stop = &stop;
            move || {
                let mut asked = Vec::new();
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let name = format!("probe-load-{host}-{n}.service");
                    asked.push(name.clone());
                    // Whether it is acknowledged does not matter here: it may be in the backup.
                    let _ = cluster.batch(&host, vec![set(&name, Some(TEXT), State::Inactive)]);
                }
                asked
            }
        };
        let writers: Vec<_> =
            cluster.rack.hosts().iter().map(|host| scope.spawn(writer(host.clone()))).collect();
        eventually(Duration::from_secs(20), "the load to be there", || {
            let written = cluster.units("h1")?.len();
            if written > 40 { Ok(()) } else { Err(format!("{written} units")) }
        });
        let done = act();
        stop.store(true, Ordering::Relaxed);
        (writers.into_iter().flat_map(|writer| writer.join().expect("a writer ends")).collect(), done)
    })
}

pub fn hashes(cluster: &Cluster, host: &str) -> Result<BTreeMap<String, String>, String> {
    let units = cluster.units(host)?;
    Ok(units.into_iter().map(|unit| (unit.name.to_string(), unit.hash)).collect())
}

/// Every one of them runs on the machine that the cluster says, and that machine holds the file of that hash.
pub fn runs_by_hash(cluster: &Cluster, host: &str, hashes: &BTreeMap<String, String>) -> Result<(), String> {
    for (name, hash) in hashes {
        let unit = cluster.unit(host, name)?;
        let home = unit.states.iter().find(|state| Some(&state.machine) == unit.machine.as_ref());
        let home = home.ok_or_else(|| format!("{name}: on no machine"))?;
        if unit.hash != *hash || home.hash != *hash || home.active != "active" {
            return Err(format!("{name}: {} there, {} stored, {hash} expected", home.hash, unit.hash));
        }
    }
    Ok(())
}

/// Nothing in and beside the store, to the byte.
fn files(cluster: &Cluster, host: &str) -> String {
    let program =
        "shopt -s nullglob; for d in /data/coreinit*; do find $d -type f | sort | xargs -r sha1sum; done";
    cluster.rack.shell(host, program)
}

pub fn a_backup_brings_everything_back(cluster: &Cluster) {
    let rack = &cluster.rack;
    let units = probes("backup", 9);
    cluster.launch("h1", &units);
    let (homes, _) = cluster.at_home(Duration::from_secs(20), "h1", &units);
    let leader = cluster.formed();
    let from = rack.others(&leader)[0].clone();
    let former = cluster.status(&from).expect("an answer").cluster_id.expect("a cluster");

    let (asked, acknowledged) = under_load(cluster, || {
        let acknowledged = hashes(cluster, &leader).expect("an answer");
        cluster.types(&from, &format!("cluster backup {BACKUP}")).is(0, &["units, 3 machines"]);
        acknowledged
    });
    let inside = rack.path(&from, BACKUP).expect("the host is on");
    let kept = tempfile::NamedTempFile::new().expect("a file");
    std::fs::copy(inside, kept.path()).expect("the backup can be copied");
    let mode = rack.exec(&from, &["stat", "-c", "%a", BACKUP]);
    assert_eq!(mode.trim(), "600", "unit files may hold secrets");
    println!("rack: backup: {} bytes, taken from {from}", kept.path().metadata().expect("a file").len());

    for host in rack.hosts() {
        rack.exec(host, &["systemctl", "disable", "--quiet", "--now", DAEMON]);
        rack.shell(host, &format!("rm -rf {DATA_DIR}* {BACKUP}; sync"));
        rack.kill(host);
    }
    for host in rack.hosts() {
        rack.start(host);
        assert_eq!(files(cluster, host), "", "{host} is empty");
    }
    assert!(cluster.running(&["probe-*"]).is_empty(), "nothing runs");

    // The others wait for the first; a damaged backup changes nothing.
    for host in &rack.others("h1") {
        rack.exec(host, &["systemctl", "enable", "--quiet", "--now", "--no-block", DAEMON]);
    }
    let good = std::fs::read(kept.path()).expect("the backup can be read");
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 4;
    let bad: [(&[u8], &str); 3] = [
        (&flipped, "its checksum is wrong"),
        (&good[..good.len() - 1], "its checksum is wrong"),
        (b"[Service]\nExecStart=/bin/true\n", "it is no backup"),
    ];
    for (bytes, said) in bad {
        put(cluster, "h1", bytes);
        cluster.types("h1", &format!("cluster restore {BACKUP}")).is(1, &["cannot restore", said]);
        assert_eq!(files(cluster, "h1"), "", "nothing was changed");
    }
    rack.put("h1", kept.path(), BACKUP);
    let said =
        cluster.types("h1", &format!("cluster restore {BACKUP}")).is(0, &["restored cluster coreinit"]);
    println!("rack: restore: {}", said.out.trim().replace('\n', "\nrack: restore: "));
    cluster.types("h1", &format!("cluster restore {BACKUP}")).is(1, &["is of cluster"]);
    rack.exec("h1", &["systemctl", "enable", "--quiet", "--now", "--no-block", DAEMON]);

    let begin = std::time::Instant::now();
    cluster.formed();
    let (back, _) = cluster.at_home(Duration::from_secs(60), "h2", &units);
    println!("rack: restore: everything runs {:?} after the first daemon's start", begin.elapsed());
    let moved = back.iter().filter(|(name, home)| homes[*name] != **home).count();
    println!("rack: restore: {moved} of {} units have another home than before", units.len());
    let stored = hashes(cluster, "h3").expect("an answer");
    let wrong: Vec<_> = acknowledged.iter().filter(|(name, hash)| stored.get(*name) != Some(hash)).collect();
    assert!(wrong.is_empty(), "acknowledged before the backup, and not in it: {wrong:?}");
    let strange = stored.keys().find(|name| !asked.contains(*name) && !units.contains(name));
    assert_eq!(strange, None, "nobody asked for it");
    let mine: BTreeMap<_, _> = stored.into_iter().filter(|(name, _)| units.contains(name)).collect();
    eventually(Duration::from_secs(30), "every unit to run, hash by hash", || {
        rack.hosts().iter().try_for_each(|host| runs_by_hash(cluster, host, &mine))
    });
    let now = cluster.status("h2").expect("an answer").cluster_id.expect("a cluster");
    assert_ne!(now, former, "a new life has a new id");
    cluster.batch("h3", vec![set("probe-new.service", Some(TEXT), State::Launched)]).expect("it is taken");
    cluster.at_home(Duration::from_secs(20), "h1", &["probe-new.service".into()]);
    // Another test's restore would find it.
    rack.exec("h1", &["rm", BACKUP]);
    destroy_load(cluster);
}

fn put(cluster: &Cluster, host: &str, bytes: &[u8]) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), bytes).expect("the file can be written");
    cluster.rack.put(host, Path::new(file.path()), BACKUP);
}

/// Thousands may have come together: some at a time.
pub fn destroy_load(cluster: &Cluster) {
    let names: Vec<String> = hashes(cluster, "h1").expect("an answer").into_keys().collect();
    for names in names.chunks(500) {
        let destroy = |name: &String| Operation::Destroy { name: name.clone() };
        cluster.batch("h1", names.iter().map(destroy).collect()).expect("they are destroyed");
    }
}

fn is_kept_out(cluster: &Cluster, host: &str) -> Result<String, String> {
    let status = cluster.status(host)?;
    match status.trouble {
        Some(trouble) if status.role == Role::Unformed && trouble.contains("which goes on as") => Ok(trouble),
        other => Err(format!("{host} is {:?}: {other:?}", status.role)),
    }
}

pub fn one_survivor_recovers_the_cluster(cluster: &Cluster) {
    let rack = &cluster.rack;
    let units = probes("recover", 6);
    cluster.launch("h1", &units);
    let (homes, _) = cluster.at_home(Duration::from_secs(20), "h1", &units);
    let stored = hashes(cluster, "h2").expect("an answer");
    let own: BTreeMap<_, _> = homes.clone().into_iter().filter(|(_, home)| home == "h1").collect();
    let before = cluster.main_pids(&own);
    let former = cluster.status("h1").expect("an answer").cluster_id.expect("a cluster");

    // Nothing is recovered that is there.
    cluster.types("h1", "cluster recover --yes").is(1, &["a daemon uses the store"]);
    cluster.stop_daemon("h1");
    cluster.types("h1", "cluster recover --yes").is(1, &["start coreinitd here instead"]);

    for host in ["h2", "h3"] {
        rack.kill(host);
    }
    let kept = files(cluster, "h1");
    let warned = cluster.types("h1", "cluster recover").is(1, &["nothing was changed yet", "Say --yes"]);
    println!("rack: recover: {}", warned.err.trim());
    assert_eq!(files(cluster, "h1"), kept, "nothing was changed");
    let done =
        cluster.types("h1", "cluster recover --yes").is(0, &["recovered cluster", "before-recovery-1"]);
    println!("rack: recover: {}", done.out.trim().replace('\n', "\nrack: recover: "));
    let begin = std::time::Instant::now();
    cluster.start_daemon("h1");
    eventually(Duration::from_secs(30), "the survivor to lead", || match cluster.status("h1")?.role {
        Role::Leader => Ok(()),
        role => Err(format!("{role:?}")),
    });
    cluster.at_home(Duration::from_secs(60), "h1", &units);
    println!("rack: recover: all units run on the survivor after {:?}", begin.elapsed());
    assert_eq!(hashes(cluster, "h1").expect("an answer"), stored);
    assert_eq!(cluster.main_pids(&own), before, "the survivor's own units were not touched");
    let now = cluster.status("h1").expect("an answer").cluster_id.expect("a cluster");
    assert_ne!(now, former);

    // Two of three: with their old stores they would be a majority of what is over.
    for host in ["h2", "h3"] {
        rack.start(host);
    }
    for host in ["h2", "h3"] {
        let (told, took) =
            eventually(Duration::from_secs(30), "it to be told", || is_kept_out(cluster, host));
        println!("rack: recover: {host} after {took:?}: {told}");
        assert!(told.contains(&former) && told.contains(&now) && told.contains("mv "), "{told}");
        let words = cluster.types(host, "cluster status");
        assert!(words.out.contains("which goes on as"), "{words}");
    }
    always(Duration::from_secs(5), "the old members kept out, and nothing run by them", || {
        ["h2", "h3"].iter().try_for_each(|host| is_kept_out(cluster, host).map(drop))?;
        cluster.at_home_now("h1", &units).map(drop)
    });

    for host in ["h2", "h3"] {
        cluster.stop_daemon(host);
        rack.exec(host, &["mv", DATA_DIR, &format!("{DATA_DIR}.old")]);
        cluster.start_daemon(host);
    }
    cluster.formed();
    cluster.at_home(Duration::from_secs(30), "h3", &units);
    assert_eq!(hashes(cluster, "h2").expect("an answer"), stored);
    for host in rack.hosts() {
        rack.shell(host, &format!("rm -rf {DATA_DIR}.*"));
    }
}
