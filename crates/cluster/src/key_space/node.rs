//! The tree of keys. It is persistent: two key spaces share what did not change between them.

use std::sync::Arc;

use imbl::OrdMap;

use super::event::KeySeen;
use super::path::KeyPath;

/// What is in a directory, by name.
pub type KeyNodes = OrdMap<Arc<str>, Arc<KeyNode>>;

/// A key with its value, or a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyNode {
    pub created: u64,
    pub modified: u64,
    /// When it ends, in milliseconds since 1970.
    pub expires: Option<u64>,
    pub content: KeyContent,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyContent {
    File(Arc<str>),
    Directory(KeyNodes),
}

impl KeyNode {
    pub(super) fn new(value: Option<Arc<str>>, index: u64, expires: Option<u64>) -> KeyNode {
        let content = match value {
            Some(value) => KeyContent::File(value),
            None => KeyContent::Directory(KeyNodes::new()),
        };
        KeyNode { created: index, modified: index, expires, content }
    }

    pub fn value(&self) -> Option<&Arc<str>> {
        match &self.content {
            KeyContent::File(value) => Some(value),
            KeyContent::Directory(_) => None,
        }
    }

    /// `None`: it is no directory.
    pub fn nodes(&self) -> Option<&KeyNodes> {
        match &self.content {
            KeyContent::File(_) => None,
            KeyContent::Directory(nodes) => Some(nodes),
        }
    }

    pub(super) fn nodes_mut(&mut self) -> Option<&mut KeyNodes> {
        match &mut self.content {
            KeyContent::File(_) => None,
            KeyContent::Directory(nodes) => Some(nodes),
        }
    }

    pub(super) fn seen(&self) -> KeySeen {
        KeySeen {
            value: self.value().cloned(),
            is_dir: self.nodes().is_some(),
            expires: self.expires,
            modified: self.modified,
            created: self.created,
        }
    }

    /// About how much it takes to keep, without what is in it.
    pub(super) fn bytes(&self, path: &KeyPath) -> usize {
        NODE_BYTES + path.as_str().len() + self.value().map_or(0, |value| value.len())
    }

    /// Calls for this and all that is in it, directories first.
    pub(super) fn visit(&self, path: &KeyPath, call: &mut impl FnMut(&KeyPath, &KeyNode)) {
        call(path, self);
        for (name, node) in self.nodes().into_iter().flatten() {
            // Whatever is in the tree came in by a good path.
            if let Ok(path) = path.join(name) {
                node.visit(&path, call);
            }
        }
    }
}

/// The directory at that path; `None` when there is none.
pub(super) fn directory_mut<'a>(root: &'a mut Arc<KeyNode>, path: &KeyPath) -> Option<&'a mut KeyNodes> {
    let mut nodes = Arc::make_mut(root).nodes_mut()?;
    for name in path.segments() {
        nodes = Arc::make_mut(nodes.get_mut(name)?).nodes_mut()?;
    }
    Some(nodes)
}

/// Whatever is no text in a key.
const NODE_BYTES: usize = 128;
