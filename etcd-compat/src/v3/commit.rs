//! Proposals: commands become the changes that they make to the copy, and those are written in one
//! transaction that holds only if no record that decided about them has changed since.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cluster::{Command, Outcome, Revision};
use etcd_client::{Compare, CompareOp, Txn, TxnOp, TxnOpResponse};
use store::{Committed, PROPOSAL_BYTES_MAX, ProposeError, proposal_bytes};
use tokio::time::{Instant, timeout_at};

use super::V3;
use super::keys::head_word;
use super::link::Connection;
use super::mirror::View;
use super::trouble::Trouble;
use crate::reads::reads;
use crate::record::{BY_THIS_WRITE, Key, encode};
use crate::shared::not_leading;

/// etcd takes 128 comparisons and 128 writes in one transaction (`--max-txn-ops`). Two of each are ours.
const KEYS_MAX: usize = 120;
/// etcd takes requests of 1.5 MiB (`--max-request-bytes`), names and all.
const BYTES_MAX: usize = (3 << 19) - (64 << 10);
/// A transaction that takes longer is given up: its outcome is unknown then.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Members are tried in turn for as long as nothing was written; a moment between them.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// A part of a proposal that fits into one transaction.
struct Part {
    commands: usize,
    outcomes: Vec<Outcome>,
    /// The records that decided, and when each was last written; 0: there is none.
    seen: BTreeMap<Key, i64>,
    all_assignments: bool,
    all_machines: bool,
    all_reboot_groups: bool,
    writes: BTreeMap<Key, Option<Vec<u8>>>,
    /// A command is refused for a record that may have been taken away since: a comparison over a range does
    /// not see what is there no more.
    is_doubtful: bool,
}

/// What came of one transaction.
enum Done {
    At(i64),
    /// A record that decided has changed.
    Overtaken,
    /// Another machine leads.
    Deposed,
}

/// The error says that nothing was written: not so when an earlier part of the proposal was.
fn unless_made(done: &Committed, error: ProposeError) -> ProposeError {
    match done.outcomes.is_empty() {
        true => error,
        false => ProposeError::Unknown,
    }
}

impl V3 {
    pub async fn propose(
        &self,
        commands: Vec<Command>,
        deadline: Instant,
    ) -> Result<Committed, ProposeError> {
        self.make(None, commands, deadline).await
    }

    /// What was decided in one lead is never made in another, or in none: `term` is not asked anew, whatever
    /// is done in how many parts and tries.
    pub async fn decide(
        &self,
        term: u64,
        commands: Vec<Command>,
        deadline: Instant,
    ) -> Result<Committed, ProposeError> {
        let base = self.view()?.base;
        match self.term().filter(|created| base + *created as u64 == term) {
            Some(created) => self.make(Some(created), commands, deadline).await,
            None => Err(not_leading()),
        }
    }

    /// `lead`: when the key was made under which this is decided; only while it is there.
    async fn make(
        &self,
        lead: Option<i64>,
        commands: Vec<Command>,
        deadline: Instant,
    ) -> Result<Committed, ProposeError> {
        let bytes = proposal_bytes(&commands);
        if bytes > PROPOSAL_BYTES_MAX {
            return Err(ProposeError::TooLarge { bytes, max: PROPOSAL_BYTES_MAX });
        }
        self.view()?.state.admits_all(&commands)?;
        let mut done = Committed { revision: Revision(0), outcomes: Vec::with_capacity(commands.len()) };
        let (mut rest, mut is_fresh) = (&commands[..], false);
        loop {
            let Some(connection) = self.mirror.followed(deadline).await else {
                return Err(self.given_up(&done, &self.shared.reason()));
            };
            let view = self.view().map_err(|error| unless_made(&done, error))?;
            let part = self.part(&view, rest).map_err(|error| unless_made(&done, error))?;
            if part.is_doubtful && !is_fresh {
                if self.catch_up(deadline).await.is_err() {
                    return Err(self.given_up(&done, &self.shared.reason()));
                }
                is_fresh = true;
                continue;
            }
            match self.write(&part, &view, lead, &connection, deadline).await {
                Ok(Done::At(revision)) => {
                    rest = &rest[part.commands..];
                    done.outcomes.extend(part.outcomes);
                    done.revision = Revision(view.base + revision as u64);
                    // It is committed, whether or not this machine has seen it in time.
                    let seen = self.seen(revision, deadline).await;
                    if rest.is_empty() {
                        return Ok(done);
                    }
                    if !seen {
                        return Err(ProposeError::Unknown);
                    }
                }
                Ok(Done::Overtaken) => {
                    if !self.seen(view.revision + 1, deadline).await {
                        return Err(self.given_up(&done, "others changed the same records all the time"));
                    }
                }
                Ok(Done::Deposed) => return Err(unless_made(&done, not_leading())),
                Err(Trouble::Unknown(reason)) => {
                    tracing::debug!(reason, "the outcome of a transaction is unknown");
                    return Err(ProposeError::Unknown);
                }
                Err(Trouble::TooLarge(_)) => {
                    let bytes = part.writes.values().flatten().map(Vec::len).sum();
                    return Err(unless_made(&done, ProposeError::TooLarge { bytes, max: BYTES_MAX }));
                }
                Err(Trouble::Refused(reason)) => return Err(self.given_up(&done, &reason)),
                Err(Trouble::NotTaken(reason) | Trouble::Stranger(reason)) => {
                    let pause = Instant::now() + RETRY_INTERVAL;
                    if deadline <= pause {
                        return Err(self.given_up(&done, &reason));
                    }
                    tokio::time::sleep_until(pause).await;
                }
            }
        }
    }

    fn given_up(&self, done: &Committed, reason: &str) -> ProposeError {
        unless_made(done, ProposeError::Unavailable { reason: format!("etcd: {reason}") })
    }

    /// Applies as many of the commands as fit into one transaction.
    fn part(&self, view: &View, commands: &[Command]) -> Result<Part, ProposeError> {
        let mut part = Part {
            commands: 0,
            outcomes: Vec::new(),
            seen: BTreeMap::new(),
            all_assignments: false,
            all_machines: false,
            all_reboot_groups: false,
            writes: BTreeMap::new(),
            is_doubtful: false,
        };
        let mut state = (*view.state).clone();
        let mut bytes = 0;
        for command in commands {
            let reads = reads(command);
            let new = reads.keys.iter().filter(|key| !part.seen.contains_key(key)).collect::<BTreeSet<_>>();
            let applied = state.apply(BY_THIS_WRITE, command);
            let change = applied.as_ref().ok().and_then(|applied| applied.change.clone());
            let write = change.as_ref().map(encode);
            let more = write
                .as_ref()
                .map_or(0, |(key, value)| key.path().len() + value.as_ref().map_or(0, Vec::len));
            if more > BYTES_MAX {
                return Err(ProposeError::TooLarge { bytes: more, max: BYTES_MAX });
            }
            let full = part.seen.len() + new.len() > KEYS_MAX || bytes + more > BYTES_MAX;
            if full && part.commands > 0 {
                break;
            }
            for key in &reads.keys {
                let written = view.written.get(key).copied().unwrap_or(0);
                part.seen.insert(key.clone(), written);
            }
            part.all_assignments |= reads.all_assignments;
            part.all_machines |= reads.all_machines;
            part.all_reboot_groups |= reads.all_reboot_groups;
            part.is_doubtful |= applied.is_err() && reads.rests_on_a_range();
            if let (Some(change), Some((key, value))) = (change, write) {
                state.put(change);
                part.writes.insert(key, value);
                bytes += more;
            }
            part.outcomes.push(applied.map(|applied| applied.kind));
            part.commands += 1;
        }
        Ok(part)
    }

    async fn write(
        &self,
        part: &Part,
        view: &View,
        lead: Option<i64>,
        connection: &Connection,
        deadline: Instant,
    ) -> Result<Done, Trouble> {
        let keys = &self.keys;
        let mut compares: Vec<Compare> = part
            .seen
            .iter()
            .map(|(key, written)| Compare::mod_revision(keys.record(key), CompareOp::Equal, *written))
            .collect();
        let ranges = [
            (part.all_assignments, keys.assignments()),
            (part.all_machines, keys.machines()),
            (part.all_reboot_groups, keys.reboot_groups()),
        ];
        for (_, range) in ranges.into_iter().filter(|(decides, _)| *decides) {
            let none_newer = Compare::mod_revision(range, CompareOp::Less, view.revision + 1);
            compares.push(none_newer.with_prefix());
        }
        if let Some(term) = lead {
            compares.push(Compare::create_revision(keys.lead(), CompareOp::Equal, term));
        }
        let mut operations: Vec<TxnOp> = part
            .writes
            .iter()
            .map(|(key, value)| match value {
                Some(value) => TxnOp::put(keys.record(key), value.clone(), None),
                None => TxnOp::delete(keys.record(key), None),
            })
            .collect();
        if !operations.is_empty() {
            operations.push(TxnOp::put(keys.head(), head_word(&self.shared.options.machine), None));
        }
        let writes = !operations.is_empty();
        let txn = Txn::new().when(compares).and_then(operations).or_else([TxnOp::get(keys.lead(), None)]);
        let until = deadline.min(Instant::now() + ANSWER_TIMEOUT);
        let answer = match timeout_at(until, connection.kv().txn(txn)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                let trouble = Trouble::of(&error);
                self.link.fails(connection.number, &trouble);
                return Err(trouble);
            }
            Err(_) => {
                // Who is in a hurry proves nothing against a member.
                if until < deadline {
                    self.link.failed(connection.number, "no answer in time to a transaction");
                }
                return Err(Trouble::Unknown("no answer in time".into()));
            }
        };
        if answer.succeeded() {
            if writes {
                self.shared.set_denied(None);
            }
            let at = answer.header().map_or(0, |header| header.revision());
            return Ok(Done::At(if writes { at } else { view.revision }));
        }
        let leads_still = |term: i64| match answer.op_responses().first() {
            Some(TxnOpResponse::Get(lead)) => lead.kvs().iter().any(|kv| kv.create_revision() == term),
            _ => false,
        };
        Ok(match lead {
            Some(term) if !leads_still(term) => Done::Deposed,
            _ => Done::Overtaken,
        })
    }

    /// Waits until the copy holds everything up to `revision`; `false` when the deadline was first.
    pub(super) async fn seen(&self, revision: i64, deadline: Instant) -> bool {
        let mut views = self.mirror.views();
        let there = |view: &Option<Arc<View>>| view.as_ref().is_some_and(|view| revision <= view.revision);
        timeout_at(deadline, views.wait_for(there)).await.is_ok()
    }
}
