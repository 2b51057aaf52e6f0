//! etcd's key space of old (its v2 interface), kept by the cluster for units that announce themselves to each
//! other: a tree of keys with values, ends, and a history of its own. What each change does, and in which
//! words it is refused, is etcd 3.4's, also where that surprises; `tests` hold it against one.
//!
//! It knows no clock: each change brings its time along, and keys end when the leader says so. Bounds are
//! checked here, so that every replica refuses alike.

mod change;
mod event;
mod history;
mod node;
mod path;
mod stored;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use imbl::OrdSet;
use serde::{Deserialize, Serialize};

use self::history::History;
use self::node::directory_mut;
use self::stored::Stored;
use crate::command::Kind;

pub use self::change::{KeyChange, KeyEnd, KeyError, KeyFault, KeyWas};
pub use self::event::{KeyAction, KeyEvent, KeySeen};
pub use self::history::{KEY_EVENTS_BYTES_MAX, KEY_EVENTS_MAX};
pub use self::node::{KeyContent, KeyNode, KeyNodes};
pub use self::path::{KEY_DEPTH_MAX, KEY_PATH_BYTES_MAX, KeyPath, KeyPathError};

/// Of one value. What machines have to tell each other is far smaller, and all of it is in every snapshot.
pub const KEY_VALUE_BYTES_MAX: usize = 256 << 10;
/// Keys and directories together.
pub const KEYS_MAX: usize = 100_000;
/// All that is kept, with 128 bytes for each key: a quarter of what a snapshot may have.
pub const KEYS_BYTES_MAX: usize = 16 << 20;
/// Keys that one command ends.
const EXPIRED_MAX: usize = 1000;

/// All keys at one moment. A clone is cheap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Stored", try_from = "Stored")]
pub struct KeySpace {
    /// Changes that were made so far.
    index: u64,
    root: Arc<KeyNode>,
    history: History,
    /// Whatever ends, in the order in which it does.
    ends: OrdSet<(u64, KeyPath)>,
    count: usize,
    bytes: usize,
}

impl Default for KeySpace {
    fn default() -> KeySpace {
        let root = Arc::new(KeyNode::new(None, 0, None));
        let (history, ends) = Default::default();
        KeySpace { index: 0, root, history, ends, count: 0, bytes: 0 }
    }
}

/// A key on its way into the tree.
struct Put<'a> {
    path: &'a KeyPath,
    value: Option<Arc<str>>,
    expires: Option<u64>,
    action: KeyAction,
    is_refresh: bool,
}

impl KeySpace {
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Keys and directories.
    pub fn count(&self) -> usize {
        self.count
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the next key ends, in milliseconds since 1970.
    pub fn next_end(&self) -> Option<u64> {
        self.ends.get_min().map(|(at, _)| *at)
    }

    pub fn get(&self, path: &KeyPath) -> Result<&KeyNode, KeyError> {
        let mut node = &*self.root;
        let mut above = path.upwards();
        for (name, parent) in path.segments().zip(&mut above) {
            let Some(nodes) = node.nodes() else { return Err(self.error(KeyFault::NotDirectory, parent)) };
            let Some(child) = nodes.get(name) else {
                let missing = if parent == "/" { format!("/{name}") } else { format!("{parent}/{name}") };
                return Err(self.error(KeyFault::NotFound, missing));
            };
            node = child;
        }
        Ok(node)
    }

    /// The first event from `since` on that somebody who watches `path` has to hear; `None` when there was
    /// none yet.
    pub fn event_since(
        &self,
        path: &KeyPath,
        recursive: bool,
        since: u64,
    ) -> Result<Option<&Arc<KeyEvent>>, KeyError> {
        let start = self.history.first().unwrap_or(0);
        if since < start {
            let cause = format!("the requested history has been cleared [{start}/{since}]");
            return Err(self.error(KeyFault::HistoryCleared, cause));
        }
        Ok(self.history.since(since).find(|event| event.concerns(path, recursive)))
    }

    /// All events from `since` on; `None` when some of them are forgotten.
    pub fn events_since(&self, since: u64) -> Option<impl Iterator<Item = &Arc<KeyEvent>>> {
        let is_whole = self.index < since || self.history.first().is_some_and(|first| first <= since);
        is_whole.then(|| self.history.since(since))
    }

    /// Makes the change, `at` milliseconds since 1970.
    pub(crate) fn apply(&mut self, at: u64, change: &KeyChange) -> Result<Kind, KeyError> {
        let event = match change {
            KeyChange::Set { path, value, end } => self.set(at, path, value.clone(), *end)?,
            KeyChange::Create { path, value, expires } => {
                let (value, expires, action) = (value.clone(), *expires, KeyAction::Create);
                self.put(at, Put { path, value, expires, action, is_refresh: false })?
            }
            KeyChange::CreateInOrder { path, value, expires } => {
                let path = path.join(&format!("{:020}", self.index + 1));
                let path = &path.map_err(|error| self.error(KeyFault::TooLarge, error.to_string()))?;
                let (value, expires, action) = (value.clone(), *expires, KeyAction::Create);
                self.put(at, Put { path, value, expires, action, is_refresh: false })?
            }
            KeyChange::Update { path, value, end } => self.update(at, path, value, *end)?,
            KeyChange::CompareAndSwap { path, was, value, end } => {
                self.may_change(path)?;
                self.compare(path, was)?;
                self.write(at, path, value, *end, KeyAction::CompareAndSwap)?
            }
            KeyChange::Delete { path, dir, recursive } => {
                self.may_change(path)?;
                let nodes = self.get(path)?.nodes();
                if nodes.is_some() && !dir && !recursive {
                    return Err(self.error(KeyFault::NotFile, path.as_str()));
                }
                if nodes.is_some_and(|nodes| !nodes.is_empty()) && !recursive {
                    return Err(self.error(KeyFault::NotEmpty, path.as_str()));
                }
                self.remove(at, path, KeyAction::Delete)?
            }
            KeyChange::CompareAndDelete { path, was } => {
                self.compare(path, was)?;
                self.remove(at, path, KeyAction::CompareAndDelete)?
            }
            KeyChange::Expire => return Ok(self.expire(at)),
        };
        self.history.push(event.clone());
        Ok(Kind::Key(event))
    }

    fn set(
        &mut self,
        at: u64,
        path: &KeyPath,
        value: Option<Arc<str>>,
        end: KeyEnd,
    ) -> Result<Arc<KeyEvent>, KeyError> {
        let mut value = value;
        match self.get(path) {
            Ok(node) if end.is_refresh() => value = value.and_then(|_| node.value().cloned()),
            Err(error) if end.is_refresh() || error.fault != KeyFault::NotFound => return Err(error),
            Ok(_) | Err(_) => {}
        }
        let (expires, action) = (end.expires(), KeyAction::Set);
        self.put(at, Put { path, value, expires, action, is_refresh: end.is_refresh() })
    }

    fn put(&mut self, at: u64, put: Put<'_>) -> Result<Arc<KeyEvent>, KeyError> {
        let Put { path, value, expires, action, is_refresh } = put;
        self.may_change(path)?;
        let before = match self.get(path) {
            Ok(_) if action == KeyAction::Create => {
                return Err(self.error(KeyFault::Exists, path.as_str()));
            }
            Ok(node) if node.nodes().is_some() => return Err(self.error(KeyFault::NotFile, path.as_str())),
            Ok(node) => Some(node.clone()),
            Err(error) if error.fault == KeyFault::NotFound => None,
            Err(error) => return Err(error),
        };
        let index = self.index + 1;
        let node = KeyNode::new(value, index, expires);
        let missing = self.missing_directories(path);
        self.has_room(&missing, path, &node, before.as_ref())?;
        if let Some(before) = &before {
            self.forget(path, before);
        }
        for path in missing {
            self.insert(&path, KeyNode::new(None, index, None));
        }
        self.index = index;
        let seen = node.seen();
        self.insert(path, node);
        let before = before.map(|before| before.seen());
        Ok(Arc::new(KeyEvent { action, path: path.clone(), node: seen, before, at, is_refresh }))
    }

    fn update(
        &mut self,
        at: u64,
        path: &KeyPath,
        value: &Arc<str>,
        end: KeyEnd,
    ) -> Result<Arc<KeyEvent>, KeyError> {
        self.may_change(path)?;
        if self.get(path)?.nodes().is_some() && !value.is_empty() {
            return Err(self.error(KeyFault::NotFile, path.as_str()));
        }
        self.write(at, path, value, end, KeyAction::Update)
    }

    /// Into a key that is there. A directory's position in the history stays as it is, as in etcd.
    fn write(
        &mut self,
        at: u64,
        path: &KeyPath,
        value: &Arc<str>,
        end: KeyEnd,
        action: KeyAction,
    ) -> Result<Arc<KeyEvent>, KeyError> {
        let before = self.get(path)?.clone();
        let mut node = KeyNode { expires: end.expires(), ..before.clone() };
        let index = self.index + 1;
        if let KeyContent::File(content) = &mut node.content {
            if !end.is_refresh() {
                *content = value.clone();
            }
            node.modified = index;
        }
        self.has_room(&[], path, &node, Some(&before))?;
        self.index = index;
        self.forget(path, &before);
        let seen = KeySeen { modified: index, ..node.seen() };
        self.insert(path, node);
        let (path, before, is_refresh) = (path.clone(), Some(before.seen()), end.is_refresh());
        Ok(Arc::new(KeyEvent { action, path, node: seen, before, at, is_refresh }))
    }

    fn remove(&mut self, at: u64, path: &KeyPath, action: KeyAction) -> Result<Arc<KeyEvent>, KeyError> {
        let node = self.get(path)?.clone();
        self.index += 1;
        node.visit(path, &mut |path, node| self.forget(path, node));
        let parent = path.parent().and_then(|parent| directory_mut(&mut self.root, &parent));
        parent.expect("whatever is found is in a directory").remove(path.name());
        let before = node.seen();
        let seen = KeySeen { value: None, expires: None, modified: self.index, ..before.clone() };
        let (path, before) = (path.clone(), Some(before));
        Ok(Arc::new(KeyEvent { action, path, node: seen, before, at, is_refresh: false }))
    }

    fn expire(&mut self, at: u64) -> Kind {
        for count in 0..EXPIRED_MAX {
            let due = self.ends.get_min().filter(|(end, _)| *end <= at).map(|(_, path)| path.clone());
            let gone = due.and_then(|path| self.remove(at, &path, KeyAction::Expire).ok());
            match gone {
                Some(event) => self.history.push(event),
                None if count == 0 => return Kind::Unchanged,
                None => break,
            }
        }
        Kind::Updated
    }

    fn may_change(&self, path: &KeyPath) -> Result<(), KeyError> {
        if path.is_root() { Err(self.error(KeyFault::ReadOnly, "/")) } else { Ok(()) }
    }

    fn compare(&self, path: &KeyPath, was: &KeyWas) -> Result<(), KeyError> {
        let node = self.get(path)?;
        let Some(value) = node.value() else {
            let cause = if path.is_root() { "" } else { path.as_str() };
            return Err(self.error(KeyFault::NotFile, cause));
        };
        let value_differs = !was.value.is_empty() && *was.value != **value;
        let index_differs = was.index != 0 && was.index != node.modified;
        let values = || format!("[{} != {value}]", was.value);
        let indices = || format!("[{} != {}]", was.index, node.modified);
        let cause = match (value_differs, index_differs) {
            (false, false) => return Ok(()),
            (true, false) => values(),
            (false, true) => indices(),
            (true, true) => format!("{} {}", values(), indices()),
        };
        Err(self.error(KeyFault::CompareFailed, cause))
    }

    /// The directories above that are not there yet, from the root down.
    fn missing_directories(&self, path: &KeyPath) -> Vec<KeyPath> {
        let mut missing = Vec::new();
        let mut above = path.parent();
        while let Some(path) = above.filter(|path| self.get(path).is_err()) {
            above = path.parent();
            missing.push(path);
        }
        missing.reverse();
        missing
    }

    /// Whether the bounds allow `node` at `path`, with these directories around it and in the place of
    /// `before`. What makes the key space smaller is always allowed.
    fn has_room(
        &self,
        directories: &[KeyPath],
        path: &KeyPath,
        node: &KeyNode,
        before: Option<&KeyNode>,
    ) -> Result<(), KeyError> {
        let value = node.value().map_or(0, |value| value.len());
        if KEY_VALUE_BYTES_MAX < value {
            let cause = format!("a value of {value} bytes; at most {KEY_VALUE_BYTES_MAX} are kept");
            return Err(self.error(KeyFault::TooLarge, cause));
        }
        let new = KeyNode::new(None, 0, None);
        let bytes: usize = directories.iter().map(|path| new.bytes(path)).sum();
        let (bytes, old) = (bytes + node.bytes(path), before.map_or(0, |before| before.bytes(path)));
        if old < bytes && KEYS_BYTES_MAX < self.bytes + bytes - old {
            let cause = format!("{} bytes of at most {KEYS_BYTES_MAX} are kept", self.bytes);
            return Err(self.error(KeyFault::Full, cause));
        }
        let count = directories.len() + usize::from(before.is_none());
        if 0 < count && KEYS_MAX < self.count + count {
            let cause = format!("{} keys of at most {KEYS_MAX} are kept", self.count);
            return Err(self.error(KeyFault::Full, cause));
        }
        Ok(())
    }

    /// Into a directory that is there.
    fn insert(&mut self, path: &KeyPath, node: KeyNode) {
        self.note(path, &node);
        let parent = path.parent().and_then(|parent| directory_mut(&mut self.root, &parent));
        let parent = parent.expect("the directories were made before");
        parent.insert(path.name().into(), Arc::new(node));
    }

    fn note(&mut self, path: &KeyPath, node: &KeyNode) {
        self.count += 1;
        self.bytes += node.bytes(path);
        if let Some(at) = node.expires {
            self.ends.insert((at, path.clone()));
        }
    }

    fn forget(&mut self, path: &KeyPath, node: &KeyNode) {
        self.count -= 1;
        self.bytes -= node.bytes(path);
        if let Some(at) = node.expires {
            self.ends.remove(&(at, path.clone()));
        }
    }

    fn error(&self, fault: KeyFault, cause: impl Into<String>) -> KeyError {
        KeyError { fault, cause: cause.into(), index: self.index }
    }
}
