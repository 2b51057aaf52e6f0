//! On etcd's v3 interface.

use cluster::{Command, DesiredState, Generation, Kind, Rejected};
use etcd_compat::{Api, User};
use store::conformance::{PATIENCE, file, machine, register, set, unit};
use store::{ProposeError, ReadError, Role};
use tokio::time::{Instant, timeout};

use crate::wire::Wire;
use crate::{Machines, leads, options, write, written};
use etcd_process::Etcd;

const V3: Option<Api> = Some(Api::V3);

#[tokio::test(flavor = "multi_thread")]
async fn history_that_was_compacted_away_is_read_anew() {
    let etcd = Etcd::start(1, &[]).await;
    let (machines, near, wire, far) = Machines::near_and_far(&etcd, V3).await;
    written(&near, "before").await;
    written(&near, "gone").await;
    far.until("the first units", |state| state.units.len() == 2).await;

    wire.cut();
    far.until_role("nobody", |role| *role == Role::Leaderless).await;
    assert_eq!(near.one(Command::DestroyUnit { name: unit("gone.service") }).await, Ok(Kind::Removed));
    let revision = near.propose(vec![write("after")]).await.revision;
    etcd.ctl(&["compact", "--physical", &revision.to_string()]).await;
    wire.mend();
    let state = far.until("the unit that was written meanwhile", |state| {
        state.units.contains_key(&unit("after.service"))
    });
    assert!(!state.await.units.contains_key(&unit("gone.service")), "what was taken away is gone");
    written(&far, "again").await;
    assert_eq!(near.read().await.units.len(), 3);
    machines.end().await;
}

/// A leader that hears nothing of etcd stops leading before anybody else begins.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_knows_first() {
    let etcd = Etcd::start(1, &[]).await;
    let wire = Wire::to(&etcd.endpoints()[0]).await;
    let mut machines = Machines::start(&etcd, &[], V3);
    let first = machines.add(options("m1", etcd.dir(), vec![wire.endpoint.clone()], V3));
    let Role::Leader { term } = first.until_role("the lead", leads).await else { panic!() };
    first.propose(vec![register(&first.machine)]).await;
    let second = machines.add(options("m2", etcd.dir(), etcd.endpoints(), V3));
    second.until_role("a follower", |role| matches!(role, Role::Follower { .. })).await;

    wire.silence();
    let role = second.until_role("the lead", leads).await;
    assert!(!leads(&first.store.role().borrow()), "two lead at once");
    assert!(matches!(role, Role::Leader { term: later } if term < later));
    let silence = second.store.silence();
    assert!(silence[&first.machine] < PATIENCE / 2, "silence counts from the new leader's beginning");
    // It knows without asking, and in no time.
    let lost = Command::MarkLost { machine: second.machine.clone() };
    let refused = first.store.decide(term, vec![lost], Instant::now() + PATIENCE).await;
    assert!(matches!(refused, Err(ProposeError::NoLeader { .. })), "{refused:?}");

    wire.mend();
    first.until_role("a follower", |role| matches!(role, Role::Follower { .. })).await;
    written(&first, "back").await;
    machines.end().await;
}

/// What was taken away, and was not heard of here, refuses nothing.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_refuses_nothing() {
    let etcd = Etcd::start(1, &[]).await;
    let (machines, near, wire, far) = Machines::near_and_far(&etcd, V3).await;
    let (name, ghost) = (unit("web.service"), machine("ghost"));
    let set = set(&name, "web", DesiredState::Launched);
    let generation = Generation(near.propose(vec![register(&ghost), set]).await.revision.0);
    let (unit, home, reason) = (name.clone(), ghost.clone(), String::new());
    let assign = Command::Assign { unit, machine: home, generation, reason };
    assert_eq!(near.one(assign).await, Ok(Kind::Created));
    far.until_role("a follower", |role| matches!(role, Role::Follower { .. })).await;
    far.until("the unit's home", |state| state.assignments.contains_key(&name)).await;
    let refused = far.one(Command::RemoveMachine { id: ghost.clone() }).await;
    assert!(matches!(refused, Err(Rejected::MachineInUse { .. })), "{refused:?}");

    wire.deafen();
    let unassign = Command::Unassign { unit: name.clone(), machine: ghost.clone() };
    assert_eq!(near.one(unassign).await, Ok(Kind::Removed));
    assert!(far.store.state().borrow().assignments.contains_key(&name), "it has not heard of it");
    assert_eq!(far.one(Command::RemoveMachine { id: ghost }).await, Ok(Kind::Removed));
    machines.end().await;
}

/// Members are killed one after another while units are written: whatever was acknowledged is there.
#[tokio::test(flavor = "multi_thread")]
async fn members_may_die_one_after_another() {
    let mut etcd = Etcd::start(3, &[]).await;
    let machines = Machines::start(&etcd, &["m1", "m2"], V3);
    for member in &machines.members {
        member.until_role("a leader", |role| !matches!(role, Role::Unformed { .. })).await;
    }
    let mut count = 0;
    for round in 0..3 {
        etcd.kill(round).await;
        for _ in 0..10 {
            written(&machines.members[count % 2], &format!("unit-{count}")).await;
            count += 1;
        }
        etcd.launch(round);
        etcd.serves(round).await;
    }
    for member in &machines.members {
        let state = member.read().await;
        assert_eq!(state.units.len(), count);
    }
    machines.end().await;
}

/// Without any etcd the state stays what it was, and everybody says why nothing can be changed.
#[tokio::test(flavor = "multi_thread")]
async fn all_of_etcd_may_be_away() {
    let mut etcd = Etcd::start(1, &[]).await;
    let machines = Machines::start(&etcd, &["m1", "m2"], V3);
    let member = machines.members[0].clone();
    // Both: one may know of the cluster before the other does.
    for member in &machines.members {
        member.until_role("a leader", |role| !matches!(role, Role::Unformed { .. })).await;
    }
    written(&member, "kept").await;
    // The other one has seen it, too.
    machines.members[1].read().await;
    etcd.kill(0).await;
    for member in &machines.members {
        member.until_role("nobody", |role| *role == Role::Leaderless).await;
        assert!(member.store.state().borrow().units.contains_key(&unit("kept.service")));
        let refused = member.store.propose(vec![write("lost")], Instant::now()).await;
        let Err(ProposeError::Unavailable { reason }) = refused else { panic!("{refused:?}") };
        assert!(reason.contains("http://127.0.0.1"), "{reason}");
        let read = member.store.read(Instant::now()).await;
        assert!(matches!(read, Err(ReadError::Unavailable { .. })), "{read:?}");
    }
    etcd.launch(0);
    written(&member, "later").await;
    for member in &machines.members {
        member.until_role("a leader", |role| *role != Role::Leaderless).await;
        assert_eq!(member.read().await.units.len(), 2);
        assert!(member.store.silence().values().all(|silent| *silent < PATIENCE));
    }
    machines.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_checked() {
    let mut etcd = Etcd::start(1, &[]).await;
    etcd.ctl(&["user", "add", "root:secret"]).await;
    etcd.ctl(&["user", "grant-role", "root", "root"]).await;
    etcd.ctl(&["user", "add", "daemon:word"]).await;
    etcd.ctl(&["role", "add", "coreinit"]).await;
    etcd.ctl(&["role", "grant-permission", "--prefix=true", "coreinit", "readwrite", "/coreinit/"]).await;
    etcd.ctl(&["user", "grant-role", "daemon", "coreinit"]).await;
    etcd.ctl(&["auth", "enable"]).await;
    let mut machines = Machines::start(&etcd, &[], V3);
    let user = |name: &str, password: &str| Some(User { name: name.into(), password: password.into() });
    let cases = [("m2", user("daemon", "wrong"), "etcd_user"), ("m3", None, "user")];
    for (id, user, expected) in cases {
        let mut options = options(id, etcd.dir(), etcd.endpoints(), V3);
        options.user = user;
        let member = machines.add(options);
        let mut role = member.store.role();
        let told = |role: &Role| matches!(role, Role::Unformed { hint } if hint.contains(expected));
        let found = timeout(PATIENCE, role.wait_for(told)).await.map(drop);
        assert!(found.is_ok(), "{id}: {:?}", member.store.role().borrow());
    }
    let mut good = options("m1", etcd.dir(), etcd.endpoints(), V3);
    good.user = user("daemon", "word");
    let member = machines.add(good);
    member.until_role("the lead", leads).await;
    written(&member, "allowed").await;
    // etcd forgets its tokens.
    etcd.kill(0).await;
    etcd.launch(0);
    written(&member, "still").await;
    machines.end().await;
}

/// An etcd that was emptied, or another one, does not look like a cluster without units.
#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_etcd_is_refused() {
    let etcd = Etcd::start(1, &[]).await;
    let (machines, member) = Machines::led(&etcd, V3).await;
    written(&member, "precious").await;
    etcd.ctl(&["del", "--prefix", "/coreinit/"]).await;
    let refuses = |role: &Role| matches!(role, Role::Unformed { .. });
    member.until_role("a refusal", refuses).await;
    assert!(
        member.store.state().borrow().units.contains_key(&unit("precious.service")),
        "nothing is stopped"
    );
    machines.end().await;

    // And so does a daemon that begins now.
    let machines = Machines::start(&etcd, &["m1"], V3);
    let told = |role: &Role| matches!(role, Role::Unformed { hint } if hint.contains("belongs to cluster"));
    machines.members[0].until_role("a refusal with its reason", told).await;
    let read = machines.members[0].store.read(Instant::now() + PATIENCE).await;
    assert!(matches!(&read, Err(ReadError::Unformed { hint }) if hint.contains("etcd-cluster")), "{read:?}");
    machines.end().await;
}

/// What a newer version wrote is not guessed at, and not acted on.
#[tokio::test(flavor = "multi_thread")]
async fn a_newer_record_is_refused_until_it_is_gone() {
    let etcd = Etcd::start(1, &[]).await;
    let (machines, member) = Machines::led(&etcd, V3).await;
    written(&member, "kept").await;
    etcd.ctl(&["put", "/coreinit/state/units/new.service", "{\"version\":9,\"record\":{}}"]).await;
    let told = |role: &Role| matches!(role, Role::Unformed { hint } if hint.contains("of version 9"));
    member.until_role("a refusal with its reason", told).await;
    let refused = member.try_propose(vec![write("refused")]).await;
    assert!(matches!(refused, Err(ProposeError::Unformed { .. })), "{refused:?}");
    etcd.ctl(&["del", "/coreinit/state/units/new.service"]).await;
    member.until_role("the lead", leads).await;
    written(&member, "again").await;
    assert_eq!(member.read().await.units[&unit("kept.service")].file, file("kept"));
    machines.end().await;
}
