//! A cluster's next life: of a survivor's store, or of a state from elsewhere. Nothing that was in the store
//! is lost, and stores of the life before have no part in it.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use cluster::{ClusterState, Generation, MachineId};
use raft::offline::{OfflineError, Upto, survey};
use raft::renewal::{Replace, alive, put, renewed};
use raft::{EngineKind, Tcp};
use store::{Role, Store};
use tokio::time::{Instant, interval, timeout};

use crate::{ELECTION_MS, LIMIT, Machine, follows, leads, submit};

/// A port of this machine that nobody uses now.
fn free() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

async fn three_voters(machine: &Machine) {
    let mut tick = interval(std::time::Duration::from_millis(ELECTION_MS));
    let there = async {
        while machine.store.voting().map(|voting| voting.voters) != Some(3) {
            tick.tick().await;
            let _ = machine.store.here(Instant::now() + LIMIT).await;
        }
    };
    timeout(LIMIT, there).await.expect("three voters");
}

async fn writes(machine: &Machine, name: &str) {
    machine.store.propose(submit(name), Instant::now() + LIMIT).await.unwrap();
}

async fn units(machine: &Machine) -> Vec<String> {
    let state = machine.store.read(Instant::now() + LIMIT).await.unwrap();
    state.units.keys().map(|name| name.to_string()).collect()
}

/// Makes the store in `dir` the first of a new life, as `corectl cluster recover` does.
async fn recover(dir: &Path, address: &str) -> ClusterState {
    let survey = survey(dir, EngineKind::Redb, Upto::Written).await.unwrap();
    let next = renewed(&survey.state).unwrap();
    let me = MachineId::new("m1").unwrap();
    let to = (Replace::Anything, "before-recovery");
    let aside = put(dir, EngineKind::Redb, (&me, address), &next, to).await.unwrap();
    assert!(aside.unwrap().join("identity.json").exists(), "the old store is kept");
    next
}

#[tokio::test(flavor = "multi_thread")]
async fn one_survivor_goes_on_without_the_others() {
    let parent = tempfile::tempdir().unwrap();
    let dirs: Vec<_> = (1..=4).map(|n| parent.path().join(format!("m{n}"))).collect();
    let addresses: Vec<String> = (0..3).map(|_| free()).collect();
    let one = Machine::start_at(&addresses[0], "m1", &dirs[0], &[]).await;
    one.store.init(Some("prod".into())).await.unwrap();
    one.becomes(leads).await;
    let join = [addresses[0].as_str()];
    let two = Machine::start_at(&addresses[1], "m2", &dirs[1], &join).await;
    let three = Machine::start_at(&addresses[2], "m3", &dirs[2], &join).await;
    for machine in [&two, &three] {
        machine.becomes(follows).await;
        three_voters(machine).await;
    }
    writes(&two, "kept.service").await;
    let before = one.store.read(Instant::now() + LIMIT).await.unwrap();
    one.stop().await;
    let held = survey(&dirs[1], EngineKind::Redb, Upto::Written).await;
    assert!(matches!(held, Err(OfflineError::InUse { .. })), "a daemon uses it: {held:?}");

    // Two that are there could go on, and are found.
    let seen = survey(&dirs[0], EngineKind::Redb, Upto::Written).await.unwrap();
    let cluster = seen.identity.unwrap().cluster_id;
    let (living, _) = alive(Arc::new(Tcp), &cluster, &seen.members).await;
    assert_eq!(living.iter().filter(|kept| kept.votes).count(), 2, "{living:?}");
    for machine in [two, three] {
        machine.stop().await;
    }
    let (living, leader) = alive(Arc::new(Tcp), &cluster, &seen.members).await;
    assert_eq!((living.len(), leader), (0, None));

    let next = recover(&dirs[0], &addresses[0]).await;
    let one = Machine::start_at(&addresses[0], "m1", &dirs[0], &[]).await;
    one.becomes(leads).await;
    assert_eq!(units(&one).await, ["kept.service"]);
    let state = one.store.read(Instant::now() + LIMIT).await.unwrap();
    let (now, then) = (state.cluster.as_ref().unwrap(), before.cluster.as_ref().unwrap());
    assert_ne!(now.id, then.id);
    assert_eq!((&now.name, &now.former), (&then.name, &vec![then.id.clone()]));
    assert_eq!(Some(now), next.cluster.as_ref());
    writes(&one, "new.service").await;
    let state = one.store.read(Instant::now() + LIMIT).await.unwrap();
    let newest = state.units.values().map(|unit| unit.generation).max().unwrap();
    assert!(newest > Generation(1_000_000_000), "no generation of the old life comes again: {newest}");

    // With the old stores they could be a majority of what is over. Each knows the other and the survivor.
    let two = Machine::start_at(&addresses[1], "m2", &dirs[1], &[]).await;
    let three = Machine::start_at(&addresses[2], "m3", &dirs[2], &[&addresses[0]]).await;
    for machine in [&two, &three] {
        let told =
            machine.becomes(|role| matches!(role, Role::Unformed { hint } if hint.contains("mv "))).await;
        let Role::Unformed { hint } = told else { unreachable!("just looked at") };
        assert!(hint.contains(&now.id) && hint.contains(&then.id) && hint.contains(&addresses[0]), "{hint}");
    }
    three.stop().await;

    // Empty, it is welcome; the stale one that it asks too does not matter.
    let three =
        Machine::start_at(&addresses[2], "m3", &dirs[3], &[addresses[0].as_str(), &addresses[1]]).await;
    three.becomes(follows).await;
    assert_eq!(units(&three).await, ["kept.service", "new.service"]);
    for machine in [one, two, three] {
        machine.stop().await;
    }
}

/// One that runs on through it, and only lost its leader.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_member_hears_that_the_cluster_went_on_without_it() {
    let parent = tempfile::tempdir().unwrap();
    let dirs: Vec<_> = (1..=3).map(|n| parent.path().join(format!("m{n}"))).collect();
    let addresses: Vec<String> = (0..3).map(|_| free()).collect();
    let one = Machine::start_at(&addresses[0], "m1", &dirs[0], &[]).await;
    one.store.init(None).await.unwrap();
    one.becomes(leads).await;
    let join = [addresses[0].as_str()];
    let two = Machine::start_at(&addresses[1], "m2", &dirs[1], &join).await;
    let three = Machine::start_at(&addresses[2], "m3", &dirs[2], &join).await;
    three_voters(&two).await;
    three_voters(&three).await;
    one.stop().await;
    three.stop().await;
    two.becomes(|role| matches!(role, Role::Leaderless)).await;
    recover(&dirs[0], &addresses[0]).await;
    let one = Machine::start_at(&addresses[0], "m1", &dirs[0], &[]).await;
    one.becomes(leads).await;
    let mut tick = interval(std::time::Duration::from_millis(ELECTION_MS));
    let told = async {
        while !two.store.trouble().is_some_and(|trouble| trouble.contains("which goes on as")) {
            tick.tick().await;
        }
    };
    timeout(LIMIT, told).await.unwrap_or_else(|_| panic!("{:?}", two.store.trouble()));
    for machine in [one, two] {
        machine.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_replaced_only_when_that_was_said() {
    let parent = tempfile::tempdir().unwrap();
    let (dir, fresh) = (parent.path().join("m1"), parent.path().join("fresh"));
    let one = Machine::start("m1", &dir, &[]).await;
    one.store.init(None).await.unwrap();
    one.becomes(leads).await;
    writes(&one, "a.service").await;
    one.stop().await;
    let state = survey(&dir, EngineKind::Redb, Upto::Committed).await.unwrap().state;
    let next = renewed(&state).unwrap();
    let me = MachineId::new("m1").unwrap();
    let place = |dir: &Path, replace| {
        let (dir, next, me) = (dir.to_path_buf(), next.clone(), me.clone());
        async move { put(&dir, EngineKind::Redb, (&me, "127.0.0.1:1"), &next, (replace, "before")).await }
    };
    let files = || {
        let entries = std::fs::read_dir(parent.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = files();
    let refused = place(&dir, Replace::Nobodys).await;
    assert!(matches!(refused, Err(OfflineError::Belongs { .. })), "{refused:?}");
    assert_eq!(files(), before, "nothing was changed");

    // A machine that waited for a cluster has a store of none.
    Machine::start("m2", &fresh, &[]).await.stop().await;
    assert!(place(&fresh, Replace::Nobodys).await.unwrap().is_some());
    // An empty folder, and none.
    std::fs::create_dir(parent.path().join("empty")).unwrap();
    assert_eq!(place(&parent.path().join("empty"), Replace::Nobodys).await.unwrap(), None);
    assert_eq!(place(&parent.path().join("none"), Replace::Nobodys).await.unwrap(), None);
    // Damaged, it needs a word, and then it goes as well.
    std::fs::write(dir.join("witness"), "not any more").unwrap();
    assert!(place(&dir, Replace::Nobodys).await.is_err());
    assert!(place(&dir, Replace::Anything).await.unwrap().unwrap().join("witness").exists());
    let again = survey(&dir, EngineKind::Redb, Upto::Committed).await.unwrap();
    assert_eq!(again.state, next);
}
