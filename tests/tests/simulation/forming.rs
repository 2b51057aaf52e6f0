//! A cluster that forms itself: whatever falls, is late or cannot be reached, and at whatever step, there is
//! never a second cluster, and in the end there is one.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::seeds::{kept, run_part, twice};
use crate::sky::{Run, Sky, Wanted};

/// A machine that lost its disk is taken in anew once its former life has been silent for some seconds.
const CALM_MS_MAX: u64 = 40_000;
const LATE_MS: u64 = 300_000;
/// From the start of the last machine to a cluster that works, when nothing is in its way.
const FORMING_MS_MAX: u64 = 10_000;
/// Opening a store, being a founder or a member, and some entries: a dozen writes, and some more.
const STEPS: u64 = 40;

pub fn run(seed: u64, verbose: bool) -> Result<Run, String> {
    let mut chance = SmallRng::seed_from_u64(seed ^ 0xf0a3);
    let count = if seed % 4 == 3 { 5 } else { 3 };
    let late = chance.random_range(0..count);
    let late_ms = match chance.random_range(0..40) {
        0 => chance.random_range(60_000..120_000),
        1..10 => chance.random_range(2_000..8_000),
        _ => 0,
    };
    let machine = |number| Wanted {
        starts_ms: chance.random_range(0..1000) + if number == late { late_ms } else { 0 },
        expect: count,
        join: (0..count).collect(),
        works: false,
        voter_grace_ms: 60_000,
    };
    let wanted: Vec<Wanted> = (0..count).map(machine).collect();
    let mut sky = Sky::new(seed, &wanted, 500, verbose);
    // Each trip is at a certain write: opening the store, writing down who one is, the first vote, the first
    // entry.
    for machine in 0..count {
        if chance.random_ratio(1, 2) {
            sky.trip(machine, chance.random_range(1..30), chance.random_range(500..4000));
        }
    }
    let mut wiped = false;
    for _ in 0..chance.random_range(1..6) {
        let machine = chance.random_range(0..count);
        let for_ms = chance.random_range(100..3000);
        match chance.random_range(0..8) {
            0 if !wiped => {
                wiped = true;
                sky.wipe(machine, for_ms);
            }
            0..4 => sky.split((0..count).filter(|_| chance.random()).collect(), for_ms),
            4 => sky.trip(machine, chance.random_range(1..20), for_ms),
            _ => sky.kill(machine, chance.random_range(1..1000)),
        }
        let until = sky.ms + chance.random_range(20..1500);
        while sky.ms < until {
            sky.pass(20)?;
            sky.mend(sky.ms);
        }
    }
    sky.mend(u64::MAX);
    sky.pass(1500 + late_ms)?;
    sky.calm(CALM_MS_MAX)?;
    sky.judge()
}

/// Every order in which three machines can be switched on, the last one five minutes after the others.
pub fn late(seed: u64, verbose: bool) -> Result<Run, String> {
    let order = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]][seed as usize % 6];
    let mut chance = SmallRng::seed_from_u64(seed ^ 0x1a7e);
    let mut wanted = vec![Wanted { expect: 3, join: (0..3).collect(), ..Wanted::default() }; 3];
    wanted[order[1]].starts_ms = chance.random_range(0..20_000);
    wanted[order[2]].starts_ms = LATE_MS;
    let mut sky = Sky::new(seed, &wanted, 500, verbose);
    sky.pass(LATE_MS - 1_000)?;
    let clusters = sky.world.lock().expect("alone").clusters.clone();
    if !clusters.is_empty() {
        return Err(format!("two of three have formed {clusters:?}"));
    }
    sky.pass(1_000)?;
    sky.calm(FORMING_MS_MAX)?;
    sky.judge()
}

/// One machine loses power at its first, second, ... write, and comes back: while it forms a cluster with two
/// others (even seeds), or while it joins one that three have formed (odd ones).
pub fn one_step(seed: u64, verbose: bool) -> Result<Run, String> {
    let (joins, step) = (!seed.is_multiple_of(2), seed / 2 + 1);
    let mut wanted = vec![Wanted { expect: 3, join: (0..3).collect(), ..Wanted::default() }; 3];
    if joins {
        wanted.push(Wanted { starts_ms: 5_000, join: (0..3).collect(), ..Wanted::default() });
    }
    let mut sky = Sky::new(seed, &wanted, 500, verbose);
    let fallen = wanted.len() - 1;
    sky.trip(fallen, step, 12_000);
    sky.pass(if joins { 9_000 } else { 5_000 })?;
    if !sky.log.contains(&format!("m{fallen} has tripped")) {
        return Err(sky.log.clone() + "it did not come to that step");
    }
    sky.mend(u64::MAX);
    sky.calm(FORMING_MS_MAX)?;
    sky.judge()
}

#[test]
fn in_every_order_and_one_five_minutes_late() {
    kept("forming::late", &[0, 1, 2, 3, 4, 5], late);
}

#[test]
fn one_crash_at_each_step_of_forming_and_joining() {
    let seeds: Vec<u64> = (0..2 * STEPS).collect();
    kept("forming::one_step", &seeds, one_step);
}

#[test]
fn never_two_clusters_1() {
    run_part("forming", 0, 200, run);
}

#[test]
fn never_two_clusters_2() {
    run_part("forming", 1, 200, run);
}

#[test]
fn never_two_clusters_3() {
    run_part("forming", 2, 200, run);
}

#[test]
fn never_two_clusters_4() {
    run_part("forming", 3, 200, run);
}

#[test]
fn one_seed_decides_everything() {
    twice("forming::one_seed_decides_everything", &[3, 7, 10], run);
}
