//! Group commit: the writes that come while one sync runs share the next. One thread syncs; in a simulation,
//! which has no threads, each write syncs for itself.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::disk::Failure;
use crate::engine::Engine;
use crate::witness::{Claim, Witness};

/// openraft waits for its writes long before so many are under way; who comes later waits for the disk.
const JOBS_MAX: usize = 256;

/// Whether a thread syncs, or the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushMode {
    Thread,
    Inline,
}

/// Called once the write before it is durable, or will never be.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

struct Job {
    /// What the engine holds when this job's write is durable.
    claim: Claim,
    done: Done,
}

pub struct Flusher {
    sync: Arc<Sync>,
    thread: Option<(SyncSender<Job>, JoinHandle<()>)>,
}

struct Sync {
    engine: Arc<dyn Engine>,
    witness: Arc<Witness>,
    failure: Failure,
}

impl Flusher {
    pub fn new(
        engine: Arc<dyn Engine>,
        witness: Arc<Witness>,
        failure: Failure,
        mode: FlushMode,
    ) -> io::Result<Flusher> {
        let sync = Arc::new(Sync { engine, witness, failure });
        let thread = match mode {
            FlushMode::Inline => None,
            FlushMode::Thread => {
                let (sender, jobs) = sync_channel(JOBS_MAX);
                let sync = sync.clone();
                let thread =
                    std::thread::Builder::new().name("log-sync".into()).spawn(move || sync.run(&jobs))?;
                Some((sender, thread))
            }
        };
        Ok(Flusher { sync, thread })
    }

    /// Calls `done` once everything that was written before is durable. Jobs end in the order they came.
    pub fn submit(&self, claim: Claim, done: Done) {
        let job = Job { claim, done };
        match &self.thread {
            None => self.sync.carry_out(vec![job]),
            Some((sender, _)) => {
                if let Err(unsent) = sender.send(job) {
                    (unsent.0.done)(Err(io::Error::other("the thread that syncs the log has ended")));
                }
            }
        }
    }

    /// Waits until everything that was written before is durable.
    pub async fn sync(&self, claim: Claim) -> io::Result<()> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        // Nobody listens any more when the caller was cancelled; the write stands all the same.
        self.submit(claim, Box::new(move |result| drop(sender.send(result))));
        receiver.await.map_err(io::Error::other)?
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        if let Some((sender, thread)) = self.thread.take() {
            drop(sender);
            if thread.join().is_err() {
                tracing::error!("the thread that syncs the log has panicked");
            }
        }
    }
}

impl Sync {
    fn run(&self, jobs: &Receiver<Job>) {
        while let Ok(first) = jobs.recv() {
            let mut together = vec![first];
            together.extend(jobs.try_iter().take(JOBS_MAX));
            self.carry_out(together);
        }
    }

    fn carry_out(&self, jobs: Vec<Job>) {
        let Some(claim) = jobs.last().map(|job| job.claim.clone()) else { return };
        let synced = self.failure.guard("syncing the log", || {
            self.engine.sync()?;
            self.witness.raise(claim)
        });
        for job in jobs {
            (job.done)(match &synced {
                Ok(()) => Ok(()),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            });
        }
    }
}
