//! A backup as a file: what it is of in plain JSON, the state's record, and a checksum over all of it.
//!
//! `"corebkp1", length of the head u32 LE, head, record, SHA-1 of all before (20 bytes)`. The record is the
//! store's own encoding of the state, with a version and a checksum of its own, and means nothing here.
//! `corectl` checks what it was sent before it keeps it, the daemon what it is to restore.

use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

/// Ends in the version of the layout.
const MAGIC: &[u8; 8] = b"corebkp1";
/// That version.
pub const FORMAT: u8 = MAGIC[7] - b'0';
const MAGIC_OF_ANY: &[u8] = b"corebkp";
const SUM_BYTES: usize = 20;
/// Some hundred are used.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// The largest backup: the largest state that stores take, and its head.
pub const BACKUP_BYTES_MAX: usize = (128 << 20) + (128 << 10);

/// What a backup is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    pub cluster_id: String,
    pub cluster_name: String,
    pub revision: u64,
    pub units: usize,
    pub machines: usize,
    /// Commands up to this feature level have made the state; an older daemon may not know what is in it.
    pub feature_level: u32,
    /// Of the coreinit that made it.
    pub version: String,
    /// Seconds since 1970, by the clock of the machine that made it.
    pub taken_at: u64,
}

/// A backup that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    pub head: Head,
    pub record: Vec<u8>,
}

/// Why bytes are no backup.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    #[error("it is no backup of a coreinit cluster")]
    Foreign,
    #[error("it was made by a newer coreinit than this one")]
    Newer,
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
}

impl Backup {
    pub fn to_bytes(&self) -> Vec<u8> {
        let head = serde_json::to_vec(&self.head).expect("a head has string keys only");
        let length = u32::try_from(head.len()).expect("names are limited far below that");
        let mut bytes = [MAGIC.as_slice(), &length.to_le_bytes(), &head, &self.record].concat();
        let sum = Sha1::digest(&bytes);
        bytes.extend_from_slice(&sum);
        bytes
    }

    /// Exactly what [`Backup::to_bytes`] gave, or nothing.
    pub fn from_bytes(bytes: &[u8]) -> Result<Backup, BackupError> {
        let rest = match bytes.strip_prefix(MAGIC) {
            Some(rest) => rest,
            None if bytes.starts_with(MAGIC_OF_ANY) && !is_whole(bytes) => {
                return Err(BackupError::Damaged("it is cut off, or its first bytes are wrong"));
            }
            None if bytes.starts_with(MAGIC_OF_ANY) => return Err(BackupError::Newer),
            None => return Err(BackupError::Foreign),
        };
        if !is_whole(bytes) {
            return Err(BackupError::Damaged("its checksum is wrong; it may be cut off"));
        }
        let short = BackupError::Damaged("it is too short");
        let (length, rest) = rest.split_first_chunk::<4>().ok_or(short.clone())?;
        let length = u32::from_le_bytes(*length) as usize;
        let rest = &rest[..rest.len().saturating_sub(SUM_BYTES)];
        let (head, record) = rest.split_at_checked(length.min(HEAD_BYTES_MAX)).ok_or(short)?;
        // The checksum holds: a head that is not understood was not made here.
        let head = serde_json::from_slice(head).map_err(|_| BackupError::Newer)?;
        Ok(Backup { head, record: record.to_vec() })
    }
}

fn is_whole(bytes: &[u8]) -> bool {
    let split = bytes.split_last_chunk::<SUM_BYTES>();
    split.is_some_and(|(covered, sum)| Sha1::digest(covered)[..] == sum[..])
}

impl Head {
    /// `2026-05-01 12:00:00 UTC`.
    pub fn taken(&self) -> String {
        let (days, second) = (self.taken_at / 86_400, self.taken_at % 86_400);
        let (year, month, day) = date(days);
        let (hour, minute) = (second / 3600, second / 60 % 60);
        format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{:02} UTC", second % 60)
    }
}

/// The Gregorian date so many days after 1970-01-01, by counting months from March on, in eras of 400 years.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup() -> Backup {
        let head = Head {
            cluster_id: "c1".into(),
            cluster_name: "test".into(),
            revision: 42,
            units: 3,
            machines: 1,
            feature_level: 2,
            version: "0.1.0".into(),
            taken_at: 1_777_636_805,
        };
        Backup { head, record: (0..200).collect() }
    }

    #[test]
    fn what_was_written_is_read() {
        assert_eq!(Backup::from_bytes(&backup().to_bytes()), Ok(backup()));
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let good = backup().to_bytes();
        for at in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[at / 8] ^= 1 << (at % 8);
            assert!(Backup::from_bytes(&bytes).is_err(), "bit {at} was flipped unseen");
        }
    }

    #[test]
    fn every_other_length_is_refused() {
        let good = backup().to_bytes();
        for length in 0..good.len() {
            assert!(Backup::from_bytes(&good[..length]).is_err(), "{length} of {} bytes", good.len());
        }
        assert!(Backup::from_bytes(&[&good[..], &[0]].concat()).is_err());
    }

    #[test]
    fn what_is_wrong_is_told() {
        let sealed = |bytes: &[u8]| [bytes, &Sha1::digest(bytes)[..]].concat();
        let check = |bytes: &[u8], expected| assert_eq!(Backup::from_bytes(bytes).unwrap_err(), expected);
        check(b"", BackupError::Foreign);
        check(b"PK\x03\x04 some archive", BackupError::Foreign);
        check(&sealed(b"corebkp2 of later times"), BackupError::Newer);
        check(&sealed(b"corebkp1\x02\0\0\0{}"), BackupError::Newer);
        check(&sealed(b"corebkp1\xff\xff\xff\xff{}"), BackupError::Damaged("it is too short"));
        check(&sealed(b"corebkp1"), BackupError::Damaged("it is too short"));
        let cut = &backup().to_bytes()[..100];
        check(cut, BackupError::Damaged("its checksum is wrong; it may be cut off"));
    }

    #[test]
    fn times_are_told() {
        let check = |taken_at, expected| assert_eq!(Head { taken_at, ..backup().head }.taken(), expected);
        check(0, "1970-01-01 00:00:00 UTC");
        check(951_782_400, "2000-02-29 00:00:00 UTC");
        check(1_777_636_805, "2026-05-01 12:00:05 UTC");
        check(4_107_542_399, "2100-02-28 23:59:59 UTC");
    }
}
