//! A cluster at its work: units are asked for, changed and destroyed while machines fall, disks forget and
//! cables are pulled.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::seeds::{kept, run_part, twice};
use crate::sky::{Run, Sky, Wanted};

const CHAOS_MS: u64 = 7_000;
/// A machine that is back is heard within seconds, as is one that is lost; units move and start in between.
const CALM_MS_MAX: u64 = 30_000;
/// Callers rest for less: more calls mostly make a run dearer. Some runs have them, for what only shows in a
/// full log.
const REST_MS: u64 = 500;
const REST_MS_BUSY: u64 = 100;

pub fn run(seed: u64, verbose: bool) -> Result<Run, String> {
    let mut chance = SmallRng::seed_from_u64(seed ^ 0x0057_0a75);
    let count = if seed % 8 == 7 { 5 } else { 3 };
    let machine = |_| Wanted {
        starts_ms: chance.random_range(0..300),
        expect: count,
        join: (0..count).collect(),
        works: true,
        voter_grace_ms: 60_000,
    };
    let wanted: Vec<Wanted> = (0..count).map(machine).collect();
    let rest_ms = if seed % 12 == 11 { REST_MS_BUSY } else { REST_MS };
    let mut sky = Sky::new(seed, &wanted, rest_ms, verbose).may_wipe(u32::from(seed.is_multiple_of(3)));
    sky.chaos(CHAOS_MS)?;
    sky.calm(CALM_MS_MAX)?;
    sky.judge()
}

#[test]
fn chaos_then_calm_1() {
    run_part("working", 0, 1000, run);
}

#[test]
fn chaos_then_calm_2() {
    run_part("working", 1, 1000, run);
}

#[test]
fn chaos_then_calm_3() {
    run_part("working", 2, 1000, run);
}

#[test]
fn chaos_then_calm_4() {
    run_part("working", 3, 1000, run);
}

#[test]
fn one_seed_decides_everything() {
    twice("working::one_seed_decides_everything", &[3, 7, 8, 11], run);
}

/// A machine that had lost its disk was elected while the voters were being changed for its sake, held that
/// it was no member yet, and so never finished the change, for as long as it led.
#[test]
fn kept_who_leads_while_it_takes_its_former_place() {
    kept("working", &[537, 768], run);
}

/// A unit left its machine and was back, in the same generation, while it was being stopped there: the
/// machine held that it had started it already.
#[test]
fn kept_back_before_it_was_gone() {
    kept("working", &[3598], run);
}

/// The leader gave up each heartbeat on a connection that a cut had killed before the call had had its time:
/// in a cluster where nothing is written it went on with that connection for seconds after the cut.
#[test]
fn kept_a_cut_while_nothing_is_written() {
    kept("working", &[2072], run);
}

/// A machine whose words did not reach its leader heard it on connections that were opened though no packet
/// could come back, and ran units that the leader had given to others: the network was at fault (`net.rs`).
#[test]
fn kept_a_machine_that_hears_and_is_not_heard() {
    kept("working", &[2578], run);
}

/// A snapshot that was sent into a cut kept a machine without news for seconds after it.
#[test]
fn kept_a_snapshot_into_a_cut() {
    kept("working", &[3560], run);
}
