//! What a real fleet answered, asked again: `tests/fleet_http/recorded.toml`, whose head says how it is read.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::answer::{Answer, Sent, exchange};
use crate::bench::Bench;
use crate::happen::happen;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Recording {
    /// Why some of our answers are others, by a short name.
    differences: BTreeMap<String, String>,
    exchange: Vec<Exchange>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exchange {
    /// For people.
    #[expect(dead_code)]
    note: Option<String>,
    #[serde(default)]
    cluster: Vec<String>,
    send: String,
    headers: Option<Vec<String>>,
    body: Option<String>,
    status: u16,
    #[serde(default, rename = "type")]
    media: String,
    #[serde(default)]
    answer: String,
    #[serde(default)]
    begins: bool,
    differs: Option<String>,
    ours: Option<Answer>,
}

#[tokio::test(start_paused = true)]
async fn every_exchange_goes_as_it_did_with_fleet() {
    let recording: Recording = toml::from_str(include_str!("../fleet_http/recorded.toml")).unwrap();
    let bench = Bench::new();
    let mut failures = String::new();
    for exchanged in &recording.exchange {
        for event in &exchanged.cluster {
            happen(&bench, event).await;
        }
        let Exchange { send, headers, body, status, media, answer, begins, .. } = exchanged;
        let sent = Sent { request: send, headers: headers.as_deref(), body: body.as_deref() };
        let got = exchange(&bench, &sent).await;
        let fleets =
            Answer { status: *status, media: media.clone(), answer: answer.clone(), begins: *begins };
        let expected = exchanged.ours.as_ref().unwrap_or(&fleets);
        if !expected.is(&got) {
            failures +=
                &format!("{send} {body:.200?}\n  expected {expected:.300?}\n  got      {got:.300?}\n");
        }
        if exchanged.ours.is_some() && fleets.is(&got) {
            failures += &format!("{send}: the answer is fleet's; the difference is none any more\n");
        }
        if exchanged.ours.is_some() != exchanged.differs.is_some() {
            failures += &format!("{send}: a difference has an answer and a reason\n");
        }
    }
    let used: BTreeSet<_> = recording.exchange.iter().filter_map(|e| e.differs.as_ref()).collect();
    let explained: BTreeSet<_> = recording.differences.keys().collect();
    assert_eq!(used, explained, "every difference is explained, and every explanation needed");
    assert!(failures.is_empty(), "\n{failures}");
    assert_eq!(recording.exchange.len(), 171);
}
