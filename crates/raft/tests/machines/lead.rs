//! What a leader has decided is made in its own lead, or not at all.

use futures::future::join_all;
use store::{ProposeError, Role, Store};
use tokio::time::Instant;

use crate::{LIMIT, Machine, clustered, leads, submit};

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_is_of_one_lead() {
    let dirs: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    let [one, two] = clustered(&dirs).await;
    // Of now: a lead before this one is over.
    let Role::Leader { term } = one.becomes(leads).await else { unreachable!() };
    let decide = async |machine: &Machine, term, name: &str| {
        machine.store.decide(term, submit(name), Instant::now() + LIMIT).await
    };
    decide(&one, term, "in-time.service").await.unwrap();
    // Whoever does not lead any more asks nobody else, and does not wait until it leads again.
    for (machine, term) in [(&one, term - 1), (&one, term + 1), (&two, term)] {
        let refused = decide(machine, term, "late.service").await;
        assert!(matches!(refused, Err(ProposeError::NoLeader { .. })), "{refused:?}");
    }
    // Beside others, which share log entries, each stands for itself.
    let all = (0..60).map(|number| {
        let (one, decide) = (&one, &decide);
        async move {
            let name = |what| format!("{what}-{number}.service");
            match number % 3 {
                0 => decide(one, term, &name("now")).await.map(drop).unwrap(),
                1 => drop(decide(one, term + 1, &name("late")).await.unwrap_err()),
                _ => {
                    let proposed = one.store.propose(submit(&name("any")), Instant::now() + LIMIT).await;
                    assert_eq!(proposed.unwrap().outcomes, [Ok(cluster::Kind::Created)]);
                }
            }
        }
    });
    join_all(all).await;
    let state = two.store.read(Instant::now() + LIMIT).await.unwrap();
    assert_eq!(state.units.len(), 41);
    assert!(state.units.keys().all(|name| !name.as_str().starts_with("late")));
    two.stop().await;
    one.stop().await;
}
