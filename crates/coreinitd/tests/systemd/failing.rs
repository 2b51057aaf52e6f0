//! Units that fail: the reason is told, and a person may try again.

use cluster::Observed;

use crate::host::{Host, OneMachine, name, sleeper};

pub async fn a_failure_says_why(cluster: &OneMachine) {
    let text = "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo no luck today; exit 3'\n";
    cluster.start("bad.service", text).await;
    let observed = cluster.settled("bad.service").await;
    let failure = observed.failure.expect("a failed start says why");
    assert_eq!((&*observed.active, &*failure.reason), ("failed", "start job failed: exit-code (status 3)"));
    assert!(failure.journal.iter().any(|line| line == "no luck today"), "{:?}", failure.journal);

    cluster.start("absent.service", "[Service]\nExecStart=/nowhere/to/be/found\n").await;
    // To systemd this start has succeeded, and the unit failed after it.
    let why = |o: &Observed| o.failure.as_ref().is_some_and(|f| f.reason == "exit-code (status 203)");
    cluster
        .wait("its failure is told", |state| state.observed_of(&name("absent.service")).any(|(_, o)| why(o)))
        .await;

    cluster
        .start(
            "needy.service",
            &sleeper("needy").replace("[Service]", "Requires=bad.service\nAfter=bad.service\n[Service]"),
        )
        .await;
    let observed = cluster.settled("needy.service").await;
    assert_eq!(&*observed.failure.unwrap().reason, "start job failed: dependency");

    cluster.start("empty.service", "[Service]\n").await;
    let observed = cluster.settled("empty.service").await;
    assert!(observed.failure.unwrap().reason.contains("bad unit file setting"));
    cluster.destroy(&["bad.service", "absent.service", "needy.service", "empty.service"]).await;
}

pub async fn a_person_may_start_again_and_again(host: &Host, cluster: &OneMachine) {
    for round in 0..8 {
        cluster.start("eager.service", &sleeper(&format!("attempt {round}"))).await;
        let observed = cluster.settled("eager.service").await;
        assert_eq!(&*observed.active, "active", "{:?}", observed.failure);
    }
    cluster.destroy(&["eager.service"]).await;

    // systemd's result of a start that it refuses is that of the start before.
    for round in 0..3 {
        let limit = format!("Description=attempt {round}\nStartLimitBurst=1\nStartLimitIntervalSec=600\n");
        let fails = "Type=oneshot\nExecStart=/bin/sh -c 'echo again >>/run/attempts; exit 3'\n";
        cluster.start("loser.service", &format!("[Unit]\n{limit}[Service]\n{fails}")).await;
        let reason = cluster.settled("loser.service").await.failure.map(|failure| failure.reason);
        assert_eq!(reason.as_deref(), Some("start job failed: exit-code (status 3)"));
    }
    let attempts = std::fs::read_to_string(host.root.join("run/attempts")).unwrap();
    assert_eq!(attempts.lines().count(), 3);
    cluster.destroy(&["loser.service"]).await;
}

pub async fn a_unit_that_waits_to_be_tried_again_says_why(cluster: &OneMachine) {
    let text = "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'exit 3'\nRestart=on-failure\nRestartSec=1h\n";
    cluster.start("round.service", text).await;
    let observed = cluster.settled("round.service").await;
    let reason = observed.failure.map(|failure| failure.reason);
    assert_eq!((&*observed.active, &*observed.sub), ("activating", "auto-restart"));
    assert_eq!(reason.as_deref(), Some("start job failed: exit-code (status 3)"));
    cluster.destroy(&["round.service"]).await;
}
