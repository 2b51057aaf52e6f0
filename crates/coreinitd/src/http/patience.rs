//! How long requests wait for a leader: an election is worth waiting for, a lost quorum is not. One task
//! notes since when there has been no leader.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use store::Role;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// Elections take about a second. Whoever asks later than this hears at once that there is no leader.
pub(super) const LEADERLESS_MAX: Duration = Duration::from_secs(2);

/// Since when no leader is known.
pub(super) struct Leaderless {
    roles: watch::Receiver<Role>,
    since: Mutex<Option<Instant>>,
}

impl Leaderless {
    /// `None` while a leader is known. The role is looked at here too: the task may not have run since it
    /// changed.
    pub(super) fn since(&self) -> Option<Instant> {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        *since = match &*self.roles.borrow() {
            Role::Leaderless => Some(since.unwrap_or_else(Instant::now)),
            Role::Unformed { .. } | Role::Leader { .. } | Role::Follower { .. } => None,
        };
        *since
    }

    /// Until when the store may be asked: `limit` from now, after a moment in which a leader may be elected;
    /// now, when there has been none for longer than that.
    pub(super) async fn deadline(&self, limit: Duration) -> Instant {
        let Some(since) = self.since() else { return Instant::now() + limit };
        let mut roles = self.roles.clone();
        let elected = roles.wait_for(|role| !matches!(role, Role::Leaderless));
        match timeout_at(since + LEADERLESS_MAX, elected).await {
            Ok(_) => Instant::now() + limit,
            Err(_) => Instant::now(),
        }
    }
}

/// The task's work.
pub(super) struct Watcher {
    roles: watch::Receiver<Role>,
    leaderless: Arc<Leaderless>,
}

pub(super) fn watch_leader(roles: watch::Receiver<Role>) -> (Arc<Leaderless>, Watcher) {
    let leaderless = Arc::new(Leaderless { roles: roles.clone(), since: Mutex::default() });
    (leaderless.clone(), Watcher { roles, leaderless })
}

impl Watcher {
    pub(super) async fn run(mut self, shutdown: impl Future<Output = ()>) {
        let mut shutdown = pin!(shutdown);
        loop {
            self.roles.mark_unchanged();
            self.leaderless.since();
            tokio::select! {
                // Cancel-safe: both only wait.
                changed = self.roles.changed() => if changed.is_err() { return },
                () = &mut shutdown => return,
            }
        }
    }
}
