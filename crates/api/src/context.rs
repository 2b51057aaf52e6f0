//! All that a person needs to use a cluster from afar, in one text: where it is, what it is known by, and the
//! certificate and key that the person is known by.

use std::fmt;

use cluster::{PersonName, PersonRole};
use serde::{Deserialize, Serialize};

/// Of the whole text; ours have some two thousand.
pub const CONTEXT_BYTES_MAX: u64 = 64 << 10;

/// Of the text. A newer one is never guessed at.
pub(crate) const VERSION: u32 = 1;

/// The key in it is a secret: it is shown to nobody but its owner.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Context {
    pub version: u32,
    /// The cluster's name and id.
    pub cluster: String,
    pub cluster_id: String,
    pub person: PersonName,
    pub role: PersonRole,
    /// When the certificate ends, in seconds since 1970.
    pub expires: u64,
    /// Where the cluster's machines serve people, each `HOST:PORT`.
    pub addresses: Vec<String>,
    /// The authority's certificate, by which the machines are known.
    pub authority: String,
    pub certificate: String,
    pub key: String,
}

/// Why a context is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    #[error(
        "this is no context: {0}; `corectl cluster invite NAME --role ROLE` prints one, and all \
         of it is needed"
    )]
    Unreadable(String),
    #[error("the context is of version {version}, and this corectl knows {VERSION}; use a newer corectl")]
    Newer { version: u32 },
    #[error("the context's {part} cannot be used: {why}; ask for another invitation")]
    Broken { part: &'static str, why: String },
}

impl Context {
    /// The context of one cluster that is now to be handed to a person.
    pub fn parse(text: &str) -> Result<Context, ContextError> {
        #[derive(Deserialize)]
        struct OnlyVersion {
            version: u32,
        }
        // serde's own words may quote the text; where it went wrong is enough, and quotes no key.
        let unreadable = |error: serde_json::Error| {
            ContextError::Unreadable(format!("line {}, column {}", error.line(), error.column()))
        };
        let OnlyVersion { version } = serde_json::from_str(text).map_err(unreadable)?;
        if version > VERSION {
            return Err(ContextError::Newer { version });
        }
        let context: Context = serde_json::from_str(text).map_err(unreadable)?;
        if context.addresses.is_empty() {
            return Err(ContextError::Unreadable("it has no addresses".into()));
        }
        Ok(context)
    }

    pub fn version() -> u32 {
        VERSION
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({} of {} as {})", self.person, self.cluster, self.role)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_read_back_and_its_key_is_not_told() {
        let context = Context {
            version: VERSION,
            cluster: "test".into(),
            cluster_id: "c1".into(),
            person: PersonName::new("alice").unwrap(),
            role: PersonRole::Viewer,
            expires: 7,
            addresses: vec!["h1:7421".into()],
            authority: "A".into(),
            certificate: "B".into(),
            key: "swordfish".into(),
        };
        let text = serde_json::to_string_pretty(&context).unwrap();
        assert_eq!(Context::parse(&text).unwrap(), context);
        assert!(!format!("{context:?}").contains("swordfish"));
        let check = |text: &str, expected: &str| {
            let error = Context::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("swordfish"), "{error}");
        };
        check("", "this is no context");
        check(&text.replace("\"version\": 1", "\"version\": 2"), "of version 2");
        check(&text.replace("viewer", "swordfish"), "this is no context");
        check(&text.replace("\"h1:7421\"", ""), "no addresses");
    }
}
