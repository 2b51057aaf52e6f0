//! Snapshots as files: written aside, synced, renamed, with one checksum over the whole. One is kept.
//!
//! A file is `magic, length of the meta record u32 LE, meta record, data, crc32 of all before u32 LE`.

use std::io;

use crate::codec;
use crate::engine::damaged;
use crate::files::Files;
use crate::state_machine::Snapshot;
use crate::types::SnapshotMeta;

pub const FOLDER: &str = "snapshots";
/// Ends in the version of the layout.
const MAGIC: &[u8; 8] = b"coresnp1";
/// What every layout's begins with.
const ANY_MAGIC: &[u8; 7] = b"coresnp";

/// What the folder holds.
pub struct Found {
    pub newest: Option<Snapshot>,
    /// Newer files that are damaged, with the reason.
    pub damaged: Vec<(String, io::Error)>,
    /// Newer files that are whole, and of a newer version of this program, with the reason.
    pub unread: Vec<(String, io::Error)>,
}

/// Durable when it returns; then the older ones are removed.
pub fn write(files: &dyn Files, meta: &SnapshotMeta, data: &[u8]) -> io::Result<()> {
    let name = name(meta);
    files.replace(&format!("{FOLDER}/{name}"), &to_bytes(meta, data)?)?;
    for other in files.names(FOLDER)? {
        if other < name {
            files.remove(&format!("{FOLDER}/{other}"))?;
        }
    }
    Ok(())
}

/// The newest snapshot that is whole.
pub fn find(files: &dyn Files) -> io::Result<Found> {
    let (mut damaged, mut unread) = (Vec::new(), Vec::new());
    for name in files.names(FOLDER)?.into_iter().rev() {
        let Some(bytes) = files.read(&format!("{FOLDER}/{name}"))? else { continue };
        match from_bytes(&bytes) {
            Ok(snapshot) => return Ok(Found { newest: Some(snapshot), damaged, unread }),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => unread.push((name, error)),
            Err(error) => damaged.push((name, error)),
        }
    }
    Ok(Found { newest: None, damaged, unread })
}

pub fn remove(files: &dyn Files, name: &str) -> io::Result<()> {
    files.remove(&format!("{FOLDER}/{name}"))
}

/// Sorts as the snapshots do.
fn name(meta: &SnapshotMeta) -> String {
    let (next, term) = meta.last_log_id.map_or((0, 0), |id| (id.index + 1, id.committed_leader_id().term));
    format!("{next:020}-{term:020}")
}

pub fn to_bytes(meta: &SnapshotMeta, data: &[u8]) -> io::Result<Vec<u8>> {
    let record = codec::encode(meta)?;
    let length = u32::try_from(record.len()).map_err(io::Error::other)?;
    let mut bytes = Vec::with_capacity(MAGIC.len() + 8 + record.len() + data.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&record);
    bytes.extend_from_slice(data);
    seal(&mut bytes);
    Ok(bytes)
}

/// A file that holds this before its checksum, whatever it is; [`to_bytes`] without a snapshot.
pub fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    seal(&mut bytes);
    bytes
}

fn seal(bytes: &mut Vec<u8>) {
    let crc = crc32fast::hash(bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
}

pub fn from_bytes(bytes: &[u8]) -> io::Result<Snapshot> {
    let short = || damaged("the file is too short");
    let (covered, crc) = bytes.split_last_chunk::<4>().ok_or_else(short)?;
    if crc32fast::hash(covered) != u32::from_le_bytes(*crc) {
        return Err(damaged("the file has a wrong checksum"));
    }
    let rest = covered.strip_prefix(MAGIC).ok_or_else(|| match covered.starts_with(ANY_MAGIC) {
        true => codec::newer("a snapshot's layout is another"),
        false => damaged("the file is no snapshot"),
    })?;
    let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
    let length = u32::from_le_bytes(*length) as usize;
    let (meta, data) = rest.split_at_checked(length).ok_or_else(short)?;
    Ok(Snapshot { meta: codec::decode(meta)?, snapshot: data.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_layout_is_told_from_damage() {
        let check = |bytes: &[u8], expected: io::ErrorKind| {
            assert_eq!(from_bytes(bytes).unwrap_err().kind(), expected, "{bytes:?}");
        };
        check(&sealed(b"coresnp2 and more"), io::ErrorKind::Unsupported);
        check(&sealed(b"coresnp"), io::ErrorKind::Unsupported);
        check(&sealed(b"something else"), io::ErrorKind::InvalidData);
        check(&[0; 4], io::ErrorKind::InvalidData);
        let mut flipped = sealed(b"coresnp1");
        flipped[7] = b'2';
        check(&flipped, io::ErrorKind::InvalidData);
    }
}
