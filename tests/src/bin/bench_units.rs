//! What a unit costs end to end, beside what systemd itself takes, and what a daemon takes while nothing
//! happens.
//!
//!     cargo run --release -p tests --bin bench_units [-- ROUNDS]
//!
//! On racks of real hosts: one unit at a time on three machines; 1, 100 and 500 units on one machine beside
//! `systemctl start` of the same units with their files in place; memory and processor time of idle daemons,
//! without units and with 1,000; the sizes of the programs. Ratios are of one run. It needs root and what
//! `tests/rack/README.md` lists.

use std::time::Duration;

use tests::deploy::{Cluster, probes};
use tests::wait::pause;

/// For how long idle daemons are watched.
const IDLE: Duration = Duration::from_secs(30);
/// Of the kernel's accounting of processor time; the same on every Linux that Debian builds.
const TICKS_PER_SECOND: f64 = 100.0;
/// Starts `corectl start` or `systemctl start` for units 1 to N of a kind, says how long it took in
/// microseconds, and takes them away again.
const SCRIPT: &str = r#"
way=$1 count=$2
rm -rf /root/bench; mkdir -p /root/bench; cd /root/bench
names=(); for n in $(seq "$count"); do names+=("bench-$way-$RANDOM$RANDOM-$n.service"); done
for name in "${names[@]}"; do printf '[Service]\nExecStart=/bin/sleep infinity\n' >"$name"; done
if [ "$way" = systemd ]; then
    cp -- * /run/systemd/system/
    begin=${EPOCHREALTIME/./}; systemctl start -- "${names[@]}"; end=${EPOCHREALTIME/./}
    systemctl stop -- "${names[@]}"; (cd /run/systemd/system; rm -- "${names[@]}"); systemctl daemon-reload
else
    begin=${EPOCHREALTIME/./}; corectl start -- * >/dev/null; end=${EPOCHREALTIME/./}
    corectl destroy -- "${names[@]}" >/dev/null
fi
echo $((end - begin))
"#;

fn main() {
    let rounds = std::env::args().nth(1).and_then(|rounds| rounds.parse().ok()).unwrap_or(5);
    {
        let three = Cluster::up(3);
        one_at_a_time(&three, 10 * rounds);
        idle(&three, 0);
        let names = probes("idle", 1000);
        names.chunks(200).for_each(|names| three.launch("h1", names));
        three.at_home(Duration::from_secs(120), "h1", &names);
        idle(&three, names.len());
    }
    beside_systemd(&Cluster::up(1), rounds);
}

/// Microseconds.
fn start(cluster: &Cluster, way: &str, count: usize) -> f64 {
    let took = cluster.rack.exec("h1", &["bash", "-euc", SCRIPT, "bench", way, &count.to_string()]);
    took.trim().parse().unwrap_or_else(|e| panic!("{took}: {e}"))
}

fn one_at_a_time(cluster: &Cluster, rounds: usize) {
    println!("one unit, a second after the one before, {rounds} times:");
    for (way, what) in [("corectl", "on three machines"), ("systemd", "by systemctl alone")] {
        let alone = || {
            pause(Duration::from_secs(1));
            start(cluster, way, 1) / 1e3
        };
        let mut all: Vec<f64> = (0..rounds).map(|_| alone()).collect();
        all.sort_by(f64::total_cmp);
        let at = |q: f64| all[((all.len() - 1) as f64 * q) as usize];
        println!("  {what:18}  p50 {:.0} ms, p90 {:.0} ms, most {:.0} ms", at(0.5), at(0.9), at(1.0));
    }
}

fn beside_systemd(cluster: &Cluster, rounds: usize) {
    println!("one machine, {rounds} rounds, medians:\n  units  corectl ms  systemctl ms  ratio");
    for count in [1, 100, 500] {
        let pairs: Vec<(f64, f64)> = (0..rounds)
            .map(|_| (start(cluster, "corectl", count), start(cluster, "systemd", count)))
            .collect();
        let median = |mut all: Vec<f64>| {
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        };
        let ours = median(pairs.iter().map(|pair| pair.0).collect());
        let systemd = median(pairs.iter().map(|pair| pair.1).collect());
        println!("  {count:5}  {:10.0}  {:12.0}  {:5.2}", ours / 1e3, systemd / 1e3, ours / systemd);
    }
}

fn idle(cluster: &Cluster, units: usize) {
    // What was just done ends first.
    pause(Duration::from_secs(10));
    let daemon = |host: &str| {
        let text = cluster.rack.shell(
            host,
            "p=$(systemctl show -p MainPID --value coreinitd); cat /proc/$p/stat; grep VmRSS /proc/$p/status",
        );
        let mut lines = text.lines();
        let stat: Vec<f64> = lines
            .next()
            .and_then(|stat| stat.rsplit(") ").next())
            .map(|rest| rest.split(' ').filter_map(|field| field.parse().ok()).collect())
            .expect("the daemon runs");
        let rss = lines.next().and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
        // utime and stime are the 14th and 15th field; the state, a letter, is not among the numbers.
        (stat[10] + stat[11], rss.expect("a process has VmRSS") / 1024.0)
    };
    let leader = cluster.formed();
    let before: Vec<f64> = cluster.rack.hosts().iter().map(|host| daemon(host).0).collect();
    pause(IDLE);
    println!("idle daemons, {units} units, over {IDLE:?}:");
    for (host, before) in cluster.rack.hosts().iter().zip(before) {
        let (ticks, rss) = daemon(host);
        let share = (ticks - before) / TICKS_PER_SECOND / IDLE.as_secs_f64() * 100.0;
        let role = if *host == leader { "leader" } else { "follower" };
        println!("  {host} {role:8}  {rss:5.1} MiB resident  {share:.2} % of a core");
    }
    if units == 0 {
        for program in ["coreinitd", "corectl"] {
            let size = cluster.rack.exec("h1", &["stat", "-Lc", "%s", &format!("/usr/bin/{program}")]);
            let size: f64 = size.trim().parse().expect("a size");
            println!("  {program}: {:.1} MiB on disk", size / 1024.0 / 1024.0);
        }
    }
}
