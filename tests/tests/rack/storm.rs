//! Strangers who send nothing but bad requests, as fast as the machine can.

use std::path::Path;
use std::time::{Duration, Instant};

use tests::deploy::{Cluster, probes};
use tests::rack::said;
use tests::wait::median;

/// `STORM_SECONDS` and `STORM_RATE` make it longer and stronger.
const SECONDS: &str = "10";
/// Somewhat more than the 10,000 that are to be borne: what comes late at the end is not counted.
const RATE: &str = "10400";
/// Of the slowest answer, on a machine that is slow and shared.
const ANSWER_MAX: Duration = Duration::from_secs(5);
const MEDIAN_MAX: Duration = Duration::from_secs(1);

/// Ten thousand bad requests a second at the leader's two ports: it goes on leading, and every daemon goes on
/// answering.
pub fn bad_requests_hold_nothing_up(cluster: &Cluster) {
    let rack = &cluster.rack;
    let units = probes("storm", 3);
    let leader = cluster.formed();
    cluster.launch(&leader, &units);
    cluster.at_home(Duration::from_secs(30), &leader, &units);
    let term = term(cluster, &leader);
    let program = "/root/storm";
    rack.put(&leader, Path::new(env!("CARGO_BIN_EXE_storm")), program);
    rack.exec(&leader, &["chmod", "755", program]);
    let asked = |name: &str, usual: &str| std::env::var(name).unwrap_or_else(|_| usual.into());
    let (rate, seconds) = (asked("STORM_RATE", RATE), asked("STORM_SECONDS", SECONDS));

    let (mut times, before, begun) = (Vec::new(), processor_seconds(cluster), Instant::now());
    let command = [program, "127.0.0.1:7340", "127.0.0.1:49153", &rate, &seconds];
    let storm = std::thread::scope(|scope| {
        let storm = scope.spawn(|| rack.exec(&leader, &command));
        while !storm.is_finished() {
            for host in rack.hosts() {
                let asked = Instant::now();
                let answer = cluster.corectl(host, &["list-units"]);
                assert!(answer.status.success(), "{host}: {}", said(&answer));
                times.push(asked.elapsed());
            }
        }
        storm.join().expect("the storm is run")
    });
    let (used, took) = (processor_seconds(cluster) - before, begun.elapsed().as_secs_f64());
    let (slowest, middle) = (times.iter().max().copied().unwrap_or_default(), median(&times));
    print!("{}", storm.lines().map(|line| format!("rack: storm: {line}\n")).collect::<String>());
    println!(
        "rack: storm: {} answers of corectl, half within {middle:.0?}, all within {slowest:.0?}",
        times.len()
    );
    println!(
        "rack: storm: the daemons used {used:.1} s of {took:.1} s on {} processors",
        std::thread::available_parallelism().map_or(1, usize::from)
    );
    assert!(slowest < ANSWER_MAX && middle < MEDIAN_MAX, "{times:?}");

    assert_eq!(cluster.formed(), leader, "it leads as before");
    assert_eq!(self::term(cluster, &leader), term, "nobody else was elected in between");
    cluster.at_home_now(&leader, &units).unwrap_or_else(|e| panic!("{e}"));
}

/// What all daemons have used of the processors.
fn processor_seconds(cluster: &Cluster) -> f64 {
    // utime and stime of proc(5), a hundredth of a second each.
    let script = "set -- $(sed 's/.*) //' /proc/$(pidof -s coreinitd)/stat); echo $((${12} + ${13}))";
    let of =
        |host: &String| cluster.rack.shell(host, script).trim().parse::<f64>().expect("a number") / 100.0;
    cluster.rack.hosts().iter().map(of).sum()
}

fn term(cluster: &Cluster, host: &str) -> u64 {
    let answer = cluster.call(host, "GET", "/metrics", b"").unwrap_or_else(|e| panic!("{e}"));
    let text = answer.text();
    let line = text.lines().find_map(|line| line.strip_prefix("coreinit_raft_term "));
    line.and_then(|term| term.parse().ok()).unwrap_or_else(|| panic!("no term in {text}"))
}
