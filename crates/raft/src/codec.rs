//! Bytes between equals: the log, the vote, snapshots and what peers say to each other. The only user of
//! bincode.
//!
//! A record is `[version u8][crc32, u32 LE][body]`, the body in bincode 2's standard configuration. In
//! version 1 the checksum is of the body alone, in every later one of the version and the body: no damage to
//! that byte makes a record of one version pass for one of another. All of it is consumed or all of it
//! refused. Published types never change; enums only get new variants at their end, because a variant is
//! known by its position. `tests/golden` holds bytes of every published kind.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The encoding itself. Another one would get another number, behind the same head and checksum, and this one
/// would still be read.
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 5;
/// No record is larger, its head included. The largest is that of the state: a quarter of it may be keys and
/// their history, three eighths unit files (`cluster::UNITS_BYTES_MAX`), an eighth what machines say of
/// failures (`cluster::TOLD_BYTES_MAX`), and the rest is small for each unit and machine.
pub const RECORD_BYTES_MAX: usize = 128 << 20;
const BODY_BYTES_MAX: usize = RECORD_BYTES_MAX - HEAD_BYTES;

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<BODY_BYTES_MAX>()
}

/// The record of `value`. Fails for a value that is too large.
pub fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let mut bytes = vec![VERSION, 0, 0, 0, 0];
    bincode::serde::encode_into_std_write(value, &mut bytes, config()).map_err(io::Error::other)?;
    if bytes.len() - HEAD_BYTES > BODY_BYTES_MAX {
        return Err(io::Error::other(format!("a record of {} bytes is too large", bytes.len())));
    }
    seal(&mut bytes);
    Ok(bytes)
}

/// A record with that body, whatever it holds; [`encode`] without a value.
pub fn sealed(body: &[u8]) -> Vec<u8> {
    let mut bytes = [&[VERSION, 0, 0, 0, 0], body].concat();
    seal(&mut bytes);
    bytes
}

fn seal(record: &mut [u8]) {
    let crc = checksum(record[0], &record[HEAD_BYTES..]);
    record[1..HEAD_BYTES].copy_from_slice(&crc.to_le_bytes());
}

fn checksum(version: u8, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    if version != 1 {
        hasher.update(&[version]);
    }
    hasher.update(body);
    hasher.finalize()
}

/// The value of a record, when `bytes` is exactly what [`encode`] gave. `InvalidData`: the bytes are damaged;
/// `Unsupported`: they are whole, and of a value that this version does not know.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    let (head, body) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or_else(|| bad("is too short"))?;
    let [version, crc @ ..] = *head;
    if checksum(version, body) != u32::from_le_bytes(crc) {
        return Err(bad("has a wrong checksum"));
    }
    if version != VERSION {
        return Err(newer(&format!("its encoding is {version}")));
    }
    let (value, consumed) =
        bincode::serde::decode_from_slice(body, config()).map_err(|error| newer(&error.to_string()))?;
    if consumed != body.len() {
        return Err(newer("it goes on after its end"));
    }
    Ok(value)
}

/// The checksum holds, so nothing is damaged: who wrote it knew more.
pub(crate) fn newer(what: &str) -> io::Error {
    let text = format!("a record is of a newer version of coreinit than this one ({what})");
    io::Error::new(io::ErrorKind::Unsupported, text)
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a record {what}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    type Sample = (u64, String, BTreeMap<String, Option<Vec<u8>>>);

    fn sample() -> Sample {
        let map = BTreeMap::from([("a".into(), None), ("b".into(), Some(vec![1, 2, 3]))]);
        (7_000_000_000, "hello.service".into(), map)
    }

    fn read(bytes: &[u8]) -> io::Result<Sample> {
        decode(bytes)
    }

    #[test]
    fn what_was_written_is_read() {
        assert_eq!(read(&encode(&sample()).unwrap()).unwrap(), sample());
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = encode(&sample()).unwrap();
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err(), "{length} of {} bytes were taken", bytes.len());
        }
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let good = encode(&sample()).unwrap();
        for at in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[at / 8] ^= 1 << (at % 8);
            assert!(read(&bytes).is_err(), "bit {at} was flipped unseen");
        }
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = encode(&sample()).unwrap();
        bytes.push(0);
        assert!(read(&bytes).is_err());
        // And so they are where the checksum covers them: a newer writer's longer value.
        let longer = encode(&(1u8, 2u8)).unwrap();
        assert!(decode::<u8>(&longer).is_err());
    }

    /// A daemon takes the first for damage and sets its store aside; the second must never lead to that.
    #[test]
    fn damage_is_told_from_what_is_newer() {
        let kind = |bytes: &[u8]| decode::<Result<u8, ()>>(bytes).unwrap_err().kind();
        let good = encode(&Ok::<u8, ()>(1)).unwrap();
        let flipped = [&good[..good.len() - 1], &[9]].concat();
        assert_eq!(kind(&flipped), io::ErrorKind::InvalidData);
        assert_eq!(kind(&sealed(&[7, 1])), io::ErrorKind::Unsupported, "a variant of later times");
        assert_eq!(kind(&sealed(&[0, 1, 2])), io::ErrorKind::Unsupported, "a field of later times");
        let mut later = [&[VERSION + 1], &good[1..]].concat();
        assert_eq!(kind(&later), io::ErrorKind::InvalidData, "a damaged version");
        seal(&mut later);
        assert_eq!(kind(&later), io::ErrorKind::Unsupported, "an encoding of later times");
        later[0] = VERSION;
        assert_eq!(kind(&later), io::ErrorKind::InvalidData, "a damaged version, the other way round");
        let torn = [&[VERSION + 1], &flipped[1..]].concat();
        assert_eq!(kind(&torn), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_length_beyond_reason_is_refused() {
        let mut body = vec![253];
        body.extend_from_slice(&u64::MAX.to_le_bytes());
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        assert!(decode::<Vec<u64>>(&bytes).is_err());
    }
}
