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
use super::mirror::View;
use super::trouble::Trouble;
use crate::reads::{is_leaders, reads};
use crate::record::{BY_THIS_WRITE, Key, encode};

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
    /// The term in which the leader decided.
    term: Option<i64>,
}

/// What came of one transaction.
enum Done {
    At(i64),
    /// A record that decided has changed.
    Overtaken,
    /// Another machine leads.
    Deposed,
}

impl V3 {
    pub async fn propose(
        &self,
        commands: Vec<Command>,
        deadline: Instant,
    ) -> Result<Committed, ProposeError> {
        let bytes = proposal_bytes(&commands);
        if bytes > PROPOSAL_BYTES_MAX {
            return Err(ProposeError::TooLarge { bytes, max: PROPOSAL_BYTES_MAX });
        }
        self.view()?.state.admits_all(&commands)?;
        let mut done = Committed { revision: Revision(0), outcomes: Vec::with_capacity(commands.len()) };
        let mut rest = &commands[..];
        loop {
            let view = self.view()?;
            let part = self.part(&view, rest)?;
            match self.write(&part, &view, deadline).await {
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
                Ok(Done::Deposed) => {
                    return Err(match done.outcomes.is_empty() {
                        true => ProposeError::NoLeader { hint: "another machine leads by now".into() },
                        false => ProposeError::Unknown,
                    });
                }
                Err(Trouble::Unknown(reason)) => {
                    tracing::debug!(reason, "the outcome of a transaction is unknown");
                    return Err(ProposeError::Unknown);
                }
                Err(Trouble::TooLarge(_)) => {
                    let bytes = part.writes.values().flatten().map(Vec::len).sum();
                    return Err(ProposeError::TooLarge { bytes, max: BYTES_MAX });
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

    /// Nothing was written, unless an earlier part of the proposal was.
    fn given_up(&self, done: &Committed, reason: &str) -> ProposeError {
        match done.outcomes.is_empty() {
            true => ProposeError::Unavailable { reason: format!("etcd: {reason}") },
            false => ProposeError::Unknown,
        }
    }

    /// Applies as many of the commands as fit into one transaction.
    fn part(&self, view: &View, commands: &[Command]) -> Result<Part, ProposeError> {
        let term = self.term();
        let mut part = Part {
            commands: 0,
            outcomes: Vec::new(),
            seen: BTreeMap::new(),
            all_assignments: false,
            all_machines: false,
            all_reboot_groups: false,
            writes: BTreeMap::new(),
            term: None,
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
            for key in reads.keys {
                let written = view.written.get(&key).copied().unwrap_or(0);
                part.seen.insert(key, written);
            }
            part.all_assignments |= reads.all_assignments;
            part.all_machines |= reads.all_machines;
            part.all_reboot_groups |= reads.all_reboot_groups;
            if is_leaders(command) {
                part.term = term;
            }
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

    async fn write(&self, part: &Part, view: &View, deadline: Instant) -> Result<Done, Trouble> {
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
        if let Some(term) = part.term {
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
            operations.push(TxnOp::put(keys.head(), self.shared.options.machine.as_str(), None));
        }
        let writes = !operations.is_empty();
        let txn = Txn::new().when(compares).and_then(operations).or_else([TxnOp::get(keys.lead(), None)]);
        let Some(connection) = self.link.connected(deadline).await else {
            return Err(Trouble::NotTaken(self.shared.reason()));
        };
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
        Ok(match part.term {
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
