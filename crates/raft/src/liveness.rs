//! Who was heard when. Heartbeats never enter the log: what is known here is lost with the leader, and a new
//! one gives everybody a full period before it calls anybody lost.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use cluster::MachineId;
use tokio::time::Instant;

pub struct Liveness(Mutex<Heard>);

struct Heard {
    /// Nobody's silence counts from before this moment: the last at which this node did not lead, or led
    /// without a quorum.
    since: Instant,
    machines: BTreeMap<MachineId, Instant>,
    leader_spoke: Option<Instant>,
}

impl Liveness {
    pub fn new() -> Liveness {
        Liveness(Mutex::new(Heard { since: Instant::now(), machines: BTreeMap::new(), leader_spoke: None }))
    }

    /// A machine said that it is alive.
    pub fn heard(&self, machine: MachineId) {
        self.lock().machines.insert(machine, Instant::now());
    }

    /// Called for as long as this node does not lead, or has no quorum: whatever was not heard then proves
    /// nothing.
    pub fn deaf(&self) {
        let mut heard = self.lock();
        heard.since = Instant::now();
        heard.machines.clear();
    }

    /// Whether the machine has said anything since this node leads.
    pub fn has_heard(&self, machine: &MachineId) -> bool {
        self.lock().machines.contains_key(machine)
    }

    /// How long each of `machines` has been silent.
    pub fn silence<'a>(
        &self,
        machines: impl Iterator<Item = &'a MachineId>,
        me: &MachineId,
    ) -> BTreeMap<MachineId, Duration> {
        let heard = self.lock();
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

    fn lock(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

impl Default for Liveness {
    fn default() -> Liveness {
        Liveness::new()
    }
}
