//! A machine that is a cluster by itself: nobody acknowledges its heartbeats, and it leads all the same.

use std::time::Duration;

use store::Store;
use tokio::time::{Instant, timeout};

use crate::{ELECTION_MS, LIMIT, Machine, leads, submit};

#[tokio::test(flavor = "multi_thread")]
async fn it_leads_for_as_long_as_it_lives() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::start("m1", dir.path(), &[]).await;
    machine.store.init(None).await.unwrap();
    machine.becomes(leads).await;
    machine.store.propose(submit("before.service"), Instant::now() + LIMIT).await.unwrap();

    // Many leases pass in which nothing is written.
    let mut role = machine.store.role();
    let lost = role.wait_for(|role| !leads(role));
    let idle = timeout(Duration::from_millis(30 * ELECTION_MS), lost).await;
    assert!(idle.is_err(), "it gave up its lead: {idle:?}");

    machine.store.propose(submit("after.service"), Instant::now() + LIMIT).await.unwrap();
    let state = machine.store.read(Instant::now() + LIMIT).await.unwrap();
    assert_eq!(state.units.len(), 2);
    machine.stop().await;
}
