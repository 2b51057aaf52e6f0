//! A machine that is removed is told so, and comes back only when it may.

use cluster::{Command, Expelled, MachineId};
use store::{Role, Store};
use tokio::time::{Instant, timeout};

use crate::grown::voters;
use crate::{LIMIT, Machine, clustered, leads};

async fn order(machine: &Machine, command: Command) {
    let committed = machine.store.propose(vec![command], Instant::now() + LIMIT).await.unwrap();
    assert!(committed.outcomes[0].is_ok(), "{committed:?}");
}

fn expel(id: &str) -> Command {
    Command::Expel { machine: MachineId::new(id).unwrap(), expelled: Expelled { at: 1, name: id.into() } }
}

async fn hears_it(machine: &Machine) {
    let mut expelled = machine.store.expelled();
    let heard = expelled.wait_for(|expelled| *expelled);
    timeout(LIMIT, heard).await.unwrap_or_else(|_| panic!("{:?}", machine.store.role().borrow())).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn it_hears_so_from_the_leader_and_comes_back_when_it_may() {
    let dirs: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    let [one, two, three] = clustered(&dirs).await;
    tokio::join!(voters(&two, 3), voters(&three, 3));

    order(&one, expel("m3")).await;
    tokio::join!(hears_it(&three), voters(&one, 1));
    assert!(!*one.store.expelled().borrow() && !*two.store.expelled().borrow());
    three.stop().await;

    let again = Machine::start("m3", dirs[3].path(), &[one.store.address()]).await;
    let removed = |role: &Role| matches!(role, Role::Unformed { hint } if hint.contains("was removed"));
    again.becomes(removed).await;
    order(&two, Command::Readmit { machine: MachineId::new("m3").unwrap() }).await;
    again.becomes(|role| matches!(role, Role::Follower { .. })).await;
    tokio::join!(voters(&one, 3), voters(&again, 3), voters(&two, 3));

    // The leader itself: it gives up the lead, then its vote, then its place.
    let leader = [&one, &two, &again].into_iter().position(|machine| leads(&machine.store.role().borrow()));
    let mut machines = vec![("m1", one), ("m2", two), ("m3", again)];
    let (id, leader) = machines.remove(leader.expect("one leads"));
    order(&machines[0].1, expel(id)).await;
    tokio::join!(hears_it(&leader), voters(&machines[0].1, 1), voters(&machines[1].1, 1));
    leader.stop().await;
    for (_, machine) in machines {
        machine.stop().await;
    }
}

/// It was away when it was removed, and when it was taken back: its node is a member no more, whatever the
/// machine may do. What it has of the cluster is old, and stays so.
#[tokio::test(flavor = "multi_thread")]
async fn it_hears_so_though_it_may_come_back_by_now() {
    let dirs: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    let [one, two, three] = clustered(&dirs).await;
    tokio::join!(voters(&two, 3), voters(&three, 3));
    three.stop().await;

    order(&one, expel("m3")).await;
    let gone = async {
        let there = |member: &store::Member| member.machine.as_str() == "m3";
        while one.store.members(Instant::now() + LIMIT).await.is_ok_and(|all| all.iter().any(there)) {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, gone).await.expect("it is no member any more");
    order(&one, Command::Readmit { machine: MachineId::new("m3").unwrap() }).await;

    let again = Machine::start("m3", dirs[2].path(), &[one.store.address()]).await;
    hears_it(&again).await;
    again.stop().await;
    let anew = Machine::start("m3", dirs[3].path(), &[one.store.address()]).await;
    anew.becomes(|role| matches!(role, Role::Follower { .. })).await;
    assert!(!*anew.store.expelled().borrow() && !*two.store.expelled().borrow());
    for machine in [anew, two, one] {
        machine.stop().await;
    }
}
