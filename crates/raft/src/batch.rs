//! Many callers, few log entries: proposals that arrive while an entry is on its way share the next one.

use std::sync::Arc;

use cluster::{Command, Outcome, Revision};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::impls::ProgressResponder;
use store::{Committed, proposal_bytes};
use tokio::sync::{mpsc, oneshot};

use crate::message::Refusal;
use crate::node::Raft;
use crate::types::{Proposal, Reply, TypeConfig};

/// Proposals that wait; more have to wait at the door.
const QUEUE_MAX: usize = 1024;
/// Entries on their way to a quorum at a time: the next is written while the one before it travels. More
/// would only make each of them smaller.
const IN_FLIGHT_MAX: usize = 2;
/// Commands that are put together into one entry. A single proposal may hold more.
const COMMANDS_MAX: usize = 1024;
/// As the commands, in bytes: an entry that takes long to write holds up all that come after it.
const BYTES_MAX: usize = 4 << 20;

type Answer = Result<Committed, Refusal>;

/// A caller's commands on their way.
struct Waiting {
    /// They are of use only while this node leads in that term.
    term: Option<u64>,
    commands: Vec<Command>,
    answer: oneshot::Sender<Answer>,
}

/// The way into this node's log. Cheap to clone.
#[derive(Clone)]
pub struct Batches {
    queue: mpsc::Sender<Waiting>,
}

/// The command that has to come before all others, while it has not.
pub type First = Box<dyn Fn() -> Option<Command> + Send + Sync>;

impl Batches {
    /// Hands out the door, and the task that serves it until every door is dropped. Nothing is proposed
    /// before `first`, which goes with whatever comes first.
    pub fn new(raft: Raft, first: First) -> (Batches, impl Future<Output = ()> + Send) {
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        (Batches { queue }, run(Arc::new(Log { raft, first }), waiting))
    }

    /// Commits the commands if this node leads.
    pub async fn propose(&self, commands: Vec<Command>) -> Answer {
        self.wait(None, commands).await
    }

    /// Commits the commands if this node leads in that term.
    pub async fn decide(&self, term: u64, commands: Vec<Command>) -> Answer {
        self.wait(Some(term), commands).await
    }

    async fn wait(&self, term: Option<u64>, commands: Vec<Command>) -> Answer {
        let (answer, answered) = oneshot::channel();
        let stopped = || Refusal::Failed("the store has stopped".into());
        self.queue.send(Waiting { term, commands, answer }).await.map_err(|_| stopped())?;
        answered.await.unwrap_or(Err(Refusal::Unknown))
    }
}

struct Log {
    raft: Raft,
    first: First,
}

async fn run(log: Arc<Log>, mut waiting: mpsc::Receiver<Waiting>) {
    let mut in_flight = FuturesUnordered::new();
    let mut open = true;
    while open || !in_flight.is_empty() {
        tokio::select! {
            // Cancel-safe: what ended is taken out only when it is returned.
            Some(()) = in_flight.next(), if !in_flight.is_empty() => {}
            // Cancel-safe: a message is taken only when it is returned.
            first = waiting.recv(), if open && in_flight.len() < IN_FLIGHT_MAX => match first {
                None => open = false,
                Some(first) => {
                    let mut term = first.term;
                    let mut commands = first.commands.len();
                    let mut bytes = proposal_bytes(&first.commands);
                    let mut batch = vec![first];
                    while commands < COMMANDS_MAX && bytes < BYTES_MAX {
                        let Ok(next) = waiting.try_recv() else { break };
                        commands += next.commands.len();
                        bytes += proposal_bytes(&next.commands);
                        // One entry is for one term or for any. The leader decides now and then, so that this
                        // adds an entry or two.
                        if next.term != term {
                            term = next.term;
                            in_flight.push(commit(log.clone(), std::mem::take(&mut batch)));
                        }
                        batch.push(next);
                    }
                    in_flight.push(commit(log.clone(), batch));
                }
            },
        }
    }
}

async fn commit(log: Arc<Log>, batch: Vec<Waiting>) {
    // A leader that has not applied its log yet may write it again: that is refused then, and no harm.
    let mut commands: Vec<Command> = (log.first)().into_iter().collect();
    let firsts = commands.len();
    let term = batch.first().and_then(|first| first.term);
    let mut callers = Vec::with_capacity(batch.len());
    for Waiting { term: _, commands: mine, answer } in batch {
        callers.push((mine.len(), answer));
        commands.extend(mine);
    }
    match write(&log.raft, term, Proposal(commands)).await {
        Ok((revision, outcomes)) => {
            let mut outcomes = outcomes.into_iter().skip(firsts);
            for (count, answer) in callers {
                let outcomes: Vec<Outcome> = outcomes.by_ref().take(count).collect();
                // A caller that has gone away does not hear of it.
                let _ = answer.send(Ok(Committed { revision, outcomes }));
            }
        }
        Err(refusal) => {
            for (_, answer) in callers {
                let _ = answer.send(Err(refusal.clone()));
            }
        }
    }
}

async fn write(
    raft: &Raft,
    term: Option<u64>,
    proposal: Proposal,
) -> Result<(Revision, Vec<Outcome>), Refusal> {
    let written = match term {
        None => raft.client_write(proposal).await.map_err(|error| match error {
            RaftError::APIError(error) => refusal(error),
            RaftError::Fatal(fatal) => Refusal::Failed(fatal.to_string()),
        })?,
        Some(term) => {
            let (responder, written) = ProgressResponder::complete_only();
            let sent = raft.write(proposal).with_leader(term).responder(responder).await;
            sent.map_err(|fatal| Refusal::Failed(fatal.to_string()))?;
            // Whoever was to answer has ended.
            written.await.map_err(|_| Refusal::Unknown)?.map_err(refusal)?
        }
    };
    let Reply(outcomes) = written.data;
    Ok((Revision(written.log_id.index), outcomes))
}

fn refusal(error: ClientWriteError<TypeConfig>) -> Refusal {
    match error {
        ClientWriteError::ForwardToLeader(forward) => {
            Refusal::NotLeader { leader: forward.leader_node.map(|node| node.address) }
        }
        ClientWriteError::LogEntryDiscarded(_) => Refusal::Unknown,
        other => Refusal::Failed(other.to_string()),
    }
}
