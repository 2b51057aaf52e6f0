//! The state at one entry of the log, in pieces under a hidden key (a listing of its folder leaves it out),
//! and one key that points to them. The pointer is moved by compare-and-swap and only forwards.

use std::time::Duration;

use cluster::{ClusterState, Revision};
use serde::{Deserialize, Serialize};

use super::keys::{KeyError, Member};
use crate::record::{Key, decode, encode, records};

const VERSION: u32 = 1;
/// Of one piece; small beside what etcd takes, so that a slow etcd is not held up.
const PIECE_BYTES: usize = 512 << 10;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// `/snapshot`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pointer {
    pub version: u32,
    /// Of the last entry in it.
    pub index: u64,
    pub revision: u64,
    /// The pieces' folder.
    pub name: String,
    pub pieces: usize,
    pub crc32: u32,
}

pub enum LoadError {
    Key(KeyError),
    Doubt(String),
}

impl Pointer {
    pub fn read(text: &str) -> Result<Pointer, String> {
        let pointer: Pointer = serde_json::from_str(text)
            .map_err(|error| format!("the key `snapshot` cannot be read: {error}"))?;
        match pointer.version > VERSION {
            true => Err(format!("the snapshot is of version {}", pointer.version)),
            false => Ok(pointer),
        }
    }
}

/// A record's path and its value.
type Line = (String, String);

fn pieces(state: &ClusterState) -> Vec<String> {
    let mut pieces = vec![Vec::<Line>::new()];
    let mut bytes = 0;
    for change in records(state) {
        let (key, Some(value)) = encode(&change) else { continue };
        let value = String::from_utf8(value).expect("JSON is text");
        if PIECE_BYTES < bytes + value.len() && bytes > 0 {
            pieces.push(Vec::new());
            bytes = 0;
        }
        bytes += value.len();
        pieces.last_mut().expect("there is one at least").push((key.path(), value));
    }
    let text = |piece: &Vec<Line>| serde_json::to_string(piece).expect("pairs of texts");
    pieces.iter().map(text).collect()
}

/// Writes the state of entry `index`, and moves the pointer to it from where it was. Returns the new pointer;
/// an error leaves the old one.
pub async fn save(
    member: &Member,
    dir: &str,
    state: &ClusterState,
    index: u64,
    old: Option<&Pointer>,
) -> Result<Pointer, KeyError> {
    let pieces = pieces(state);
    let name = format!("{index}-{}", uuid::Uuid::new_v4().simple());
    let mut crc = crc32fast::Hasher::new();
    for (number, piece) in pieces.iter().enumerate() {
        crc.update(piece.as_bytes());
        member.put(&format!("{dir}/_snapshots/{name}/{number}"), "", piece, ANSWER_TIMEOUT).await?;
    }
    let pointer = Pointer {
        version: VERSION,
        index,
        revision: state.revision.0,
        name,
        pieces: pieces.len(),
        crc32: crc.finalize(),
    };
    let text = serde_json::to_string(&pointer).expect("numbers and texts");
    let key = format!("{dir}/snapshot");
    let now = match member.get(&key, "quorum=true", ANSWER_TIMEOUT).await {
        Ok(now) => Some((now.node.modified_index, now.node.value.unwrap_or_default())),
        Err(KeyError::NotFound(_)) => None,
        Err(error) => return Err(error),
    };
    let query = match now {
        None => "prevExist=false".to_string(),
        Some((modified, text)) if Pointer::read(&text).ok().as_ref() == old => {
            format!("prevIndex={modified}")
        }
        Some(_) => return Err(KeyError::Changed),
    };
    member.put(&key, &query, &text, ANSWER_TIMEOUT).await?;
    if let Some(old) = old {
        let gone = format!("{dir}/_snapshots/{}", old.name);
        member.delete(&gone, "recursive=true", ANSWER_TIMEOUT).await?;
    }
    Ok(pointer)
}

pub async fn load(member: &Member, dir: &str, pointer: &Pointer) -> Result<ClusterState, LoadError> {
    let mut state = ClusterState { revision: Revision(pointer.revision), ..ClusterState::default() };
    let mut crc = crc32fast::Hasher::new();
    for number in 0..pointer.pieces {
        let key = format!("{dir}/_snapshots/{}/{number}", pointer.name);
        let piece = member.get(&key, "quorum=true", ANSWER_TIMEOUT).await;
        // A newer snapshot may have taken its place meanwhile; then everything is read again.
        let piece = piece.map_err(LoadError::Key)?.node.value.unwrap_or_default();
        crc.update(piece.as_bytes());
        let doubt = |why: String| LoadError::Doubt(format!("the snapshot {}: {why}", pointer.name));
        let lines: Vec<Line> = serde_json::from_str(&piece).map_err(|error| doubt(error.to_string()))?;
        for (path, value) in lines {
            let key = Key::parse(&path).ok_or_else(|| doubt(format!("{path} is no place of a record")))?;
            let change = decode(&key, Some(value.as_bytes()), state.revision);
            state.put(change.map_err(|error| doubt(error.to_string()))?);
        }
    }
    match crc.finalize() == pointer.crc32 {
        true => Ok(state),
        false => Err(LoadError::Doubt(format!("the snapshot {} has a wrong checksum", pointer.name))),
    }
}
