//! Many writers, few proposals: writes that arrive while a proposal is on its way share the next one. It
//! matters most where another machine leads, since each proposal goes there by itself.

use std::sync::Arc;

use cluster::{Command, Outcome};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use store::{ProposeError, Store, proposal_bytes};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

/// Writes that wait; more have to wait at the door.
const QUEUE_MAX: usize = 1024;
/// Proposals on their way at a time: the next is made while the one before it travels.
const IN_FLIGHT_MAX: usize = 2;
/// Of one proposal.
const COMMANDS_MAX: usize = 512;
/// Of one proposal, beyond its last write.
const BYTES_MAX: usize = 1 << 20;

/// What came of a write, and the revision at which it was made.
type Answer = Result<(Outcome, u64), ProposeError>;

struct Waiting {
    command: Command,
    deadline: Instant,
    answer: oneshot::Sender<Answer>,
}

/// The way to the store.
pub(super) struct Gather(mpsc::Sender<Waiting>);

impl Gather {
    /// With the task behind it, which ends with the door.
    pub fn new(store: Arc<dyn Store>) -> (Gather, impl Future<Output = ()>) {
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        (Gather(queue), run(store, waiting))
    }

    pub async fn propose(&self, command: Command, deadline: Instant) -> Answer {
        let (answer, answered) = oneshot::channel();
        let stopped = || ProposeError::Stopped { reason: "the daemon is stopping".into() };
        self.0.send(Waiting { command, deadline, answer }).await.map_err(|_| stopped())?;
        match timeout_at(deadline, answered).await {
            Ok(answered) => answered.unwrap_or(Err(ProposeError::Unknown)),
            Err(_) => Err(ProposeError::Unknown),
        }
    }
}

async fn run(store: Arc<dyn Store>, mut waiting: mpsc::Receiver<Waiting>) {
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
                    let mut bytes = proposal_bytes(std::slice::from_ref(&first.command));
                    let mut batch = vec![first];
                    while batch.len() < COMMANDS_MAX && bytes < BYTES_MAX {
                        let Ok(next) = waiting.try_recv() else { break };
                        bytes += proposal_bytes(std::slice::from_ref(&next.command));
                        batch.push(next);
                    }
                    in_flight.push(propose(store.clone(), batch));
                }
            },
        }
    }
}

async fn propose(store: Arc<dyn Store>, batch: Vec<Waiting>) {
    // Whoever came last has the most patience; the others go when theirs is over.
    let deadline = batch.iter().map(|waiting| waiting.deadline).max().unwrap_or_else(Instant::now);
    let (commands, callers): (Vec<_>, Vec<_>) =
        batch.into_iter().map(|waiting| (waiting.command, waiting.answer)).unzip();
    match store.propose(commands, deadline).await {
        Ok(committed) => {
            for (answer, outcome) in callers.into_iter().zip(committed.outcomes) {
                // A caller that has gone away does not hear of it.
                let _ = answer.send(Ok((outcome, committed.revision.0)));
            }
        }
        Err(error) => {
            for answer in callers {
                let _ = answer.send(Err(error.clone()));
            }
        }
    }
}
