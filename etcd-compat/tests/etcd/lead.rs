//! A lead that has ended: what was decided in it is not made any more, wherever that is found out.

use cluster::{Command, Liveness};
use etcd_compat::Api;
use store::conformance::{Member, PATIENCE, register};
use store::{Committed, ProposeError, Role};
use tokio::time::Instant;

use crate::wire::Wire;
use crate::{Machines, leads, options, troubled, write, written};
use etcd_process::Etcd;

/// Decides in that term that the other is lost.
async fn decide(by: &Member, term: u64, lost: &Member) -> Result<Committed, ProposeError> {
    let commands = vec![Command::MarkLost { machine: lost.machine.clone() }];
    by.store.decide(term, commands, Instant::now() + PATIENCE).await
}

async fn term(member: &Member) -> u64 {
    let Role::Leader { term } = member.until_role("the lead", leads).await else { panic!("it leads") };
    term
}

fn is_over(decided: &Result<Committed, ProposeError>) -> bool {
    matches!(decided, Err(ProposeError::NoLeader { .. }))
}

/// One that does not know it yet: etcd does.
#[tokio::test(flavor = "multi_thread")]
async fn a_deposed_leader_is_refused_by_etcd() {
    let etcd = Etcd::start(1, &[]).await;
    let wire = Wire::to(&etcd.endpoints()[0]).await;
    let mut machines = Machines::start(&etcd, &[], Some(Api::V3));
    let first = machines.add(options("m1", etcd.dir(), vec![wire.endpoint.clone()], Some(Api::V3)));
    let lead = term(&first).await;
    let second = machines.add(options("m2", etcd.dir(), etcd.endpoints(), Some(Api::V3)));
    second.until_role("a follower", |role| matches!(role, Role::Follower { .. })).await;
    first.propose(vec![register(&second.machine)]).await;

    // Its lease goes on, and it hears nothing of what becomes of its lead.
    wire.deafen();
    etcd.ctl(&["del", "/coreinit/lead"]).await;
    assert!(lead < term(&second).await);
    assert!(leads(&first.store.role().borrow()), "it does not know");
    let decided = decide(&first, lead, &second).await;
    assert!(is_over(&decided), "{decided:?}");
    assert_eq!(second.read().await.machines[&second.machine].liveness, Liveness::Ready);
    machines.end().await;
}

/// Before a planned stop the lead is given up, and the leader's work may still be under way.
async fn who_gave_the_lead_up_decides_no_more(api: Api) {
    let etcd = Etcd::start(1, &[]).await;
    let machines = Machines::start(&etcd, &["m1"], Some(api));
    let member = machines.members[0].clone();
    let lead = term(&member).await;
    member.propose(vec![register(&member.machine)]).await;
    let earlier = decide(&member, lead - 1, &member).await;
    assert!(is_over(&earlier), "{earlier:?}");
    assert!(decide(&member, lead, &member).await.is_ok_and(|made| made.outcomes[0].is_ok()));
    member.store.give_up_lead(PATIENCE).await;
    let decided = decide(&member, lead, &member).await;
    assert!(is_over(&decided), "{decided:?}");
    written(&member, "of-the-operator").await;
    machines.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gave_the_lead_up_decides_no_more_on_v3() {
    who_gave_the_lead_up_decides_no_more(Api::V3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gave_the_lead_up_decides_no_more_on_v2() {
    who_gave_the_lead_up_decides_no_more(Api::V2).await;
}

/// A decision that waits for etcd is not made once the lead may be another's: the next leader decides anew.
/// On this interface, only the leader's own clock tells.
#[tokio::test(flavor = "multi_thread")]
async fn a_decision_ends_with_its_lead_on_v2() {
    let mut etcd = Etcd::start(1, &[]).await;
    let machines = Machines::start(&etcd, &["m1"], Some(Api::V2));
    let member = machines.members[0].clone();
    let lead = term(&member).await;
    member.propose(vec![register(&member.machine)]).await;
    etcd.kill(0).await;
    // From here on nothing is sent that may have arrived.
    troubled(&member, "127.0.0.1").await;
    let (deciding, wishing) = (member.clone(), member.clone());
    let decided = tokio::spawn(async move { decide(&deciding, lead, &deciding).await });
    let wished = tokio::spawn(async move { wishing.try_propose(vec![write("wished")]).await });
    member.until_role("nobody", |role| *role == Role::Leaderless).await;
    etcd.launch(0);
    let decided = decided.await.unwrap();
    assert!(is_over(&decided), "{decided:?}");
    assert!(wished.await.unwrap().is_ok(), "a wish waits for etcd");
    machines.end().await;
}
