//! An answer as the tables of fleet's API write it, and what was answered.

use axum::body::{Body, to_bytes};
use axum::http::Request;
use serde::Deserialize;

use crate::bench::Bench;

/// What is sent.
pub struct Sent<'a> {
    pub request: &'a str,
    pub headers: Option<&'a [String]>,
    pub body: Option<&'a str>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    pub status: u16,
    /// The content type, empty when there is none.
    #[serde(default, rename = "type")]
    pub media: String,
    #[serde(default)]
    pub answer: String,
    /// Only the beginning of the answer is known.
    #[serde(default)]
    pub begins: bool,
}

impl Answer {
    pub fn is(&self, got: &Answer) -> bool {
        let same = match self.begins {
            true => got.answer.starts_with(&self.answer),
            false => got.answer.trim_end() == self.answer.trim_end(),
        };
        same && (self.status, &self.media) == (got.status, &got.media)
    }
}

/// Headers are `application/json` for a body, unless they are given.
pub async fn exchange(bench: &Bench, sent: &Sent<'_>) -> Answer {
    let (method, path) = sent.request.split_once(' ').unwrap();
    let mut request = Request::builder().method(method).uri(path);
    match sent.headers {
        Some(headers) => {
            for header in headers {
                let (key, value) = header.split_once(": ").unwrap();
                request = request.header(key, value);
            }
        }
        None if sent.body.is_some() => request = request.header("content-type", "application/json"),
        None => {}
    }
    let request = request.body(Body::from(sent.body.unwrap_or_default().to_owned())).unwrap();
    let response = bench.send(request).await;
    assert_eq!(response.headers()["server"], "coreinitd/9.9.9", "{}", sent.request);
    let types: Vec<_> = response.headers().get_all("content-type").iter().collect();
    assert!(types.len() <= 1, "{}: {types:?}", sent.request);
    let media = types.first().map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    let status = response.status().as_u16();
    let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    Answer { status, media, answer: String::from_utf8(bytes.to_vec()).unwrap(), begins: false }
}
