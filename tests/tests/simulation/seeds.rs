//! Runs of many seeds, and of one seed twice.

use crate::sky::Run;

pub const PARTS: u64 = 4;

type Story = fn(u64, bool) -> Result<Run, String>;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|number| number.parse().ok())
}

/// Runs every [`PARTS`]th of `count` seeds: several tests, so that every core has work. `SEED` chooses one
/// seed and tells what happens in it; `SEEDS` chooses how many, `FROM` where they begin.
pub fn run_part(story: &str, part: u64, count: u64, run: Story) {
    let chosen = number("SEED");
    let from = number("FROM").unwrap_or(0);
    let all = chosen.map_or(from..from + number("SEEDS").unwrap_or(count), |seed| seed..seed + 1);
    let (mut writes, mut reads, mut ms, mut both, mut unknown, mut runs) = (0, 0, 0, 0, 0, 0);
    let mut broken = Vec::new();
    for seed in all.filter(|seed| seed % PARTS == part) {
        match run(seed, chosen.is_some()) {
            Ok(run) => {
                writes += run.writes;
                reads += run.reads;
                ms += run.ms;
                both = both.max(run.both_run_ms_max);
                unknown += run.unknown;
                runs += 1;
            }
            Err(why) if number("SEEDS").is_some() => {
                eprintln!("SEED={seed} ({story}): {}", why.lines().next().unwrap_or_default());
                broken.push(seed);
            }
            Err(why) => panic!("SEED={seed} ({story}): {why}"),
        }
    }
    let seconds = ms / 1000;
    eprintln!(
        "{story}: {runs} runs, {seconds} simulated s; {writes} writes acknowledged, {unknown} of unknown \
         outcome, {reads} linearizable reads; at most {both} ms in which a unit ran twice"
    );
    assert!(broken.is_empty(), "{story}: {broken:?}");
    assert!(chosen.is_some() || runs == 0 || writes + reads > runs, "too little happened");
}

/// Seeds that have found something once.
pub fn kept(story: &str, seeds: &[u64], run: Story) {
    for seed in seeds {
        if let Err(why) = run(*seed, false) {
            panic!("SEED={seed} ({story}): {why}");
        }
    }
}

/// Each run in a process of its own: openraft numbers some things for as long as a process lives.
pub fn twice(test: &str, seeds: &[u64], run: Story) {
    if let Some(seed) = number("TRACE") {
        println!("trace {:?}", run(seed, false));
        return;
    }
    let trace = |seed: u64| {
        let own = std::env::current_exe().expect("the test knows where it is");
        let arguments = ["--exact", test, "--nocapture"];
        let output = std::process::Command::new(own).args(arguments).env("TRACE", seed.to_string()).output();
        let output = output.expect("the test can be started again").stdout;
        let text = String::from_utf8_lossy(&output).into_owned();
        text.lines().find_map(|line| line.split_once("trace Ok")).map(|(_, trace)| trace.to_string())
    };
    for seed in seeds {
        let first = trace(*seed);
        assert!(first.is_some(), "SEED={seed} runs");
        assert_eq!(first, trace(*seed), "SEED={seed}");
    }
}
