//! Who is there, as the keys with a lease tell it. What is known here is lost with the leader, and a new one
//! gives everybody a full period before it calls anybody lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use cluster::MachineId;
use tokio::time::Instant;

pub struct Presence {
    /// A key vanishes when its machine has been silent for so long.
    ttl: Duration,
    heard: Mutex<Heard>,
}

struct Heard {
    /// Nobody's silence counts from before this moment: the last at which this machine did not lead, or did
    /// not hear etcd.
    since: Instant,
    present: BTreeSet<MachineId>,
    gone: BTreeMap<MachineId, Instant>,
}

impl Presence {
    pub fn new(ttl: Duration) -> Presence {
        let heard = Heard { since: Instant::now(), present: BTreeSet::new(), gone: BTreeMap::new() };
        Presence { ttl, heard: Mutex::new(heard) }
    }

    pub fn came(&self, machine: MachineId) {
        let mut heard = self.lock();
        heard.gone.remove(&machine);
        heard.present.insert(machine);
    }

    pub fn left(&self, machine: MachineId) {
        let mut heard = self.lock();
        if heard.present.remove(&machine) {
            heard.gone.insert(machine, Instant::now());
        }
    }

    /// Exactly these are there: what was known before was not heard without a gap.
    pub fn only(&self, present: BTreeSet<MachineId>) {
        let mut heard = self.lock();
        heard.present = present;
        heard.gone.clear();
        heard.since = Instant::now();
    }

    pub fn present(&self) -> Vec<MachineId> {
        self.lock().present.iter().cloned().collect()
    }

    /// Called while this machine does not lead, and when it lost etcd: what was not heard then proves
    /// nothing.
    pub fn deaf(&self) {
        let mut heard = self.lock();
        heard.since = Instant::now();
        heard.gone.clear();
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
            if machine == me || heard.present.contains(machine) {
                return Duration::ZERO;
            }
            let whole = now.saturating_duration_since(heard.since);
            match heard.gone.get(machine) {
                Some(gone) => (now.saturating_duration_since(*gone) + self.ttl).min(whole),
                None => whole,
            }
        };
        machines.map(|machine| (machine.clone(), silent(machine))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().expect("no holder of this lock panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_counts_from_the_last_word_and_never_from_deafness() {
        let presence = Presence::new(Duration::from_secs(5));
        let ids: Vec<MachineId> = ["me", "a", "b"].map(|id| MachineId::new(id).unwrap()).into();
        let silent = |presence: &Presence| -> Vec<u64> {
            presence.silence(ids.iter(), &ids[0]).values().map(Duration::as_secs).collect()
        };
        presence.came(ids[1].clone());
        tokio::time::advance(Duration::from_secs(60)).await;
        // In the order of the ids: a, b, me.
        assert_eq!(silent(&presence), [0, 60, 0]);
        presence.left(ids[1].clone());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(silent(&presence), [6, 61, 0]);
        presence.deaf();
        assert_eq!(silent(&presence), [0, 0, 0]);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(silent(&presence), [2, 2, 0]);
        presence.came(ids[2].clone());
        assert_eq!(silent(&presence), [2, 0, 0]);
        // A key that vanishes soon after this machine was deaf: no more than what it could have heard.
        presence.left(ids[2].clone());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(silent(&presence), [3, 3, 0]);
    }
}
