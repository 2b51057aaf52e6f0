//! The store on etcd's v2 interface, all that an etcd of CoreOS's days has. It can change one key at a time,
//! so the proposals themselves are what is kept: a log of keys that etcd puts in order, applied by the same
//! rule on every machine, with a snapshot to keep it short. `docs/decisions/` says what that promises.

mod compact;
pub(crate) mod keys;
mod lease;
mod link;
mod mirror;
pub mod offline;
mod snapshot;

use std::sync::Arc;
use std::time::Duration;

use cluster::{ClusterState, Command, Revision};
use store::{Committed, PROPOSAL_BYTES_MAX, ProposeError, ReadError, proposal_bytes};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::shared::{Shared, not_leading};
use keys::{Done, KeyError, Member};
use link::Link;
use mirror::{Entry, FORMAT_VERSION, Mirror, View};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Of one entry of the log, about: much less than the 10 MB that etcd takes of a form.
const ENTRY_BYTES: usize = 3 << 19;
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// How long a member is given, and whether that is less than it should have: who is in a hurry proves nothing
/// against it.
fn limit(deadline: Instant, most: Duration) -> (Duration, bool) {
    let left = deadline.saturating_duration_since(Instant::now());
    (left.min(most), left < most)
}

pub struct V2 {
    shared: Arc<Shared>,
    link: Arc<Link>,
    mirror: Mirror,
    dir: String,
    /// One life of this daemon.
    life: String,
    there_until: watch::Sender<Option<Instant>>,
    leads_until: watch::Sender<Option<Instant>>,
    resigned: watch::Sender<bool>,
}

impl V2 {
    /// `first`: the number of the endpoint to begin with.
    pub fn new(shared: Arc<Shared>, first: usize) -> Result<V2, String> {
        let link = Arc::new(Link::new(shared.clone(), first)?);
        let dir = shared.options.prefix.trim_end_matches('/').to_string();
        let life = uuid::Uuid::new_v4().simple().to_string();
        let mirror = Mirror::new(shared.clone(), link.clone());
        let (there_until, leads_until) = (watch::Sender::new(None), watch::Sender::new(None));
        let resigned = watch::Sender::new(false);
        Ok(V2 { shared, link, mirror, dir, life, there_until, leads_until, resigned })
    }

    /// Does all the store's work until it is dropped.
    pub async fn run(self: Arc<V2>) {
        tokio::select! {
            // Not resumed when cancelled: all end together.
            () = self.mirror.run() => {}
            () = self.keep() => {}
            () = self.keep_short() => {}
            () = self.keep_role() => {}
        }
    }

    async fn append(
        &self,
        member: &Member,
        id: &str,
        commands: Vec<Command>,
        limit: Duration,
    ) -> Result<Done, KeyError> {
        let entry = Entry { version: FORMAT_VERSION, id: id.into(), commands };
        let text = serde_json::to_string(&entry).expect("commands have string keys only");
        member.append(&format!("{}/log", self.dir), &text, limit).await
    }

    pub async fn propose(
        &self,
        commands: Vec<Command>,
        deadline: Instant,
    ) -> Result<Committed, ProposeError> {
        self.make(None, commands, deadline).await
    }

    pub async fn decide(
        &self,
        term: u64,
        commands: Vec<Command>,
        deadline: Instant,
    ) -> Result<Committed, ProposeError> {
        self.make(Some(term), commands, deadline).await
    }

    /// `lead`: the term in which it was decided. Its clock alone tells whether that is over, so it is asked
    /// before each try.
    async fn make(
        &self,
        lead: Option<u64>,
        commands: Vec<Command>,
        deadline: Instant,
    ) -> Result<Committed, ProposeError> {
        let bytes = proposal_bytes(&commands);
        if bytes > PROPOSAL_BYTES_MAX {
            return Err(ProposeError::TooLarge { bytes, max: PROPOSAL_BYTES_MAX });
        }
        self.shared.state.borrow().admits_all(&commands)?;
        let mut done = Committed { revision: Revision(0), outcomes: Vec::with_capacity(commands.len()) };
        let mut rest = commands;
        while !rest.is_empty() {
            let mut count = 1;
            while count < rest.len() && proposal_bytes(&rest[..=count]) <= ENTRY_BYTES {
                count += 1;
            }
            let later = rest.split_off(count);
            match self.enter(rest, lead, deadline).await {
                Ok(committed) => {
                    done.revision = committed.revision;
                    done.outcomes.extend(committed.outcomes);
                }
                Err(error) if done.outcomes.is_empty() => return Err(error),
                Err(_) => return Err(ProposeError::Unknown),
            }
            rest = later;
        }
        Ok(done)
    }

    /// Puts one entry into the log, and waits for what comes of it.
    async fn enter(
        &self,
        commands: Vec<Command>,
        lead: Option<u64>,
        deadline: Instant,
    ) -> Result<Committed, ProposeError> {
        let unavailable = |reason: String| ProposeError::Unavailable { reason: format!("etcd: {reason}") };
        loop {
            self.formed().map_err(|error| match error {
                ReadError::Unformed { hint } => ProposeError::Unformed { hint },
                _ => ProposeError::Unavailable { reason: self.shared.why() },
            })?;
            if !self.has_room(deadline).await {
                return Err(unavailable("its log waits to be put into a snapshot".into()));
            }
            if lead.is_some() && self.term() != lead {
                return Err(not_leading());
            }
            let id = uuid::Uuid::new_v4().simple().to_string();
            let told = self.mirror.wait_for(&id);
            let member = self.link.current();
            let (limit, is_short) = limit(deadline, 2 * ANSWER_TIMEOUT);
            let entered = self.append(&member, &id, commands.clone(), limit).await;
            let failed = match entered {
                Ok(_) => None,
                Err(KeyError::NotTaken(reason)) => {
                    self.mirror.forget(&id);
                    self.link.failed(member.number, &KeyError::NotTaken(reason.clone()));
                    if deadline <= Instant::now() + RETRY_INTERVAL {
                        return Err(unavailable(reason));
                    }
                    tokio::time::sleep(RETRY_INTERVAL).await;
                    continue;
                }
                Err(KeyError::Unknown(reason)) => Some(KeyError::Unknown(reason)),
                Err(error) => {
                    self.mirror.forget(&id);
                    if let KeyError::Refused(why) = &error {
                        self.shared.set_denied(Some(why.clone()));
                    }
                    return Err(unavailable(error.to_string()));
                }
            };
            let mut until = deadline;
            if let Some(error) = failed {
                if !is_short {
                    self.link.failed(member.number, &error);
                }
                // It may have been taken for all that: then it shows up in the log, and soon.
                until = until.min(Instant::now() + ANSWER_TIMEOUT);
            }
            let told = timeout_at(until, told).await;
            self.mirror.forget(&id);
            return match told {
                Ok(Ok(committed)) => Ok(committed),
                _ => Err(ProposeError::Unknown),
            };
        }
    }

    /// A mark is written and waited for: what was in the log before it has been applied then.
    pub async fn read(&self, deadline: Instant) -> Result<Arc<ClusterState>, ReadError> {
        loop {
            self.formed()?;
            let member = self.link.current();
            let (limit, is_short) = limit(deadline, ANSWER_TIMEOUT);
            let key = format!("{}/marks/{}", self.dir, self.shared.options.machine);
            match member.put(&key, "", "", limit).await {
                Ok(mark) => {
                    let mut views = self.mirror.views();
                    let seen = |view: &Option<Arc<View>>| {
                        view.as_ref().is_some_and(|view| mark.node.modified_index <= view.index)
                    };
                    let there = timeout_at(deadline, views.wait_for(seen)).await.is_ok();
                    if !there {
                        return Err(ReadError::Timeout);
                    }
                    self.formed()?;
                    return Ok(self.shared.state.borrow().clone());
                }
                Err(KeyError::Refused(why)) => {
                    return Err(ReadError::Unavailable { reason: format!("etcd: {why}") });
                }
                Err(KeyError::Unknown(_)) if is_short => return Err(ReadError::Timeout),
                Err(error) => self.link.failed(member.number, &error),
            }
            if deadline <= Instant::now() + RETRY_INTERVAL {
                return Err(ReadError::Unavailable { reason: self.shared.why() });
            }
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }

    fn formed(&self) -> Result<(), ReadError> {
        self.shared.formed(self.mirror.view().is_some())
    }

    /// Whether etcd knows that this machine is there.
    pub fn here(&self) -> Result<(), ReadError> {
        self.formed()?;
        match *self.there_until.borrow() {
            Some(until) if Instant::now() < until => Ok(()),
            _ => Err(ReadError::Unavailable { reason: self.shared.why() }),
        }
    }
}
