//! Finds the best machine for a group of units without looking at all machines: what was learnt for one group
//! holds for the next one that asks for the same, since during one schedule machines only get fuller.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::ops::Bound::{Excluded, Included, Unbounded};

use super::board::{Board, Spot, SpotId, Wish, WishId};
use super::pattern::PatternId;
use crate::need::Need;
use crate::requirement::{RequirementError, Requirements};
use crate::{MachineId, UnitName};

/// What a unit wants of a machine itself. Plain units want nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wants {
    machine: Option<String>,
    metadata: BTreeMap<String, std::collections::BTreeSet<String>>,
    preferred: std::collections::BTreeSet<(String, String)>,
    spread: Option<Spread>,
    need: Need,
}

/// The instances of one template that are spread over the values of one key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Spread {
    template: UnitName,
    key: String,
}

/// How good a machine is for a group beside the number of its units, the least the best: how many instances
/// are in the same part of the cluster, how much of what is preferred it has.
pub(crate) type Rank = (usize, Reverse<usize>);

/// Groups that can stand on the same machines, and like them equally.
type Class = Vec<Member>;

/// All that decides where a unit can stand, save its home, where it may find itself welcome all the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Member {
    wants: usize,
    carries: Vec<PatternId>,
    replaces: Vec<PatternId>,
    hit_by: Vec<PatternId>,
    on_global: Vec<WishId>,
    left: Option<SpotId>,
}

/// What one schedule has learnt.
#[derive(Default)]
pub(super) struct Searches {
    classes: BTreeMap<Class, Search>,
    /// How many instances there are for each value of the key.
    spreads: BTreeMap<Spread, BTreeMap<Option<String>, usize>>,
    /// Why a unit of that class that stands alone has no place.
    reasons: BTreeMap<Class, String>,
}

enum Search {
    /// All machines up to this one are full for the class, in the order of loads.
    Loads(Option<(usize, MachineId, SpotId)>),
    /// The machines, those together that are equally good for the class.
    Ranks(Vec<Equals>),
}

/// Machines that always have the same rank.
struct Equals {
    one_of_them: SpotId,
    /// By the number of their units, now or before; those that do not fit are left out.
    spots: BinaryHeap<Reverse<(usize, MachineId, SpotId)>>,
}

impl Wants {
    pub(super) fn of(name: &UnitName, requirements: &Result<Requirements, RequirementError>) -> Wants {
        let Ok(asked) = requirements else { return Wants::default() };
        let spread = asked.spread.clone().and_then(|key| Some(Spread { template: name.template()?, key }));
        let (machine, metadata, need) = (asked.machine.clone(), asked.metadata.clone(), asked.need);
        Wants { machine, metadata, preferred: asked.preferred.clone(), spread, need }
    }
}

impl Searches {
    /// An instance comes to a machine or goes.
    pub(super) fn note_seat(&mut self, wish: &Wish, spot: &Spot, change: isize) {
        if self.spreads.is_empty() {
            return;
        }
        let Some(spread) = spread_of(wish) else { return };
        let Some(counts) = self.spreads.get_mut(&spread) else { return };
        let count = counts.entry(spot.metadata.get(&spread.key).cloned()).or_default();
        *count = count.saturating_add_signed(change);
    }

    /// Some machine has more room than before: what was learnt does not hold any more.
    pub(super) fn forget(&mut self) {
        self.classes.clear();
        self.reasons.clear();
    }
}

fn spread_of(wish: &Wish) -> Option<Spread> {
    let key = wish.requirements.as_ref().ok()?.spread.clone()?;
    Some(Spread { template: wish.name.template()?, key })
}

impl Board {
    /// The number of what the unit wants: equal wants have equal numbers.
    pub(super) fn wants_of(
        &mut self,
        name: &UnitName,
        requirements: &Result<Requirements, RequirementError>,
    ) -> usize {
        let wants = Wants::of(name, requirements);
        if wants == Wants::default() {
            return 0;
        }
        let number = self.wants.len() + 1;
        *self.wants.entry(wants).or_insert(number)
    }

    fn class(&self, group: &[WishId]) -> Class {
        let sorted = |ids: &[usize]| {
            let mut ids = ids.to_vec();
            ids.sort_unstable();
            ids
        };
        let of = |i: &WishId| {
            let wish = self.wish(*i);
            Member {
                wants: wish.wants,
                carries: sorted(&wish.carries),
                replaces: sorted(&wish.replaces),
                hit_by: sorted(&wish.hit_by),
                on_global: sorted(&wish.on_global),
                left: wish.left,
            }
        };
        let mut class: Class = group.iter().map(of).collect();
        class.sort_unstable();
        class
    }

    /// Whether the unit likes some machines better than others.
    pub(crate) fn has_rank(&self, i: WishId) -> bool {
        let requirements = self.wish(i).requirements.as_ref();
        requirements.is_ok_and(|asked| asked.spread.is_some() || !asked.preferred.is_empty())
    }

    /// How good the machine is for the group, as long as it stands nowhere.
    pub(crate) fn rank(&mut self, group: &[WishId], s: SpotId) -> Rank {
        let (mut spread_count, mut liked) = (0, 0);
        for i in group {
            let Ok(requirements) = &self.wish(*i).requirements else { continue };
            if requirements.spread.is_none() && requirements.preferred.is_empty() {
                continue;
            }
            let metadata = &self.spots[s].metadata;
            let is_liked = |(key, value): &&(String, String)| metadata.get(key) == Some(value);
            liked += requirements.preferred.iter().filter(is_liked).count();
            spread_count += self.spread_count(*i, s);
        }
        (spread_count, Reverse(liked))
    }

    /// How many instances of the unit's template are in the same part of the cluster as that machine.
    fn spread_count(&mut self, i: WishId, s: SpotId) -> usize {
        let Some(spread) = spread_of(self.wish(i)) else { return 0 };
        let value = self.spots[s].metadata.get(&spread.key).cloned();
        if let Some(counts) = self.searches.spreads.get(&spread) {
            return counts.get(&value).copied().unwrap_or(0);
        }
        let prefix = format!("{}@", spread.template.prefix());
        let from = self.wish_ids.range::<str, _>((Included(&*prefix), Unbounded));
        let mut counts: BTreeMap<Option<String>, usize> = BTreeMap::new();
        for (_, other) in from.take_while(|(name, _)| name.as_str().starts_with(&prefix)) {
            let other = self.wish(*other);
            if let Some(at) = other.spot.filter(|_| spread_of(other).as_ref() == Some(&spread)) {
                *counts.entry(self.spots[at].metadata.get(&spread.key).cloned()).or_default() += 1;
            }
        }
        let count = counts.get(&value).copied().unwrap_or(0);
        self.searches.spreads.insert(spread, counts);
        count
    }

    /// Whether the whole group can stand on that machine, as things are.
    fn takes_all(&self, group: &[WishId], s: SpotId) -> bool {
        group.iter().all(|i| self.fits(*i, s)) && self.has_room(group, s)
    }

    /// The best machine for the whole group, which needs nobody outside of it and whose members can stand
    /// side by side; a machine that is special to one of them may be better.
    pub(super) fn search(&mut self, group: &[WishId]) -> Option<SpotId> {
        if let Some(pin) = self.pin(group) {
            let named = self.spot_ids.range::<str, _>((Included(&*pin), Unbounded));
            let named = named.take_while(|(id, _)| id.as_str().starts_with(&pin)).map(|(_, s)| *s);
            let fitting: Vec<SpotId> = named.filter(|s| self.takes_all(group, *s)).collect();
            let key = |s: &SpotId| (self.load(*s), &self.spot_names[*s]);
            return fitting.iter().copied().min_by_key(key);
        }
        let class = self.class(group);
        let has_rank = group.iter().any(|i| self.has_rank(*i));
        let search = match self.searches.classes.remove(&class) {
            Some(search) => search,
            None if has_rank => Search::Ranks(self.equals(group)),
            None => Search::Loads(None),
        };
        let (search, found) = match search {
            Search::Loads(from) => {
                let from = from.map_or(Unbounded, Included);
                let mut spots = self.order.range((from.clone(), Unbounded));
                let found = spots.find(|(.., s)| self.takes_all(group, *s)).cloned();
                let last = || self.order.range((from.clone(), Unbounded)).next_back().cloned();
                let at = found.clone().or_else(last);
                (
                    Search::Loads(at.or(match from {
                        Included(from) | Excluded(from) => Some(from),
                        Unbounded => None,
                    })),
                    found.map(|(.., s)| s),
                )
            }
            Search::Ranks(mut equals) => {
                let found = self.search_equals(group, &mut equals);
                (Search::Ranks(equals), found)
            }
        };
        self.searches.classes.insert(class, search);
        found
    }

    fn equals(&self, group: &[WishId]) -> Vec<Equals> {
        let asked = || group.iter().filter_map(|i| self.wish(*i).requirements.as_ref().ok());
        let mut equals: BTreeMap<(Vec<Option<&str>>, usize), Equals> = BTreeMap::new();
        for (load, id, s) in &self.order {
            let metadata = &self.spots[*s].metadata;
            let value = |key: &String| metadata.get(key).map(String::as_str);
            let values = asked().filter_map(|asked| asked.spread.as_ref()).map(value).collect();
            let preferred = asked().flat_map(|asked| &asked.preferred);
            let liked = preferred.filter(|(key, wanted)| value(key) == Some(wanted)).count();
            let equals = equals.entry((values, liked));
            let equals = equals.or_insert_with(|| Equals { one_of_them: *s, spots: BinaryHeap::new() });
            equals.spots.push(Reverse((*load, id.clone(), *s)));
        }
        equals.into_values().collect()
    }

    fn search_equals(&mut self, group: &[WishId], equals: &mut [Equals]) -> Option<SpotId> {
        let mut ranked: Vec<(Rank, usize)> = Vec::new();
        for (n, equals) in equals.iter().enumerate() {
            ranked.push((self.rank(group, equals.one_of_them), n));
        }
        ranked.sort();
        let mut best: Option<(Rank, usize, MachineId, SpotId)> = None;
        for (rank, n) in ranked {
            if best.as_ref().is_some_and(|(best, ..)| *best < rank) {
                break;
            }
            while let Some(Reverse((load, id, s))) = equals[n].spots.pop() {
                if !self.takes_all(group, s) {
                    continue;
                }
                let now = self.load(s);
                equals[n].spots.push(Reverse((now, id.clone(), s)));
                if now == load {
                    let found = (rank, now, id, s);
                    best = Some(best.map_or(found.clone(), |best| best.min(found)));
                    break;
                }
            }
        }
        best.map(|(.., s)| s)
    }

    /// The machine that one of them has to be on, as it is written.
    fn pin(&self, group: &[WishId]) -> Option<String> {
        group.iter().find_map(|i| self.wish(*i).requirements.as_ref().ok()?.machine.clone())
    }

    /// The same reason holds for all units of a class that hang together with nobody and come from nowhere.
    pub(super) fn reason_once(&mut self, i: WishId, why: impl FnOnce(&Board) -> String) -> String {
        let wish = self.wish(i);
        if !wish.needs.is_empty() || wish.home.is_some() || wish.left.is_some() {
            return why(self);
        }
        let class = self.class(&[i]);
        if let Some(why) = self.searches.reasons.get(&class) {
            return why.clone();
        }
        let why = why(self);
        self.searches.reasons.insert(class, why.clone());
        why
    }
}
