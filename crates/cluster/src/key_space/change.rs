//! What can be asked of the key space, and why it may be refused.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::path::KeyPath;

/// One change of one key. Where a value is `None`, a directory is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyChange {
    /// Makes the key, or puts it in the place of another.
    Set {
        path: KeyPath,
        value: Option<Arc<str>>,
        end: KeyEnd,
    },
    /// Makes the key, which must not be there.
    Create {
        path: KeyPath,
        value: Option<Arc<str>>,
        expires: Option<u64>,
    },
    /// Makes a key in this directory, whose name is greater than all before it.
    CreateInOrder {
        path: KeyPath,
        value: Option<Arc<str>>,
        expires: Option<u64>,
    },
    /// Changes the key, which must be there. Of a directory only the end can be changed.
    Update {
        path: KeyPath,
        value: Arc<str>,
        end: KeyEnd,
    },
    CompareAndSwap {
        path: KeyPath,
        was: KeyWas,
        value: Arc<str>,
        end: KeyEnd,
    },
    Delete {
        path: KeyPath,
        dir: bool,
        recursive: bool,
    },
    CompareAndDelete {
        path: KeyPath,
        was: KeyWas,
    },
    /// The leader's: keys whose time is over go.
    Expire,
}

impl KeyChange {
    /// About how much it takes in the log.
    pub fn bytes(&self) -> usize {
        let (path, more) = match self {
            KeyChange::Set { path, value, .. }
            | KeyChange::Create { path, value, .. }
            | KeyChange::CreateInOrder { path, value, .. } => {
                (path, value.as_ref().map_or(0, |value| value.len()))
            }
            KeyChange::Update { path, value, .. } => (path, value.len()),
            KeyChange::CompareAndSwap { path, was, value, .. } => (path, was.value.len() + value.len()),
            KeyChange::Delete { path, .. } => (path, 0),
            KeyChange::CompareAndDelete { path, was } => (path, was.value.len()),
            KeyChange::Expire => return 0,
        };
        path.as_str().len() + more
    }
}

/// How long the key is to be from now on; times are in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyEnd {
    Never,
    At(u64),
    /// As `At`, and the value stays, and nobody who watches is told.
    Refresh(u64),
}

impl KeyEnd {
    pub(super) fn expires(self) -> Option<u64> {
        match self {
            KeyEnd::Never => None,
            KeyEnd::At(at) | KeyEnd::Refresh(at) => Some(at),
        }
    }

    pub(super) fn is_refresh(self) -> bool {
        matches!(self, KeyEnd::Refresh(_))
    }
}

/// What the key must be before the change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyWas {
    /// Empty: any.
    pub value: String,
    /// 0: any.
    pub index: u64,
}

/// Why a change was refused, or a key not found. The key space has not changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{fault}: {cause}")]
pub struct KeyError {
    pub fault: KeyFault,
    /// The key that it is about, or what was compared.
    pub cause: String,
    /// How far the key space was.
    pub index: u64,
}

/// etcd's words for it, and two of our own at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum KeyFault {
    #[error("Key not found")]
    NotFound,
    #[error("Compare failed")]
    CompareFailed,
    #[error("Not a file")]
    NotFile,
    #[error("Not a directory")]
    NotDirectory,
    #[error("Key already exists")]
    Exists,
    #[error("Root is read only")]
    ReadOnly,
    #[error("Directory not empty")]
    NotEmpty,
    #[error("The event in requested index is outdated and cleared")]
    HistoryCleared,
    #[error("Invalid field")]
    TooLarge,
    #[error("Key space is full")]
    Full,
}
