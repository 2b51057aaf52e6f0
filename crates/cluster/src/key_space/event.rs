//! What happened to a key, as those hear it who asked for it and those who watch.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::path::KeyPath;

/// One change of one key. Its place in the key space's history is the key's `modified`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyEvent {
    pub action: KeyAction,
    pub path: KeyPath,
    /// The key as it is after the change; of one that is gone, its position in the history only.
    pub node: KeySeen,
    /// As it was before.
    pub before: Option<KeySeen>,
    /// When it happened, in milliseconds since 1970, by the clock of the machine that was asked.
    pub at: u64,
    /// Only the key's time was prolonged, which no watcher hears.
    pub is_refresh: bool,
}

/// etcd's names for what can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyAction {
    Set,
    Create,
    Update,
    CompareAndSwap,
    Delete,
    CompareAndDelete,
    Expire,
}

/// A key or directory, without what is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySeen {
    /// `None`: it is a directory, or gone.
    pub value: Option<Arc<str>>,
    pub is_dir: bool,
    /// When it ends, in milliseconds since 1970.
    pub expires: Option<u64>,
    pub modified: u64,
    pub created: u64,
}

impl KeyEvent {
    pub fn index(&self) -> u64 {
        self.node.modified
    }

    /// The key, or a new one, has begun to be.
    pub fn is_created(&self) -> bool {
        match self.action {
            KeyAction::Create => true,
            KeyAction::Set => self.before.is_none(),
            KeyAction::Update
            | KeyAction::CompareAndSwap
            | KeyAction::Delete
            | KeyAction::CompareAndDelete
            | KeyAction::Expire => false,
        }
    }

    /// A directory went, and all that was in it.
    pub fn removes_directory(&self) -> bool {
        let goes = matches!(self.action, KeyAction::Delete | KeyAction::Expire);
        goes && self.before.as_ref().is_some_and(|before| before.is_dir)
    }

    /// Whether it is found by somebody who asks the history for `path`. As in etcd, hidden keys are found
    /// there, although they are not told to those who wait.
    pub fn concerns(&self, path: &KeyPath, recursive: bool) -> bool {
        !self.is_refresh
            && (self.path == *path
                || recursive && self.path.is_below(path)
                || self.removes_directory() && path.is_below(&self.path))
    }

    /// About how much it takes to keep.
    pub(super) fn bytes(&self) -> usize {
        let value = |seen: &KeySeen| seen.value.as_ref().map_or(0, |value| value.len());
        EVENT_BYTES + self.path.as_str().len() + value(&self.node) + self.before.as_ref().map_or(0, value)
    }
}

/// Whatever is no text in an event.
const EVENT_BYTES: usize = 128;
