//! Records of disks and of peers. Their checksums are made right: a fuzzer that had to guess them would never
//! come to the reading.

use coreinitd::http::Question;
use raft::kinds::KINDS;

/// The first byte chooses the kind, the others are what the record holds.
pub fn record(bytes: &[u8]) {
    let Some((first, content)) = bytes.split_first() else { return };
    let Some(kind) = KINDS.get(usize::from(*first) % (KINDS.len() + 1)) else { return question(content) };
    // Bytes as they are, too: those of a wrong version, or cut off.
    let _ = (kind.again)(content);
    let Ok(once) = (kind.again)(&(kind.sealed)(content)) else { return };
    let twice = (kind.again)(&once).unwrap_or_else(|error| panic!("{}: {error}", kind.name));
    assert!(once == twice, "{}: what was written is read as something else", kind.name);
}

/// What one daemon asks another.
fn question(bytes: &[u8]) {
    let Ok(question) = serde_json::from_slice::<Question>(bytes) else { return };
    let written = serde_json::to_vec(&question).expect("it can be written");
    let again: Question = serde_json::from_slice(&written).expect("what was written can be read");
    assert_eq!(again, question);
}
