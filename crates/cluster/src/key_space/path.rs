//! The name of a key: a path from the root, `/` or `/services/web`. It is known good once it exists.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Of a path. Names of services and machines are far shorter.
pub const KEY_PATH_BYTES_MAX: usize = 1024;

/// Directories in each other. With each two levels deep in JSON, an answer stays below the 128 levels that
/// many readers of JSON allow.
pub const KEY_DEPTH_MAX: usize = 60;

/// Clean, as Go's `path.Clean` would have it: no empty, `.` or `..` segments, no slash at the end.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyPath(Arc<str>);

/// Why a text is no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyPathError {
    #[error("a key of {bytes} bytes; at most {KEY_PATH_BYTES_MAX} are kept")]
    Long { bytes: usize },
    #[error("a key of {segments} segments; at most {KEY_DEPTH_MAX} are kept")]
    Deep { segments: usize },
    #[error("a key holds no NUL")]
    Nul,
    #[error("{0:?} is no clean path")]
    Unclean(String),
}

impl KeyPath {
    pub fn root() -> KeyPath {
        KeyPath("/".into())
    }

    /// Whatever is not clean in it is cleaned.
    pub fn new(text: &str) -> Result<KeyPath, KeyPathError> {
        let mut segments: Vec<&str> = Vec::new();
        for segment in text.split('/') {
            match segment {
                "" | "." => {}
                ".." => drop(segments.pop()),
                name => segments.push(name),
            }
        }
        if KEY_DEPTH_MAX < segments.len() {
            return Err(KeyPathError::Deep { segments: segments.len() });
        }
        let path = format!("/{}", segments.join("/"));
        if KEY_PATH_BYTES_MAX < path.len() {
            return Err(KeyPathError::Long { bytes: path.len() });
        }
        if path.contains('\0') {
            return Err(KeyPathError::Nul);
        }
        Ok(KeyPath(path.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn is_root(&self) -> bool {
        &*self.0 == "/"
    }

    /// The names from the root down; none for the root.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|name| !name.is_empty())
    }

    /// The directory that it is in; `None` for the root.
    pub fn parent(&self) -> Option<KeyPath> {
        let (parent, _) = self.0.rsplit_once('/').filter(|_| !self.is_root())?;
        Some(KeyPath(if parent.is_empty() { "/".into() } else { parent.into() }))
    }

    /// Its own name in that directory; empty for the root.
    pub fn name(&self) -> &str {
        self.0.rsplit_once('/').map_or("", |(_, name)| name)
    }

    /// This and every directory above it, from the root down.
    pub fn upwards(&self) -> impl Iterator<Item = &str> {
        let ends = self.0.match_indices('/').map(|(at, _)| at).filter(|at| 0 < *at);
        let above = ends.map(|at| &self.0[..at]);
        let own = (!self.is_root()).then(|| self.as_str());
        std::iter::once("/").chain(above).chain(own)
    }

    /// It is somewhere in that directory, and not the directory itself.
    pub fn is_below(&self, directory: &KeyPath) -> bool {
        let rest = if directory.is_root() { Some(&*self.0) } else { self.0.strip_prefix(&*directory.0) };
        rest.is_some_and(|rest| 1 < rest.len() && rest.starts_with('/'))
    }

    /// Seen from that directory: it, or a directory on the way to it, is not listed.
    pub fn is_hidden_from(&self, directory: &str) -> bool {
        let rest = self.0.strip_prefix(directory).unwrap_or_default();
        rest.split('/').any(|name| name.starts_with('_'))
    }

    /// A key in this directory.
    pub(super) fn join(&self, name: &str) -> Result<KeyPath, KeyPathError> {
        KeyPath::new(&format!("{}/{name}", self.0))
    }
}

/// As it is stored: what is not clean was not written by us.
impl TryFrom<String> for KeyPath {
    type Error = KeyPathError;
    fn try_from(text: String) -> Result<KeyPath, KeyPathError> {
        let path = KeyPath::new(&text)?;
        if *path.0 == *text { Ok(path) } else { Err(KeyPathError::Unclean(text)) }
    }
}

impl From<KeyPath> for String {
    fn from(path: KeyPath) -> String {
        path.0.as_ref().into()
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> KeyPath {
        KeyPath::new(text).unwrap()
    }

    #[test]
    fn paths_are_cleaned() {
        let check = |text: &str, expected: &str| assert_eq!(path(text).as_str(), expected, "{text:?}");
        check("", "/");
        check("/", "/");
        check("a", "/a");
        check("//a/./b//", "/a/b");
        check("/a/../../b", "/b");
        check("/a b/é", "/a b/é");
        assert!(KeyPath::new("/a\0").is_err());
        assert!(KeyPath::new(&"/a".repeat(KEY_DEPTH_MAX)).is_ok());
        assert!(KeyPath::new(&"/a".repeat(KEY_DEPTH_MAX + 1)).is_err());
        assert!(KeyPath::new(&"a".repeat(KEY_PATH_BYTES_MAX)).is_err());
        assert!(KeyPath::try_from("/a/".to_string()).is_err());
    }

    #[test]
    fn what_is_around_a_path() {
        assert_eq!(path("/a/b").upwards().collect::<Vec<_>>(), ["/", "/a", "/a/b"]);
        assert_eq!(path("/").upwards().collect::<Vec<_>>(), ["/"]);
        assert_eq!(path("/a").parent(), Some(path("/")));
        assert_eq!((path("/a/b").parent(), path("/").parent()), (Some(path("/a")), None));
        assert_eq!((path("/a/b").name(), path("/").name()), ("b", ""));
        let below = |one: &str, other: &str| path(one).is_below(&path(other));
        assert!(below("/a/b", "/a") && below("/a", "/") && !below("/ab", "/a"));
        assert!(!below("/a", "/a") && !below("/", "/"));
        let hidden = |one: &str, from: &str| path(one).is_hidden_from(from);
        assert!(hidden("/a/_b/c", "/a") && hidden("/_a", "/") && !hidden("/_a/b", "/_a"));
        assert!(!hidden("/a/b_", "/a"));
    }
}
