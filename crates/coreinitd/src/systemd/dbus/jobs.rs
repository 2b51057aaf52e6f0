//! Start and stop requests, sent in the order in which they were made, and the ends of their jobs, which
//! systemd signals.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use cluster::UnitName;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::calls::{PropertyError, call_error, property};
use super::{CALLS_MAX, Shared, explain};
use crate::systemd::{JobEnd, UnitError};

/// After so long without a word systemd is asked whether the job still exists: the signal may have been lost.
const LOOK_AGAIN: Duration = Duration::from_secs(20);

/// Ends kept for requests on their way. Others start jobs too; one that is not kept is looked for later.
const EARLY_MAX: usize = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobKind {
    Start,
    Stop,
}

/// A request on its way to systemd.
pub struct Request {
    kind: JobKind,
    unit: UnitName,
    answer: oneshot::Sender<Result<Waiting, UnitError>>,
}

/// What comes of a request: the wait for its job, once systemd has made one.
pub type Answer = oneshot::Receiver<Result<Waiting, UnitError>>;

/// A job of systemd's whose end is awaited.
pub struct Waiting {
    job: String,
    ended: oneshot::Receiver<String>,
}

/// The jobs that somebody waits for. A job's end may be signalled, over one connection, before the answer
/// that names the job has come over the other: ends are kept while requests are on their way.
#[derive(Default)]
pub struct Jobs(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    waiting: BTreeMap<String, Vec<oneshot::Sender<String>>>,
    on_their_way: usize,
    early: BTreeMap<String, String>,
}

impl Request {
    pub fn new(shared: &Shared, kind: JobKind, unit: &UnitName) -> (Request, Answer) {
        shared.jobs.lock().on_their_way += 1;
        let (answer, receiver) = oneshot::channel();
        (Request { kind, unit: unit.clone(), answer }, receiver)
    }
}

impl Jobs {
    /// systemd says that this job is over.
    pub fn ended(&self, job: &str, result: &str) {
        let mut inner = self.lock();
        match inner.waiting.remove(job) {
            Some(waiting) => waiting.into_iter().for_each(|waiting| drop(waiting.send(result.into()))),
            None if inner.on_their_way > 0 && inner.early.len() < EARLY_MAX => {
                inner.early.insert(job.into(), result.into());
            }
            None => {}
        }
    }

    /// The signals of some time were lost: everyone who waits looks for himself.
    pub fn missed_some(&self) {
        let mut inner = self.lock();
        inner.waiting.clear();
        inner.early.clear();
    }

    fn wait_for(&self, job: String) -> Waiting {
        let (sender, ended) = oneshot::channel();
        let mut inner = self.lock();
        match inner.early.get(&job) {
            Some(result) => drop(sender.send(result.clone())),
            None => inner.waiting.entry(job.clone()).or_default().push(sender),
        }
        Waiting { job, ended }
    }

    fn arrived(&self) {
        let mut inner = self.lock();
        inner.on_their_way -= 1;
        if inner.on_their_way == 0 {
            inner.early.clear();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("nothing panics while it holds the lock")
    }
}

/// Sends the requests, many at a time, in their order.
///
/// Each is a task of its own. A call that waits for its turn at the connection is given that turn whether or
/// not somebody looks at it then: one that nobody drives while this loop waits for another would keep the
/// connection to itself for ever.
pub async fn issue(shared: Arc<Shared>, mut queue: mpsc::Receiver<Request>) {
    let mut calls = JoinSet::new();
    loop {
        tokio::select! {
            // Cancel-safe: a request that was received becomes a task at once.
            request = queue.recv(), if calls.len() < CALLS_MAX => {
                let Some(request) = request else { return };
                let activates = matches!(request.unit.suffix(), "socket" | "timer" | "path");
                let (sent, done) = oneshot::channel();
                let shared = shared.clone();
                calls.spawn(async move {
                    forget_past_starts(&shared, &request).await;
                    send(&shared, request).await;
                    // Most of the time nobody waits for it.
                    let _ = sent.send(());
                });
                if activates {
                    // Two calls may change places on their way; a socket must not come after its service.
                    let _ = done.await;
                }
            }
            Some(_) = calls.join_next() => {}
        }
    }
}

/// systemd counts starts, and refuses too many within some time (`StartLimitBurst=`). That is meant for a
/// unit that goes round by itself, not for a person who asks again: the count begins anew. Nobody waits for
/// an answer, so the request itself comes right behind.
async fn forget_past_starts(shared: &Shared, request: &Request) {
    let link = shared.link.borrow().clone();
    let is_another = request.kind == JobKind::Start && !shared.ours().insert(request.unit.clone());
    if let Some(link) = link.filter(|_| is_another) {
        // When it cannot be sent, neither can the request, which tells.
        let _ = link.manager.inner().call_noreply("ResetFailedUnit", &request.unit.as_str()).await;
    }
}

async fn send(shared: &Shared, request: Request) {
    let Request { kind, unit, answer } = request;
    let made = match shared.link().await {
        Err(error) => Err(error),
        Ok(link) => {
            let _turn = shared.calls.acquire().await;
            let (name, mode) = (unit.as_str().to_string(), "replace".to_string());
            let call = match kind {
                JobKind::Start => match link.manager.start_unit(name.clone(), mode.clone()).await {
                    // systemd looks for new files only when their directory's time has changed, and a
                    // kernel's clock may stand still between two of them.
                    Err(error) if no_such_unit(&error) && shared.files.is_linked(&unit) => {
                        match link.manager.reload().await {
                            Ok(()) => link.manager.start_unit(name, mode).await,
                            Err(_) => Err(error),
                        }
                    }
                    started => started,
                },
                JobKind::Stop => link.manager.stop_unit(name, mode).await,
            };
            call.map_err(|error| call_error(method(kind), error))
        }
    };
    let _ = answer.send(made.map(|job| shared.jobs.wait_for(job.to_string())));
    shared.jobs.arrived();
}

fn no_such_unit(error: &zbus::Error) -> bool {
    let no_such_unit = "org.freedesktop.systemd1.NoSuchUnit";
    matches!(error, zbus::Error::MethodError(name, ..) if name.as_str() == no_such_unit)
}

fn method(kind: JobKind) -> &'static str {
    match kind {
        JobKind::Start => "StartUnit",
        JobKind::Stop => "StopUnit",
    }
}

/// Waits for the end of the job that was asked for.
pub async fn end(shared: Arc<Shared>, kind: JobKind, unit: UnitName, answer: Answer) -> JobEnd {
    let mut waiting = match answer.await {
        Ok(Ok(waiting)) => waiting,
        Ok(Err(UnitError::Unreachable { reason })) => return JobEnd::Lost { reason },
        // What systemd does not know need not be stopped.
        Ok(Err(_)) if kind == JobKind::Stop && !is_there(&shared, &unit).await => return JobEnd::Done,
        Ok(Err(error)) => return JobEnd::Failed { reason: error.to_string() },
        Err(_) => return JobEnd::Lost { reason: "the daemon is stopping".into() },
    };
    loop {
        let ended = tokio::time::timeout(LOOK_AGAIN, &mut waiting.ended).await;
        if let Ok(Ok(result)) = ended {
            return job_end(&result);
        }
        match look(&shared, kind, &unit, &waiting.job).await {
            Look::Ended(end) => return end,
            Look::GoesOn => waiting = shared.jobs.wait_for(waiting.job),
        }
    }
}

/// systemd's words for a job's end are in org.freedesktop.systemd1(5), at JobRemoved.
fn job_end(result: &str) -> JobEnd {
    match result {
        "done" | "skipped" => JobEnd::Done,
        "canceled" => JobEnd::Replaced,
        other => JobEnd::Failed { reason: other.into() },
    }
}

enum Look {
    GoesOn,
    Ended(JobEnd),
}

/// Whether the unit still has that job; if not, its end is told from what became of the unit.
async fn look(shared: &Shared, kind: JobKind, unit: &UnitName, job: &str) -> Look {
    let seen = async {
        let link = shared.link().await?;
        let listed = link.manager.list_units_by_names(vec![unit.as_str().into()]).await;
        listed.map_err(|error| call_error("ListUnitsByNames", error))
    };
    let unit_now = match seen.await {
        Ok(listed) => listed.into_iter().next(),
        Err(error) => return Look::Ended(JobEnd::Lost { reason: error.to_string() }),
    };
    let Some((_, _, _, active, _, _, _, _, _, job_now)) = unit_now else {
        return Look::Ended(JobEnd::Lost { reason: "systemd does not know the unit".into() });
    };
    if job_now.as_str() == job {
        return Look::GoesOn;
    }
    let succeeded = match (kind, active.as_str()) {
        (JobKind::Start, "active" | "reloading") | (JobKind::Stop, "inactive") => true,
        // A oneshot that has done its work, unless the last thing it did was to fail.
        (JobKind::Start, "inactive") => {
            explain::result(shared, unit).await.is_none_or(|result| result == "success")
        }
        (JobKind::Start | JobKind::Stop, _) => false,
    };
    Look::Ended(match succeeded {
        true => JobEnd::Done,
        false => JobEnd::Failed { reason: format!("its end was not seen, and the unit is {active} now") },
    })
}

async fn is_there(shared: &Shared, unit: &UnitName) -> bool {
    let Ok(link) = shared.link().await else { return true };
    let load = "org.freedesktop.systemd1.Unit";
    match property::<String>(&link, unit, load, "ActiveState", &shared.calls).await {
        Ok(active) => active != "inactive",
        Err(PropertyError::NoUnit) => false,
        Err(PropertyError::Call(_)) => true,
    }
}
