//! What both interfaces to etcd have in common: what the daemon sees of the store, and who this machine is.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use cluster::ClusterState;
use store::{ReadError, Role};
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

pub struct Shared {
    pub options: Options,
    pub state: watch::Sender<Arc<ClusterState>>,
    pub role: watch::Sender<Role>,
    pub presence: Presence,
    pub belonging: Belonging,
    /// Why what etcd holds is not used; nothing is read or written while there is a reason.
    pub refusal: watch::Sender<Option<String>>,
    /// What is wrong with etcd, in words; `None` while all is well.
    pub trouble: watch::Sender<Option<String>>,
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
        })
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
            None if no_cluster => Err(ReadError::Unformed { hint: "it is being formed in etcd".into() }),
            None => Ok(()),
        }
    }

    /// For people: why etcd cannot be used now.
    pub fn why(&self) -> String {
        let trouble = self.trouble.borrow().clone();
        let endpoints = || format!("no answer in time from {}", self.options.endpoints.join(", "));
        format!("etcd: {}", trouble.unwrap_or_else(endpoints))
    }
}
