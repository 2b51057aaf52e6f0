//! fleet's API as a table of what is asked and answered: `tests/fleet_http/matrix.toml`, whose head says how
//! it is read.

use serde::Deserialize;

use crate::answer::{Sent, exchange};
use crate::bench::Bench;
use crate::happen::happen;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    row: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    about: String,
    #[serde(default)]
    cluster: Vec<String>,
    send: Vec<String>,
    headers: Option<Vec<String>>,
    body: Option<String>,
    status: u16,
    #[serde(rename = "type")]
    media: Option<String>,
    message: Option<String>,
    answer: Option<String>,
    has: Option<String>,
    /// For people.
    #[expect(dead_code)]
    fleet: Option<String>,
}

#[tokio::test(start_paused = true)]
async fn every_row_is_so() {
    let table: Table = toml::from_str(include_str!("../fleet_http/matrix.toml")).unwrap();
    let mut failures = String::new();
    let mut asked = 0;
    for row in &table.row {
        for send in &row.send {
            for prefix in ["/fleet/v1", "/flt/v1", "/v1-alpha"] {
                asked += 1;
                if let Err(failure) = play(row, &send.replace('$', prefix)).await {
                    failures += &format!("{}: {}\n  {failure}\n", row.about, send.replace('$', prefix));
                }
            }
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
    assert!(table.row.len() >= 60 && asked >= 300, "{} rows, {asked} requests", table.row.len());
}

async fn play(row: &Row, request: &str) -> Result<(), String> {
    let bench = Bench::new();
    for event in &row.cluster {
        happen(&bench, event).await;
    }
    let before = bench.state();
    let sent = Sent { request, headers: row.headers.as_deref(), body: row.body.as_deref() };
    let got = exchange(&bench, &sent).await;
    let whole = row.answer.clone().or_else(|| {
        let error = |message| serde_json::json!({ "error": { "code": row.status, "message": message } });
        row.message.as_ref().map(|message| error(message).to_string())
    });
    let head = request.starts_with("HEAD ");
    let empty = head || whole.is_none() && row.has.is_none();
    let media = match (&row.media, empty && !head) {
        (Some(media), _) => media,
        (None, true) => "",
        (None, false) => "application/json",
    };
    let body_is_right = match (&whole, &row.has) {
        _ if empty => got.answer.is_empty(),
        (Some(whole), _) => got.answer == *whole,
        (None, has) => has.as_ref().is_some_and(|has| got.answer.contains(has)),
    };
    if (got.status, &*got.media) != (row.status, media) || !body_is_right {
        return Err(format!("{} {:?} {}", got.status, got.media, got.answer));
    }
    let (was, is) = (before, bench.state());
    let changed = (&was.units, &was.machines) != (&is.units, &is.machines);
    if row.status >= 400 && changed {
        return Err("refused, and something was changed".into());
    }
    Ok(())
}
