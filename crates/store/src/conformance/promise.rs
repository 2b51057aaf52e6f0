//! Who leads, who is there, what is read, and what is said of that which cannot be.

use std::time::Duration;

use cluster::{Command, DesiredState, Kind, UnitFile};
use tokio::time::{Instant, timeout};

use super::{PATIENCE, World, machine, register, set, unit};
use crate::{ProposeError, Role};

/// One machine leads, and all others know which: if not now, then once a former leader's time is over.
pub async fn one_leads(world: &World) {
    let begin = Instant::now();
    loop {
        let mut leaders = Vec::new();
        for member in &world.members {
            let role = member
                .until_role("a leader", |role| matches!(role, Role::Leader { .. } | Role::Follower { .. }));
            match role.await {
                Role::Leader { .. } => leaders.push(member.machine.clone()),
                Role::Follower { leader } => leaders.push(leader),
                other => panic!("{other:?}"),
            }
        }
        leaders.dedup();
        let leads = |role: &Role| matches!(role, Role::Leader { .. });
        let leads = world.members.iter().filter(|member| leads(&member.store.role().borrow()));
        let leads: Vec<_> = leads.map(|member| member.machine.clone()).collect();
        if leaders.len() == 1 && leads == leaders {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "all follow {leaders:?}, and {leads:?} lead");
        // Whoever is right is asked, which takes a moment.
        let _ = world.members[0].store.read(Instant::now() + PATIENCE).await;
        tokio::task::yield_now().await;
    }
}

/// Every machine is heard by the leader, and none is called silent.
pub async fn machines_are_there(world: &World) {
    for member in &world.members {
        assert_eq!(member.one(register(&member.machine)).await, Ok(Kind::Created), "{}", member.machine);
    }
    for member in &world.members {
        member.until("all machines", |state| state.machines.len() == world.members.len()).await;
        let said = member.store.here(Instant::now() + PATIENCE).await;
        assert_eq!(said, Ok(()), "{} is heard", member.machine);
    }
    let leads = |role: &Role| matches!(role, Role::Leader { .. });
    let leader = world.members.iter().find(|member| leads(&member.store.role().borrow())).expect("one leads");
    let silence = leader.store.silence();
    let known: Vec<_> = silence.keys().cloned().collect();
    let mut all: Vec<_> = world.members.iter().map(|member| member.machine.clone()).collect();
    all.sort();
    assert_eq!(known, all, "the leader tells of every machine");
    assert_eq!(silence[&leader.machine], Duration::ZERO, "the leader hears itself");
    assert!(silence.values().all(|silent| *silent < PATIENCE), "{silence:?}");
}

/// A machine that the leader never hears is more and more silent, until it counts as lost: then nothing is
/// said of it before it is back.
pub async fn who_was_never_there_is_silent(world: &World) {
    let leads = |role: &Role| matches!(role, Role::Leader { .. });
    let leader = world.members.iter().find(|member| leads(&member.store.role().borrow())).expect("one leads");
    let ghost = machine("ghost");
    assert_eq!(leader.one(register(&ghost)).await, Ok(Kind::Created));
    let silent = || leader.store.silence().get(&ghost).copied();
    // A store that hears nobody has nothing to say.
    if let Some(first) = silent() {
        let longer = async {
            while silent().is_some_and(|now| now <= first) {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, longer).await.expect("silence grows");
    }
    assert_eq!(leader.one(Command::MarkLost { machine: ghost.clone() }).await, Ok(Kind::Updated));
    assert_eq!(silent(), None, "nothing says that a lost machine is back");
    leader.one(Command::RemoveMachine { id: ghost }).await.expect("it is removed");
}

/// What one machine of the cluster could not read is refused from everywhere, with all that is proposed
/// beside it.
pub async fn what_a_machine_cannot_read_is_refused(world: &World) {
    let id = machine("old");
    let info =
        |feature_level| cluster::MachineInfo { name: "old".into(), feature_level, ..Default::default() };
    let register = |level| Command::RegisterMachine { id: id.clone(), info: info(level) };
    assert_eq!(world.any(0).one(register(1)).await, Ok(Kind::Created));
    let name = unit("beside.service");
    for member in &world.members {
        member.read().await;
        let beside = set(&name, "beside", DesiredState::Inactive);
        let refused = member.try_propose(vec![beside, Command::RaiseFeatureLevel { to: 2 }]).await;
        assert!(matches!(refused, Err(ProposeError::TooNew(_))), "{refused:?}");
        assert!(!member.read().await.units.contains_key(&name), "nothing of it was made");
    }
    world.any(1).one(Command::RemoveMachine { id }).await.expect("it is removed");
}

/// A read on any machine, begun after a write was acknowledged on any other, holds the write.
pub async fn what_is_acknowledged_is_read_everywhere(world: &World) {
    let name = unit("read.service");
    for round in 0..30 {
        let (writer, reader) = (world.any(round), world.any(round / world.members.len() + round + 1));
        // Large, so that it takes a while until others hold it.
        let text = format!("round {round} {}", "x".repeat(200_000));
        let committed = writer.propose(vec![set(&name, &text, DesiredState::Inactive)]).await;
        let own = writer.store.state().borrow().clone();
        assert!(committed.revision <= own.revision, "the own state holds it");
        let state = reader.read().await;
        let there = state.units.get(&name).is_some_and(|unit| unit.file.text().contains(&text));
        assert!(there, "round {round}: a read is behind");
        assert!(committed.revision <= state.revision, "round {round}: revisions tell what is newer");
    }
    world.any(0).one(Command::DestroyUnit { name }).await.expect("it was there");
}

pub async fn what_is_too_large_is_refused_whole(world: &World) {
    let large = |bytes: usize| {
        let text = format!("[Service]\n# {}\nExecStart=/bin/true\n", "x".repeat(bytes));
        Some(UnitFile::parse(&text).expect("it is good"))
    };
    let set = |number: usize, bytes: usize| Command::SetUnit {
        name: unit(&format!("large-{number}.service")),
        file: large(bytes),
        desired: Some(DesiredState::Inactive),
    };
    let member = world.any(2);
    let refused = member.try_propose((0..12).map(|number| set(number, 1_000_000)).collect()).await;
    assert!(matches!(refused, Err(ProposeError::TooLarge { .. })), "{refused:?}");
    assert!(member.read().await.units.is_empty(), "nothing of it was made");
    // Each of them is as large as a unit file may be.
    let committed = member.propose((0..4).map(|number| set(number, 1_000_000)).collect()).await;
    assert_eq!(committed.outcomes, vec![Ok(Kind::Created); 4]);
    let state = world.agree("large unit files").await;
    assert_eq!(state.units.len(), 4);
    let all = state.units.keys().map(|name| Command::DestroyUnit { name: name.clone() });
    member.propose(all.collect()).await;
}

pub async fn no_call_waits_beyond_its_deadline(world: &World) {
    for member in &world.members {
        let past = Instant::now();
        let command = set(&unit("late.service"), "late", DesiredState::Inactive);
        let proposed = timeout(PATIENCE, member.store.propose(vec![command], past)).await;
        let proposed = proposed.expect("it ends");
        let honest = matches!(
            proposed,
            Ok(_)
                | Err(ProposeError::Unknown
                    | ProposeError::NoLeader { .. }
                    | ProposeError::Unavailable { .. })
        );
        assert!(honest, "{proposed:?}");
        let _ = timeout(PATIENCE, member.store.read(past)).await.expect("it ends");
        let _ = timeout(PATIENCE, member.store.here(past)).await.expect("it ends");
    }
    let destroyed = world.any(0).one(Command::DestroyUnit { name: unit("late.service") }).await;
    assert!(destroyed.is_ok() || !world.any(0).read().await.units.contains_key(&unit("late.service")));
}

/// After it was given up, another machine leads, in a later term.
pub async fn the_lead_is_handed_over(world: &World) {
    let leads = |role: &Role| matches!(role, Role::Leader { .. });
    let leader = world.members.iter().find(|member| leads(&member.store.role().borrow())).expect("one leads");
    if world.members.len() == 1 {
        return;
    }
    let Role::Leader { term: before } = leader.store.role().borrow().clone() else { return };
    let ghost = machine("ghost");
    leader.propose(vec![register(&ghost), Command::MarkLost { machine: ghost.clone() }]).await;
    leader.store.give_up_lead(PATIENCE).await;
    let machine = &leader.machine;
    let follows = |role: &Role| matches!(role, Role::Follower { leader } if leader != machine);
    let Role::Follower { leader: next } = leader.until_role("another leader", follows).await else { return };
    let next = world.members.iter().find(|member| member.machine == next).expect("it is one of them");
    let role = next.until_role("the lead", leads).await;
    assert!(matches!(role, Role::Leader { term } if before < term), "{before} < {role:?}");
    next.read().await;
    let silence = next.store.silence();
    assert!(!silence.contains_key(&ghost), "a new leader calls no lost machine back: {silence:?}");
    next.one(set(&unit("after.service"), "after", DesiredState::Inactive)).await.expect("writes go on");
    assert!(leader.read().await.units.contains_key(&unit("after.service")), "and so do reads");
}
