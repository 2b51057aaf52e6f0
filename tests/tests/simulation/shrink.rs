//! A cluster of seven that shrinks to one: machines are removed, living ones and dead ones, one at a time and
//! two at once, while everybody writes and machines fall.

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use crate::grow::voters;
use crate::seeds::{run_part, twice};
use crate::sky::{Run, Sky, Wanted};

const MACHINES: usize = 7;
const VOTERS_MAX: usize = 5;
const VOTER_GRACE_MS: u64 = 4_000;
/// A machine hands on the lead, then its vote, then its place, and hears of it within seconds.
const CHANGE_MS_MAX: u64 = 40_000;

pub fn run(seed: u64, verbose: bool) -> Result<Run, String> {
    let mut chance = SmallRng::seed_from_u64(seed ^ 0x5417);
    let machine = |number: usize| Wanted {
        starts_ms: if number == 0 { 0 } else { 500 + chance.random_range(0..2_000) },
        expect: 0,
        join: if number == 0 { Vec::new() } else { (0..MACHINES).filter(|other| *other != number).collect() },
        works: seed.is_multiple_of(3),
        voter_grace_ms: VOTER_GRACE_MS,
    };
    let wanted: Vec<Wanted> = (0..MACHINES).map(machine).collect();
    let mut sky = Sky::new(seed, &wanted, 500, verbose);
    sky.until(CHANGE_MS_MAX, |world, machines| voters(world, machines, VOTERS_MAX))?;
    while sky.members().len() > 1 {
        let members = sky.members();
        // Of three and of two, one that died would take the majority along if another left or fell.
        let may_die = members.len() > 3;
        let together = if members.len() > 2 && chance.random_ratio(1, 3) { 2 } else { 1 };
        let leavers: Vec<usize> = members.sample(&mut chance, together).copied().collect();
        if may_die && chance.random_ratio(1, 3) {
            sky.take_away(leavers[0]);
            let pause = chance.random_range(0..2 * VOTER_GRACE_MS);
            sky.pass(pause)?;
        }
        sky.note(&format!("{leavers:?} are to be removed"));
        sky.world.lock().expect("alone").leaving.extend(&leavers);
        for _ in 0..chance.random_range(0..4) {
            let pause = chance.random_range(20..1200);
            sky.pass(pause)?;
            let members = sky.members();
            sky.kill(members[chance.random_range(0..members.len())], chance.random_range(2..1200));
            let until = sky.ms + chance.random_range(100..1500);
            while sky.ms < until {
                sky.pass(20)?;
                sky.mend(sky.ms);
            }
        }
        sky.mend(u64::MAX);
        sky.until(CHANGE_MS_MAX, |world, machines| {
            let late = leavers.iter().find(|leaver| !world.removed.contains(leaver));
            let deaf = machines.iter().map(|machine| machine.number);
            let deaf = deaf.clone().find(|there| leavers.contains(there) && !world.out.contains(there));
            match late.copied().or(deaf) {
                Some(leaver) => Err(format!("m{leaver} is not out, or has not heard so")),
                None => Ok(()),
            }
        })?;
        for leaver in &leavers {
            if !sky.gone.contains(leaver) {
                sky.take_away(*leaver);
            }
        }
        let left = sky.members().len();
        let odd = if left.is_multiple_of(2) { left - 1 } else { left };
        sky.until(CHANGE_MS_MAX, |world, machines| voters(world, machines, odd.min(VOTERS_MAX)))?;
        sky.world.lock().expect("alone").leaving.clear();
        sky.note(&format!("{left} machines are left"));
    }
    sky.calm(CHANGE_MS_MAX)?;
    sky.judge()
}

#[test]
fn seven_shrink_to_one_1() {
    run_part("shrink", 0, 16, run);
}

#[test]
fn seven_shrink_to_one_2() {
    run_part("shrink", 1, 16, run);
}

#[test]
fn seven_shrink_to_one_3() {
    run_part("shrink", 2, 16, run);
}

#[test]
fn seven_shrink_to_one_4() {
    run_part("shrink", 3, 16, run);
}

#[test]
fn one_seed_decides_everything() {
    twice("shrink::one_seed_decides_everything", &[0, 1], run);
}
