//! Who is there, as the keys with a lease tell it. What is known here is lost with the leader, and a new one
//! gives everybody a full period before it calls anybody lost.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use cluster::{Liveness, MachineId};
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
    /// With where their daemons are reached, if they said so.
    present: BTreeMap<MachineId, Option<String>>,
    gone: BTreeMap<MachineId, Instant>,
}

impl Presence {
    pub fn new(ttl: Duration) -> Presence {
        let heard = Heard { since: Instant::now(), present: BTreeMap::new(), gone: BTreeMap::new() };
        Presence { ttl, heard: Mutex::new(heard) }
    }

    pub fn came(&self, machine: MachineId, peer: Option<String>) {
        let mut heard = self.lock();
        heard.gone.remove(&machine);
        heard.present.insert(machine, peer);
    }

    pub fn left(&self, machine: MachineId) {
        let mut heard = self.lock();
        if heard.present.remove(&machine).is_some() {
            heard.gone.insert(machine, Instant::now());
        }
    }

    /// Exactly these are there: what was known before was not heard without a gap.
    pub fn only(&self, present: BTreeMap<MachineId, Option<String>>) {
        let mut heard = self.lock();
        heard.present = present;
        heard.gone.clear();
        heard.since = Instant::now();
    }

    pub fn present(&self) -> Vec<MachineId> {
        self.lock().present.keys().cloned().collect()
    }

    /// Where the daemon of a machine that is there is reached.
    pub fn peer(&self, machine: &MachineId) -> Option<String> {
        self.lock().present.get(machine).cloned().flatten()
    }

    /// Called while this machine does not lead, and when it lost etcd: what was not heard then proves
    /// nothing.
    pub fn deaf(&self) {
        let mut heard = self.lock();
        heard.since = Instant::now();
        heard.gone.clear();
    }

    /// How long each of `machines` has been silent. One that counts as lost and is not there is left out.
    pub fn silence<'a>(
        &self,
        machines: impl Iterator<Item = (&'a MachineId, Liveness)>,
        me: &MachineId,
    ) -> BTreeMap<MachineId, Duration> {
        let heard = self.lock();
        let now = Instant::now();
        let silent = |machine: &MachineId| {
            if machine == me || heard.present.contains_key(machine) {
                return Duration::ZERO;
            }
            let whole = now.saturating_duration_since(heard.since);
            match heard.gone.get(machine) {
                Some(gone) => (now.saturating_duration_since(*gone) + self.ttl).min(whole),
                None => whole,
            }
        };
        let counts = |(machine, liveness): &(&MachineId, Liveness)| {
            *liveness == Liveness::Ready || *machine == me || heard.present.contains_key(*machine)
        };
        machines.filter(counts).map(|(machine, _)| (machine.clone(), silent(machine))).collect()
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
            let ready = ids.iter().map(|id| (id, Liveness::Ready));
            presence.silence(ready, &ids[0]).values().map(Duration::as_secs).collect()
        };
        presence.came(ids[1].clone(), None);
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
        presence.came(ids[2].clone(), Some("b:1".into()));
        assert_eq!((presence.peer(&ids[1]), presence.peer(&ids[2])), (None, Some("b:1".into())));
        assert_eq!(silent(&presence), [2, 0, 0]);
        // A key that vanishes soon after this machine was deaf: no more than what it could have heard.
        presence.left(ids[2].clone());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(silent(&presence), [3, 3, 0]);
        // Nothing says that a lost one is back, until it is there.
        let lost = || presence.silence([(&ids[1], Liveness::Lost)].into_iter(), &ids[0]);
        assert!(lost().is_empty());
        presence.came(ids[1].clone(), None);
        assert_eq!(lost()[&ids[1]], Duration::ZERO);
    }
}
