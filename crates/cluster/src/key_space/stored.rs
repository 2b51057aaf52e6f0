//! How the key space is written into snapshots: as a list, since a tree in a tree has no end that its reader
//! knows of. Counts and indexes are made anew when it is read.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::event::KeyEvent;
use super::node::{KeyNode, directory_mut};
use super::path::KeyPath;
use super::{KeySpace, history::History};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Stored {
    index: u64,
    /// Directories before what is in them.
    nodes: Vec<StoredNode>,
    history: Vec<Arc<KeyEvent>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct StoredNode {
    path: KeyPath,
    value: Option<Arc<str>>,
    created: u64,
    modified: u64,
    expires: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum StoredError {
    #[error("key {0} is in no directory, or there twice")]
    Stray(KeyPath),
    #[error("key {0} or an event of it is ahead of the index")]
    Ahead(KeyPath),
    #[error("the history of keys has a gap")]
    Gap,
}

impl From<KeySpace> for Stored {
    fn from(space: KeySpace) -> Stored {
        let mut nodes = Vec::with_capacity(space.count);
        space.root.visit(&KeyPath::root(), &mut |path, node| {
            if !path.is_root() {
                let (path, value) = (path.clone(), node.value().cloned());
                let KeyNode { created, modified, expires, .. } = *node;
                nodes.push(StoredNode { path, value, created, modified, expires });
            }
        });
        Stored { index: space.index, nodes, history: space.history.events().cloned().collect() }
    }
}

impl TryFrom<Stored> for KeySpace {
    type Error = StoredError;
    fn try_from(stored: Stored) -> Result<KeySpace, StoredError> {
        let mut space = KeySpace { index: stored.index, ..KeySpace::default() };
        for StoredNode { path, value, created, modified, expires } in stored.nodes {
            if space.index < modified.max(created) {
                return Err(StoredError::Ahead(path));
            }
            let node = KeyNode { modified, ..KeyNode::new(value, created, expires) };
            let parent = path.parent().and_then(|parent| directory_mut(&mut space.root, &parent));
            let nodes = parent.filter(|nodes| !nodes.contains_key(path.name()));
            let nodes = nodes.ok_or_else(|| StoredError::Stray(path.clone()))?;
            nodes.insert(path.name().into(), Arc::new(node.clone()));
            space.note(&path, &node);
        }
        let mut history = History::default();
        for event in stored.history {
            if space.index < event.index() {
                return Err(StoredError::Ahead(event.path.clone()));
            }
            if history.last().is_some_and(|last| last + 1 != event.index()) {
                return Err(StoredError::Gap);
            }
            history.push(event);
        }
        if history.last().is_some_and(|last| last != space.index) {
            return Err(StoredError::Gap);
        }
        space.history = history;
        Ok(space)
    }
}

#[cfg(test)]
impl Stored {
    /// In all ways in which it can be wrong; it has two keys in one directory, and two events.
    pub(super) fn damaged(&self) -> Vec<Stored> {
        let with = |damage: fn(&mut Stored)| {
            let mut stored = self.clone();
            damage(&mut stored);
            stored
        };
        vec![
            with(|stored| stored.nodes.swap(0, 1)),
            with(|stored| stored.nodes[2].path = stored.nodes[1].path.clone()),
            with(|stored| stored.nodes[2].path = KeyPath::root()),
            with(|stored| stored.index = 1),
            with(|stored| stored.index = 3),
            with(|stored| stored.history.swap(0, 1)),
        ]
    }
}
