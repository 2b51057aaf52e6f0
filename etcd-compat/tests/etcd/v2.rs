//! On etcd's v2 interface, which etcd 3.4 has beside the other with `--enable-v2`.

use cluster::{Command, DesiredState, Kind};
use etcd_compat::Api;
use store::conformance::{PATIENCE, set, unit};
use store::{ProposeError, Role};
use tokio::time::{Instant, timeout};

use crate::wire::Wire;
use crate::{Machines, leads, options, write, written};
use etcd_process::Etcd;

const V2: Option<Api> = Some(Api::V2);

/// The log becomes a snapshot and is made shorter; a machine that was away, and one that is new, go on from
/// there.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_log_becomes_a_snapshot() {
    let etcd = Etcd::start(1, &[]).await;
    let (mut machines, near, wire, far) = Machines::near_and_far(&etcd, V2).await;
    written(&near, "gone").await;
    far.until("the first unit", |state| state.units.len() == 1).await;

    wire.cut();
    assert_eq!(near.one(Command::DestroyUnit { name: unit("gone.service") }).await, Ok(Kind::Removed));
    // More than etcd's history of a thousand events, and than the log may hold.
    for number in 0..1100 {
        near.propose(vec![write(&format!("unit-{}", number % 50))]).await;
    }
    let snapshot = || etcd.ctl_at("2", &["get", "/coreinit/snapshot"]);
    assert!(snapshot().await.contains("crc32"), "a snapshot was made");
    let begin = Instant::now();
    loop {
        let left = etcd.ctl_at("2", &["ls", "/coreinit/log"]).await.lines().count();
        if left < 900 {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "the log still has {left} entries");
    }
    wire.mend();
    far.until("what was written meanwhile", |state| state.units.len() == 50).await;
    let new = machines.add(options("m3", etcd.dir(), etcd.endpoints(), V2));
    new.until("all units", |state| state.units.len() == 50).await;
    let (near, far, new) = (near.read().await, far.read().await, new.read().await);
    assert_eq!(near.units, far.units);
    assert_eq!(near.units, new.units, "generations and all");
    machines.end().await;
}

/// What is written is large, and the log is listed whole by whoever begins: it must not come to more than
/// that takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_large_entries_is_kept_short() {
    let etcd = Etcd::start(1, &[]).await;
    let (mut machines, near) = Machines::led(&etcd, V2).await;
    // Six times as long in a listing.
    let text = "<".repeat(1_000_000);
    for number in 0..12 {
        let set = set(&unit("large.service"), &format!("{number} {text}"), DesiredState::Inactive);
        near.propose(vec![set]).await;
    }
    let new = machines.add(options("m2", etcd.dir(), etcd.endpoints(), V2));
    new.until("the unit", |state| state.units.len() == 1).await;
    assert_eq!(near.read().await.units, new.read().await.units);
    machines.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_knows_first() {
    let etcd = Etcd::start(1, &[]).await;
    let wire = Wire::to(&etcd.endpoints()[0]).await;
    let mut machines = Machines::start(&etcd, &[], V2);
    let first = machines.add(options("m1", etcd.dir(), vec![wire.endpoint.clone()], V2));
    let Role::Leader { term } = first.until_role("the lead", leads).await else { panic!() };
    let second = machines.add(options("m2", etcd.dir(), etcd.endpoints(), V2));
    second.until_role("a follower", |role| matches!(role, Role::Follower { .. })).await;
    wire.silence();
    let role = second.until_role("the lead", leads).await;
    assert!(!leads(&first.store.role().borrow()), "two lead at once");
    assert!(matches!(role, Role::Leader { term: later } if term < later));
    wire.mend();
    first.until_role("a follower", |role| matches!(role, Role::Follower { .. })).await;
    written(&first, "back").await;
    machines.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_may_die_one_after_another() {
    let mut etcd = Etcd::start(3, &[]).await;
    let machines = Machines::start(&etcd, &["m1", "m2"], V2);
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
        assert_eq!(member.read().await.units.len(), count);
    }
    machines.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_etcd_is_refused() {
    let etcd = Etcd::start(1, &[]).await;
    let (machines, member) = Machines::led(&etcd, V2).await;
    written(&member, "precious").await;
    etcd.ctl_at("2", &["rm", "--recursive", "/coreinit"]).await;
    member.until_role("a refusal", |role| matches!(role, Role::Unformed { .. })).await;
    assert!(member.store.state().borrow().units.contains_key(&unit("precious.service")));
    let refused = member.try_propose(vec![write("lost")]).await;
    assert!(matches!(refused, Err(ProposeError::Unformed { .. })), "{refused:?}");
    machines.end().await;
}

/// Nobody said which interface: the newer one is used where it is whole.
#[tokio::test(flavor = "multi_thread")]
async fn the_interface_is_found_out() {
    let mut etcd = Etcd::start(1, &[]).await;
    etcd.kill(0).await;
    let machines = Machines::start(&etcd, &["m1"], None);
    let member = machines.members[0].clone();
    let told = |role: &Role| matches!(role, Role::Unformed { hint } if hint.contains("no etcd answers"));
    let mut role = member.store.role();
    assert!(timeout(PATIENCE, role.wait_for(told)).await.is_ok(), "{:?}", member.store.role().borrow());
    etcd.launch(0);
    member.until_role("the lead", leads).await;
    assert!(etcd.ctl(&["get", "/coreinit/format"]).await.contains("version"), "it is v3");
    machines.end().await;
}

/// A state that came from another store, with generations far beyond this etcd's index.
#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_was_written_whole_goes_on() {
    let etcd = Etcd::start(1, &[]).await;
    let mut state = cluster::ClusterState::default();
    let init = Command::InitCluster { id: "c1".into(), name: "moved".into() };
    state.apply_all(cluster::Revision(50_000), &[init, write("moved")]);
    let there = options("m1", etcd.dir(), etcd.endpoints(), V2);
    etcd_compat::offline::write(&there, &state).await.unwrap();
    assert_eq!(etcd_compat::offline::read(&there).await.unwrap().state.units, state.units);
    let (machines, member) = Machines::led(&etcd, V2).await;
    assert_eq!(member.read().await.units, state.units);
    let committed = member.propose(vec![write("new")]).await;
    assert!(state.revision < committed.revision);
    machines.end().await;
}
