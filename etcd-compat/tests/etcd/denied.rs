//! An etcd that answers and takes no changes, or tells nothing any more.

use etcd_client::{AlarmAction, AlarmType, Client};
use etcd_compat::Api;
use store::conformance::{Member, PATIENCE, register, set, unit};
use store::{ProposeError, Role};
use tokio::time::Instant;

use cluster::DesiredState;

use crate::wire::Wire;
use crate::{Machines, calm, leads, options, troubled, write, written};
use etcd_process::Etcd;

const V3: Option<Api> = Some(Api::V3);

/// Writes until etcd is full, and returns what is said then.
async fn fill(member: &Member) -> String {
    let text = "x".repeat(400_000);
    for count in 0..50 {
        let command = set(&unit("large.service"), &format!("{count} {text}"), DesiredState::Inactive);
        match member.try_propose(vec![command]).await {
            Ok(_) => {}
            Err(ProposeError::Unavailable { reason }) => return reason,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("it is never full");
}

/// Nobody counts as silent while nobody could say that he is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_etcd_is_named_and_moves_nothing() {
    let etcd = Etcd::start(1, &["--quota-backend-bytes=4194304"]).await;
    let (mut machines, member) = Machines::led(&etcd, V3).await;
    let wire = Wire::to(&etcd.endpoints()[0]).await;
    let far = machines.add(options("m2", etcd.dir(), vec![wire.endpoint.clone()], V3));
    far.until_role("a follower", |role| matches!(role, Role::Follower { .. })).await;
    member.propose(vec![register(&member.machine), register(&far.machine)]).await;
    let reason = fill(&member).await;
    assert!(reason.contains("NOSPACE") && reason.contains("alarm disarm"), "{reason}");
    assert!(member.store.trouble().is_some_and(|trouble| trouble.contains("NOSPACE")));
    assert_eq!(member.read().await.units.len(), 1, "it is still read");
    member.until_role("the lead", leads).await;

    // A machine loses its lease, and gets none again while etcd is full: not even a lease is taken.
    wire.cut();
    let begin = Instant::now();
    while !etcd.ctl(&["get", "/coreinit/alive/m2"]).await.is_empty() {
        assert!(begin.elapsed() < PATIENCE, "its key outlives its lease");
    }
    wire.mend();
    far.until_role("nobody", |role| *role == Role::Leaderless).await;
    troubled(&far, "NOSPACE").await;
    let silence = member.store.silence();
    assert!(silence[&far.machine].as_secs() < 1, "{silence:?}");

    let revision = member.read().await.revision.0;
    etcd.ctl(&["compact", "--physical", &revision.to_string()]).await;
    etcd.ctl(&["defrag"]).await;
    etcd.ctl(&["alarm", "disarm"]).await;
    written(&member, "room").await;
    far.until_role("a follower", |role| matches!(role, Role::Follower { .. })).await;
    calm(&member).await;
    calm(&far).await;
    machines.end().await;
}

async fn corrupt(etcd: &Etcd, action: AlarmAction) {
    let mut client = Client::connect(etcd.endpoints(), None).await.unwrap();
    client.alarm(action, AlarmType::Corrupt, None).await.unwrap();
}

/// etcd has found that its members differ: it takes nothing until somebody has looked.
#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_is_corrupt_is_named() {
    let etcd = Etcd::start(1, &[]).await;
    let (mut machines, member) = Machines::led(&etcd, V3).await;
    written(&member, "kept").await;
    corrupt(&etcd, AlarmAction::Activate).await;
    let refused = member.try_propose(vec![write("refused")]).await;
    let Err(ProposeError::Unavailable { reason }) = refused else { panic!("{refused:?}") };
    assert!(reason.contains("CORRUPT"), "{reason}");
    assert!(member.store.state().borrow().units.contains_key(&unit("kept.service")), "nothing is stopped");
    let late = machines.add(options("m2", etcd.dir(), etcd.endpoints(), V3));
    troubled(&late, "CORRUPT").await;
    assert!(!leads(&late.store.role().borrow()));

    corrupt(&etcd, AlarmAction::Deactivate).await;
    written(&member, "mended").await;
    late.until_role("a follower", |role| matches!(role, Role::Follower { .. })).await;
    assert_eq!(late.read().await.units.len(), 2);
    calm(&member).await;
    calm(&late).await;
    machines.end().await;
}

/// A watch that tells nothing any more, while everything else on its connection goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_falls_silent_is_noticed() {
    let etcd = Etcd::start(1, &[]).await;
    let (machines, near, wire, far) = Machines::near_and_far(&etcd, V3).await;
    written(&near, "first").await;
    far.until("the first unit", |state| state.units.len() == 1).await;
    wire.deafen();
    written(&near, "unheard").await;
    far.until("what its watch did not tell", |state| state.units.len() == 2).await;
    machines.end().await;
}
