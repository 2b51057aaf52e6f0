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
use link::Link;
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
        loop {
            self.formed()?;
            let Some(connection) = self.link.connected(deadline).await else {
                return Err(ReadError::Unavailable { reason: self.shared.why() });
            };
            // Who is in a hurry proves nothing against a member.
            let until = deadline.min(Instant::now() + ANSWER_TIMEOUT);
            let head = timeout_at(until, connection.kv().get(self.keys.head(), None)).await;
            let trouble = match head {
                Ok(Ok(head)) => {
                    // The newest write of all: whoever holds it holds every write that was acknowledged.
                    let newest = head.kvs().first().map_or(0, |kv| kv.mod_revision());
                    if !self.seen(newest, deadline).await {
                        return Err(ReadError::Timeout);
                    }
                    self.formed()?;
                    return Ok(self.shared.state.borrow().clone());
                }
                Ok(Err(error)) => Trouble::of(&error),
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
