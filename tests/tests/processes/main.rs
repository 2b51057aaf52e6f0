//! A cluster of real processes, each with sockets and files of its own, that grows from one machine to seven,
//! loses one for good, and shrinks to one again, while everybody writes and reads and one process after the
//! other is killed. What callers were told is checked for linearizability; see `simulation` for the same
//! under a seed that decides everything.

mod callers;
mod child;
mod crowd;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use tests::linearizable::Fault;
use tests::wait::eventually;

use callers::{History, UNITS};
use crowd::{Crowd, name};

/// For one change of the membership, with processes that fall, on a slow machine that has more to do.
const LIMIT: Duration = Duration::from_secs(150);
const CALLERS: usize = 6;

/// `SEED` chooses who falls and what is asked; the processes' own time decides the rest.
fn seed() -> u64 {
    std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7)
}

#[test]
fn grown_to_seven_and_shrunk_to_one_nothing_is_lost() {
    let (crowd, history, over) = (Crowd::new(), History::default(), AtomicBool::new(false));
    let is_over = || over.load(Ordering::SeqCst);
    let seed = seed();
    let kills = std::thread::scope(|scope| {
        crowd.start(1);
        voters(&crowd, 1);
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                scope.spawn({
                    let (history, crowd) = (&history, &crowd);
                    move || history.ask(caller, crowd, seed, is_over)
                })
            })
            .collect();
        let killer = scope.spawn(|| crowd.torment(seed, is_over));
        // Callers must not go on for ever when the story fails.
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| story(&crowd, seed)));
        over.store(true, Ordering::SeqCst);
        let kills = killer.join().expect("the killer ends");
        callers.into_iter().for_each(|caller| caller.join().expect("a caller ends"));
        told.unwrap_or_else(|_| panic!("SEED={seed}\n{}", crowd.last_words()));
        kills
    });
    judge(&crowd, &history, kills);
}

fn story(crowd: &Crowd, seed: u64) {
    let mut chance = SmallRng::seed_from_u64(seed ^ 0x9209);
    for (next, expected) in [([2, 3], 3), ([4, 5], 5), ([6, 7], 5)] {
        next.iter().for_each(|machine| crowd.start(*machine));
        let took = voters(crowd, expected);
        println!("processes: {} machines, {expected} voters after {took:.1?}", next[1]);
    }
    // One that dies for good: another takes its vote, and a new machine comes. Nobody is told to do anything.
    let (voting, _) = eventually(LIMIT, "somebody to say who votes", || crowd.voting());
    let dead = *voting.choose(&mut chance).expect("somebody votes");
    crowd.take_away(dead);
    crowd.start(8);
    let took = voters(crowd, 5);
    println!("processes: m{dead} is dead and m8 has come: five living voters after {took:.1?}");
    remove(crowd, dead);
    // Every other one leaves; the others die first, for as long as there are enough.
    let mut dies: bool = chance.random();
    while crowd.there().len() > 1 {
        let machine = *crowd.there().choose(&mut chance).expect("somebody is there");
        dies = !dies && crowd.there().len() > 3;
        if dies {
            crowd.take_away(machine);
        }
        remove(crowd, machine);
        if !dies {
            crowd.is_out(machine);
        }
        let left = crowd.there().len();
        let odd = if left.is_multiple_of(2) { left - 1 } else { left };
        let took = voters(crowd, odd.min(5));
        let how = if dies { "is removed, dead," } else { "has left" };
        println!("processes: m{machine} {how} and {left} remain, {} voters after {took:.1?}", odd.min(5));
    }
}

/// `corectl cluster remove`, asked of one after the other until it is done.
fn remove(crowd: &Crowd, machine: usize) {
    let path = format!("/v1/machines/{}/remove", name(machine));
    eventually(LIMIT, "the machine to be removed", || {
        let others = crowd.there().into_iter().filter(|other| *other != machine);
        let answers = others.map(|other| crowd.call(other, "POST", &path, b"{\"force\":true}"));
        let mut seen = String::new();
        for answer in answers {
            match answer {
                Ok(answer) if answer.status == 200 => return Ok(()),
                Ok(answer) => seen = answer.text(),
                Err(error) => seen = error,
            }
        }
        Err(seen)
    });
}

fn voters(crowd: &Crowd, count: usize) -> Duration {
    eventually(LIMIT, "the machines to vote", || crowd.voters(count)).1
}

fn judge(crowd: &Crowd, history: &History, kills: usize) {
    let last = crowd.there()[0];
    crowd.revive(last);
    for number in 0..UNITS {
        eventually(LIMIT, "the last machine to answer", || history.read(crowd, last, number));
    }
    assert!(crowd.crashed().is_empty(), "{:?}\n{}", crowd.crashed(), crowd.last_words());
    let leads = crowd.leads().unwrap_or_else(|broken| panic!("{broken}"));
    let stored: api::v1::Units = crowd.get(last, "/v1/units").unwrap_or_else(|error| panic!("{error}"));
    let kept = history.kept();
    let stored: Vec<&str> = stored.units.iter().map(|unit| unit.name.as_str()).collect();
    let lost: Vec<&String> = kept.iter().filter(|name| !stored.contains(&name.as_str())).collect();
    assert!(lost.is_empty(), "Nothing Lost: {lost:?}");
    let begun = Instant::now();
    history.judge().unwrap_or_else(|(unit, fault)| panic!("Linearizable: u{unit}: {fault}"));
    let [written, unknown, read] = history.counts();
    println!(
        "processes: {kills} kills, {} leaders; {written} changes acknowledged, {unknown} of unknown outcome, \
         {read} reads, {} units that only had to stay; checked in {:.1?}",
        leads.len(),
        kept.len(),
        begun.elapsed()
    );
    assert!(
        kills > 5 && leads.len() > 2 && written > 500 && read > 300 && kept.len() > 50,
        "too little happened"
    );

    // It would have been seen: a read of what was never written, and a write that was acknowledged and lost.
    let is_found = |broken: Result<(), (u32, Fault)>, unit: u32| match broken {
        Err((at, Fault::NotLinearizable { .. })) => assert_eq!(at, unit),
        other => panic!("the fault was not found: {other:?}"),
    };
    history.lose_a_write(3);
    is_found(history.judge(), 3);
    history.falsify_last_read(0);
    is_found(history.judge(), 0);
}
