//! `/healthz`, `/readyz`, and what `/v1/status` says is wrong.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use coreinitd::signs::{ROOM_SILENCE_MAX, Signs};
use store::Role;

use crate::bench::Bench;
use crate::happen::happen;

#[tokio::test(start_paused = true)]
async fn health_is_that_of_every_room() {
    let signs = Arc::new(Signs::default());
    let bench = Bench::with_signs(signs.clone());
    let check = async |status: u16, body: &str| {
        let (got, text) = bench.ask("GET", "/healthz", "").await;
        assert!(got == status && text.contains(body), "{got} {text}");
        let healthy = format!("coreinit_healthy {}", u8::from(status == 200));
        let (_, metrics) = bench.ask("GET", "/metrics", "").await;
        assert!(metrics.lines().any(|line| line == healthy), "{metrics}");
    };
    check(200, "ok\n").await;
    signs.agent.beat();
    tokio::time::advance(ROOM_SILENCE_MAX).await;
    check(200, "ok\n").await;
    tokio::time::advance(Duration::from_secs(1)).await;
    check(503, "the daemon's agent has been stuck for 61 s").await;
    signs.agent.beat();
    signs.systemd(Some("systemd cannot be reached: no bus".into()));
    check(503, "systemd cannot be reached: no bus").await;
    signs.systemd(None);
    signs.disk.total_bytes.store(100 << 30, Ordering::Relaxed);
    check(503, "the disk under the store is full").await;
    signs.disk.free_bytes.store(50 << 30, Ordering::Relaxed);
    check(200, "ok\n").await;
    signs.disk.read_only.store(true, Ordering::Relaxed);
    check(503, "can only be read").await;
    let (status, _) = bench.ask("PUT", "/healthz", "").await;
    assert_eq!(status, 405);
}

#[tokio::test(start_paused = true)]
async fn ready_is_who_belongs_to_a_cluster_with_a_leader() {
    let bench = Bench::new();
    let check = async |role: Role, status: u16, body: &str| {
        bench.store.set_role(role);
        let (got, text) = bench.ask("GET", "/readyz", "").await;
        assert_eq!((got.as_u16(), text.as_str()), (status, body));
    };
    check(Role::Leader { term: 3 }, 200, "ready: this machine leads\n").await;
    check(Role::Follower { leader: crate::bench::machine("m2") }, 200, "ready: m2 leads\n").await;
    check(Role::Leaderless, 503, "the cluster has no leader: no leader is known\n").await;
    let hint = Role::Unformed { hint: "run `corectl cluster init`".into() };
    check(hint, 503, "this machine is not part of a cluster: run `corectl cluster init`\n").await;
}

#[tokio::test(start_paused = true)]
async fn a_status_says_what_is_wrong() {
    let signs = Arc::new(Signs::default());
    let bench = Bench::with_signs(signs.clone());
    for event in ["machine m1 10.0.0.1", "machine m2 10.0.0.2", "sleeper a.service", "sleeper b.service"] {
        happen(&bench, event).await;
    }
    let concerns = async || -> Vec<String> {
        let (_, text) = bench.ask("GET", "/v1/status", "").await;
        let status: api::v1::Status = serde_json::from_str(&text).unwrap();
        status.concerns
    };
    assert_eq!(concerns().await.len(), 1, "one machine alone votes");
    for unit in ["a.service", "b.service"] {
        bench.ask("PUT", &format!("/fleet/v1/units/{unit}"), r#"{"desiredState":"launched"}"#).await;
    }
    happen(&bench, "assign a.service m1").await;
    happen(&bench, "report a.service m1 failed done").await;
    happen(&bench, "lost m2").await;
    signs.certificate(Box::new(|| SystemTime::now() + Duration::from_secs(7300)));
    signs.disk.total_bytes.store(64 << 20, Ordering::Relaxed);
    signs.disk.free_bytes.store(5 << 20, Ordering::Relaxed);
    let told = concerns().await;
    for part in
        ["host-m2 is lost", "add two", "1 unit has failed (a.service)", "ends in 2 h", "5 MiB free of 64"]
    {
        assert!(told.iter().any(|concern| concern.contains(part)), "{part} in {told:?}");
    }
    happen(&bench, "role leaderless").await;
    let told = concerns().await;
    assert!(told.iter().any(|concern| concern.contains("host-m2 is lost")), "{told:?}");
    assert!(!told.iter().any(|concern| concern.contains("may be lost")), "nobody knows: {told:?}");
    happen(&bench, "role leader").await;
    happen(&bench, "lost m1").await;
    let told = concerns().await;
    let nowhere = |concern: &String| concern.contains("on no machine (") && concern.contains("b.service");
    assert!(told.iter().any(nowhere), "{told:?}");
    assert!(!told.iter().any(|concern| concern.contains("failed")), "nobody hears from m1: {told:?}");
}
