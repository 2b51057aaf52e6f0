//! The real systemd, over D-Bus. What it needs of zbus stays here.
//!
//! Signals come over one connection, whose streams are each drained by a task of their own; calls go over a
//! second one, each with a timeout, because a stream that is not drained holds up its whole connection. When
//! either is lost, or systemd is executed anew, both are made again and everything is looked at again.

mod calls;
mod explain;
mod files;
mod install;
mod jobs;
mod session;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use cluster::{Failure, UnitFile, UnitName};
use futures::future::{BoxFuture, join_all};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use zbus_systemd::systemd1::ManagerProxy;

use super::{JobEnd, Seen, UnitError, UnitManager};
use calls::{PropertyError, call_error};
use files::Files;
use jobs::{JobKind, Jobs, Request};

/// The first connection at the daemon's start must come about so soon.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A call waits so long for a lost connection to be made again.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The bus allows 128 calls of one connection without an answer (max_replies_per_connection).
const CALLS_MAX: usize = 96;
/// Start and stop requests that wait for their turn to be sent. The agent has fewer jobs than that under way.
const REQUESTS_MAX: usize = 4096;

/// systemd on the system bus, or on a bus of the given address.
pub struct DBus {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
    /// Ends with this.
    _tasks: JoinSet<()>,
}

struct Shared {
    bus: Option<String>,
    files: Files,
    /// The connection for calls; `None` while there is none.
    link: watch::Sender<Option<Link>>,
    changed: watch::Sender<u64>,
    jobs: Jobs,
    calls: Semaphore,
    /// Units of which systemd may hold an older text than the disk does.
    suspects: Mutex<BTreeSet<UnitName>>,
    /// Units that systemd could not read although their file and link are there, as when it looked while
    /// one of them was gone. True once it has been told to look again.
    unread: Mutex<BTreeMap<UnitName, bool>>,
    /// Units that we have started, or an earlier daemon may have: they are ours without their files too.
    ours: Mutex<BTreeSet<UnitName>>,
}

/// A connection that calls go over.
#[derive(Clone)]
struct Link {
    connection: zbus::Connection,
    manager: ManagerProxy<'static>,
}

impl DBus {
    /// Connects, and stays connected. `bus` is a D-Bus address; `None` means the system bus.
    pub async fn connect(bus: Option<String>, units_dir: PathBuf) -> Result<DBus, UnitError> {
        DBus::connect_to(bus, units_dir, Path::new("/")).await
    }

    /// To the systemd of a container, whose file system is seen at `root`; `units_dir` is the container's.
    pub async fn connect_to(bus: Option<String>, units_dir: PathBuf, root: &Path) -> Result<DBus, UnitError> {
        let files = Files::open(root, units_dir)?;
        let held: BTreeSet<UnitName> = files.read()?.into_keys().collect();
        let shared = Arc::new(Shared {
            bus,
            files,
            link: watch::Sender::new(None),
            changed: watch::Sender::new(0),
            jobs: Jobs::default(),
            calls: Semaphore::new(CALLS_MAX),
            suspects: Mutex::new(held.clone()),
            unread: Mutex::default(),
            ours: Mutex::new(held),
        });
        let first = session::open(&shared).await.map_err(|error| unreachable(&error))?;
        let (requests, queue) = mpsc::channel(REQUESTS_MAX);
        let mut tasks = JoinSet::new();
        tasks.spawn(session::keep(shared.clone(), first));
        tasks.spawn(jobs::issue(shared.clone(), queue));
        let mut link = shared.link.subscribe();
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, link.wait_for(Option::is_some)).await.is_ok();
        match connected {
            true => Ok(DBus { shared, requests, _tasks: tasks }),
            false => Err(UnitError::Unreachable { reason: "it does not answer".into() }),
        }
    }

    fn job(&self, kind: JobKind, unit: &UnitName) -> BoxFuture<'static, JobEnd> {
        let (request, answer) = Request::new(&self.shared, kind, unit);
        match self.requests.try_send(request) {
            Ok(()) => Box::pin(jobs::end(self.shared.clone(), kind, unit.clone(), answer)),
            Err(_) => {
                let reason = format!("{REQUESTS_MAX} other requests are waiting");
                Box::pin(async { JobEnd::Lost { reason } })
            }
        }
    }
}

impl Shared {
    /// The connection for calls, which is waited for when it has just been lost.
    async fn link(&self) -> Result<Link, UnitError> {
        let mut link = self.link.subscribe();
        let found = tokio::time::timeout(RECONNECT_TIMEOUT, link.wait_for(Option::is_some)).await;
        match found {
            Ok(Ok(found)) => found.clone().ok_or_else(not_connected),
            Ok(Err(_)) | Err(_) => Err(not_connected()),
        }
    }

    fn hint(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    fn suspects(&self) -> MutexGuard<'_, BTreeSet<UnitName>> {
        self.suspects.lock().expect("nothing panics while it holds the lock")
    }

    fn unread(&self) -> MutexGuard<'_, BTreeMap<UnitName, bool>> {
        self.unread.lock().expect("nothing panics while it holds the lock")
    }

    fn ours(&self) -> MutexGuard<'_, BTreeSet<UnitName>> {
        self.ours.lock().expect("nothing panics while it holds the lock")
    }

    /// Whether a reload may help systemd to read this unit. Once it did not, it is not asked for again.
    fn should_be_reread(&self, unit: &UnitName, seen: &Seen) -> bool {
        let is_unread = matches!(&*seen.load, "error" | "not-found");
        match is_unread && seen.linked && self.files.holds(unit) {
            true => !*self.unread().entry(unit.clone()).or_insert(false),
            false => {
                self.unread().remove(unit);
                false
            }
        }
    }

    /// Whether systemd would do with this unit something else than its file says; clears the suspicion if
    /// not.
    async fn text_is_old(&self, link: &Link, unit: &UnitName) -> Result<bool, UnitError> {
        match calls::need_daemon_reload(link, unit, &self.calls).await {
            Ok(true) => Ok(true),
            Ok(false) => {
                self.suspects().remove(unit);
                Ok(false)
            }
            Err(PropertyError::NoUnit) => Ok(false),
            Err(PropertyError::Call(error)) => Err(error),
        }
    }
}

#[async_trait]
impl UnitManager for DBus {
    async fn held(&self) -> Result<BTreeMap<UnitName, UnitFile>, UnitError> {
        self.shared.files.read()
    }

    async fn observe(&self, units: &BTreeSet<UnitName>) -> Result<BTreeMap<UnitName, Seen>, UnitError> {
        let shared = &self.shared;
        let link = shared.link().await?;
        let mut seen = calls::list(&link, units).await?;
        // What systemd knows without our link is a unit of the machine's own, or one of ours that was
        // unlinked but not let go.
        let mut in_question = Vec::new();
        for (name, unit) in &mut seen {
            unit.linked = shared.files.is_linked(name);
            if !unit.linked && (&*unit.load != "not-found" || &*unit.active != "inactive") {
                in_question.push(name.clone());
            }
        }
        for (name, unit) in &mut seen {
            unit.needs_reload = shared.should_be_reread(name, unit);
        }
        let foreign = calls::foreign(&link, shared, &in_question).await?;
        for name in &in_question {
            match foreign.contains_key(name) {
                true => seen.insert(name.clone(), Seen::nothing()).is_some(),
                false => shared.suspects().insert(name.clone()),
            };
        }
        let suspects: Vec<UnitName> =
            shared.suspects().iter().filter(|name| seen.contains_key(*name)).cloned().collect();
        let old = join_all(suspects.iter().map(|name| shared.text_is_old(&link, name))).await;
        for (name, old) in suspects.iter().zip(old) {
            if let Some(unit) = seen.get_mut(name) {
                unit.needs_reload |= old?;
            }
        }
        Ok(seen)
    }

    async fn write(&self, unit: &UnitName, file: &UnitFile) -> Result<(), UnitError> {
        let files = &self.shared.files;
        // A name that is new here cannot be held with an older text, unless `observe` has found that it is.
        let known = files.holds(unit) || files.is_linked(unit);
        if files.is_linked(unit) && install::differs(files, unit, file) {
            // It is linked anew, with all that belongs to the new text.
            let link = self.shared.link().await?;
            install::unlink(&self.shared, &link, &[unit]).await?;
        }
        files.write(unit, file)?;
        if known {
            self.shared.suspects().insert(unit.clone());
        }
        Ok(())
    }

    async fn link(&self, units: &[UnitName]) -> Result<BTreeMap<UnitName, UnitError>, UnitError> {
        let shared = &self.shared;
        let files = &shared.files;
        let unlinked: Vec<UnitName> = units.iter().filter(|name| !files.is_linked(name)).cloned().collect();
        if unlinked.is_empty() {
            return Ok(BTreeMap::new());
        }
        let link = shared.link().await?;
        let known = calls::list(&link, &unlinked.iter().cloned().collect()).await?;
        let known = known.into_iter().filter(|(_, seen)| &*seen.load != "not-found");
        let known: Vec<UnitName> = known.map(|(name, _)| name).collect();
        let foreign = calls::foreign(&link, shared, &known).await?;
        let mut refused: BTreeMap<UnitName, UnitError> =
            foreign.into_iter().map(|(name, path)| (name, UnitError::Foreign { path })).collect();
        let good: Vec<&UnitName> = unlinked.iter().filter(|name| !refused.contains_key(*name)).collect();
        if good.is_empty() || install::link(shared, &link, &good).await.is_ok() {
            return Ok(refused);
        }
        // One of them spoils it for all: ask for each by itself.
        for name in good {
            match install::link(shared, &link, &[name]).await {
                Ok(()) => {}
                Err(lost @ UnitError::Unreachable { .. }) => return Err(lost),
                Err(error) => drop(refused.insert(name.clone(), error)),
            }
        }
        Ok(refused)
    }

    async fn reload(&self) -> Result<(), UnitError> {
        let link = self.shared.link().await?;
        let suspects = self.shared.suspects().clone();
        self.shared.unread().values_mut().for_each(|is_asked| *is_asked = true);
        link.manager.reload().await.map_err(|error| call_error("Reload", error))?;
        // What was written since the call is still in doubt.
        self.shared.suspects().retain(|name| !suspects.contains(name));
        Ok(())
    }

    fn start(&self, unit: &UnitName) -> BoxFuture<'static, JobEnd> {
        self.job(JobKind::Start, unit)
    }

    fn stop(&self, unit: &UnitName) -> BoxFuture<'static, JobEnd> {
        self.job(JobKind::Stop, unit)
    }

    async fn remove(&self, units: &[UnitName]) -> Result<BTreeMap<UnitName, UnitError>, UnitError> {
        let shared = &self.shared;
        let link = shared.link().await?;
        let linked: Vec<UnitName> =
            units.iter().filter(|name| shared.files.is_linked(name)).cloned().collect();
        if !linked.is_empty() {
            let resets = linked.iter().map(|name| calls::reset_failed(&link, name, &shared.calls));
            join_all(resets).await;
        }
        let mut failed = BTreeMap::new();
        let all: Vec<&UnitName> = linked.iter().collect();
        if !linked.is_empty() && install::unlink(shared, &link, &all).await.is_err() {
            for name in &linked {
                match install::unlink(shared, &link, &[name]).await {
                    Ok(()) => {}
                    Err(lost @ UnitError::Unreachable { .. }) => return Err(lost),
                    Err(error) => drop(failed.insert(name.clone(), error)),
                }
            }
        }
        // A file whose link is still there must stay: it is how the unit is known to be ours.
        for name in units.iter().filter(|name| !shared.files.is_linked(name)) {
            match shared.files.remove(name) {
                Ok(()) => {
                    shared.ours().remove(name);
                    shared.suspects().remove(name)
                }
                Err(error) => failed.insert(name.clone(), error).is_some(),
            };
        }
        Ok(failed)
    }

    async fn failure(&self, unit: &UnitName) -> Failure {
        explain::failure(&self.shared, unit).await
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }
}

fn not_connected() -> UnitError {
    UnitError::Unreachable { reason: "the connection is lost and is being made again".into() }
}

fn unreachable(error: &zbus::Error) -> UnitError {
    UnitError::Unreachable { reason: error.to_string() }
}
