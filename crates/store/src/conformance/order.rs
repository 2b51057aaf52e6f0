//! A store makes what `ClusterState::apply` says, in the order it was asked to.

use cluster::{ClusterState, Command, DesiredState, Kind, Outcome, Rejected, Revision};

use super::chance::{Dice, Plan, records};
use super::{Member, World, file, same_records, set, unit};

/// Sequences of commands have the outcomes, and leave the records, that the rule alone gives.
pub async fn outcomes_are_those_of_the_rule(world: &World) {
    let mut dice = Dice(11);
    let begin = world.agree("at the beginning").await;
    let mut rule = (*begin).clone();
    for round in 0..120 {
        let member = world.any(dice.roll(world.members.len()));
        let plans: Vec<Plan> = (0..1 + dice.roll(6)).map(|_| Plan::draw(&mut dice)).collect();
        let state = member.read().await;
        let ours: Vec<Command> = plans.iter().map(|plan| plan.command(&state)).collect();
        let theirs: Vec<Command> = plans.iter().map(|plan| plan.command(&rule)).collect();
        let committed = member.propose(ours.clone()).await;
        let expected = rule.apply_all(Revision(rule.revision.0 + 1), &theirs);
        let told: Vec<Outcome> = committed.outcomes.into_iter().map(without_numbers).collect();
        let expected: Vec<Outcome> = expected.into_iter().map(without_numbers).collect();
        assert_eq!(told, expected, "round {round}: {ours:?}");
        let state = member.store.state().borrow().clone();
        assert!(committed.revision <= state.revision, "round {round}: the own state holds it");
        assert_eq!(records(&state), records(&rule), "round {round}: {ours:?}");
    }
    world.agree("after commands by chance").await;
    clear(world.any(0), &rule).await;
}

/// Takes away what the commands by chance have left.
async fn clear(member: &Member, rule: &ClusterState) {
    let units = rule.units.keys().map(|name| Command::DestroyUnit { name: name.clone() });
    let homes = rule.assignments.iter();
    let homes =
        homes.map(|(unit, home)| Command::Unassign { unit: unit.clone(), machine: home.machine.clone() });
    let observed = rule.observed.keys().map(|(unit, machine)| Command::Report {
        machine: machine.clone(),
        unit: unit.clone(),
        observed: None,
    });
    let ours = |id: &&cluster::MachineId| id.as_str().starts_with("chance-");
    let machines = rule.machines.keys().filter(ours).map(|id| Command::RemoveMachine { id: id.clone() });
    let all: Vec<Command> = units.chain(homes).chain(observed).chain(machines).collect();
    let committed = member.propose(all).await;
    assert!(committed.outcomes.iter().all(Result::is_ok), "{:?}", committed.outcomes);
}

fn without_numbers(outcome: Outcome) -> Outcome {
    outcome.map_err(|rejected| match rejected {
        Rejected::GenerationStale { name, .. } => {
            Rejected::GenerationStale { name, seen: Default::default(), now: Default::default() }
        }
        Rejected::ClusterExists { .. } => Rejected::ClusterExists { id: String::new() },
        other => other,
    })
}

/// A unit's generation is the revision of its wish: it grows with every wish, stays with a comment, and is
/// never used again, not even after the unit was gone.
pub async fn generations_only_grow(world: &World) {
    let name = unit("generations.service");
    let mut last = 0;
    for round in 0..4 {
        let member = world.any(round);
        for (text, desired) in
            [("a", DesiredState::Launched), ("a", DesiredState::Loaded), ("b", DesiredState::Loaded)]
        {
            let committed = member.propose(vec![set(&name, text, desired)]).await;
            let unit = member.read().await.units[&name].clone();
            assert_eq!(unit.generation.0, committed.revision.0, "it is the revision of the wish");
            assert!(last < unit.generation.0, "{last} was used before");
            last = unit.generation.0;
        }
        let told = format!("# a comment\n{}", file("b").text());
        let told = cluster::UnitFile::parse(&told).expect("it is good");
        let comment = Command::SetUnit { name: name.clone(), file: Some(told), desired: None };
        assert_eq!(member.one(comment).await, Ok(Kind::Updated));
        assert_eq!(member.read().await.units[&name].generation.0, last, "a comment is no new wish");
        assert_eq!(
            world.any(round + 1).one(Command::DestroyUnit { name: name.clone() }).await,
            Ok(Kind::Removed)
        );
    }
}

/// Whoever does not know what became of a proposal makes it again: wherever and however often it is made, the
/// state is the same after the last. A wish that is wished already is no new one.
pub async fn repeats_do_no_harm(world: &World) {
    let name = unit("repeated.service");
    let wish = vec![set(&name, "again", DesiredState::Launched)];
    let first = world.any(0).propose(wish.clone()).await;
    assert_eq!(first.outcomes, [Ok(Kind::Created)]);
    for round in 1..5 {
        let again = world.any(round).propose(wish.clone()).await;
        assert_eq!(again.outcomes, [Ok(Kind::Unchanged)]);
        let unit = world.any(round + 1).read().await.units[&name].clone();
        assert_eq!(unit.generation.0, first.revision.0, "a repeat is no new wish");
    }
    let nothing = world.any(1).propose(Vec::new()).await;
    assert!(nothing.outcomes.is_empty(), "{nothing:?}");
    for (round, expected) in [(2, true), (3, false)] {
        let destroyed = world.any(round).one(Command::DestroyUnit { name: name.clone() }).await;
        assert_eq!(destroyed.is_ok(), expected, "{destroyed:?}");
    }
}

/// A batch of more commands than any store makes at once.
pub async fn a_batch_is_made_in_order(world: &World) {
    const COUNT: usize = 700;
    let member = world.any(1);
    let name = |number: usize| unit(&format!("batch-{number}.service"));
    let mut commands = Vec::new();
    for number in 0..COUNT {
        commands.push(set(&name(number), "first", DesiredState::Inactive));
        commands.push(set(&name(number), "second", DesiredState::Loaded));
        if number % 2 == 1 {
            commands.push(Command::DestroyUnit { name: name(number - 1) });
        }
    }
    let committed = member.propose(commands.clone()).await;
    let kinds: Vec<Kind> =
        committed.outcomes.into_iter().map(|outcome| outcome.expect("it is made")).collect();
    assert_eq!(kinds.len(), commands.len());
    for (kind, command) in kinds.iter().zip(&commands) {
        let expected = match command {
            Command::DestroyUnit { .. } => Kind::Removed,
            Command::SetUnit { file: Some(new), .. } if *new == file("first") => Kind::Created,
            _ => Kind::Replaced,
        };
        assert_eq!(*kind, expected, "{command:?}");
    }
    let state = world.agree("after a large batch").await;
    for number in 0..COUNT {
        assert_eq!(state.units.contains_key(&name(number)), number % 2 == 1, "{number}");
    }
    let left = (0..COUNT).filter(|number| number % 2 == 1);
    member.propose(left.map(|number| Command::DestroyUnit { name: name(number) }).collect()).await;
    let state = world.agree("after all of it was destroyed").await;
    assert!(same_records(&state, &member.store.state().borrow()), "the own state holds what was proposed");
    assert!(state.units.is_empty(), "{:?}", state.units.keys().collect::<Vec<_>>());
}
