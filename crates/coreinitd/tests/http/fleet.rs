//! fleet's API as a table: each file under `tests/fleet_http` is a conversation with a fresh daemon, most of
//! it what fleet 1.0 answered. `README` there says how a file is read.

use std::path::Path;

use axum::body::Body;
use axum::http::Request;

use crate::bench::{Bench, text};
use crate::happen::happen;

#[tokio::test(start_paused = true)]
async fn every_conversation_goes_as_written() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fleet_http");
    let mut exchanges = 0;
    let mut failures = String::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            let (count, failed) = converse(&path).await;
            exchanges += count;
            failures.push_str(&failed);
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
    assert!(exchanges > 100, "only {exchanges} exchanges were found");
}

async fn converse(path: &Path) -> (usize, String) {
    let bench = Bench::new();
    let content = std::fs::read_to_string(path).unwrap();
    let file = path.file_name().unwrap().to_string_lossy();
    let mut words: Vec<(String, String)> = Vec::new();
    let (mut exchanges, mut failures) = (0, String::new());
    let mut lines =
        content.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    while let Some((number, line)) = lines.next() {
        let line = words.iter().fold(line.to_owned(), |line, (word, text)| line.replace(word, text));
        if let Some((word, text)) = line.strip_prefix("let ").and_then(|rest| rest.split_once(" = ")) {
            words.push((word.into(), text.into()));
        } else if let Some(event) = line.strip_prefix('@') {
            happen(&bench, event).await;
        } else {
            let mut headers: Vec<String> = Vec::new();
            let answer = loop {
                let (_, next) = lines.next().expect("a request is followed by its answer");
                match next.strip_prefix("  ") {
                    Some(header) => headers.push(header.into()),
                    None => {
                        break words
                            .iter()
                            .fold(next.to_owned(), |line, (word, text)| line.replace(word, text));
                    }
                }
            };
            exchanges += 1;
            let got = exchange(&bench, &line, &headers).await;
            let as_written = match answer.split_once(" ~") {
                Some((status, part)) => got.starts_with(status) && got.contains(part),
                None => got == answer,
            };
            if !as_written {
                failures +=
                    &format!("{file}:{}: {line}\n  expected {answer}\n  got      {got}\n", number + 1);
            }
        }
    }
    (exchanges, failures)
}

/// Status and body in one line.
async fn exchange(bench: &Bench, line: &str, headers: &[String]) -> String {
    let mut parts = line.splitn(3, ' ');
    let (method, path) = (parts.next().unwrap(), parts.next().unwrap());
    let body = parts.next().map(|body| body.replace("(nothing)", "")).unwrap_or_default();
    let mut request = Request::builder().method(method).uri(path);
    if line.splitn(3, ' ').count() == 3 && headers.is_empty() {
        request = request.header("content-type", "application/json");
    }
    for header in headers.iter().filter(|header| *header != "no Content-Type") {
        let (key, value) = header.split_once(": ").unwrap();
        request = request.header(key, value);
    }
    let response = bench.send(request.body(Body::from(body)).unwrap()).await;
    assert_eq!(response.headers()["server"], "coreinitd/9.9.9", "{line}");
    let is_json = response.headers().get("content-type").is_some_and(|value| value == "application/json");
    let (status, body) = text(response).await;
    let patched = method == "PATCH" && status == 204;
    assert_eq!(is_json, !body.is_empty() || patched, "content type of the answer to {line}");
    format!("{} {body}", status.as_u16()).trim_end().into()
}
