//! Finds places for units that have none, or none that fits. Units which must be together are placed
//! together, in one schedule.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::board::{Board, SpotId, WishId};
use super::search::Rank;
use super::{Decision, Schedule, Unplaced};
use crate::MachineId;

/// What is known of the units of one group.
struct Group {
    members: Vec<WishId>,
    /// How many members need each, directly or not: the needed are not to move for those who need them.
    weights: BTreeMap<WishId, usize>,
    /// The ready machines on which each still runs.
    runs_on: BTreeMap<WishId, Vec<SpotId>>,
}

/// The best machine has the least key: it takes the most members, then as many as possible of those that are
/// meant to go there, live there or still run there; then come the rank, the number of units and the id.
type Key = (Reverse<usize>, Reverse<usize>, Reverse<(usize, usize, usize)>, Rank, usize, MachineId);

impl Board {
    /// Places what has no place yet.
    pub(super) fn place_all(&mut self, groups: Vec<Vec<WishId>>, result: &mut Schedule) {
        let mut queue: VecDeque<Vec<WishId>> = groups.into();
        while let Some(members) = queue.pop_front() {
            let mut group = Group { weights: self.weights(&members), runs_on: BTreeMap::new(), members };
            group.runs_on = group.members.iter().map(|i| (*i, self.runs_on(*i))).collect();
            while !group.members.is_empty() {
                let Some((s, fitting)) = self.best(&group) else {
                    // There may be a place beside those who stay.
                    if self.stay(&mut group.members, result) { continue } else { break }
                };
                group.members.retain(|i| !fitting.contains(i));
                for company in self.evict_for(&fitting, s, result).into_iter().rev() {
                    queue.push_front(company);
                }
                self.settle_in(&fitting, s, &group.runs_on, result);
            }
            self.give_up(group.members, result);
        }
    }

    fn weights(&self, group: &[WishId]) -> BTreeMap<WishId, usize> {
        let mut weights: BTreeMap<WishId, usize> = group.iter().map(|i| (*i, 0)).collect();
        if group.len() == 1 {
            return weights;
        }
        for i in group {
            let mut seen = BTreeSet::from([*i]);
            let mut open = vec![*i];
            while let Some(at) = open.pop() {
                for need in self.wish(at).needs.iter().filter(|need| seen.insert(**need)) {
                    if let Some(weight) = weights.get_mut(need) {
                        *weight += 1;
                        open.push(*need);
                    }
                }
            }
        }
        weights
    }

    /// The best machine for the group, and the members that it takes.
    fn best(&mut self, group: &Group) -> Option<(SpotId, Vec<WishId>)> {
        let members = &group.members;
        let count = members.len();
        let everywhere = |board: &Board| -> Vec<SpotId> { board.order.iter().map(|(.., s)| *s).collect() };
        let mut spots: BTreeSet<SpotId> = BTreeSet::new();
        let mut needs_others = false;
        for i in members {
            let wish = self.wish(*i);
            spots.extend(wish.home.iter().chain(&group.runs_on[i]));
            let target = wish.leaving.as_ref().and_then(|leaving| leaving.to.as_ref());
            spots.extend(target.and_then(|to| self.spot_ids.get(to)));
            for need in wish.needs.iter().filter(|need| !members.contains(need)) {
                needs_others = true;
                spots.extend(self.wish(*need).spot);
            }
        }
        let mut best: Option<(Key, Vec<WishId>)> = None;
        let is_whole = |best: &Option<(Key, Vec<WishId>)>| {
            best.as_ref().is_some_and(|(_, fitting)| fitting.len() == count)
        };
        if self.is_exhaustive {
            spots = everywhere(self).into_iter().collect();
        } else if !needs_others && !self.clash_within(members) {
            spots.extend(self.search(members));
        }
        for s in spots {
            self.try_spot(group, s, &mut best);
        }
        if !self.is_exhaustive && count > 1 && !is_whole(&best) {
            for s in everywhere(self) {
                self.try_spot(group, s, &mut best);
            }
        }
        best.map(|((.., id), fitting)| (self.spot_ids[&id], fitting))
    }

    fn try_spot(&mut self, group: &Group, s: SpotId, best: &mut Option<(Key, Vec<WishId>)>) {
        let fitting = self.fitting(group, s);
        if fitting.is_empty() {
            return;
        }
        let id = self.spot_names[s].clone();
        let at_home = fitting.iter().filter(|i| self.wish(**i).home == Some(s));
        let (weight, homes) = at_home.fold((0, 0), |(w, n), i| (w + group.weights[i], n + 1));
        let running = fitting.iter().filter(|i| group.runs_on[*i].contains(&s)).count();
        let is_target = |i: &&WishId| {
            self.wish(**i).leaving.as_ref().is_some_and(|leaving| leaving.to.as_ref() == Some(&id))
        };
        let targets = fitting.iter().filter(is_target).count();
        let (rank, load) = (self.rank(&fitting, s), self.load(s));
        let key: Key =
            (Reverse(fitting.len()), Reverse(targets), Reverse((weight, homes, running)), rank, load, id);
        if best.as_ref().is_none_or(|(least, _)| key < *least) {
            *best = Some((key, fitting));
        }
    }

    /// Whether two of them can never stand side by side.
    pub(super) fn clash_within(&self, members: &[WishId]) -> bool {
        if members.len() < 2 || members.iter().all(|i| self.wish(*i).hit_by.is_empty()) {
            return false;
        }
        let hit = |p: &usize, i: WishId| members.iter().any(|j| *j != i && self.wish(*j).hit_by.contains(p));
        let replaces =
            |i: WishId| !self.wish(i).replaces.is_empty() && members.iter().any(|j| self.replaces(i, *j));
        members.iter().any(|i| self.wish(*i).carries.iter().any(|p| hit(p, *i)) || replaces(*i))
    }

    /// The largest part of the group that can stand on that machine, with all that each of them needs.
    fn fitting(&self, group: &Group, s: SpotId) -> Vec<WishId> {
        let mut fitting: Vec<WishId> = group.members.iter().copied().filter(|i| self.fits(*i, s)).collect();
        let key = |i: WishId| {
            let wish = self.wish(i);
            (group.weights[&i], Reverse(wish.unit.generation), Reverse(&wish.name))
        };
        loop {
            let before = fitting.len();
            if group.members.len() > 1 || !self.wish(group.members[0]).needs.is_empty() {
                let here: BTreeSet<WishId> = fitting.iter().copied().collect();
                let is_there = |need: &WishId| self.wish(*need).spot == Some(s) || here.contains(need);
                fitting.retain(|i| self.wish(*i).needs.iter().all(is_there));
            }
            if fitting.len() < before {
                continue;
            }
            if let Some(out) = self.against_its_own(&fitting, s) {
                fitting.retain(|i| *i != out);
                continue;
            }
            if self.clash_within(&fitting) {
                let pairs = fitting.iter().flat_map(|i| fitting.iter().map(move |j| (*i, *j)));
                let mut clashes = pairs.filter(|(i, j)| key(*i) < key(*j) && self.clash(*i, *j));
                if let Some((out, _)) = clashes.next() {
                    fitting.retain(|i| *i != out);
                    continue;
                }
            }
            if fitting.is_empty() || self.has_room(&fitting, s) {
                return fitting;
            }
            // Who needs no room is not to go for the others' sake.
            let takers = fitting.iter().copied().filter(|i| !self.has_room(&[*i], s) || self.takes_room(*i));
            let Some(out) = takers.min_by_key(|i| key(*i)) else { return fitting };
            fitting.retain(|i| *i != out);
        }
    }

    /// One of them that has somebody replaced there whom one of them needs: they would drive each other from
    /// machine to machine for ever.
    fn against_its_own(&self, members: &[WishId], s: SpotId) -> Option<WishId> {
        let needs = || members.iter().flat_map(|j| self.wish(*j).needs.iter());
        let drives_out = |i: &&WishId| {
            let victims = self.victims(**i, s);
            let doomed: BTreeSet<WishId> =
                victims.into_iter().flat_map(|victim| self.company(victim, s)).collect();
            needs().any(|need| doomed.contains(need))
        };
        members.iter().filter(|i| !self.wish(**i).replaces.is_empty()).find(drives_out).copied()
    }

    fn takes_room(&self, i: WishId) -> bool {
        self.wish(i).need() != crate::need::Need::default()
    }

    /// Takes away whom these have replaced on that machine, with all that hang together with them.
    fn evict_for(&mut self, members: &[WishId], s: SpotId, result: &mut Schedule) -> Vec<Vec<WishId>> {
        let mut companies = Vec::new();
        for i in members {
            for victim in self.victims(*i, s) {
                if self.wish(victim).spot != Some(s) {
                    continue;
                }
                let company = self.company(victim, s);
                for member in &company {
                    self.take_away(*member);
                    self.evicted.insert(*member);
                    result.retract(&self.wish(*member).name);
                }
                companies.push(company);
            }
        }
        if !companies.is_empty() {
            self.searches.forget();
        }
        companies
    }

    /// Gives the members that machine, unless one of them still runs on another, or somebody whom one has
    /// replaced still runs there: then they wait until that has stopped.
    fn settle_in(
        &mut self,
        members: &[WishId],
        s: SpotId,
        runs_on: &BTreeMap<WishId, Vec<SpotId>>,
        result: &mut Schedule,
    ) {
        let still = |i: WishId| runs_on[&i].iter().copied().find(|r| *r != s);
        let blocker = members.iter().find_map(|i| Some((*i, still(*i)?)));
        let victim = members.iter().find_map(|i| Some((*i, self.running_victim(*i, s)?)));
        let count = self.load(s);
        for i in members.iter().copied() {
            self.place(i, s);
            let wish = self.wish(i);
            if wish.home == Some(s) {
                continue;
            }
            let (unit, target) = (wish.name.clone(), self.spot_names[s].clone());
            let why = if let Some((held_by, r)) = blocker {
                match still(i) {
                    Some(own) => format!("still stopping on {}", self.label(own)),
                    None => {
                        let held_by = &self.wish(held_by).name;
                        format!("has to be with {held_by}, which is still stopping on {}", self.label(r))
                    }
                }
            } else if let Some((held_by, victim)) = victim {
                let (victim, place) = (&self.wish(victim).name, self.label(s));
                if held_by == i {
                    format!("has to wait until {victim}, which it replaces, has stopped on {place}")
                } else {
                    let held_by = &self.wish(held_by).name;
                    format!("has to be with {held_by}, which waits until {victim} has stopped on {place}")
                }
            } else {
                let reason = self.reason(i, s, members.len(), count);
                let generation = wish.unit.generation;
                result.decisions.push(Decision::Assign { unit, machine: target, generation, reason });
                continue;
            };
            if let Some(home) = wish.home {
                let reason = format!("{}; it moves to {}", self.why_not(i, home), self.label(s));
                self.unassign(i, &reason, result);
            }
            result.unplaced.insert(unit, Unplaced { why });
        }
    }

    /// A unit that this one has replaced, which has no place there any more and still runs there.
    fn running_victim(&self, i: WishId, s: SpotId) -> Option<WishId> {
        let matched = self.wish(i).replaces.iter().flat_map(|p| self.patterns.matched(*p));
        let gone = matched.copied().filter(|j| self.replaces(i, *j) && self.wish(*j).spot != Some(s));
        let running = gone.filter(|j| self.runs_on(*j).contains(&s));
        running.min_by_key(|j| &self.wish(*j).name)
    }

    fn reason(&self, i: WishId, s: SpotId, member_count: usize, load: usize) -> String {
        let wish = self.wish(i);
        let before = match (wish.assigned, wish.home) {
            (None, _) => String::new(),
            (Some(_), Some(home)) => format!("{}; ", self.why_not(i, home)),
            (Some(spot), None) if wish.left.is_some() => {
                format!("it was asked to leave {}; ", self.label(spot))
            }
            (Some(spot), None) => format!("{} is lost; ", self.label(spot)),
        };
        let needed = wish.needs.iter().any(|need| self.wish(*need).spot == Some(s));
        let together =
            if needed || member_count > 1 { "together with the units it belongs to, " } else { "" };
        format!("{before}{together}fewest units ({load})")
    }

    fn unassign(&self, i: WishId, reason: &str, result: &mut Schedule) {
        let wish = self.wish(i);
        let Some(spot) = wish.assigned else { return };
        let (unit, machine) = (wish.name.clone(), self.spot_names[spot].clone());
        result.decisions.push(Decision::Unassign { unit, machine, reason: reason.into() });
    }

    /// Of units for which there is no place, those on a lost machine stay assigned; those on a ready one too,
    /// as long as nothing that they ask for themselves speaks against it. One that was asked to leave stays
    /// then. Whether there was one.
    fn stay(&mut self, group: &mut Vec<WishId>, result: &mut Schedule) -> bool {
        let before = group.len();
        loop {
            let stays = group.iter().copied().find_map(|i| {
                let wish = self.wish(i);
                let home = wish.home.or(wish.left)?;
                let with_peers = wish.peers().iter().all(|peer| self.wish(*peer).spot == Some(home));
                (with_peers && self.suits(i, home) && !self.has_conflict(i, home)).then_some((i, home))
            });
            let Some((i, home)) = stays else { return group.len() < before };
            if self.wish(i).left.is_some() {
                let why = self.why(i);
                let (unit, generation) = (self.wish(i).name.clone(), self.wish(i).unit.generation);
                let (machine, reason) = (self.spot_names[home].clone(), format!("it stays: {why}"));
                result.decisions.push(Decision::Assign { unit, machine, generation, reason });
            }
            self.place(i, home);
            group.retain(|member| *member != i);
        }
    }

    /// Units for which there is no place and that cannot stay where they are.
    fn give_up(&mut self, group: Vec<WishId>, result: &mut Schedule) {
        for i in group {
            let why = self.reason_once(i, |board| board.why(i));
            if self.wish(i).home.or(self.wish(i).left).is_some() {
                self.unassign(i, &why, result);
            }
            result.unplaced.insert(self.wish(i).name.clone(), Unplaced { why });
        }
    }

    fn why(&self, i: WishId) -> String {
        self.why_nowhere(|board, s| board.why_not(i, s))
    }

    /// All that speaks against each machine, like reasons together.
    pub(crate) fn why_nowhere(&self, why_not: impl Fn(&Board, SpotId) -> String) -> String {
        const REASONS_MAX: usize = 4;
        const MACHINES_MAX: usize = 3;
        if self.order.is_empty() {
            return match self.state.machines.len() {
                0 => "no machine has joined the cluster yet".into(),
                1 => "no machine is ready: the only one is lost".into(),
                n => format!("no machine is ready: all {n} are lost"),
            };
        }
        let mut reasons: BTreeMap<String, Vec<SpotId>> = BTreeMap::new();
        for s in self.spot_ids.values().copied().filter(|s| self.spots[*s].is_ready) {
            reasons.entry(why_not(self, s)).or_default().push(s);
        }
        let hidden: usize = reasons.values().skip(REASONS_MAX).map(Vec::len).sum();
        let mut parts: Vec<String> = Vec::new();
        for (reason, spots) in reasons.iter().take(REASONS_MAX) {
            let more = spots.len().saturating_sub(MACHINES_MAX);
            let shown = spots[..spots.len() - more].iter().map(|s| self.label(*s));
            let shown = shown.collect::<Vec<_>>().join(", ");
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            parts.push(format!("{reason} (on {shown}{more})"));
        }
        if hidden > 0 {
            parts.push(format!("and {hidden} more machines will not do either"));
        }
        format!("no machine can run it: {}", parts.join("; "))
    }
}
