//! Who was heard when. Heartbeats never enter the log: what is known here is lost with the leader, and a new
//! one gives everybody a full period before it calls anybody lost.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use cluster::MachineId;
use tokio::time::Instant;

/// A node that has not looked up for so long was standing still (a frozen process, a machine that its host
/// did not run): it heard nobody meanwhile, whoever spoke. It looks up twice as often.
const STILL_MAX: Duration = Duration::from_secs(1);

pub struct Liveness(Mutex<Heard>);

struct Heard {
    /// Nobody's silence counts from before this moment: the last at which this node did not lead, or led
    /// without a quorum.
    since: Instant,
    /// When this node last looked up.
    awake: Instant,
    machines: BTreeMap<MachineId, Instant>,
    leader_spoke: Option<Instant>,
}

impl Liveness {
    pub fn new() -> Liveness {
        let now = Instant::now();
        let (machines, leader_spoke) = Default::default();
        Liveness(Mutex::new(Heard { since: now, awake: now, machines, leader_spoke }))
    }

    /// A machine said that it is alive.
    pub fn heard(&self, machine: MachineId) {
        self.lock().machines.insert(machine, Instant::now());
    }

    /// Called for as long as this node does not lead, or has no quorum: whatever was not heard then proves
    /// nothing.
    pub fn deaf(&self) {
        self.lock().forget();
    }

    /// Called for as long as this node leads, several times in [`STILL_MAX`].
    pub fn awake(&self) {
        drop(self.lock_awake());
    }

    /// Whether the machine has said anything since this node leads.
    pub fn has_heard(&self, machine: &MachineId) -> bool {
        self.lock_awake().machines.contains_key(machine)
    }

    /// How long each of `machines` has been silent.
    pub fn silence<'a>(
        &self,
        machines: impl Iterator<Item = &'a MachineId>,
        me: &MachineId,
    ) -> BTreeMap<MachineId, Duration> {
        let heard = self.lock_awake();
        let now = Instant::now();
        let silent = |machine: &MachineId| {
            let last = heard.machines.get(machine).copied().unwrap_or(heard.since).max(heard.since);
            if machine == me { Duration::ZERO } else { now.saturating_duration_since(last) }
        };
        machines.map(|machine| (machine.clone(), silent(machine))).collect()
    }

    /// The leader of this cluster sent something.
    pub fn leader_spoke(&self) {
        self.lock().leader_spoke = Some(Instant::now());
    }

    /// How long the leader has said nothing; for ever when it never did.
    pub fn leader_silence(&self) -> Duration {
        self.lock().leader_spoke.map_or(Duration::MAX, |at| at.elapsed())
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().expect("no holder of this lock panics")
    }

    /// For whoever draws conclusions, which may be the first to run after a stand: then what was not heard
    /// proves nothing, and all count from now.
    fn lock_awake(&self) -> MutexGuard<'_, Heard> {
        let mut heard = self.lock();
        let stood = heard.awake.elapsed();
        if STILL_MAX < stood {
            tracing::warn!(
                "this machine stood still for {stood:.1?}; it counts nobody's silence from before"
            );
            heard.forget();
        }
        heard.awake = Instant::now();
        heard
    }
}

impl Heard {
    fn forget(&mut self) {
        self.since = Instant::now();
        self.awake = self.since;
        self.machines.clear();
    }
}

impl Default for Liveness {
    fn default() -> Liveness {
        Liveness::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> MachineId {
        MachineId::new(text).unwrap()
    }

    fn silence(liveness: &Liveness) -> Duration {
        liveness.silence([&id("m2")].into_iter(), &id("m1"))[&id("m2")]
    }

    /// A leader that was frozen must not take its own sleep for the others' silence, whoever of it asks
    /// first.
    #[tokio::test(start_paused = true)]
    async fn a_stand_of_its_own_is_nobodys_silence() {
        let frozen = Duration::from_secs(6);
        type Look = fn(&Liveness);
        let looks: [Look; 4] = [
            |_| {},
            Liveness::awake,
            |liveness| assert!(!liveness.has_heard(&id("m2")), "it may have gone meanwhile"),
            |liveness| liveness.heard(id("m3")),
        ];
        for look in looks {
            let liveness = Liveness::new();
            liveness.heard(id("m2"));
            tokio::time::advance(frozen).await;
            look(&liveness);
            assert_eq!(silence(&liveness), Duration::ZERO);
            assert!(!liveness.has_heard(&id("m2")));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn while_it_is_awake_silence_grows() {
        let liveness = Liveness::new();
        liveness.heard(id("m2"));
        for _ in 0..12 {
            tokio::time::advance(Duration::from_millis(500)).await;
            liveness.awake();
        }
        assert_eq!(silence(&liveness), Duration::from_secs(6));
        liveness.deaf();
        assert_eq!(silence(&liveness), Duration::ZERO);
    }
}
