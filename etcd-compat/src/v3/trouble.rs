//! What an error of etcd's means for a write, and how it is told.

use std::error::Error as _;

use etcd_client::Error;

use crate::options::Tls;
use crate::tls::explained;

/// gRPC's status codes, as their numbers on the wire.
const INVALID_ARGUMENT: i32 = 3;
const PERMISSION_DENIED: i32 = 7;
const RESOURCE_EXHAUSTED: i32 = 8;
const OUT_OF_RANGE: i32 = 11;
const DATA_LOSS: i32 = 15;
const UNAUTHENTICATED: i32 = 16;

pub const NO_SPACE: &str = "its database is full (NOSPACE) and it takes no changes; compact and \
defragment it, \
                            then `etcdctl alarm disarm`";
pub const CORRUPT: &str = "its members hold different data (CORRUPT) and it takes no changes: see \
`etcdctl alarm \
                           list`, and replace the member that is wrong, or restore all from a backup";

/// What became of a request that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// etcd does not do it, and no other member will. Nothing was written.
    #[error("{0}")]
    Refused(String),
    /// It does not know who asks, or no longer: a new connection says so anew. Nothing was written.
    #[error("{0}")]
    Stranger(String),
    #[error("{0}")]
    TooLarge(String),
    /// Nothing was written; another member may do better.
    #[error("{0}")]
    NotTaken(String),
    /// It may have been written.
    #[error("{0}")]
    Unknown(String),
}

impl Trouble {
    pub fn of(error: &Error) -> Trouble {
        let Error::GRpcStatus(status) = error else { return Trouble::NotTaken(chain(error)) };
        let code = status.code() as i32;
        let text = status.message().trim_start_matches("etcdserver: ").to_string();
        let has = |part: &str| text.contains(part);
        if has("database space exceeded") {
            return Trouble::Refused(NO_SPACE.into());
        }
        if has("corrupt") || code == DATA_LOSS {
            return Trouble::Refused(CORRUPT.into());
        }
        if has("request is too large") || code == RESOURCE_EXHAUSTED && has("larger than max") {
            return Trouble::TooLarge(text);
        }
        if has("authentication") || has("user name is empty") || has("invalid auth token") {
            return Trouble::Stranger(format!("it refuses etcd_user and its password: {text}"));
        }
        if has("auth") || code == UNAUTHENTICATED {
            return Trouble::Stranger(text);
        }
        match code {
            PERMISSION_DENIED => Trouble::Refused(
                "the user may not do this: etcd_user needs a role that may read and write all below \
                etcd_prefix"
                    .into(),
            ),
            INVALID_ARGUMENT => Trouble::Refused(text),
            RESOURCE_EXHAUSTED => Trouble::NotTaken(text),
            _ if has("no leader") || has("learner") || has("too many requests") => Trouble::NotTaken(text),
            _ => {
                let text = chain(error);
                let unsent = ["not ready", "connect error", "dns error", "error trying to connect"];
                match unsent.iter().any(|part| text.contains(part)) {
                    true => Trouble::NotTaken(text),
                    false => Trouble::Unknown(text),
                }
            }
        }
    }
}

/// The revision that is asked for has been compacted away.
pub fn is_compacted(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status)
        if status.code() as i32 == OUT_OF_RANGE && status.message().contains("compacted"))
}

/// The revision that is asked for has not been yet.
pub fn is_future(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status)
        if status.code() as i32 == OUT_OF_RANGE && status.message().contains("future revision"))
}

/// The answer is larger than this client takes.
pub fn is_too_long(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status)
        if status.code() as i32 == OUT_OF_RANGE && status.message().contains("message length"))
}

/// The error and its causes, each once.
pub fn chain(error: &Error) -> String {
    let mut words = Vec::new();
    let mut cause = match error {
        Error::GRpcStatus(status) => {
            words.push(status.message().trim_start_matches("etcdserver: ").to_string());
            status.source()
        }
        Error::TransportError(error) => {
            words.push(error.to_string());
            error.source()
        }
        other => {
            words.push(other.to_string());
            None
        }
    };
    while let Some(error) = cause {
        let text = error.to_string();
        if !words.iter().any(|word| word.contains(&text)) {
            words.push(text);
        }
        cause = error.source();
    }
    words.retain(|word| !word.is_empty());
    words.join(": ")
}

/// What is wrong with TLS, if that is among the causes.
pub fn of_tls(error: &Error, tls: Option<&Tls>) -> Option<String> {
    match error {
        Error::GRpcStatus(status) => explained(status, tls),
        Error::TransportError(error) => explained(error, tls),
        Error::IoError(error) => explained(error, tls),
        _ => None,
    }
}
