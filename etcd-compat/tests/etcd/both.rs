//! What holds on either of etcd's interfaces.

use etcd_compat::{Api, EtcdStore};
use etcd_process::Etcd;
use store::Store;
use store::conformance::{PATIENCE, found, leave, machine, run};
use tokio::time::{Instant, timeout};

use crate::{MOMENT, Machines, options};

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_what_every_store_promises_on_v2() {
    promises(Api::V2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_what_every_store_promises_on_v3() {
    promises(Api::V3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_outlives_all_daemons_and_etcd_on_v2() {
    outlives(Api::V2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_outlives_all_daemons_and_etcd_on_v3() {
    outlives(Api::V3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_know_where_each_other_is_on_v2() {
    know_each_other(Api::V2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_know_where_each_other_is_on_v3() {
    know_each_other(Api::V3).await;
}

async fn promises(api: Api) {
    let etcd = Etcd::start(1, &[]).await;
    let machines = Machines::start(&etcd, &["m1", "m2", "m3"], Some(api));
    run(machines.members.clone()).await;
    machines.end().await;
}

async fn outlives(api: Api) {
    let mut etcd = Etcd::start(1, &[]).await;
    let machines = Machines::start(&etcd, &["m1", "m2", "m3"], Some(api));
    let kept = leave(machines.members.clone()).await;
    machines.end().await;
    etcd.kill(0).await;
    etcd.launch(0);
    let machines = Machines::start(&etcd, &["m1", "m2", "m3"], Some(api));
    found(machines.members.clone(), &kept).await;
    machines.end().await;
}

/// Where each daemon is reached by the others goes with its presence.
async fn know_each_other(api: Api) {
    let etcd = Etcd::start(1, &[]).await;
    let (stop, stopping) = tokio::sync::watch::channel(false);
    let (near, driver) =
        EtcdStore::start(options("m1", etcd.dir(), etcd.endpoints(), Some(api)), stopping).unwrap();
    let mut drivers = tokio::task::JoinSet::new();
    drivers.spawn(driver);
    let wait = async |id: &str, expected: Option<&str>| {
        let found = async {
            while near.peer(&machine(id)).as_deref() != expected {
                let _ = near.read(Instant::now() + MOMENT).await;
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("{id}: {:?}", near.peer(&machine(id))));
    };
    wait("m1", Some("m1:7340")).await;
    assert_eq!(near.peer(&machine("m2")), None);
    let machines = Machines::start(&etcd, &["m2"], Some(api));
    wait("m2", Some("m2:7340")).await;
    machines.end().await;
    wait("m2", None).await;
    stop.send_replace(true);
    drivers.join_all().await;
}
