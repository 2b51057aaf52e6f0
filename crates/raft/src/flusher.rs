//! Group commit: the writes that come while one sync runs share the next. One thread syncs; in a simulation,
//! which has no threads, a task that takes its time.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use store::Histogram;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::disk::Failure;
use crate::engine::Engine;
use crate::witness::{Claim, Witness};

/// openraft waits for its writes long before so many are under way; who comes later waits for the disk.
const JOBS_MAX: usize = 256;

/// How long a slow disk takes at most.
const SLOW_MS_MAX: u64 = 40;

/// Who syncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushMode {
    Thread,
    /// The caller, before its write returns.
    Inline,
    /// A task, some simulated milliseconds after the write: what is not synced yet may be with the peers, and
    /// committed, when this machine falls. `seed` decides how long each sync takes.
    Slow {
        seed: u64,
    },
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
    worker: Worker,
}

enum Worker {
    Caller,
    Thread(Option<(SyncSender<Job>, JoinHandle<()>)>),
    Task(Arc<Queue>, tokio::task::AbortHandle),
}

/// Of a slow disk. openraft waits for its writes, so only few are in it.
#[derive(Default)]
struct Queue {
    jobs: Mutex<Vec<Job>>,
    more: Notify,
}

struct Sync {
    engine: Arc<dyn Engine>,
    witness: Arc<Witness>,
    failure: Failure,
    took: Arc<Histogram>,
}

impl Flusher {
    pub fn new(
        engine: Arc<dyn Engine>,
        witness: Arc<Witness>,
        failure: Failure,
        mode: FlushMode,
    ) -> io::Result<Flusher> {
        let sync = Arc::new(Sync { engine, witness, failure, took: Arc::default() });
        let worker = match mode {
            FlushMode::Inline => Worker::Caller,
            FlushMode::Slow { seed } => {
                let queue = Arc::new(Queue::default());
                let task = tokio::spawn(sync.clone().run_slowly(queue.clone(), seed));
                Worker::Task(queue, task.abort_handle())
            }
            FlushMode::Thread => {
                let (sender, jobs) = sync_channel(JOBS_MAX);
                let sync = sync.clone();
                let thread =
                    std::thread::Builder::new().name("log-sync".into()).spawn(move || sync.run(&jobs))?;
                Worker::Thread(Some((sender, thread)))
            }
        };
        Ok(Flusher { sync, worker })
    }

    /// Calls `done` once everything that was written before is durable. Jobs end in the order they came.
    pub fn submit(&self, claim: Claim, done: Done) {
        let job = Job { claim, done };
        match &self.worker {
            Worker::Caller | Worker::Thread(None) => self.sync.carry_out(vec![job]),
            Worker::Task(queue, _) => {
                queue.jobs.lock().unwrap_or_else(PoisonError::into_inner).push(job);
                queue.more.notify_one();
            }
            Worker::Thread(Some((sender, _))) => {
                if let Err(unsent) = sender.send(job) {
                    (unsent.0.done)(Err(io::Error::other("the thread that syncs the log has ended")));
                }
            }
        }
    }

    /// How long each sync took.
    pub fn took(&self) -> Arc<Histogram> {
        self.sync.took.clone()
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
        match &mut self.worker {
            Worker::Caller => {}
            Worker::Task(_, task) => task.abort(),
            Worker::Thread(worker) => {
                let Some((sender, thread)) = worker.take() else { return };
                drop(sender);
                if thread.join().is_err() {
                    tracing::error!("the thread that syncs the log has panicked");
                }
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

    async fn run_slowly(self: Arc<Sync>, queue: Arc<Queue>, seed: u64) {
        let mut chance = SmallRng::seed_from_u64(seed);
        loop {
            queue.more.notified().await;
            tokio::time::sleep(Duration::from_millis(chance.random_range(0..SLOW_MS_MAX))).await;
            let jobs = std::mem::take(&mut *queue.jobs.lock().unwrap_or_else(PoisonError::into_inner));
            self.carry_out(jobs);
        }
    }

    fn carry_out(&self, jobs: Vec<Job>) {
        let Some(claim) = jobs.last().map(|job| job.claim.clone()) else { return };
        let begun = Instant::now();
        let synced = self.failure.guard("syncing the log", || {
            self.engine.sync()?;
            self.witness.raise(claim)
        });
        self.took.add(begun.elapsed());
        for job in jobs {
            (job.done)(match &synced {
                Ok(()) => Ok(()),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            });
        }
    }
}
