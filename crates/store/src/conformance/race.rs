//! Many at once, on all machines: nobody's change is lost, and nothing is made on what was not so any more.

use std::collections::BTreeMap;

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
