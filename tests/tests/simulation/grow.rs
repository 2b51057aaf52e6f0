//! A cluster that grows from one machine to seven and shrinks to three, written to all the while, with
//! machines that fall.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use store::Store;

use crate::machine::Machine;
use crate::seeds::{run_part, twice};
use crate::sky::{Run, Sky, Wanted};
use crate::world::World;

const MACHINES: usize = 7;
const VOTER_GRACE_MS: u64 = 4_000;
/// A vote is given to a machine that has been heard and has caught up, one change at a time.
const CHANGE_MS_MAX: u64 = 40_000;

pub fn run(seed: u64, verbose: bool) -> Result<Run, String> {
    let mut chance = SmallRng::seed_from_u64(seed ^ 0x9a0b);
    let machine = |number: usize| Wanted {
        // Two at a time.
        starts_ms: match number {
            0 => 0,
            _ => 2_500 * number.div_ceil(2) as u64 + chance.random_range(0..600),
        },
        expect: 0,
        join: if number == 0 { Vec::new() } else { (0..MACHINES).filter(|other| *other != number).collect() },
        works: seed.is_multiple_of(4),
        voter_grace_ms: VOTER_GRACE_MS,
    };
    let wanted: Vec<Wanted> = (0..MACHINES).map(machine).collect();
    let mut sky = Sky::new(seed, &wanted, 600, verbose);
    // While it grows, one machine after the other falls for a moment.
    while sky.ms < 10_000 {
        let pause = chance.random_range(200..1500);
        sky.pass(pause)?;
        let grown = (1 + 2 * (sky.ms / 2_500) as usize).min(MACHINES);
        sky.kill(chance.random_range(0..grown), chance.random_range(2..1200));
        let until = sky.ms + 1500;
        while sky.ms < until {
            sky.pass(20)?;
            sky.mend(sky.ms);
        }
    }
    sky.mend(u64::MAX);
    sky.until(CHANGE_MS_MAX, |world, machines| voters(world, machines, 5))?;
    sky.note("seven machines, five voters");
    // Two voters that never come back: learners take their places.
    for _ in 0..2 {
        let all: Vec<usize> = (0..MACHINES).filter(|machine| !sky.gone.contains(machine)).collect();
        sky.take_away(all[chance.random_range(0..all.len())]);
        sky.pass(VOTER_GRACE_MS + 2_000)?;
        sky.kill(*all.iter().find(|m| !sky.gone.contains(m)).expect("most are there"), 300);
        sky.pass(400)?;
        sky.mend(u64::MAX);
    }
    sky.until(CHANGE_MS_MAX, |world, machines| voters(world, machines, 5))?;
    sky.until(CHANGE_MS_MAX, all_vote)?;
    sky.note("five machines, all of them voters");
    // Two more: three of five are a majority.
    for _ in 0..2 {
        let all: Vec<usize> = (0..MACHINES).filter(|machine| !sky.gone.contains(machine)).collect();
        sky.take_away(all[chance.random_range(0..all.len())]);
        let pause = chance.random_range(100..3000);
        sky.pass(pause)?;
    }
    sky.calm(CHANGE_MS_MAX)?;
    sky.judge()
}

/// Everybody knows of so many voters.
pub fn voters(world: &World, machines: &[&Machine], expected: usize) -> Result<(), String> {
    for machine in machines {
        let store = world.stores.get(&machine.number).ok_or(format!("m{} does not run", machine.number))?;
        let voting = store.voting();
        if voting.as_ref().map(|voting| voting.voters) != Some(expected) {
            return Err(format!("m{} sees {voting:?}, not {expected} voters", machine.number));
        }
    }
    Ok(())
}

fn all_vote(world: &World, machines: &[&Machine]) -> Result<(), String> {
    for machine in machines {
        let voting = world.stores.get(&machine.number).and_then(|store| store.voting());
        if !voting.as_ref().is_some_and(|voting| voting.votes) {
            return Err(format!("m{} does not vote: {voting:?}", machine.number));
        }
    }
    Ok(())
}

#[test]
fn grow_to_seven_and_shrink_1() {
    run_part("grow", 0, 16, run);
}

#[test]
fn grow_to_seven_and_shrink_2() {
    run_part("grow", 1, 16, run);
}

#[test]
fn grow_to_seven_and_shrink_3() {
    run_part("grow", 2, 16, run);
}

#[test]
fn grow_to_seven_and_shrink_4() {
    run_part("grow", 3, 16, run);
}

#[test]
fn one_seed_decides_everything() {
    twice("grow::one_seed_decides_everything", &[0, 1], run);
}
