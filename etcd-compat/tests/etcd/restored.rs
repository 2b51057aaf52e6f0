//! An etcd that was restored from its own backup: the same cluster by its id, and another history.

use etcd_compat::Api;
use store::conformance::{same_records, unit};

use crate::{Machines, options, written};
use etcd_process::Etcd;

const V3: Option<Api> = Some(Api::V3);

/// A machine that has seen what the backup does not hold takes over what there is now.
async fn what_was_seen_and_is_gone_is_forgotten(passes: bool) {
    let mut etcd = Etcd::start(1, &[]).await;
    let (mut machines, near, wire, far) = Machines::near_and_far(&etcd, V3).await;
    written(&near, "kept").await;
    let backup = etcd.dir().join("backup");
    etcd.ctl(&["snapshot", "save", backup.to_str().unwrap()]).await;
    for name in ["lost-1", "lost-2", "lost-3"] {
        written(&near, name).await;
    }
    let seen = far.until("what is lost", |state| state.units.len() == 4).await.revision;

    wire.cut();
    etcd.restore(&backup).await;
    let is_gone = |state: &cluster::ClusterState| !state.units.contains_key(&unit("lost-3.service"));
    near.until("what the backup holds", is_gone).await;
    if passes {
        let mut count = 0;
        while near.read().await.revision <= seen {
            written(&near, &format!("later-{count}")).await;
            count += 1;
        }
    }
    wire.mend();
    far.until("what the backup holds", is_gone).await;
    assert!(far.store.state().borrow().units.contains_key(&unit("kept.service")));
    written(&far, "after").await;
    let new = machines.add(options("m3", etcd.dir(), etcd.endpoints(), V3));
    new.until("what was written", |state| state.units.contains_key(&unit("after.service"))).await;
    let (near, far, new) = (near.read().await, far.read().await, new.read().await);
    assert!(same_records(&near, &new) && same_records(&far, &new), "{near:?}, {far:?}, {new:?}");
    machines.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_seen_and_is_gone_is_forgotten_before_etcd_has_passed_it() {
    what_was_seen_and_is_gone_is_forgotten(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_seen_and_is_gone_is_forgotten_after_etcd_has_passed_it() {
    what_was_seen_and_is_gone_is_forgotten(true).await;
}

/// What `docs/etcd.md` tells to do after a restore: no generation is used a second time.
#[tokio::test(flavor = "multi_thread")]
async fn a_larger_base_makes_every_generation_new() {
    let mut etcd = Etcd::start(1, &[]).await;
    let (machines, member) = Machines::led(&etcd, V3).await;
    written(&member, "kept").await;
    let backup = etcd.dir().join("backup");
    etcd.ctl(&["snapshot", "save", backup.to_str().unwrap()]).await;
    written(&member, "lost").await;
    let used = member.read().await.revision.0;
    etcd.restore(&backup).await;
    etcd.ctl(&["put", "/coreinit/format", "{\"version\":1,\"base\":1000000}"]).await;
    let state = member.until("newer generations", |state| state.revision.0 > 1_000_000).await;
    assert!(!state.units.contains_key(&unit("lost.service")));
    assert!(state.units.values().all(|unit| used < unit.generation.0), "{state:?}");
    machines.end().await;
}
