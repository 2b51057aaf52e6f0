//! Many at once, on all machines: nobody's change is lost, and nothing is made on what was not so any more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cluster::{Command, DesiredState, Kind, Outcome};
use tokio::task::JoinSet;

use super::{Member, World, machine, register, set, unit};

/// Tasks on each machine.
const TASKS: usize = 4;

async fn all(world: &World, make: impl Fn(usize) -> Vec<Command>) -> Vec<Vec<Outcome>> {
    let mut tasks = JoinSet::new();
    for number in 0..TASKS * world.members.len() {
        let (member, commands): (Member, Vec<Command>) = (world.any(number).clone(), make(number));
        tasks.spawn(async move { member.propose(commands).await.outcomes });
    }
    tasks.join_all().await
}

/// Changes of one record from all sides: each adds to it, none takes another's away.
pub async fn no_change_is_lost(world: &World) {
    let id = machine("race-1");
    world.any(0).one(register(&id)).await.expect("it is registered");
    for round in 0..5 {
        let outcomes = all(world, |number| {
            let set = BTreeMap::from([(format!("{round}-{number}"), Some(number.to_string()))]);
            vec![Command::SetMachineMetadata { id: id.clone(), set }]
        });
        let outcomes = outcomes.await;
        assert!(outcomes.iter().flatten().all(|outcome| *outcome == Ok(Kind::Updated)), "{outcomes:?}");
    }
    let state = world.agree("after changes from all sides").await;
    assert_eq!(state.machines[&id].metadata_set.len(), 5 * TASKS * world.members.len());
    world.any(1).one(Command::RemoveMachine { id }).await.expect("it is removed");
}

/// While one machine writes, reads on all others hold at least what was acknowledged before they began, and
/// none is older than one before it.
pub async fn reads_never_go_back(world: &World) {
    const WRITES: u64 = 60;
    let id = machine("race-2");
    world.any(0).one(register(&id)).await.expect("it is registered");
    let acknowledged = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    // One on each machine: they read as fast as they can.
    for number in 1..=world.members.len() {
        let (member, acknowledged, id) = (world.any(number).clone(), acknowledged.clone(), id.clone());
        tasks.spawn(async move {
            let (mut last, mut looks) = (0, 0);
            while last < WRITES {
                let least = acknowledged.load(Ordering::SeqCst).max(last);
                let state = member.read().await;
                let set = &state.machines[&id].metadata_set;
                let seen = set.get("count").and_then(|text| text.as_deref()?.parse().ok()).unwrap_or(0);
                assert!(least <= seen, "{}: a read is of {seen}, after {least}", member.machine);
                (last, looks) = (seen, looks + 1);
                tokio::task::yield_now().await;
            }
            looks
        });
    }
    for count in 1..=WRITES {
        let set = BTreeMap::from([("count".to_string(), Some(count.to_string()))]);
        let set = Command::SetMachineMetadata { id: id.clone(), set };
        world.any(count as usize / 10).one(set).await.expect("it is there");
        acknowledged.store(count, Ordering::SeqCst);
        // A store that never waits lets nobody else come to read.
        tokio::task::yield_now().await;
    }
    let looks = tasks.join_all().await;
    assert!(looks.iter().all(|looks| *looks > 1), "everybody has read: {looks:?}");
    world.any(1).one(Command::RemoveMachine { id }).await.expect("it is removed");
}

pub async fn one_of_many_creates(world: &World) {
    for round in 0..5 {
        let name = unit(&format!("race-{round}.service"));
        let outcomes = all(world, |number| vec![set(&name, &number.to_string(), DesiredState::Inactive)]);
        let outcomes: Vec<Outcome> = outcomes.await.into_iter().flatten().collect();
        let created = outcomes.iter().filter(|outcome| **outcome == Ok(Kind::Created)).count();
        let replaced = outcomes.iter().filter(|outcome| **outcome == Ok(Kind::Replaced)).count();
        assert_eq!((created, replaced), (1, outcomes.len() - 1), "{outcomes:?}");
        let destroyed = all(world, |_| vec![Command::DestroyUnit { name: name.clone() }]).await;
        let removed = destroyed.iter().flatten().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(removed, 1, "{destroyed:?}");
    }
    world.agree("after a race for a name").await;
}

/// A machine that is removed while units are given to it: one of the two is refused.
pub async fn homes_stay_known(world: &World) {
    let name = unit("home.service");
    for round in 0..6 {
        let id = machine(&format!("race-home-{round}"));
        let member = world.any(round);
        member.propose(vec![register(&id), set(&name, "home", DesiredState::Launched)]).await;
        let generation = member.read().await.units[&name].generation;
        let outcomes = all(world, |number| match number % 2 {
            0 => vec![Command::RemoveMachine { id: id.clone() }],
            _ => {
                let (unit, machine, reason) = (name.clone(), id.clone(), String::new());
                vec![Command::Assign { unit, machine, generation, reason }]
            }
        });
        outcomes.await;
        let state = world.agree("after a race for a machine").await;
        assert_eq!(state.check(), Ok(()));
        let away = [
            Command::Unassign { unit: name.clone(), machine: id.clone() },
            Command::DestroyUnit { name: name.clone() },
            Command::RemoveMachine { id },
        ];
        member.propose(away.into()).await;
    }
    let state = world.agree("at the end of the races").await;
    assert!(state.units.is_empty() && state.assignments.is_empty());
}
