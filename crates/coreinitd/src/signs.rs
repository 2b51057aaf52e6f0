//! What the daemon's rooms tell of themselves: that they go round, how long they take, what they cannot
//! reach. Rooms write their own part, each at no cost worth counting; the API reads all of them for those
//! who watch from outside.
//!
//! Nothing is decided from it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use cluster::MachineId;
use store::Histogram;
use tokio::time::Instant;

use crate::config::Config;

/// A room that has not gone round for so long hangs: the slowest of them looks at everything each 10 s, and a
/// call to systemd is given 25 s.
pub const ROOM_SILENCE_MAX: Duration = Duration::from_secs(60);

/// Gives the end of this machine's certificate.
pub type CertificateEnds = Box<dyn Fn() -> SystemTime + Send + Sync>;

/// One for the whole daemon.
#[derive(Default)]
pub struct Signs {
    pub agent: Pulse,
    pub leader: Pulse,
    pub presence: Pulse,
    /// Rounds of the agent: looking, acting and reporting.
    pub reconcile: Histogram,
    /// Decisions of the leader about the whole state.
    pub schedule: Histogram,
    pub disk: Disk,
    pub doors: Doors,
    systemd: Mutex<Option<String>>,
    clocks: Mutex<BTreeMap<MachineId, i64>>,
    certificate: OnceLock<CertificateEnds>,
    exposed: AtomicBool,
}

impl Signs {
    pub fn new(config: &Config) -> Signs {
        Signs { exposed: AtomicBool::new(config.exposed), ..Signs::default() }
    }

    /// The agent has looked at systemd, or could not.
    pub fn systemd(&self, trouble: Option<String>) {
        *self.systemd.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// Why systemd cannot be driven, as the agent last found.
    pub fn systemd_trouble(&self) -> Option<String> {
        self.systemd.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// By how many microseconds other machines' clocks are ahead of ours; of those that were asked.
    pub fn clocks(&self, ahead: BTreeMap<MachineId, i64>) {
        *self.clocks.lock().unwrap_or_else(PoisonError::into_inner) = ahead;
    }

    pub fn clocks_ahead(&self) -> BTreeMap<MachineId, i64> {
        self.clocks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// There is a certificate; the first call counts.
    pub fn certificate(&self, ends: CertificateEnds) {
        let _ = self.certificate.set(ends);
    }

    pub fn certificate_ends(&self) -> Option<SystemTime> {
        self.certificate.get().map(|ends| ends())
    }

    /// The port is open to other machines, and nothing on it is encrypted.
    pub fn is_exposed(&self) -> bool {
        self.exposed.load(Ordering::Relaxed)
    }

    /// Every room, and for how long it has not gone round; `None` before its first time.
    pub fn rooms(&self) -> [(&'static str, Option<Duration>); 3] {
        [
            ("agent", self.agent.silence()),
            ("leader", self.leader.silence()),
            ("presence", self.presence.silence()),
        ]
    }
}

/// When a loop last went round.
pub struct Pulse {
    begun: Instant,
    /// Milliseconds after `begun`, and one; 0: never.
    last: AtomicU64,
}

impl Default for Pulse {
    fn default() -> Pulse {
        Pulse { begun: Instant::now(), last: AtomicU64::new(0) }
    }
}

impl Pulse {
    pub fn beat(&self) {
        self.last.store(self.now() + 1, Ordering::Relaxed);
    }

    /// `None` before the first beat.
    pub fn silence(&self) -> Option<Duration> {
        let last = self.last.load(Ordering::Relaxed).checked_sub(1)?;
        Some(Duration::from_millis(self.now().saturating_sub(last)))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX - 1)
    }
}

/// The disk under the store; all zero until it was looked at.
#[derive(Debug, Default)]
pub struct Disk {
    pub store_bytes: AtomicU64,
    pub free_bytes: AtomicU64,
    pub total_bytes: AtomicU64,
    pub read_only: AtomicBool,
}

/// The API's connections, of all its sockets.
#[derive(Debug, Default)]
pub struct Doors {
    pub open: AtomicU64,
    /// Cut off because others came and there was no more room.
    pub evicted: AtomicU64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pulse_tells_how_long_it_is_silent() {
        let pulse = Pulse::default();
        assert_eq!(pulse.silence(), None);
        pulse.beat();
        assert_eq!(pulse.silence(), Some(Duration::ZERO));
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(ROOM_SILENCE_MAX < pulse.silence().unwrap());
    }
}
