//! A cluster that begins as one machine and grows: its state is safe once there are three.

use store::{Role, Store};
use tokio::time::{Duration, Instant, interval, timeout};

use crate::{LIMIT, Machine, leads, submit};

pub async fn voters(machine: &Machine, expected: usize) {
    let mut tick = interval(Duration::from_millis(20));
    let there = async {
        // Those before, until the change is made.
        while machine.store.voting().map(|voting| voting.voters) != Some(expected) {
            tick.tick().await;
            // As the daemon does each second.
            let _ = machine.store.here(Instant::now() + LIMIT).await;
        }
    };
    let voting = || machine.store.voting();
    timeout(LIMIT, there).await.unwrap_or_else(|_| panic!("{expected} voters, not {:?}", voting()));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_machine_and_two_that_join_survive_the_first() {
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let one = Machine::start("m1", dirs[0].path(), &[]).await;
    one.store.init(None).await.unwrap();
    one.becomes(leads).await;
    one.store.propose(submit("before.service"), Instant::now() + LIMIT).await.unwrap();
    let two = Machine::start("m2", dirs[1].path(), &[one.store.address()]).await;
    let three = Machine::start("m3", dirs[2].path(), &[one.store.address()]).await;
    tokio::join!(voters(&two, 3), voters(&three, 3));

    one.stop().await;
    // What is asked of one that stops may or may not be done.
    let is_one = |role: &Role| matches!(role, Role::Follower { leader } if leader.as_str() == "m1");
    let another = |role: &Role| !is_one(role) && matches!(role, Role::Leader { .. } | Role::Follower { .. });
    let role = two.becomes(another).await;
    two.store.propose(submit("after.service"), Instant::now() + LIMIT).await.unwrap_or_else(|error| {
        panic!("{role:?}: {error}");
    });
    let state = three.store.read(Instant::now() + LIMIT).await.unwrap();
    assert_eq!(state.units.len(), 2);
    for machine in [two, three] {
        machine.stop().await;
    }
}
