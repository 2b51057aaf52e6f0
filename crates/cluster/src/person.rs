//! People who were invited to use the cluster from afar: what they are called, what they may do, and by which
//! certificate they are known.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What an invited person is called: 1 to 64 of `[0-9a-zA-Z_.@-]`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PersonName(Arc<str>);

/// What a caller may do; each may also do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PersonRole {
    /// Sees everything, changes nothing.
    Viewer,
    /// Changes units and where they run.
    Operator,
    /// Changes the cluster itself, and who may use it.
    Admin,
}

/// Somebody who was invited. Written by an administrator. There is no secret in it: of the certificate, only
/// its digest is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    pub role: PersonRole,
    /// SHA-256 of the one certificate that counts, in hex. Another of the same name is worth nothing.
    pub fingerprint: String,
    /// Until when it counts, in seconds since 1970.
    pub expires: u64,
    /// Who has invited, for people.
    pub invited_by: String,
}

/// Why a text is no person's name, or no role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PersonError {
    #[error("a person's name is 1 to 64 of the characters 0-9 a-z A-Z _ . @ -, not {0:?}")]
    Name(String),
    #[error("a role is admin, operator or viewer, not {0:?}")]
    Role(String),
}

impl PersonName {
    pub fn new(text: &str) -> Result<PersonName, PersonError> {
        let good = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'@' | b'-');
        if text.is_empty() || text.len() > 64 || !text.bytes().all(good) {
            return Err(PersonError::Name(text.chars().take(80).collect()));
        }
        Ok(PersonName(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PersonRole {
    pub fn as_str(self) -> &'static str {
        match self {
            PersonRole::Viewer => "viewer",
            PersonRole::Operator => "operator",
            PersonRole::Admin => "admin",
        }
    }
}

impl FromStr for PersonRole {
    type Err = PersonError;
    fn from_str(text: &str) -> Result<PersonRole, PersonError> {
        let all = [PersonRole::Viewer, PersonRole::Operator, PersonRole::Admin];
        let found = all.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| PersonError::Role(text.chars().take(80).collect()))
    }
}

impl fmt::Display for PersonRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Borrow<str> for PersonName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PersonName {
    type Error = PersonError;
    fn try_from(text: String) -> Result<PersonName, PersonError> {
        PersonName::new(&text)
    }
}

impl From<PersonName> for String {
    fn from(name: PersonName) -> String {
        name.0.to_string()
    }
}

impl fmt::Display for PersonName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PersonName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Change, ClusterState, Command, Kind, Rejected, Revision};

    #[test]
    fn names_and_roles() {
        for good in ["alice", "Bob-2", "carol@example.org", "x"] {
            assert_eq!(PersonName::new(good).map(String::from), Ok(good.into()));
        }
        for bad in ["", "a b", "a/b", "a?role=admin", "ä", &"x".repeat(65)] {
            assert!(PersonName::new(bad).is_err(), "{bad}");
        }
        assert!(PersonRole::Viewer < PersonRole::Operator && PersonRole::Operator < PersonRole::Admin);
        assert_eq!("operator".parse(), Ok(PersonRole::Operator));
        assert!("root".parse::<PersonRole>().is_err());
    }

    #[test]
    fn a_person_is_invited_replaced_and_shut_out() {
        let name = PersonName::new("alice").unwrap();
        let person = |fingerprint: &str| Person {
            role: PersonRole::Viewer,
            fingerprint: fingerprint.into(),
            expires: 7,
            invited_by: "root".into(),
        };
        let invite = |fingerprint: &str, replace| Command::InvitePerson {
            name: name.clone(),
            person: person(fingerprint),
            replace,
        };
        let remove = Command::RemovePerson { name: name.clone() };
        let mut state = ClusterState::default();
        let mut check = |command: &Command, expected: Result<Kind, Rejected>, left: Option<&str>| {
            assert_eq!(state.apply_all(Revision(1), std::slice::from_ref(command)), [expected]);
            assert_eq!(state.people.get("alice").map(|person| person.fingerprint.as_str()), left);
        };
        let unknown = || Err(Rejected::PersonUnknown { name: name.clone() });
        check(&remove, unknown(), None);
        check(&invite("a", false), Ok(Kind::Created), Some("a"));
        // A repeat, such as after an answer that was lost.
        check(&invite("a", false), Ok(Kind::Unchanged), Some("a"));
        check(&invite("b", false), Err(Rejected::PersonInvited { name: name.clone() }), Some("a"));
        check(&invite("b", true), Ok(Kind::Updated), Some("b"));
        check(&remove, Ok(Kind::Removed), None);
        check(&remove, unknown(), None);
        state.put(Change::Person(name.clone(), Some(person("c"))));
        assert_eq!(state.people.len(), 1);
    }
}
