//! Which interface an etcd has: its `/version` says so, in the words of its day.

use std::io;
use std::time::Duration;

use serde::Deserialize;

use crate::http::{Http, HttpError};
use crate::options::{Api, Options};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// What was found, and at which of the endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub api: Api,
    pub endpoint: usize,
    /// As it says itself.
    pub version: String,
}

#[derive(Deserialize)]
struct Version {
    etcdserver: String,
}

/// Asks one endpoint after another; what each said when none has an answer.
pub async fn detect(options: &Options) -> Result<Found, String> {
    let mut reasons = Vec::new();
    for (number, endpoint) in options.endpoints.iter().enumerate() {
        match ask(options, endpoint).await {
            Ok(version) => {
                let api = options.api.unwrap_or_else(|| newest(&version));
                return Ok(Found { api, endpoint: number, version });
            }
            Err(reason) => reasons.push(reason),
        }
    }
    Err(reasons.join("; "))
}

async fn ask(options: &Options, endpoint: &str) -> Result<String, String> {
    let http = Http::new(endpoint, options.tls.as_ref(), None)?;
    let answer =
        http.call("GET", "/version", None, ANSWER_TIMEOUT).await.map_err(|error| told(endpoint, &error))?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    match serde_json::from_str::<Version>(&text) {
        Ok(version) => Ok(version.etcdserver),
        // etcd 0.x: `etcd 0.4.6`.
        Err(_) if text.starts_with("etcd ") => Ok(text.trim_start_matches("etcd ").trim().into()),
        Err(_) => Err(format!("{endpoint} does not answer as an etcd does")),
    }
}

fn told(endpoint: &str, error: &HttpError) -> String {
    match error {
        // etcd hangs up on whoever does not begin with a handshake.
        HttpError::NoAnswer { source, .. }
            if endpoint.starts_with("http:") && source.kind() != io::ErrorKind::TimedOut =>
        {
            format!("{error}; if it speaks TLS, write https:// in etcd_endpoints, and set etcd_ca_file")
        }
        _ => error.to_string(),
    }
}

/// v3 where it is whole: comparing a range of keys came with 3.3.
fn newest(version: &str) -> Api {
    let mut numbers = version.split('.').map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < (3, 3) { Api::V2 } else { Api::V3 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_each_version_has() {
        for (version, api) in [
            ("0.4.6", Api::V2),
            ("2.3.8", Api::V2),
            ("3.2.32", Api::V2),
            ("3.4.23", Api::V3),
            ("3.6.0-rc.1", Api::V3),
        ] {
            assert_eq!(newest(version), api, "{version}");
        }
    }
}
