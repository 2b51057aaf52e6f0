//! What the child was told, and whether a store keeps it. One line of the child's output is one promise.

use std::collections::BTreeMap;
use std::path::Path;

use cluster::{ClusterState, Command, MachineId, MachineInfo};
use openraft::EntryPayload;
use openraft::impls::leader_id_std::LeaderId;
use openraft::storage::{RaftLogReader, RaftLogStorage, StorageHelper};
use openraft::vote::RaftLeaderIdExt;
use raft::disk::{Disk, DiskError, EngineKind, FlushMode};
use raft::types::{Entry, LogId, Proposal, Vote};

pub const NODE: u64 = 1;
/// Machines in the state: entry `i` says something of machine `i % MACHINES`.
const MACHINES: u64 = 50;

pub fn id(term: u64, index: u64) -> LogId {
    LogId::new(LeaderId::new_committed(term, NODE), index)
}

/// The text of an entry: some hundred bytes, now and then far more.
fn text(term: u64, index: u64) -> String {
    let mut chance = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ term.wrapping_mul(0xbf58_476d_1ce4_e5b9) | 1;
    let bytes = match index {
        i if i % 499 == 498 => 300_000,
        i if i % 61 == 60 => 30_000,
        i => 100 + (i * 37) % 700,
    };
    let mut text = String::new();
    while (text.len() as u64) < bytes {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        text.push_str(&format!("{chance:016x}"));
    }
    text
}

/// The entry that every child writes at that place.
pub fn entry(term: u64, index: u64) -> Entry {
    let id_of_machine = MachineId::new(&format!("m{}", index % MACHINES)).unwrap();
    let info = MachineInfo { name: text(term, index), ..MachineInfo::default() };
    let commands = vec![Command::RegisterMachine { id: id_of_machine, info }];
    Entry { log_id: id(term, index), payload: EntryPayload::Normal(Proposal(commands)) }
}

#[derive(Clone, Debug, Default)]
pub struct Promises {
    nonce: Option<String>,
    identified: bool,
    vote: u64,
    /// The term of each acknowledged entry, by index.
    terms: BTreeMap<u64, u64>,
    committed: Option<u64>,
    snapshot: Option<u64>,
    purged: Option<u64>,
}

/// What may be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Nothing that was written.
    Kill,
    /// What need not be synced: how far the log was committed.
    PowerCut,
}

impl Promises {
    pub fn entries(&self) -> usize {
        self.terms.len()
    }

    pub fn read(text: &str) -> Promises {
        let mut promises = Promises::default();
        text.lines().for_each(|line| promises.note(line));
        promises
    }

    /// Takes note of one whole line.
    pub fn note(&mut self, line: &str) {
        let Some(promise) = line.trim_end().strip_prefix('@') else { return };
        let words: Vec<&str> = promise.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        match words[0] {
            "nonce" => self.nonce = Some(words[1].into()),
            "identity" => self.identified = true,
            "vote" => self.vote = number(1),
            // Said before it is done: what comes after is promised no more.
            "cut" => drop(self.terms.split_off(&(number(1) + 1))),
            "ack" => self.terms.extend((number(1)..=number(2)).map(|index| (index, number(3)))),
            "committed" => self.committed = Some(number(1)),
            "snapshot" => self.snapshot = Some(number(1)),
            "purged" => self.purged = Some(number(1)),
            other => panic!("the child said {other:?}"),
        }
    }

    /// Opens the store and looks. `Err` says which promise was broken.
    pub fn check(&self, dir: &Path, kind: EngineKind, crash: Crash) -> Result<(), String> {
        let disk = match Disk::open(dir, kind, FlushMode::Inline) {
            Ok(disk) => disk,
            Err(DiskError::Damaged { what, .. }) => return Err(format!("refused: {what}")),
            Err(error) => return Err(format!("not opened: {error:?}")),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(self.check_open(&disk, crash))
    }

    async fn check_open(&self, disk: &Disk, crash: Crash) -> Result<(), String> {
        let nonce = disk.nonce().unwrap();
        if self.nonce.as_ref().is_some_and(|promised| *promised != nonce) {
            return Err(format!("the nonce was {:?} and is {nonce:?}", self.nonce));
        }
        if self.identified && disk.identity().unwrap().is_none() {
            return Err("the identity is gone".into());
        }
        let mut log = disk.log_store();
        let vote: Option<Vote> = log.read_vote().await.unwrap();
        if vote.map_or(0, |vote| vote.leader_id().term) < self.vote {
            return Err(format!("the vote for term {} is gone; there is {vote:?}", self.vote));
        }
        let state = log.get_log_state().await.unwrap();
        let purged = state.last_purged_log_id.map(|id| id.index);
        if purged < self.purged {
            return Err(format!("the purge up to {:?} is gone; there is {purged:?}", self.purged));
        }
        let first = purged.map_or(0, |purged| purged + 1);
        self.check_log(first, &log.try_get_log_entries(..).await.unwrap())?;

        let at_start = disk.state().borrow().revision.0;
        if self.snapshot.is_some_and(|snapshot| at_start < snapshot) {
            return Err(format!(
                "the snapshot up to {:?} is gone; there is one up to {at_start}",
                self.snapshot
            ));
        }
        let mut machine = disk.state_machine();
        let restart = StorageHelper::new(&mut log, &mut machine).with_id(NODE).get_initial_state().await;
        restart.map_err(|error| format!("openraft cannot start: {error}"))?;
        let state = disk.state().borrow().clone();
        if crash == Crash::Kill && self.committed.is_some_and(|committed| state.revision.0 < committed) {
            return Err(format!("{:?} was committed; the state is at {}", self.committed, state.revision));
        }
        self.check_state(&state)
    }

    /// From `first` on no hole, every entry what it should be, and all that were acknowledged.
    fn check_log(&self, first: u64, entries: &[Entry]) -> Result<(), String> {
        for (index, found) in (first..).zip(entries) {
            let term = self.terms.get(&index).copied().unwrap_or(found.log_id.committed_leader_id().term);
            if *found != entry(term, index) {
                return Err(format!("entry {index} is {:?}, and not of term {term}", found.log_id));
            }
        }
        let end = first + entries.len() as u64;
        match self.terms.last_key_value() {
            Some((last, _)) if *last >= end => {
                Err(format!("entry {last} is gone; the log ends before {end}"))
            }
            _ => Ok(()),
        }
    }

    fn check_state(&self, state: &ClusterState) -> Result<(), String> {
        let Some(last) = state.machines.len().checked_sub(1).map(|_| state.revision.0) else { return Ok(()) };
        for index in last.saturating_sub(MACHINES - 1)..=last {
            let term =
                self.terms.get(&index).ok_or(format!("entry {index} was applied and not acknowledged"))?;
            let machine = MachineId::new(&format!("m{}", index % MACHINES)).unwrap();
            let name = state.machines.get(&machine).map(|machine| machine.info.name.clone());
            if name != Some(text(*term, index)) {
                return Err(format!("the state at {last} does not hold what entry {index} said"));
            }
        }
        Ok(())
    }
}
