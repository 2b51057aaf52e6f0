//! The authority that machines know each other by is replaced while everybody works.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use api::v1::{Operation, State};
use tests::deploy::{Cluster, set};
use tests::wait::eventually;

const LIMIT: Duration = Duration::from_secs(60);
const TEXT: &str = "[Service]\nExecStart=/bin/sleep infinity\n";
const TRUST: &str = "/var/lib/coreinit/trust.json";

/// On a cluster that was made by hand: no write is refused meanwhile, no unit is touched, and what the old
/// authority has made is worth nothing afterwards.
pub fn the_authority_is_replaced(cluster: &Cluster, units: &[String]) {
    let rack = &cluster.rack;
    let (mut homes, _) = cluster.at_home(LIMIT, "h1", units);
    // That machine loses its power later.
    homes.retain(|_, home| home != "h3");
    let pids = cluster.main_pids(&homes);
    let secret = |host: &str| {
        let trust: serde_json::Value = serde_json::from_str(&rack.exec(host, &["cat", TRUST])).expect("JSON");
        trust["secret"].as_str().expect("a secret").to_string()
    };
    let first = secret("h1");
    // By the port that the machines have for each other.
    cluster.types("h1", "cluster invite zoe --role viewer --file /root/zoe").is(0, &["zoe", "viewer"]);
    cluster.types("h1", "context add zoe /root/zoe").well();
    cluster.types("h1", "--context zoe list-units").is(0, &[&units[0]]);
    cluster.types("h1", "--context zoe cluster rotate-ca").is(1, &["the role admin"]);
    cluster.types("h1", "token create").well();

    let stop = AtomicBool::new(false);
    let (writes, slowest) = std::thread::scope(|scope| {
        let writer = |host: &'static str| {
            let stop = &stop;
            move || {
                let (mut slowest, mut n) = (Duration::ZERO, 0);
                while !stop.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    let one = set(&format!("probe-rotated-{host}-{n}.service"), Some(TEXT), State::Inactive);
                    cluster.batch(host, vec![one]).expect("no write is refused");
                    slowest = slowest.max(begun.elapsed());
                    n += 1;
                }
                (n, slowest)
            }
        };
        let writers = ["h1", "h2", "h3"].map(|host| (host, scope.spawn(writer(host))));
        let begun = Instant::now();
        cluster.types("h2", "cluster rotate-ca").is(0, &["was replaced", "invite people anew"]);
        println!("rack: rotating: replaced under load after {:.1?}", begun.elapsed());
        stop.store(true, Ordering::Relaxed);
        writers.map(|(host, writer)| (host, writer.join().expect("a writer ends"))).into_iter().fold(
            (Vec::new(), Duration::ZERO),
            |(mut names, slowest), (host, (count, took))| {
                names.extend((0..count).map(|n| format!("probe-rotated-{host}-{n}.service")));
                (names, slowest.max(took))
            },
        )
    });
    println!("rack: rotating: {} writes meanwhile, none refused, the slowest {slowest:.1?}", writes.len());
    for names in writes.chunks(500) {
        let destroy = |name: &String| Operation::Destroy { name: name.clone() };
        cluster.batch("h1", names.iter().map(destroy).collect()).expect("they are there, and destroyed");
    }
    let second = secret("h1");
    assert!(first != second && ["h2", "h3"].iter().all(|host| secret(host) == second));
    cluster.types("h1", "--context zoe list-units").is(1, &["another authority", "another invitation"]);
    assert_eq!(cluster.types("h1", "token list").well().out.lines().count(), 1, "only the header is left");
    // New connections, by the new authority alone.
    for host in rack.hosts() {
        rack.exec(host, &["systemctl", "restart", "coreinitd.service"]);
        cluster.formed();
    }

    // A machine without power is waited for. Meanwhile daemons may fall, and it can be given up.
    rack.kill("h3");
    let begun = "timeout 3 corectl cluster rotate-ca || test $? = 124; echo waits";
    assert_eq!(rack.shell("h1", begun).trim(), "waits");
    cluster.types("h2", "cluster rotate-ca").is(1, &["is being replaced"]);
    cluster.types("h2", "token create").is(1, &["is being replaced"]);
    cluster.types("h2", "cluster rotate-ca --abort").is(0, &["keeps its authority"]);
    cluster.types("h2", "cluster rotate-ca --watch").is(0, &["no authority is being replaced"]);
    assert_eq!(rack.shell("h1", begun).trim(), "waits");
    rack.shell("h1", "systemctl kill -s KILL coreinitd.service");
    cluster.types("h2", "cluster status").is(0, &["is being replaced, which waits for h3"]);
    rack.start("h3");
    eventually(LIMIT, "the change to go on by itself", || {
        let said = cluster.types("h3", "cluster rotate-ca --watch");
        match said.code == 0 && ["h1", "h2", "h3"].iter().all(|host| secret(host) != second) {
            true => Ok(()),
            false => Err(said.to_string()),
        }
    });
    let third = secret("h1");
    assert!(third != first && ["h2", "h3"].iter().all(|host| secret(host) == third));
    cluster.formed();
    assert_eq!(cluster.main_pids(&homes), pids, "no unit was touched");
    for host in rack.hosts() {
        let log = cluster.daemon_log(host, 20_000);
        assert!([&first, &second, &third].iter().all(|secret| !log.contains(secret.as_str())), "{host}");
        rack.shell(host, "test ! -e /var/lib/coreinit/rotation.json");
    }
}
