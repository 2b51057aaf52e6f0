//! What both interfaces to etcd have in common: what the daemon sees of the store, and who this machine is.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use cluster::ClusterState;
use serde::{Deserialize, Serialize};
use store::{ProposeError, ReadError, Role};
use tokio::sync::watch;

use crate::belonging::Belonging;
use crate::options::Options;
use crate::presence::Presence;

/// How long etcd keeps a machine's keys without a word from it. It is also how long a dead leader is missed
/// at most; etcd itself takes up to two seconds to replace its own leader, and this must be longer.
pub const LEASE_TTL: Duration = Duration::from_secs(5);
/// A leader acts no more when its lease has not been confirmed so long before its end: what it has sent must
/// have arrived by then.
pub const LEASE_MARGIN: Duration = Duration::from_secs(1);
/// How often the lease is renewed.
pub const RENEW_INTERVAL: Duration = Duration::from_secs(1);

/// The answer to a decision of a machine that does not lead, or not safely any more. Nothing was written.
pub fn not_leading() -> ProposeError {
    ProposeError::NoLeader { hint: "this machine does not lead any more".into() }
}

pub struct Shared {
    pub options: Options,
    pub state: watch::Sender<Arc<ClusterState>>,
    pub role: watch::Sender<Role>,
    pub presence: Presence,
    pub belonging: Belonging,
    /// Why what etcd holds is not used; nothing is read or written while there is a reason.
    pub refusal: watch::Sender<Option<String>>,
    /// Why etcd cannot be reached or used, in words; `None` while one of its members serves.
    pub trouble: watch::Sender<Option<String>>,
    /// Why etcd takes no changes though it answers, in words. Over when a change was taken.
    pub denied: watch::Sender<Option<String>>,
}

/// What a machine's presence key says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliveValue {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
}

impl AliveValue {
    /// Nothing depends on it but who can be asked: what is not understood is passed over.
    pub fn read(bytes: &[u8]) -> AliveValue {
        serde_json::from_slice(bytes).unwrap_or_default()
    }
}

impl Shared {
    pub fn new(options: Options) -> io::Result<Shared> {
        let belonging = Belonging::open(&options.dir)?;
        Ok(Shared {
            options,
            state: watch::Sender::new(Arc::default()),
            role: watch::Sender::new(Role::Unformed { hint: "it is looking for etcd".into() }),
            presence: Presence::new(LEASE_TTL),
            belonging,
            refusal: watch::Sender::new(None),
            trouble: watch::Sender::new(None),
            denied: watch::Sender::new(None),
        })
    }

    /// What this machine's presence key says.
    pub fn alive_value(&self) -> String {
        let value = AliveValue { peer: self.options.peer.clone() };
        serde_json::to_string(&value).expect("a text under a string key")
    }

    pub fn set_role(&self, new: Role) {
        if !matches!(new, Role::Leader { .. }) {
            self.presence.deaf();
        }
        self.role.send_if_modified(|role| {
            let changed = *role != new;
            if changed {
                match &new {
                    Role::Leader { term } => tracing::info!(term, "this machine leads"),
                    Role::Follower { leader } => tracing::info!(%leader, "{leader} leads"),
                    Role::Leaderless => tracing::warn!("no leader is known"),
                    Role::Unformed { hint } => tracing::info!("not part of a cluster: {hint}"),
                }
                *role = new;
            }
            changed
        });
    }

    /// Says once what is wrong, and once that it is over.
    pub fn set_trouble(&self, new: Option<String>) {
        self.trouble.send_if_modified(|trouble| {
            let changed = *trouble != new;
            match &new {
                Some(reason) if changed => tracing::warn!("etcd: {reason}"),
                None if changed => tracing::info!("etcd can be used again"),
                _ => {}
            }
            *trouble = new;
            changed
        });
    }

    /// Says once that etcd takes no changes, and once that it does again. Who is silent cannot be told
    /// meanwhile: a machine may want to say that it is there, and not be able to.
    pub fn set_denied(&self, new: Option<String>) {
        self.denied.send_if_modified(|denied| {
            let changed = *denied != new;
            match &new {
                Some(reason) if changed => tracing::warn!("etcd takes no changes: {reason}"),
                None if changed => tracing::info!("etcd takes changes again"),
                _ => {}
            }
            if changed {
                self.presence.deaf();
            }
            *denied = new;
            changed
        });
    }

    pub fn is_denied(&self) -> bool {
        self.denied.borrow().is_some()
    }

    pub fn set_refusal(&self, new: Option<String>) {
        self.refusal.send_if_modified(|refusal| {
            let changed = *refusal != new;
            if let (true, Some(reason)) = (changed, &new) {
                tracing::error!("what etcd holds is not used: {reason}");
            }
            *refusal = new;
            changed
        });
    }

    /// Whether there is a cluster in etcd that this machine may use; `is_read`: it has seen what etcd holds.
    pub fn formed(&self, is_read: bool) -> Result<(), ReadError> {
        let refusal = self.refusal.borrow().clone();
        let no_cluster = self.state.borrow().cluster.is_none();
        match refusal {
            Some(hint) => Err(ReadError::Unformed { hint }),
            None if !is_read => Err(ReadError::Unavailable { reason: self.why() }),
            None if no_cluster => Err(ReadError::Unformed { hint: self.forming() }),
            None => Ok(()),
        }
    }

    /// For people: what a cluster that is not there yet waits for.
    pub fn forming(&self) -> String {
        self.known_trouble().unwrap_or_else(|| "it is being formed in etcd".into())
    }

    /// What is wrong with etcd, if anything is.
    pub fn known_trouble(&self) -> Option<String> {
        self.known_reason().map(|why| format!("etcd: {why}"))
    }

    fn known_reason(&self) -> Option<String> {
        let trouble = self.trouble.borrow().clone();
        trouble.or_else(|| self.denied.borrow().clone())
    }

    /// For people: why etcd cannot be used now.
    pub fn why(&self) -> String {
        format!("etcd: {}", self.reason())
    }

    /// The same, for those who say themselves what it is about.
    pub fn reason(&self) -> String {
        let endpoints = || format!("no answer in time from {}", self.options.endpoints.join(", "));
        self.known_reason().unwrap_or_else(endpoints)
    }
}
