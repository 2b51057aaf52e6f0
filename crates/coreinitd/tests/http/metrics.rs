//! `/metrics` tells what stands and what was asked.

use store::Role;

use crate::bench::Bench;
use crate::happen::happen;

#[tokio::test(start_paused = true)]
async fn what_stands_and_what_was_asked() {
    let bench = Bench::new();
    for event in
        ["machine m1 10.0.0.1", "machine m2 10.0.0.2", "sleeper a.service", "sleeper b.service", "lost m2"]
    {
        happen(&bench, event).await;
    }
    bench.ask("PUT", "/fleet/v1/units/a.service", r#"{"desiredState":"launched"}"#).await;
    happen(&bench, "assign a.service m1").await;
    happen(&bench, "report a.service m1 active done").await;
    bench.ask("PUT", "/fleet/v1/units/c.service", r#"{"desiredState":"launched"}"#).await;
    bench.ask("GET", "/fleet/v1/units/c.service", "").await;
    bench.ask("GET", "/nosuch", "").await;
    bench.ask("BREW", "/fleet/v1/units", "").await;

    let check = async |expected: &[&str]| {
        let (status, text) = bench.ask("GET", "/metrics", "").await;
        assert_eq!(status, 200);
        for line in expected {
            assert!(text.lines().any(|told| told == *line), "{line} in\n{text}");
        }
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let family = name.split('{').next().unwrap();
            let parts = ["_bucket", "_sum", "_count"].iter();
            let histogram = parts.filter_map(|part| family.strip_suffix(part));
            let mut histogram = histogram.filter(|name| text.contains(&format!("# TYPE {name} histogram")));
            let family = histogram.next().unwrap_or(family);
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert_eq!(text.matches(&format!("# TYPE {family} ")).count(), 1, "{line}");
        }
        text
    };
    let revision = format!("coreinit_revision {}", bench.state().revision);
    let text = check(&[
        r#"coreinit_units{desired="launched",current="launched"} 1"#,
        r#"coreinit_units{desired="inactive",current="inactive"} 1"#,
        r#"coreinit_units{desired="launched",current="inactive"} 0"#,
        r#"coreinit_unit_states{active="active"} 1"#,
        r#"coreinit_machines{state="ready"} 1"#,
        r#"coreinit_machines{state="lost"} 1"#,
        r#"coreinit_role{role="leader"} 1"#,
        r#"coreinit_role{role="follower"} 0"#,
        "coreinit_voters 1",
        "coreinit_votes 1",
        "coreinit_raft_term 1",
        r#"coreinit_leader{machine="m1"} 1"#,
        r#"coreinit_member_lag_entries{machine="m1",votes="1"} 0"#,
        r#"coreinit_member_silence_seconds{machine="m1"} 0"#,
        r#"coreinit_reconcile_seconds_bucket{le="+Inf"} 0"#,
        "coreinit_schedule_seconds_count 0",
        "coreinit_healthy 1",
        "coreinit_store_bytes 0",
        &format!("coreinit_committed_index {}", bench.state().revision),
        &format!("coreinit_applied_index {}", bench.state().revision),
        r#"coreinit_build_info{version="9.9.9"} 1"#,
        r#"coreinit_http_requests_total{method="PUT",route="/fleet/v1/units/{name}",status="204"} 1"#,
        r#"coreinit_http_requests_total{method="PUT",route="/fleet/v1/units/{name}",status="409"} 1"#,
        r#"coreinit_http_requests_total{method="GET",route="/fleet/v1/units/{name}",status="404"} 1"#,
        r#"coreinit_http_requests_total{method="GET",route="none",status="404"} 1"#,
        r#"coreinit_http_requests_total{method="other",route="/fleet/v1/units",status="405"} 1"#,
        &revision,
    ])
    .await;
    assert!(!text.contains("coreinit_leaderless_seconds"));

    bench.store.set_role(Role::Leaderless);
    bench.ask("GET", "/fleet/v1/units", "").await;
    check(&[
        r#"coreinit_role{role="leaderless"} 1"#,
        "coreinit_leaderless_seconds 2",
        r#"coreinit_http_requests_total{method="GET",route="/metrics",status="200"} 1"#,
        r#"coreinit_http_requests_total{method="GET",route="/fleet/v1/units",status="503"} 1"#,
    ])
    .await;
}
