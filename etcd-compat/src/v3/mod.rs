//! The store on etcd's v3 interface: one key a record, transactions that compare what they rest on, a watch
//! that feeds this machine's copy, and a lease under which it is there and may lead.

mod commit;
mod keys;
mod lease;
mod link;
mod mirror;
pub mod offline;
mod pulse;
mod trouble;

use std::sync::Arc;
use std::time::Duration;

use cluster::ClusterState;
use store::{ProposeError, ReadError};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::shared::Shared;
use keys::Keys;
use lease::Held;
use link::{Connection, Link};
use mirror::{Mirror, View};
use trouble::Trouble;

/// A read that takes longer asks another member.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

pub struct V3 {
    shared: Arc<Shared>,
    keys: Keys,
    link: Arc<Link>,
    mirror: Mirror,
    held: watch::Sender<Option<Held>>,
    resigned: watch::Sender<bool>,
}

impl V3 {
    pub fn new(shared: Arc<Shared>) -> V3 {
        let keys = Keys::new(&shared.options.prefix);
        let link = Arc::new(Link::new(shared.clone()));
        let mirror = Mirror::new(shared.clone(), link.clone(), keys.clone());
        let (held, resigned) = (watch::Sender::new(None), watch::Sender::new(false));
        V3 { shared, keys, link, mirror, held, resigned }
    }

    /// Does all the store's work until it is dropped.
    pub async fn run(self: Arc<V3>) {
        tokio::select! {
            // Not resumed when cancelled: all end together.
            () = self.link.run() => {}
            () = self.mirror.run() => {}
            () = lease::keep(self.clone()) => {}
            () = self.feel_pulse() => {}
        }
    }

    pub async fn read(&self, deadline: Instant) -> Result<Arc<ClusterState>, ReadError> {
        self.catch_up(deadline).await?;
        self.formed()?;
        Ok(self.shared.state.borrow().clone())
    }

    /// Waits until the copy holds everything that was acknowledged before the call, and nothing that was gone
    /// by then.
    async fn catch_up(&self, deadline: Instant) -> Result<(), ReadError> {
        loop {
            self.formed()?;
            let Some(connection) = self.mirror.followed(deadline).await else {
                return Err(ReadError::Unavailable { reason: self.shared.why() });
            };
            // Who is in a hurry proves nothing against a member.
            let until = deadline.min(Instant::now() + ANSWER_TIMEOUT);
            let trouble = match timeout_at(until, self.newest(&connection)).await {
                // Whoever holds the newest write of all holds every write that was acknowledged.
                Ok(Ok(newest)) => match self.seen(newest, deadline).await {
                    true => return Ok(()),
                    false => return Err(ReadError::Timeout),
                },
                Ok(Err(trouble)) => trouble,
                Err(_) if until == deadline => return Err(ReadError::Timeout),
                Err(_) => Trouble::Unknown("no answer in time to a read".into()),
            };
            self.link.fails(connection.number, &trouble);
            if let Trouble::Refused(why) = trouble {
                return Err(ReadError::Unavailable { reason: format!("etcd: {why}") });
            }
            if deadline <= Instant::now() {
                return Err(ReadError::Unavailable { reason: self.shared.why() });
            }
        }
    }

    /// The revision of the newest write of all (a linearizable read).
    async fn newest(&self, connection: &Connection) -> Result<i64, Trouble> {
        let known = self.mirror.view().map_or(0, |view| view.revision);
        let head = connection.kv().get(self.keys.head(), None).await.map_err(|error| Trouble::of(&error))?;
        // etcd's own revision, which never goes back. One that has gone back is looked at anew.
        if head.header().is_some_and(|header| header.revision() < known) {
            let reason = "it has gone back to where it was before";
            self.link.failed(connection.number, reason);
            return Err(Trouble::NotTaken(reason.into()));
        }
        Ok(head.kvs().first().map_or(0, |kv| kv.mod_revision()))
    }

    /// What this machine may act on.
    fn formed(&self) -> Result<(), ReadError> {
        self.shared.formed(self.mirror.view().is_some())
    }

    /// The copy that a proposal is decided on.
    fn view(&self) -> Result<Arc<View>, ProposeError> {
        self.formed().map_err(|error| match error {
            ReadError::Unformed { hint } => ProposeError::Unformed { hint },
            _ => ProposeError::Unavailable { reason: self.shared.why() },
        })?;
        self.mirror.view().ok_or_else(|| ProposeError::Unavailable { reason: self.shared.why() })
    }

    /// Whether etcd knows that this machine is there.
    pub fn here(&self) -> Result<(), ReadError> {
        self.formed()?;
        match *self.held.borrow() {
            Some(held) if Instant::now() < held.until => Ok(()),
            _ => Err(ReadError::Unavailable { reason: self.shared.why() }),
        }
    }
}
