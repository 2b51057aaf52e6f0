//! The log and the vote, as openraft wants them kept. Nothing is acknowledged before it is durable; after an
//! I/O error nothing is acknowledged any more.
//!
//! An entry is stored as `[chain u32 LE][record]`, cut into pieces that suit every engine. The chain is a
//! checksum over the entry and the chain of the entry before it, so that at the start the whole log can be
//! checked against the witness.

use std::cmp::Ordering;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, ControlFlow, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard};

use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};

use crate::codec;
use crate::disk::Failure;
use crate::engine::{Batch, Engine, Table, damaged};
use crate::flusher::Flusher;
use crate::types::{Entry, LogId, TypeConfig, Vote};
use crate::witness::{Claim, Mark, Witness};

/// The version of everything this module writes.
const FORMAT: u32 = 1;
/// The bytes of an entry in one piece; with its head it is below every engine's limit.
const PIECE_BYTES: usize = 4 << 10;
/// Keys deleted in one batch: bounds the memory that a purge takes.
const DELETE_BATCH: usize = 1024;
/// Entries read in one go for replication: far below the largest body that peers take.
const READ_BYTES_MAX: usize = 4 << 20;

const KEY_FORMAT: &[u8] = b"format";
const KEY_VOTE: &[u8] = b"vote";
const KEY_PURGED: &[u8] = b"purged";

/// The log of one node. Clones are the same log.
#[derive(Clone)]
pub struct LogStore {
    log: Arc<Log>,
}

struct Log {
    engine: Arc<dyn Engine>,
    witness: Arc<Witness>,
    flusher: Flusher,
    failure: Failure,
    /// What the engine holds, durable or not yet.
    now: Mutex<Claim>,
}

impl LogStore {
    /// `now` is what [`check`] found.
    pub(crate) fn new(
        engine: Arc<dyn Engine>,
        witness: Arc<Witness>,
        flusher: Flusher,
        failure: Failure,
        now: Claim,
    ) -> LogStore {
        LogStore { log: Arc::new(Log { engine, witness, flusher, failure, now: Mutex::new(now) }) }
    }

    /// How long it took until writes were durable.
    pub fn syncs(&self) -> Arc<store::Histogram> {
        self.log.flusher.took()
    }

    fn now(&self) -> MutexGuard<'_, Claim> {
        self.log.now.lock().expect("no holder of this lock panics")
    }

    fn write(&self, batch: &Batch) -> io::Result<()> {
        self.log.failure.guard("writing the log", || self.log.engine.write(batch))
    }

    /// Reads entries from `start` on while they are in `range` and their sizes' sum is below `bytes_max`; one
    /// at least. *No Holes*: who applies them would not notice.
    fn read(&self, start: u64, range: &impl RangeBounds<u64>, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        scan(&*self.log.engine, start, |index, stored| {
            if !range.contains(&index) || (bytes > 0 && bytes + stored.len() > bytes_max) {
                return Ok(ControlFlow::Break(()));
            }
            bytes += stored.len();
            let entry: Entry = unpack(index, stored)?.1;
            if let Some(before) = entries.last().map(|before: &Entry| before.log_id.index)
                && before + 1 != index
            {
                return Err(damaged(format!("log entries between {before} and {index} are missing")));
            }
            entries.push(entry);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(entries)
    }

    /// What was read from `next` on begins later, or not at all, although the log goes on.
    fn lacks(&self, next: u64, read: &[Entry]) -> bool {
        let last = self.now().last.as_ref().map(|mark| mark.id.index);
        Some(next) <= last && read.first().is_none_or(|entry| entry.log_id.index != next)
    }

    /// The mark of an entry that is in the log.
    fn mark_at(&self, index: u64) -> io::Result<Option<Mark>> {
        let mut mark = None;
        scan(&*self.log.engine, index, |found, stored| {
            if found == index {
                let (chain, entry) = unpack(index, stored)?;
                mark = Some(Mark { id: entry.log_id, chain });
            }
            Ok(ControlFlow::Break(()))
        })?;
        Ok(mark)
    }

    /// The keys of all pieces of the entries whose index is in `from..to`.
    fn keys(&self, from: u64, to: u64) -> io::Result<Vec<Vec<u8>>> {
        let mut keys = Vec::new();
        self.log.engine.scan(Table::Log, &from.to_be_bytes(), &mut |key, _| {
            if split_key(key)?.0 >= to {
                return Ok(ControlFlow::Break(()));
            }
            keys.push(key.to_vec());
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(keys)
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    /// Reads a part at a time, so that a long range is never in memory whole.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl futures::Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let store = self.clone();
        let first = start(&range);
        futures::stream::unfold((first, Vec::new().into_iter()), move |(next, mut read)| {
            let (store, range) = (store.clone(), range.clone());
            async move {
                if let Some(entry) = read.next() {
                    return Some((Ok(entry), (next, read)));
                }
                let next = next?;
                match store.read(next, &range, READ_BYTES_MAX) {
                    // Whoever applies them would take the stream's end for the range's.
                    Ok(entries) if range.contains(&next) && store.lacks(next, &entries) => {
                        let error = damaged(format!("log entry {next} is missing"));
                        Some((Err(error), (None, Vec::new().into_iter())))
                    }
                    Ok(entries) => {
                        let next = entries.last().map(|entry| entry.log_id.index + 1);
                        let mut read = entries.into_iter();
                        let entry = read.next()?;
                        Some((Ok(entry), (next, read)))
                    }
                    Err(error) => Some((Err(error), (None, Vec::new().into_iter()))),
                }
            }
        })
    }

    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        match start(&range) {
            Some(start) => self.read(start, &range, usize::MAX),
            None => Ok(Vec::new()),
        }
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start, &(start..end), READ_BYTES_MAX)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.now().vote)
    }
}

fn start(range: &impl RangeBounds<u64>) -> Option<u64> {
    match range.start_bound() {
        Bound::Included(index) => Some(*index),
        Bound::Excluded(index) => index.checked_add(1),
        Bound::Unbounded => Some(0),
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let now = self.now();
        let id = |mark: &Option<Mark>| mark.as_ref().map(|mark| mark.id);
        Ok(LogState { last_purged_log_id: id(&now.purged), last_log_id: id(&now.last) })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let mut batch = Batch::default();
        batch.put(Table::Meta, KEY_VOTE, codec::encode(vote)?);
        self.write(&batch)?;
        let claim = {
            let mut now = self.now();
            now.vote = Some(*vote);
            now.clone()
        };
        self.log.flusher.sync(claim).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.log.failure.guard("writing the witness", || self.log.witness.set_committed(committed))
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.log.witness.committed())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut claim = self.now().clone();
        let mut batch = Batch::default();
        for entry in entries {
            let id = entry.log_id;
            if let Some(last) = &claim.last
                && last.id.index + 1 != id.index
            {
                let what = format!("No Holes: entry {} cannot come after entry {}", id.index, last.id.index);
                return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
            }
            let chain = pack(&mut batch, claim.last.as_ref().map_or(0, |last| last.chain), &entry)?;
            claim.last = Some(Mark { id, chain });
        }
        self.write(&batch)?;
        *self.now() = claim.clone();
        self.log.flusher.submit(claim, Box::new(move |result| callback.io_completed(result)));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let from = last.map_or(0, |last| last.index + 1);
        let mut claim = self.now().clone();
        if claim.last.as_ref().is_none_or(|mark| mark.id.index < from) {
            return Ok(());
        }
        // No sync of what is cut off now may raise the witness later.
        self.log.flusher.sync(claim.clone()).await?;
        claim.last = match &claim.purged {
            Some(purged) if from <= purged.id.index + 1 => Some(purged.clone()),
            _ if from == 0 => None,
            _ => self.mark_at(from - 1)?,
        };
        self.log.failure.guard("writing the witness", || self.log.witness.lower(claim.clone()))?;
        // From the end on, so that what is left after each batch has no hole.
        let keys = self.keys(from, u64::MAX)?;
        for keys in keys.rchunks(DELETE_BATCH) {
            self.write(&delete(keys))?;
        }
        *self.now() = claim;
        Ok(())
    }

    /// The mark is durable before the first entry goes.
    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let mut claim = self.now().clone();
        let purged = claim.purged.as_ref().map(|mark| mark.id.index);
        if purged.is_some_and(|purged| upto.index <= purged) {
            return Ok(());
        }
        let last = claim.last.as_ref().map(|mark| mark.id.index);
        // Beyond the end: a snapshot has taken the log's place, and a new chain begins.
        let mark = self.mark_at(upto.index)?.unwrap_or(Mark { id: upto, chain: 0 });
        if last.is_none_or(|last| last <= upto.index) {
            claim.last = Some(mark.clone());
        }
        claim.purged = Some(mark);
        let mut batch = Batch::default();
        batch.put(Table::Meta, KEY_PURGED, codec::encode(&claim.purged)?);
        self.write(&batch)?;
        *self.now() = claim.clone();
        self.log.flusher.sync(claim).await?;
        remove_purged(&*self.log.engine, &self.log.failure, upto.index)
    }
}

/// Deletes from the front on, so that what is left after each batch has no hole.
fn remove_purged(engine: &dyn Engine, failure: &Failure, upto: u64) -> io::Result<()> {
    loop {
        let mut keys = Vec::new();
        engine.scan(Table::Log, &[], &mut |key, _| {
            if split_key(key)?.0 > upto || keys.len() == DELETE_BATCH {
                return Ok(ControlFlow::Break(()));
            }
            keys.push(key.to_vec());
            Ok(ControlFlow::Continue(()))
        })?;
        if keys.is_empty() {
            return Ok(());
        }
        failure.guard("purging the log", || engine.write(&delete(&keys)))?;
    }
}

fn delete(keys: &[Vec<u8>]) -> Batch {
    let mut batch = Batch::default();
    for key in keys {
        batch.delete(Table::Log, key.clone());
    }
    batch
}

/// Puts the entry into the batch; its chain.
fn pack(batch: &mut Batch, before: u32, entry: &Entry) -> io::Result<u32> {
    let record = codec::encode(entry)?;
    let chain = chain(before, &record);
    let mut bytes = chain.to_le_bytes().to_vec();
    bytes.extend_from_slice(&record);
    let count = bytes.len().div_ceil(PIECE_BYTES);
    for (number, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
        let following =
            u16::try_from(count - 1 - number).map_err(|_| io::Error::other("an entry is too large"))?;
        let mut value = following.to_le_bytes().to_vec();
        value.extend_from_slice(piece);
        batch.put(Table::Log, key(entry.log_id.index, number as u16), value);
    }
    Ok(chain)
}

fn chain(before: u32, record: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&before.to_le_bytes());
    hasher.update(record);
    hasher.finalize()
}

/// Whether what [`scan`] found comes after an entry of that chain.
fn follows(before: u32, stored: &[u8]) -> bool {
    let stored = stored.split_first_chunk::<4>();
    stored.is_some_and(|(chained, record)| chain(before, record) == u32::from_le_bytes(*chained))
}

/// The chain and the entry of what [`scan`] found at `index`.
fn unpack(index: u64, stored: &[u8]) -> io::Result<(u32, Entry)> {
    let wrong = |what: &str| damaged(format!("log entry {index} {what}"));
    let (chain, record) = stored.split_first_chunk::<4>().ok_or_else(|| wrong("is too short"))?;
    let entry: Entry = codec::decode(record).map_err(|error| match error.kind() {
        io::ErrorKind::Unsupported => error,
        _ => wrong(&format!("cannot be read: {error}")),
    })?;
    if entry.log_id.index != index {
        return Err(wrong("is another one"));
    }
    Ok((u32::from_le_bytes(*chain), entry))
}

/// `index u64 BE, number of the piece u16 BE`.
fn key(index: u64, number: u16) -> Vec<u8> {
    [index.to_be_bytes().as_slice(), &number.to_be_bytes()].concat()
}

/// The index and the number of a [`key`].
fn split_key(key: &[u8]) -> io::Result<(u64, u16)> {
    let (index, number) =
        key.split_first_chunk::<8>().ok_or_else(|| damaged("a key of the log is too short"))?;
    let number = number.try_into().map_err(|_| damaged("a key of the log has a wrong length"))?;
    Ok((u64::from_be_bytes(*index), u16::from_be_bytes(number)))
}

/// Visits the stored bytes of each entry from `start` on, its pieces put together.
fn scan(
    engine: &dyn Engine,
    start: u64,
    mut visit: impl FnMut(u64, &[u8]) -> io::Result<ControlFlow<()>>,
) -> io::Result<()> {
    let mut bytes = Vec::new();
    // The index and number of the next piece, while an entry is incomplete.
    let mut expected: Option<(u64, u16)> = None;
    engine.scan(Table::Log, &start.to_be_bytes(), &mut |key, value| {
        let (index, number) = split_key(key)?;
        let wrong = |what: &str| damaged(format!("log entry {index} {what} its piece {number}"));
        let (following, piece) =
            value.split_first_chunk::<2>().ok_or_else(|| wrong("has an empty piece for"))?;
        if (index, number) != expected.unwrap_or((index, 0)) {
            return Err(wrong("lacks a piece before"));
        }
        bytes.extend_from_slice(piece);
        if u16::from_le_bytes(*following) > 0 {
            expected = Some((index, number + 1));
            return Ok(ControlFlow::Continue(()));
        }
        expected = None;
        let whole = std::mem::take(&mut bytes);
        visit(index, &whole)
    })?;
    match expected {
        Some((index, number)) => Err(damaged(format!("log entry {index} lacks its piece {number}"))),
        None => Ok(()),
    }
}

/// Writes the format into a new store.
pub(crate) fn make(engine: &dyn Engine) -> io::Result<()> {
    let mut batch = Batch::default();
    batch.put(Table::Meta, KEY_FORMAT, codec::encode(&FORMAT)?);
    engine.write(&batch)?;
    engine.sync()
}

/// Reads all that the engine holds and compares it with what the witness claims. Finishes an interrupted
/// purge.
pub(crate) fn check(engine: &dyn Engine, failure: &Failure, claim: &Claim) -> io::Result<Claim> {
    let get = |key: &[u8]| engine.get(Table::Meta, key);
    match get(KEY_FORMAT)?.map(|bytes| codec::decode::<u32>(&bytes)).transpose()? {
        Some(FORMAT) => {}
        Some(other) => {
            let what = format!("it is of format {other}, while this version knows {FORMAT}");
            return Err(io::Error::new(io::ErrorKind::Unsupported, what));
        }
        None => return Err(damaged("the record of the format is gone")),
    }
    let vote: Option<Vote> = get(KEY_VOTE)?.map(|bytes| codec::decode(&bytes)).transpose()?;
    let purged: Option<Mark> = match get(KEY_PURGED)? {
        Some(bytes) => codec::decode(&bytes)?,
        None => None,
    };
    if !matches!(vote.partial_cmp(&claim.vote), Some(Ordering::Equal | Ordering::Greater)) {
        return Err(damaged(format!("the vote {:?} is gone; there is {vote:?}", claim.vote)));
    }
    let id = |mark: &Option<Mark>| mark.as_ref().map(|mark| mark.id);
    if id(&claim.purged) > id(&purged) {
        return Err(damaged(format!("the purged mark {:?} is gone; there is {purged:?}", claim.purged)));
    }
    if let Some(purged) = &purged {
        remove_purged(engine, failure, purged.id.index)?;
    }
    let last = check_entries(engine, purged.as_ref(), claim)?;
    Ok(Claim { vote, purged, last })
}

/// No hole, every entry whole and chained to the one before, each found by its index too, and all that the
/// witness claims; the last mark.
fn check_entries(engine: &dyn Engine, purged: Option<&Mark>, claim: &Claim) -> io::Result<Option<Mark>> {
    let mut last = purged.cloned();
    scan(engine, 0, |index, stored| {
        let next = last.as_ref().map_or(0, |mark| mark.id.index + 1);
        if index != next {
            return Err(damaged(format!("log entry {next} is missing; the next one is {index}")));
        }
        // Before it is read: an entry of a newer version follows from the one before as any other.
        let before = last.as_ref().map_or(0, |mark| mark.chain);
        if !follows(before, stored) {
            return Err(damaged(format!("log entry {index} does not follow from the one before")));
        }
        let (chained, entry) = unpack(index, stored)?;
        if last.as_ref().is_some_and(|mark| mark.id >= entry.log_id) {
            return Err(damaged(format!("log entry {index} is of an earlier term than the one before")));
        }
        if let Some(claimed) = claim.last.as_ref().filter(|claimed| claimed.id.index == index)
            && (claimed.id, claimed.chain) != (entry.log_id, chained)
        {
            return Err(damaged(format!("log entry {index} is not the one that was acknowledged")));
        }
        last = Some(Mark { id: entry.log_id, chain: chained });
        Ok(ControlFlow::Continue(()))
    })?;
    let index = |mark: Option<&Mark>| mark.map(|mark| mark.id.index);
    if index(claim.last.as_ref()) > index(last.as_ref()) {
        let (claimed, found) = (index(claim.last.as_ref()), index(last.as_ref()));
        return Err(damaged(format!(
            "log entries are missing: the last should be {claimed:?} and is {found:?}"
        )));
    }
    // An engine whose inner pages are damaged may lead past what a walk from the start comes upon.
    let first = purged.map_or(0, |mark| mark.id.index + 1);
    let end = last.as_ref().map_or(0, |mark| mark.id.index + 1);
    for index in first..end {
        if engine.get(Table::Log, &key(index, 0))?.is_none() {
            return Err(damaged(format!("log entry {index} is there and not found by its index")));
        }
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;

    use super::*;
    use crate::engine::{Forgetful, Visit};

    /// As one whose inner pages are damaged: a walk comes upon all there is, a look for this key does not.
    struct Misled {
        engine: Arc<dyn Engine>,
        lost: Vec<u8>,
    }

    impl Engine for Misled {
        fn get(&self, table: Table, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
            if key == self.lost { Ok(None) } else { self.engine.get(table, key) }
        }

        fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> io::Result<()> {
            self.engine.scan(table, from, visit)
        }

        fn write(&self, batch: &Batch) -> io::Result<()> {
            self.engine.write(batch)
        }

        fn sync(&self) -> io::Result<()> {
            self.engine.sync()
        }
    }

    #[test]
    fn an_entry_that_is_not_found_by_its_index_is_damage() {
        let engine: Arc<dyn Engine> = Arc::new(Forgetful::new(1).engine());
        make(&*engine).unwrap();
        let (mut batch, mut chain) = (Batch::default(), 0);
        for index in 0..5 {
            let entry = Entry { log_id: LogId::new_term_index(1, index), payload: EntryPayload::Blank };
            chain = pack(&mut batch, chain, &entry).unwrap();
        }
        engine.write(&batch).unwrap();
        let look = |lost| {
            let engine = Misled { engine: engine.clone(), lost };
            check(&engine, &Failure::default(), &Claim::default())
        };
        assert_eq!(look(key(5, 0)).unwrap().last.unwrap().id.index, 4);
        for index in 0..5 {
            let error = look(key(index, 0)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert!(error.to_string().contains(&format!("log entry {index} ")), "{error}");
        }
    }
}
