//! A small file that says what the engine must at least hold. An engine that finds its newest records damaged
//! takes them for a write that was cut off and forgets them without a word; the witness makes that visible.
//!
//! It is written after the engine's sync and not synced itself, which costs nothing: after a power cut it may
//! be older than the engine, never newer. Only where it has to claim less than before, it is synced first.
//! Two slots in turn, each in a sector of its own with its own checksum: a damaged slot leaves the other.
//!
//! It also keeps what was committed, so that a restart without a quorum still shows the last known state.

use std::io;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use crate::codec;
use crate::engine::damaged;
use crate::files::{Durability, Files};
use crate::types::{LogId, Vote};

pub const NAME: &str = "witness";
/// A disk's sector: written whole or not at all.
const SLOT_BYTES: usize = 512;

/// A position in the log, with the checksum over the entries up to it, each chained to the one before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    pub id: LogId,
    pub chain: u32,
}

/// What is durable in the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub vote: Option<Vote>,
    pub purged: Option<Mark>,
    /// The last entry, or the purged mark when there is none.
    pub last: Option<Mark>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Slot {
    /// The higher one counts.
    sequence: u64,
    engine: String,
    /// Tells one life of this store from the next.
    nonce: String,
    /// Whether the engine's files were ever complete. Before that nothing was promised, and they may be made
    /// anew.
    made: bool,
    /// Whether there must be a file that says who this node is.
    identified: bool,
    claim: Claim,
    committed: Option<LogId>,
}

pub struct Witness {
    files: Arc<dyn Files>,
    state: Mutex<State>,
}

struct State {
    slot: Slot,
    /// Committed, though perhaps not durable here yet.
    committed: Option<LogId>,
}

impl Witness {
    /// Makes the file of a new store, before anything else of it.
    pub fn create(files: Arc<dyn Files>, engine: &str, nonce: String) -> io::Result<Witness> {
        let (engine, claim) = (engine.into(), Claim::default());
        let slot =
            Slot { sequence: 0, engine, nonce, made: false, identified: false, claim, committed: None };
        files.replace(NAME, &[padded(&slot)?, padded(&slot)?].concat())?;
        Ok(Witness { files, state: Mutex::new(State { slot, committed: None }) })
    }

    /// `None` when there is no such file.
    pub fn open(files: Arc<dyn Files>) -> io::Result<Option<Witness>> {
        let Some(bytes) = files.read(NAME)? else { return Ok(None) };
        let mut newest: Option<Slot> = None;
        for slot in bytes.chunks(SLOT_BYTES).map(read) {
            match slot {
                Ok(slot) => newest = newest.into_iter().chain([slot]).max_by_key(|slot| slot.sequence),
                // The other one may claim less than is true.
                Err(error) if error.kind() == io::ErrorKind::Unsupported => return Err(error),
                Err(_) => {}
            }
        }
        let slot = newest.ok_or_else(|| damaged("both slots of the witness"))?;
        let committed = slot.committed;
        Ok(Some(Witness { files, state: Mutex::new(State { slot, committed }) }))
    }

    pub fn claim(&self) -> Claim {
        self.lock().slot.claim.clone()
    }

    pub fn engine(&self) -> String {
        self.lock().slot.engine.clone()
    }

    pub fn nonce(&self) -> String {
        self.lock().slot.nonce.clone()
    }

    pub fn made(&self) -> bool {
        self.lock().slot.made
    }

    pub fn identified(&self) -> bool {
        self.lock().slot.identified
    }

    pub fn committed(&self) -> Option<LogId> {
        self.lock().committed
    }

    /// Takes note that this is durable in the engine now.
    pub fn raise(&self, claim: Claim) -> io::Result<()> {
        let state = &mut *self.lock();
        state.slot.claim = claim;
        state.note_committed();
        self.write(&mut state.slot, Durability::Process)
    }

    /// Takes note that the engine may hold less from now on.
    pub fn lower(&self, claim: Claim) -> io::Result<()> {
        self.alter_for_good(|slot| slot.claim = claim)
    }

    pub fn set_made(&self) -> io::Result<()> {
        self.alter_for_good(|slot| slot.made = true)
    }

    pub fn set_identified(&self) -> io::Result<()> {
        self.alter_for_good(|slot| slot.identified = true)
    }

    /// Both slots, so that no older one can come to count again.
    fn alter_for_good(&self, alter: impl FnOnce(&mut Slot)) -> io::Result<()> {
        let state = &mut *self.lock();
        alter(&mut state.slot);
        self.write(&mut state.slot, Durability::PowerCut)?;
        self.write(&mut state.slot, Durability::PowerCut)
    }

    /// Written at once if the entry is durable here, else with the claim that it is.
    pub fn set_committed(&self, committed: Option<LogId>) -> io::Result<()> {
        let state = &mut *self.lock();
        state.committed = committed;
        if state.note_committed() { self.write(&mut state.slot, Durability::Process) } else { Ok(()) }
    }

    fn write(&self, slot: &mut Slot, durability: Durability) -> io::Result<()> {
        slot.sequence += 1;
        let at = (slot.sequence % 2) * SLOT_BYTES as u64;
        self.files.overwrite(NAME, at, &padded(slot)?, durability)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

impl State {
    /// Whether it is news.
    fn note_committed(&mut self) -> bool {
        let durable = self.slot.claim.last.as_ref().map(|mark| mark.id.index);
        let ready = self.committed.map(|id| id.index) <= durable && self.slot.committed != self.committed;
        if ready {
            self.slot.committed = self.committed;
        }
        ready
    }
}

/// `[length u16 LE][record]`, filled up with zeros.
fn padded(slot: &Slot) -> io::Result<Vec<u8>> {
    let record = codec::encode(slot)?;
    let length = u16::try_from(record.len()).map_err(io::Error::other)?;
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend_from_slice(&record);
    assert!(bytes.len() <= SLOT_BYTES, "One Sector: a slot of {} bytes can be torn", bytes.len());
    bytes.resize(SLOT_BYTES, 0);
    Ok(bytes)
}

fn read(bytes: &[u8]) -> io::Result<Slot> {
    let (length, rest) = bytes.split_first_chunk::<2>().ok_or_else(|| damaged("a slot is too short"))?;
    let length = usize::from(u16::from_le_bytes(*length));
    codec::decode(rest.get(..length).ok_or_else(|| damaged("a slot is too short"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As it lies on disks since the first version. Never changed: a store whose witness cannot be read is
    /// refused.
    const SLOT: &str = "2600015a5429150904736c656402643601010104010200010209fcefbeadde01020afb0403010209";

    /// Of two slots one is damaged, be it in its version: the other counts. Of two slots one is of a later
    /// version: neither does.
    #[test]
    fn a_slot_of_later_times_is_no_damage() {
        let disk = crate::engine::Forgetful::new(1);
        let files: Arc<dyn Files> = Arc::new(disk.engine());
        drop(Witness::create(files.clone(), "sled", "d6".into()).unwrap());
        let good = files.read(NAME).unwrap().unwrap();
        let check = |at: usize, bytes: &[u8], expected: Option<io::ErrorKind>| {
            let mut changed = good.clone();
            changed[at..at + bytes.len()].copy_from_slice(bytes);
            files.replace(NAME, &changed).unwrap();
            let opened = Witness::open(files.clone());
            assert_eq!(opened.err().map(|error| error.kind()), expected);
        };
        check(0, &[], None);
        check(10, &[0xff], None);
        check(2, &[2], None);
        let length = usize::from(u16::from_le_bytes([good[0], good[1]]));
        let body = &good[2 + 5..2 + length];
        let later = [&[2], &crc32fast::hash(&[&[2], body].concat()).to_le_bytes()[..]].concat();
        check(2, &later, Some(io::ErrorKind::Unsupported));
        check(SLOT_BYTES + 2, &later, Some(io::ErrorKind::Unsupported));
    }

    #[test]
    fn a_slot_is_read_as_ever() {
        use openraft::vote::RaftLeaderIdExt;
        let id = |index| LogId::new(openraft::impls::leader_id_std::LeaderId::new_committed(2, 1), index);
        let claim = Claim {
            vote: Some(Vote::new(4, 2)),
            purged: Some(Mark { id: id(9), chain: 0xdead_beef }),
            last: Some(Mark { id: id(10), chain: 0x0304 }),
        };
        let slot = Slot {
            sequence: 9,
            engine: "sled".into(),
            nonce: "d6".into(),
            made: true,
            identified: true,
            claim,
            committed: Some(id(9)),
        };
        let bytes = padded(&slot).unwrap();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex.trim_end_matches('0'), SLOT);
        assert_eq!(read(&bytes).unwrap(), slot);
    }
}
