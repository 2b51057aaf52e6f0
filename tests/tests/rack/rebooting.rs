//! Machines that want to reboot at once do it one after the other, each empty before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tests::deploy::{Cluster, probes};
use tests::rack::said;
use tests::wait::eventually;

const LIMIT: Duration = Duration::from_secs(120);
const HOSTS: [&str; 2] = ["h1", "h2"];

/// Both ask at the same moment. Each is cut off from power when it may, and gives its slot back when it runs
/// again; the other is not let before that. While one is emptied, one unit at a time is down.
pub fn two_that_want_to_reboot_do_it_in_turn(cluster: &Cluster) {
    let units = probes("turn", 9);
    cluster.launch("h1", &units);
    cluster.at_home(LIMIT, "h3", &units);
    let rack = &cluster.rack;
    // Whose turn it is; and the order in which turns began.
    let (turn, order) = (Mutex::new(()), Mutex::new(Vec::new()));
    let (is_over, watched) = (AtomicBool::new(false), Mutex::new(Watched::default()));
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                watched.lock().expect("nothing panics here").look(cluster, &units);
            }
        });
        let rebooting = HOSTS.map(|host| {
            let (turn, order, units) = (&turn, &order, &units);
            scope.spawn(move || {
                let taken = cluster.corectl(host, &["reboot-lock", "take", "--timeout", "300s"]);
                assert!(taken.status.success(), "{host}: {}", said(&taken));
                let _own = turn.try_lock().unwrap_or_else(|_| panic!("{host} may reboot while another does"));
                order.lock().expect("nothing panics here").push(host);
                let here = rack.units(host, &["probe-turn-*"]).expect("it is on");
                let active: Vec<_> = here.iter().filter(|(_, status)| status.active == "active").collect();
                assert!(active.is_empty(), "{host} may reboot with {active:?}");
                // The last one that left may be starting; and hosts are looked at one after the other.
                eventually(LIMIT, "all to run elsewhere", || {
                    let running = cluster.running(&["probe-turn-*"]);
                    if running.len() == units.len() { Ok(()) } else { Err(format!("{running:?}")) }
                });
                cluster.types("h3", "reboot-lock list").is(0, &["default", "1/1", host, "drained"]);
                cluster.types("h3", "list-machines").is(0, &["ready,cordoned"]);
                rack.kill(host);
                rack.start(host);
                eventually(LIMIT, "the daemon to follow", || match cluster.status(host)?.leader {
                    Some(_) => Ok(()),
                    None => Err(format!("{host} knows no leader")),
                });
                eventually(LIMIT, "the slot to be given back", || {
                    let done = cluster.corectl(host, &["reboot-lock", "done"]);
                    if done.status.success() { Ok(()) } else { Err(said(&done)) }
                });
            })
        });
        // A panic of theirs is ours, once the watcher has ended.
        let ended: Vec<_> = rebooting.into_iter().map(|thread| thread.join()).collect();
        is_over.store(true, Ordering::Relaxed);
        watching.join().expect("the watcher ends");
        ended.into_iter().for_each(|ended| ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
    });
    assert_eq!(order.lock().expect("nothing panics here").len(), 2);
    let watched = watched.into_inner().expect("nothing panics here");
    assert!(watched.looks > 10, "it was watched: {} looks", watched.looks);
    assert!(watched.together.is_empty(), "units that were down at the same time: {:?}", watched.together);
    println!(
        "rack: rebooting in turn: {:?} first, {} looks, longest away {:?}",
        order.lock().expect("nothing panics here")[0],
        watched.looks,
        watched.longest
    );
    cluster.types("h3", "reboot-lock list").is(0, &["default", "0/1", "free"]);
    cluster.at_home(LIMIT, "h3", &units);
}

/// Which units run nowhere, look after look.
#[derive(Default)]
struct Watched {
    looks: usize,
    down: BTreeMap<String, Instant>,
    longest: Duration,
    /// Hosts are looked at one after the other: one look may miss a unit that goes from one to the next.
    last: BTreeSet<String>,
    together: Vec<BTreeSet<String>>,
}

impl Watched {
    fn look(&mut self, cluster: &Cluster, units: &[String]) {
        let at = Instant::now();
        let running = cluster.running(&["probe-turn-*"]);
        let down: BTreeSet<String> =
            units.iter().filter(|unit| !running.contains_key(*unit)).cloned().collect();
        self.looks += 1;
        let both: BTreeSet<String> = down.intersection(&self.last).cloned().collect();
        if both.len() > 1 {
            self.together.push(both);
        }
        for unit in &down {
            let since = *self.down.entry(unit.clone()).or_insert(at);
            self.longest = self.longest.max(at - since);
        }
        self.down.retain(|unit, _| down.contains(unit));
        self.last = down;
    }
}

/// A unit that nobody else takes keeps its machine from rebooting, and the slot is left to the others.
pub fn a_machine_that_cannot_be_emptied_does_not_reboot(cluster: &Cluster) {
    let text = "[Service]\nExecStart=/bin/sleep infinity\n[X-Fleet]\nMachineID=";
    let machine = cluster.status("h1").expect("it answers").machine;
    let unit = "probe-pinned.service";
    let file = cluster.lay_out("h1", &[(unit, &format!("{text}{machine}\n"))]);
    cluster.types("h1", &format!("start {file}")).well();
    cluster.types("h1", "reboot-lock take --timeout 3s").is(1, &["cannot be emptied", unit]);
    cluster.types("h2", "reboot-lock take --timeout 100s").is(0, &["may reboot"]);
    let asked = r#"{"client_params": {"id": "h2", "group": "default"}}"#;
    let curl = format!(
        "curl -sS -H 'fleet-lock-protocol: true' -d '{asked}' -w ' %{{http_code}}' http://127.0.0.1:49153/v1/"
    );
    let by_curl = |host: &str, path: &str| cluster.rack.shell(host, &format!("{curl}{path}"));
    if cluster.rack.shell("h3", "command -v curl || true").trim().is_empty() {
        cluster.types("h2", "reboot-lock done").well();
    } else {
        assert_eq!(by_curl("h3", "pre-reboot").trim(), "200", "it holds it already");
        assert_eq!(by_curl("h1", "steady-state").trim(), "200");
    }
    cluster.types("h3", "reboot-lock list").is(0, &["0/1", "free"]);
    cluster.types("h3", "reboot-lock set-max 0").well();
    cluster.types("h3", "reboot-lock take h2 --timeout 1s").is(1, &["nobody may reboot"]);
    cluster.types("h3", "reboot-lock set-max 1").well();
    cluster.types("h1", "reboot-lock reboot --strategy off").is(0, &["nothing was done"]);
    cluster.types("h1", &format!("destroy {unit}")).well();
}
