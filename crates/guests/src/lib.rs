//! Who is inside a port, and who goes when it is full: the same rule for the machines' port, the handshakes
//! before it, and the API's sockets.
//!
//! A newcomer is let in for as long as there is somebody who can go: the guest that has been idle the
//! longest, which has sent nothing worth an answer yet. So whoever connects and says nothing, or says it one
//! byte a minute, holds a place only until somebody needs it. One address cannot take all places, nor come
//! faster than it may. A guest that is being served is never asked to leave.
//!
//! It opens and closes nothing: whoever holds the connection asks for a place and listens for the wish that
//! it be given back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

/// Addresses that are remembered; those without a guest are forgotten first.
const SOURCES_MAX: usize = 4096;

/// How many may be inside.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub inside_max: usize,
    /// Of them, from one address.
    pub from_one_max: usize,
    /// How fast guests may come from one address; `None`: as they like.
    pub pace: Option<Pace>,
}

/// So many at once, and then so many a second.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub burst: u32,
    pub per_second: u32,
}

/// One port's guests. Clones are the same port.
#[derive(Clone)]
pub struct Guests(Arc<Shared>);

struct Shared {
    limits: Limits,
    table: Mutex<Table>,
    refused: AtomicU64,
    evicted: AtomicU64,
}

#[derive(Default)]
struct Table {
    /// Grows with each guest, so that the smallest has been here the longest.
    next: u64,
    guests: BTreeMap<u64, Entry>,
    idle: BTreeSet<u64>,
    sources: BTreeMap<IpAddr, Source>,
}

struct Entry {
    from: Option<IpAddr>,
    leave: Arc<Notify>,
}

struct Source {
    inside: usize,
    idle: BTreeSet<u64>,
    /// How many may still come at once, as of `counted`.
    may_come: f64,
    counted: Instant,
}

/// A place inside; it is given back when this is dropped. It begins idle.
pub struct Guest {
    port: Arc<Shared>,
    id: u64,
    leave: Arc<Notify>,
}

impl Guests {
    pub fn new(limits: Limits) -> Guests {
        let (refused, evicted) = (AtomicU64::new(0), AtomicU64::new(0));
        Guests(Arc::new(Shared { limits, table: Mutex::default(), refused, evicted }))
    }

    /// A place for a newcomer; `None` when there is none for it. `from` is `None` where everybody has the
    /// same address, or none.
    pub fn admit(&self, from: Option<IpAddr>) -> Option<Guest> {
        let from = from.map(whose);
        let admitted = self.0.table().admit(&self.0.limits, from);
        let Some((id, leave, evicted)) = admitted else {
            self.0.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        self.0.evicted.fetch_add(evicted, Ordering::Relaxed);
        Some(Guest { port: self.0.clone(), id, leave })
    }

    pub fn inside(&self) -> usize {
        self.0.table().guests.len()
    }

    /// Newcomers that found no place.
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// Guests that had to make room.
    pub fn evicted(&self) -> u64 {
        self.0.evicted.load(Ordering::Relaxed)
    }
}

impl Guest {
    /// It is being served, and stays.
    pub fn busy(&self) {
        let mut table = self.port.table();
        table.idle.remove(&self.id);
        let from = table.guests.get(&self.id).and_then(|entry| entry.from);
        if let Some(source) = from.and_then(|from| table.sources.get_mut(&from)) {
            source.idle.remove(&self.id);
        }
    }

    /// It is waited for, and goes when its place is needed.
    pub fn idle(&self) {
        let mut table = self.port.table();
        let Some(entry) = table.guests.get(&self.id) else { return };
        let from = entry.from;
        table.idle.insert(self.id);
        if let Some(source) = from.and_then(|from| table.sources.get_mut(&from)) {
            source.idle.insert(self.id);
        }
    }

    /// Returns when the place is needed for another. Cancel-safe.
    pub async fn asked_to_leave(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.port.table().remove(self.id);
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn admit(&mut self, limits: &Limits, from: Option<IpAddr>) -> Option<(u64, Arc<Notify>, u64)> {
        let mut evicted = 0;
        if let Some(address) = from {
            let source = self.source(address, limits);
            if let Some(pace) = limits.pace {
                let now = Instant::now();
                let more = now.duration_since(source.counted).as_secs_f64() * f64::from(pace.per_second);
                source.may_come = (source.may_come + more).min(f64::from(pace.burst));
                source.counted = now;
                if source.may_come < 1.0 {
                    return None;
                }
                source.may_come -= 1.0;
            }
            if limits.from_one_max <= source.inside {
                let oldest = source.idle.first().copied()?;
                self.evict(oldest);
                evicted += 1;
            }
        }
        if limits.inside_max <= self.guests.len() {
            let oldest = self.idle.first().copied()?;
            self.evict(oldest);
            evicted += 1;
        }
        self.next += 1;
        let (id, leave) = (self.next, Arc::new(Notify::new()));
        self.guests.insert(id, Entry { from, leave: leave.clone() });
        self.idle.insert(id);
        if let Some(address) = from {
            let source = self.source(address, limits);
            source.inside += 1;
            source.idle.insert(id);
        }
        Some((id, leave, evicted))
    }

    fn source(&mut self, address: IpAddr, limits: &Limits) -> &mut Source {
        if SOURCES_MAX <= self.sources.len() && !self.sources.contains_key(&address) {
            self.sources.retain(|_, source| 0 < source.inside);
        }
        self.sources.entry(address).or_insert_with(|| Source {
            inside: 0,
            idle: BTreeSet::new(),
            may_come: limits.pace.map_or(0.0, |pace| f64::from(pace.burst)),
            counted: Instant::now(),
        })
    }

    /// Its place is free at once; its connection ends a moment later.
    fn evict(&mut self, id: u64) {
        if let Some(entry) = self.remove(id) {
            entry.leave.notify_one();
        }
    }

    fn remove(&mut self, id: u64) -> Option<Entry> {
        let entry = self.guests.remove(&id)?;
        self.idle.remove(&id);
        if let Some(source) = entry.from.and_then(|from| self.sources.get_mut(&from)) {
            source.inside -= 1;
            source.idle.remove(&id);
        }
        Some(entry)
    }
}

/// Whoever has one IPv6 address has a whole network of them.
fn whose(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let s = address.segments();
            IpAddr::V6(Ipv6Addr::new(s[0], s[1], s[2], s[3], 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_now::now_or_never;

    use super::*;

    /// Whether a future is ready without waiting.
    mod futures_now {
        pub async fn now_or_never(future: impl Future<Output = ()>) -> bool {
            tokio::select! {
                biased;
                () = future => true,
                () = std::future::ready(()) => false,
            }
        }
    }

    fn port(inside_max: usize, from_one_max: usize, pace: Option<Pace>) -> Guests {
        Guests::new(Limits { inside_max, from_one_max, pace })
    }

    fn at(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([10, 0, 0, last]))
    }

    #[tokio::test]
    async fn who_is_idle_the_longest_makes_room() {
        let port = port(3, 3, None);
        let guests: Vec<Guest> = (1..=3).map(|n| port.admit(at(n)).unwrap()).collect();
        guests[0].busy();
        let newcomer = port.admit(at(4)).unwrap();
        assert!(!now_or_never(guests[0].asked_to_leave()).await, "it is served");
        assert!(now_or_never(guests[1].asked_to_leave()).await);
        assert!(!now_or_never(guests[2].asked_to_leave()).await);
        assert_eq!((port.inside(), port.evicted()), (3, 1));
        guests[2].busy();
        newcomer.busy();
        assert!(port.admit(at(5)).is_none(), "all are served");
        assert_eq!(port.refused(), 1);
        guests[0].idle();
        assert!(port.admit(at(5)).is_some());
        assert!(now_or_never(guests[0].asked_to_leave()).await);
        drop(guests);
        drop(newcomer);
        assert_eq!(port.inside(), 0);
    }

    #[tokio::test]
    async fn one_address_makes_room_for_itself_alone() {
        let port = port(10, 2, None);
        let other = port.admit(at(9)).unwrap();
        let first = port.admit(at(1)).unwrap();
        let _second = port.admit(at(1)).unwrap();
        let _third = port.admit(at(1)).unwrap();
        assert!(now_or_never(first.asked_to_leave()).await);
        assert!(!now_or_never(other.asked_to_leave()).await);
        // Addresses that are one host's: mapped ones, and those of one network.
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
        assert_eq!(whose(mapped), at(1).unwrap());
        assert_eq!(whose("2001:db8::1".parse().unwrap()), whose("2001:db8::ffff:2".parse().unwrap()));
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_comes_no_faster_than_it_may() {
        let port = port(1000, 1000, Some(Pace { burst: 5, per_second: 10 }));
        let come = |from| (0..20).filter(|_| port.admit(from).is_some()).count();
        assert_eq!(come(at(1)), 5);
        assert_eq!(come(at(2)), 5, "the other is another");
        tokio::time::advance(Duration::from_millis(301)).await;
        assert_eq!(come(at(1)), 3);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(come(at(1)), 5);
        assert_eq!(come(None), 20, "where there are no addresses there is no pace");
    }

    #[test]
    fn addresses_are_forgotten() {
        let port = port(10_000, 10, None);
        let kept = port.admit(at(1)).unwrap();
        for n in 0..2 * SOURCES_MAX as u32 {
            drop(port.admit(Some(IpAddr::from(n.to_be_bytes()))));
        }
        assert!(port.0.table().sources.len() <= SOURCES_MAX + 1);
        drop(kept);
    }
}
