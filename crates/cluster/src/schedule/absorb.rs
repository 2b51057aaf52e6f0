//! Brings the board up to date with a state: only what differs from the last one is looked at.

use std::collections::BTreeSet;
use std::ops::Bound::{Included, Unbounded};
use std::sync::Arc;

use super::board::{Board, Spot, SpotId, Wish, WishId};
use super::pattern::Pattern;
use crate::global::globals_on;
use crate::record::{Liveness, Machine, Unit};
use crate::requirement::Requirements;
use crate::{Assignment, ClusterState, DesiredState, MachineId, UnitName, activated_unit, differences};

/// What has to be looked at again once all records are taken over.
#[derive(Default)]
struct Touched {
    spots: BTreeSet<SpotId>,
    wishes: BTreeSet<WishId>,
    /// Units that came, went or changed, and whom they referred to.
    names: BTreeSet<UnitName>,
    globals: bool,
}

impl Board {
    pub(crate) fn absorb(&mut self, new: &ClusterState) {
        let old = std::mem::replace(&mut self.state, new.clone());
        let mut touched = Touched::default();
        for (id, ..) in differences(&old.machines, &new.machines) {
            self.take_machine(id, new.machine_to_use(id), &mut touched);
        }
        for (_, before, now) in differences(&old.reboot_groups, &new.reboot_groups) {
            let holders = before.into_iter().chain(now).flat_map(|group| group.holders.keys());
            let holders: BTreeSet<&MachineId> = holders.collect();
            for id in holders {
                self.take_machine(id, new.machine_to_use(id), &mut touched);
            }
        }
        for (name, _, now) in differences(&old.units, &new.units) {
            self.take_unit(name, now, &mut touched);
        }
        for (name, _, now) in differences(&old.assignments, &new.assignments) {
            self.take_assignment(name, now, &mut touched);
        }
        for ((name, id), _, now) in differences(&old.observed, &new.observed) {
            let s = self.spot_of(id);
            if now.is_some() {
                self.spots[s].reported.insert(name.clone());
            } else {
                self.spots[s].reported.remove(name);
            }
            touched.spots.insert(s);
        }
        if touched.globals {
            (0..self.spots.len()).for_each(|s| self.seat_globals(s));
            touched.spots.extend(0..self.spots.len());
        } else if !self.globals.is_empty() {
            touched.spots.clone().into_iter().for_each(|s| self.seat_globals(s));
        }
        self.tie(&touched.names, &mut touched.wishes);
        for s in &touched.spots {
            self.look_at_spot(*s);
            touched.wishes.extend(self.spots[*s].assigned.iter());
        }
        for i in touched.wishes {
            self.look_at_wish(i);
        }
    }

    /// The machine's place on the board; one is made if there is none.
    fn spot_of(&mut self, id: &MachineId) -> SpotId {
        if let Some(s) = self.spot_ids.get(id) {
            return *s;
        }
        let s = self.spots.len();
        self.spots.push(Spot::default());
        self.spot_names.push(id.clone());
        self.spot_ids.insert(id.clone(), s);
        s
    }

    fn take_machine(&mut self, id: &MachineId, now: Option<Arc<Machine>>, touched: &mut Touched) {
        let s = self.spot_of(id);
        let is_ready = now.as_ref().is_some_and(|machine| machine.liveness == Liveness::Ready);
        let was_ready = std::mem::replace(&mut self.spots[s].is_ready, is_ready);
        self.spots[s].metadata = now.as_ref().map(|machine| machine.metadata()).unwrap_or_default();
        self.spots[s].machine = now;
        if was_ready != is_ready {
            let key = (self.load(s), id.clone(), s);
            if is_ready {
                self.order.insert(key);
            } else {
                self.order.remove(&key);
            }
            for i in self.spots[s].assigned.clone() {
                self.settle_home(i, touched);
            }
        }
        touched.spots.insert(s);
    }

    fn take_unit(&mut self, name: &UnitName, now: Option<&Arc<Unit>>, touched: &mut Touched) {
        if let Some(i) = self.wish_of(name) {
            self.remove_wish(i, touched);
        }
        let wanted = now.filter(|unit| unit.desired != DesiredState::Inactive);
        let i = wanted.map(|unit| self.add_wish(name, unit, touched));
        // Most units hang together with nobody. Who comes to refer to this one notes that himself.
        if i.is_some_and(|i| !self.wish(i).refers.is_empty()) || self.referrers.contains_key(name) {
            touched.names.insert(name.clone());
        }
        self.look_for_stray(name, i);
    }

    fn take_assignment(&mut self, name: &UnitName, now: Option<&Arc<Assignment>>, touched: &mut Touched) {
        if let Some(now) = now {
            self.spot_of(&now.machine);
        }
        let i = self.wish_of(name);
        if let Some(i) = i {
            let (machine, leaving) = (now.map(|now| &now.machine), now.and_then(|now| now.leaving.as_ref()));
            let wish = self.wish(i);
            // A unit that has only just been added has read it.
            if wish.assigned.map(|s| &self.spot_names[s]) != machine || wish.leaving.as_ref() != leaving {
                self.settle_home(i, touched);
            }
        }
        self.look_for_stray(name, i);
    }

    fn look_for_stray(&mut self, name: &UnitName, wish: Option<WishId>) {
        let is_wanted = wish.is_some_and(|i| !self.wish(i).is_global);
        if !is_wanted && self.state.assignments.contains_key(name) {
            self.strays.insert(name.clone());
        } else if !self.strays.is_empty() {
            self.strays.remove(name);
        }
    }

    fn add_wish(&mut self, name: &UnitName, unit: &Arc<Unit>, touched: &mut Touched) -> WishId {
        let requirements = Requirements::of(name, &unit.file);
        let mut refers = Vec::new();
        let (mut carries, mut replaces) = (Vec::new(), Vec::new());
        let mut fresh = Vec::new();
        if let Ok(asked) = &requirements {
            refers.extend(asked.peers.iter().cloned());
            let names = |glob: &crate::glob::Glob| Pattern::Names(glob.clone());
            let conflicts = asked.conflicts.iter().map(names);
            for pattern in conflicts.chain(asked.roles.iter().cloned().map(Pattern::Role)) {
                let (number, is_new) = self.patterns.add_user(pattern);
                carries.push(number);
                fresh.extend(is_new.then_some(number));
            }
            for pattern in asked.replaces.iter().map(names) {
                let (number, is_new) = self.patterns.add_user(pattern);
                replaces.push(number);
                fresh.extend(is_new.then_some(number));
            }
        }
        refers.extend(activated_unit(name, &unit.file).filter(|activated| activated != name));
        fresh.into_iter().for_each(|number| self.match_others(number, touched));
        let is_global = requirements.as_ref().is_ok_and(|requirements| requirements.is_global);
        let wants = self.wants_of(name, &requirements);
        let mut hit_by = if self.patterns.is_empty() { Vec::new() } else { self.patterns.of_name(name) };
        hit_by.extend(carries.iter().filter(|number| !self.patterns.is_over_names(**number)));
        for referred in &refers {
            touched.names.insert(referred.clone());
        }
        let wish = Wish {
            name: name.clone(),
            unit: unit.clone(),
            requirements,
            wants,
            is_global,
            assigned: None,
            leaving: None,
            home: None,
            left: None,
            refers,
            missing: None,
            needs: Vec::new(),
            peer_count: 0,
            needed_by: BTreeSet::new(),
            on_global: Vec::new(),
            carries,
            replaces,
            hit_by,
            spot: None,
        };
        let i = self.add(wish);
        self.wish_ids.insert(name.clone(), i);
        for number in self.wish(i).hit_by.clone() {
            self.patterns.set_matched(number, i, true);
        }
        for referred in self.wish(i).refers.clone() {
            self.referrers.entry(referred).or_default().insert(i);
        }
        if is_global {
            self.globals.insert(name.clone(), i);
            touched.globals = true;
        } else {
            self.settle_home(i, touched);
        }
        i
    }

    /// A pattern that nobody had before: which of the units that are there it matches.
    fn match_others(&mut self, number: usize, touched: &mut Touched) {
        if !self.patterns.is_over_names(number) {
            return;
        }
        let prefix = self.patterns.prefix(number).to_owned();
        let begins = |name: &UnitName| name.as_str().starts_with(&prefix);
        let from = self.wish_ids.range::<str, _>((Included(&*prefix), Unbounded));
        let named = from.take_while(|(name, _)| begins(name));
        let matched: Vec<WishId> =
            named.filter(|(name, _)| self.patterns.matches(number, name)).map(|(_, i)| *i).collect();
        for i in matched {
            self.patterns.set_matched(number, i, true);
            self.change_hits(i, touched, |hit_by| hit_by.push(number));
        }
    }

    /// Changes what matches a unit, and the numbers of the machines that it stands on with it.
    fn change_hits(&mut self, i: WishId, touched: &mut Touched, change: impl FnOnce(&mut Vec<usize>)) {
        let spots: Vec<SpotId> = match self.wish(i).spot {
            Some(s) => vec![s],
            None if self.wish(i).is_global => {
                (0..self.spots.len()).filter(|s| self.spots[*s].globals.contains(&i)).collect()
            }
            None => Vec::new(),
        };
        spots.iter().for_each(|s| self.count(i, *s, false));
        change(&mut self.wish_mut(i).hit_by);
        spots.iter().for_each(|s| self.count(i, *s, true));
        touched.spots.extend(spots);
    }

    fn remove_wish(&mut self, i: WishId, touched: &mut Touched) {
        if self.wish(i).is_global {
            for s in 0..self.spots.len() {
                if self.spots[s].globals.contains(&i) {
                    self.count(i, s, false);
                    self.spots[s].globals.retain(|global| *global != i);
                }
            }
            touched.globals = true;
            self.globals.remove(&self.wish(i).name.clone());
        }
        touched.spots.extend(self.wish(i).spot);
        self.unseat(i);
        touched.wishes.extend(self.wish(i).needs.iter().chain(&self.wish(i).needed_by));
        self.untie(i);
        if let Some(s) = self.wish(i).assigned {
            self.spots[s].assigned.remove(&i);
        }
        let wish = self.wish(i);
        let (name, refers, hit_by) = (wish.name.clone(), wish.refers.clone(), wish.hit_by.clone());
        let patterns: Vec<usize> = wish.carries.iter().chain(&wish.replaces).copied().collect();
        self.wish_ids.remove(&name);
        for number in hit_by {
            self.patterns.set_matched(number, i, false);
        }
        for number in patterns {
            for other in self.patterns.remove_user(number).into_iter().flatten() {
                self.change_hits(other, touched, |hit_by| hit_by.retain(|hit| *hit != number));
            }
        }
        for referred in refers {
            if let Some(referrers) = self.referrers.get_mut(&referred) {
                referrers.remove(&i);
                if referrers.is_empty() {
                    self.referrers.remove(&referred);
                }
            }
            touched.names.insert(referred);
        }
        self.homeless.remove(&i);
        self.impossible.remove(&i);
        self.misplaced.remove(&i);
        touched.wishes.remove(&i);
        self.remove(i);
    }

    /// Reads a unit's home from the state and puts the unit there.
    fn settle_home(&mut self, i: WishId, touched: &mut Touched) {
        if self.wish(i).is_global {
            return;
        }
        touched.spots.extend(self.wish(i).spot);
        self.unseat(i);
        let assignment = self.state.assignments.get(&self.wish(i).name).cloned();
        let assigned = assignment.as_ref().map(|assignment| self.spot_of(&assignment.machine));
        if let Some(s) = self.wish(i).assigned {
            self.spots[s].assigned.remove(&i);
        }
        if let Some(s) = assigned {
            self.spots[s].assigned.insert(i);
        }
        let ready = assigned.filter(|s| self.spots[*s].is_ready);
        let leaving = assignment.and_then(|assignment| assignment.leaving.clone());
        let wish = self.wish_mut(i);
        (wish.home, wish.left) = if leaving.is_none() { (ready, None) } else { (None, ready) };
        (wish.assigned, wish.leaving) = (assigned, leaving);
        if let Some(home) = wish.home {
            self.seat(i, home);
            self.homeless.remove(&i);
            touched.spots.insert(home);
        } else {
            self.homeless.insert(i);
        }
        // Who needs it and stands on one of these machines is looked at with the machine; who stands
        // elsewhere was torn from it before, and still is.
        touched.wishes.insert(i);
    }

    /// Puts the global units onto a machine that belong there.
    fn seat_globals(&mut self, s: SpotId) {
        let spot = &self.spots[s];
        let chosen: Vec<WishId> = match spot.machine.as_ref().filter(|_| spot.is_ready) {
            None => Vec::new(),
            Some(machine) => {
                let named = self.globals.values().filter_map(|i| {
                    let wish = self.wish(*i);
                    Some((&wish.name, wish.requirements.as_ref().ok()?))
                });
                let there = |name: &UnitName| spot.reported.contains(name);
                let chosen = globals_on(named, machine, &spot.metadata, there);
                chosen.into_iter().map(|(name, _)| self.globals[name]).collect()
            }
        };
        for i in std::mem::take(&mut self.spots[s].globals) {
            self.count(i, s, false);
        }
        for i in &chosen {
            self.count(*i, s, true);
        }
        self.spots[s].globals = chosen;
    }

    fn look_at_spot(&mut self, s: SpotId) {
        let spot = &self.spots[s];
        let clashes = spot.counts.values().any(|count| count.has_conflict() || count.has_replaced());
        let (clashes, silent) = (spot.is_ready && clashes, !spot.is_ready && !spot.reported.is_empty());
        set(&mut self.clashing, s, clashes);
        set(&mut self.silent, s, silent);
    }

    fn look_at_wish(&mut self, i: WishId) {
        let wish = self.wish(i);
        let is_torn = || wish.needs.iter().any(|need| self.wish(*need).home != wish.home);
        let is_misplaced =
            wish.home.is_some_and(|home| wish.missing.is_some() || !self.suits(i, home) || is_torn());
        let is_impossible = wish.is_impossible() && !wish.is_global;
        set(&mut self.misplaced, i, is_misplaced);
        set(&mut self.impossible, i, is_impossible);
    }
}

fn set(all: &mut BTreeSet<usize>, one: usize, is_in: bool) {
    if is_in {
        all.insert(one);
    } else {
        all.remove(&one);
    }
}
