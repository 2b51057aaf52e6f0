//! etcd's v2 key API: requests, nodes, error codes.

use std::time::Duration;

use serde::Deserialize;

use crate::http::{Http, HttpError, escaped};

/// etcd's v2 interface has one answer for both.
const DENIED: &str = "it refuses etcd_user and its password, or that user may not read and write all below \
                      etcd_prefix (a role with the path `/coreinit*`)";

/// What etcd says of a key.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    #[serde(default)]
    pub key: String,
    pub value: Option<String>,
    #[serde(default)]
    pub nodes: Vec<Node>,
    #[serde(default)]
    pub created_index: u64,
    #[serde(default)]
    pub modified_index: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Done {
    pub action: String,
    pub node: Node,
    /// Of all of etcd's keys; everything up to it is in the answer of a reading.
    #[serde(skip)]
    pub index: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ErrorBody {
    error_code: u32,
    message: String,
    #[serde(default)]
    cause: String,
    index: Option<u64>,
}

/// Why a request brought nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// With etcd's index of that moment.
    #[error("there is no such key")]
    NotFound(u64),
    /// Another was faster, or the key is there already.
    #[error("the key is not as it was")]
    Changed,
    /// The history that a watch needs is gone.
    #[error("the history is gone")]
    Cleared,
    /// etcd does not do it. Nothing was written.
    #[error("{0}")]
    Refused(String),
    /// Nothing was written; another member may do better.
    #[error("{0}")]
    NotTaken(String),
    /// It may have been written.
    #[error("{0}")]
    Unknown(String),
}

/// One member.
pub struct Member {
    pub number: u64,
    pub http: Http,
}

impl Member {
    pub async fn get(&self, key: &str, query: &str, limit: Duration) -> Result<Done, KeyError> {
        self.send("GET", key, query, None, limit).await
    }

    pub async fn put(&self, key: &str, query: &str, value: &str, limit: Duration) -> Result<Done, KeyError> {
        self.send("PUT", key, query, Some(format!("value={}", escaped(value))), limit).await
    }

    /// A new key in a directory, named by its index.
    pub async fn append(&self, key: &str, value: &str, limit: Duration) -> Result<Done, KeyError> {
        self.send("POST", key, "", Some(format!("value={}", escaped(value))), limit).await
    }

    pub async fn delete(&self, key: &str, query: &str, limit: Duration) -> Result<Done, KeyError> {
        self.send("DELETE", key, query, None, limit).await
    }

    async fn send(
        &self,
        method: &str,
        key: &str,
        query: &str,
        body: Option<String>,
        limit: Duration,
    ) -> Result<Done, KeyError> {
        let path = format!("/v2/keys{}?{query}", escaped(key));
        let answer = self.http.call(method, &path, body, limit).await.map_err(|error| match error {
            HttpError::Unreachable { .. } => KeyError::NotTaken(error.to_string()),
            HttpError::NoAnswer { .. } => KeyError::Unknown(error.to_string()),
        })?;
        if answer.status < 300 {
            let mut done: Done = serde_json::from_slice(&answer.body)
                .map_err(|error| KeyError::Unknown(format!("an answer that is none of etcd's: {error}")))?;
            done.index = answer.index.unwrap_or(done.node.modified_index);
            return Ok(done);
        }
        let error: ErrorBody = match serde_json::from_slice(&answer.body) {
            Ok(error) => error,
            Err(_) if answer.status == 401 || answer.status == 403 => {
                return Err(KeyError::Refused(DENIED.into()));
            }
            Err(_) => return Err(KeyError::Unknown(format!("it answers with status {}", answer.status))),
        };
        let told = format!("{} ({})", error.message, error.cause);
        Err(match error.error_code {
            100 => KeyError::NotFound(answer.index.or(error.index).unwrap_or(0)),
            101 | 105 => KeyError::Changed,
            401 => KeyError::Cleared,
            // The raft of etcd: it has no leader, or lost it on the way.
            300 => KeyError::Unknown(told),
            301 => KeyError::NotTaken(told),
            110 => KeyError::Refused(format!("{DENIED}: {told}")),
            _ => KeyError::Refused(told),
        })
    }
}
