//! Whether a unit may stand on a machine, and all that speaks against it, in fleet's words where it had some.

use std::collections::BTreeSet;

use super::board::{Board, SpotId, Wish, WishId};
use crate::need::{Cpus, Need, Size};

impl Board {
    /// Whether the machine itself suits the unit, whoever else is there.
    pub(super) fn suits(&self, i: WishId, s: SpotId) -> bool {
        let (wish, spot) = (self.wish(i), &self.spots[s]);
        let Ok(requirements) = &wish.requirements else { return true };
        requirements.machine.as_ref().is_none_or(|pin| self.is_named(s, pin))
            && requirements.suits(&spot.metadata)
            && wish.on_global.iter().all(|global| spot.globals.contains(global))
    }

    fn is_named(&self, s: SpotId, pin: &str) -> bool {
        let id = &self.spot_names[s];
        pin == id.as_str() || pin == id.short()
    }

    /// Whether the machine takes the unit at all. A cordoned one keeps what it has.
    pub(super) fn is_open(&self, i: WishId, s: SpotId) -> bool {
        let (wish, spot) = (self.wish(i), &self.spots[s]);
        let schedulable = spot.machine.as_ref().is_some_and(|machine| machine.schedulable);
        spot.is_ready && (schedulable || wish.home == Some(s)) && wish.left != Some(s)
    }

    /// Whether some unit on that machine conflicts with this one, which is not there.
    pub(super) fn has_conflict(&self, i: WishId, s: SpotId) -> bool {
        let (wish, counts) = (self.wish(i), &self.spots[s].counts);
        !counts.is_empty()
            && (wish.carries.iter().any(|p| counts.get(p).is_some_and(|count| count.hits > 0))
                || wish.hit_by.iter().any(|p| counts.get(p).is_some_and(|count| count.carriers > 0)))
    }

    pub(super) fn are_in_conflict(&self, i: WishId, j: WishId) -> bool {
        let (one, other) = (self.wish(i), self.wish(j));
        i != j
            && (one.carries.iter().any(|p| other.hit_by.contains(p))
                || other.carries.iter().any(|p| one.hit_by.contains(p)))
    }

    /// Whether the two can never come to one machine.
    pub(crate) fn clash(&self, i: WishId, j: WishId) -> bool {
        self.are_in_conflict(i, j) || self.replaces(i, j) || self.replaces(j, i)
    }

    /// Whether `i` has `j` replaced. Two that would replace each other leave each other alone, as with fleet.
    pub(super) fn replaces(&self, i: WishId, j: WishId) -> bool {
        let hits = |one: &Wish, other: &Wish| one.replaces.iter().any(|p| other.hit_by.contains(p));
        let (one, other) = (self.wish(i), self.wish(j));
        i != j && !other.is_global && hits(one, other) && !hits(other, one)
    }

    /// A unit on that machine that has this one replaced.
    pub(super) fn replacer(&self, i: WishId, s: SpotId) -> Option<WishId> {
        let (wish, spot) = (self.wish(i), &self.spots[s]);
        let may = |p: &usize| spot.counts.get(p).is_some_and(|count| count.replacers > 0);
        if !wish.hit_by.iter().any(may) {
            return None;
        }
        let found = spot.units.iter().copied().filter(|unit| self.replaces(*unit, i));
        found.min_by_key(|unit| &self.wish(*unit).name)
    }

    /// The units on that machine that this one has replaced.
    pub(super) fn victims(&self, i: WishId, s: SpotId) -> Vec<WishId> {
        let (wish, spot) = (self.wish(i), &self.spots[s]);
        let may = |p: &usize| spot.counts.get(p).is_some_and(|count| count.hits > 0);
        if !wish.replaces.iter().any(may) {
            return Vec::new();
        }
        self.by_name(spot.units.iter().copied().filter(|unit| self.replaces(i, *unit)))
    }

    /// Whether the unit may be placed there as things are; what it needs beside it, and room, is another
    /// matter.
    pub(super) fn fits(&self, i: WishId, s: SpotId) -> bool {
        self.is_open(i, s)
            && self.suits(i, s)
            && !self.has_conflict(i, s)
            && self.replacer(i, s).is_none()
            && self.victims(i, s).iter().all(|victim| self.is_evictable(*victim, s))
    }

    /// All that stand on that machine and hang together with that unit.
    pub(crate) fn company(&self, i: WishId, s: SpotId) -> Vec<WishId> {
        let (mut company, mut open) = (BTreeSet::from([i]), vec![i]);
        while let Some(at) = open.pop() {
            let wish = self.wish(at);
            for other in wish.needs.iter().chain(&wish.needed_by) {
                if self.wish(*other).spot == Some(s) && company.insert(*other) {
                    open.push(*other);
                }
            }
        }
        self.by_name(company)
    }

    /// Whether the unit could make room there: some other machine takes it, and all that hangs together with
    /// it, and nobody has to go for it in turn.
    fn is_evictable(&self, i: WishId, s: SpotId) -> bool {
        let company = self.company(i, s);
        !company.iter().any(|member| self.evicted.contains(member)) && self.refuge(&company, s).is_some()
    }

    /// The least loaded machine but `s` that takes all of them as it is.
    pub(crate) fn refuge(&self, company: &[WishId], s: SpotId) -> Option<SpotId> {
        self.order.iter().map(|(.., t)| *t).find(|t| *t != s && self.takes(company, *t))
    }

    /// Whether that machine takes all of them as it is.
    pub(crate) fn takes(&self, company: &[WishId], s: SpotId) -> bool {
        let fits = |i: &WishId| {
            self.is_open(*i, s)
                && self.suits(*i, s)
                && !self.has_conflict(*i, s)
                && self.replacer(*i, s).is_none()
                && self.victims(*i, s).is_empty()
        };
        company.iter().all(fits) && self.has_room(company, s) && !self.clash_within(company)
    }

    /// Whether there is room for all of them; those whose home it is have theirs.
    pub(super) fn has_room(&self, group: &[WishId], s: SpotId) -> bool {
        let machine = self.spots[s].machine.as_ref();
        let Some(info) = machine.map(|machine| &machine.info) else { return true };
        let (mut memory, mut cpu) = (0_u64, 0_u64);
        for i in group.iter().filter(|i| self.wish(**i).home != Some(s)) {
            let need = self.wish(*i).need();
            memory = memory.saturating_add(need.memory_bytes(info.memory_bytes));
            cpu = cpu.saturating_add(need.cpu_millis);
        }
        let counts_memory = memory > 0 && info.memory_bytes > 0;
        let counts_cpu = cpu > 0 && info.cpu_millis > 0;
        if !counts_memory && !counts_cpu {
            return true;
        }
        let (memory_used, cpu_used) = self.used(s);
        (!counts_memory || memory_used.saturating_add(memory) <= info.memory_bytes)
            && (!counts_cpu || cpu_used.saturating_add(cpu) <= info.cpu_millis)
    }

    /// The memory and the processors that the units on that machine have asked for.
    fn used(&self, s: SpotId) -> (u64, u64) {
        let spot = &self.spots[s];
        let capacity = spot.machine.as_ref().map_or(0, |machine| machine.info.memory_bytes);
        let needs = spot.units.iter().map(|unit| self.wish(*unit).need());
        let add = |(memory, cpu): (u64, u64), need: Need| {
            (memory.saturating_add(need.memory_bytes(capacity)), cpu.saturating_add(need.cpu_millis))
        };
        needs.fold((0, 0), add)
    }

    /// What speaks against the unit on that machine, the first thing first. Empty when nothing does that can
    /// be said of this unit alone.
    pub(crate) fn objections(&self, i: WishId, s: SpotId) -> Vec<String> {
        let mut objections = self.objections_to_machine(i, s);
        objections.extend(self.objections_for_peers(i, s));
        objections.extend(self.objections_to_neighbours(i, s));
        objections
    }

    /// The same, but for the units that must be with it.
    pub(crate) fn own_objections(&self, i: WishId, s: SpotId) -> Vec<String> {
        let mut objections = self.objections_to_machine(i, s);
        objections.extend(self.objections_to_neighbours(i, s));
        objections
    }

    fn objections_to_machine(&self, i: WishId, s: SpotId) -> Vec<String> {
        let (wish, spot) = (self.wish(i), &self.spots[s]);
        let mut objections = Vec::new();
        match &spot.machine {
            None => objections.push("it is not part of the cluster any more".into()),
            Some(_) if !spot.is_ready => objections.push("the machine is lost".into()),
            Some(machine) if !machine.schedulable && wish.home != Some(s) => {
                objections.push("the machine is cordoned".into());
            }
            Some(_) => {}
        }
        if wish.left == Some(s) {
            objections.push("it was asked to leave this machine".into());
        }
        if let Ok(requirements) = &wish.requirements {
            if let Some(pin) = requirements.machine.as_ref().filter(|pin| !self.is_named(s, pin)) {
                let id = &self.spot_names[s];
                objections.push(format!("agent ID \"{id}\" does not match required \"{pin}\""));
            }
            let lacks = requirements.unmet(&spot.metadata).into_iter();
            objections.extend(lacks.map(|lack| format!("local Machine metadata insufficient: needs {lack}")));
        }
        objections
    }

    fn objections_for_peers(&self, i: WishId, s: SpotId) -> Vec<String> {
        let (wish, spot) = (self.wish(i), &self.spots[s]);
        let required =
            |name: &crate::UnitName| format!("required peer Unit({name}) is not scheduled locally");
        let mut objections = Vec::new();
        if let Some(missing) = &wish.missing {
            objections.push(format!("{}: it can be on no machine", required(missing)));
        }
        for global in wish.on_global.iter().filter(|global| !spot.globals.contains(global)) {
            let required = required(&self.wish(*global).name);
            objections.push(format!("{required}: it is global, and does not belong on this machine"));
        }
        for peer in wish.needs.iter().filter(|peer| self.wish(**peer).spot != Some(s)) {
            let peer = self.wish(*peer);
            let place = match (peer.spot, peer.assigned) {
                (Some(spot), _) => format!("it is on {}", self.label(spot)),
                (None, Some(spot)) => format!("it was on {}", self.label(spot)),
                (None, None) => "it has no machine either".into(),
            };
            objections.push(format!("{}: {place}", required(&peer.name)));
        }
        objections
    }

    fn objections_to_neighbours(&self, i: WishId, s: SpotId) -> Vec<String> {
        let spot = &self.spots[s];
        let mut objections = Vec::new();
        if self.has_conflict(i, s) {
            for unit in self.by_name(spot.units.iter().copied().filter(|j| self.are_in_conflict(i, *j))) {
                let name = &self.wish(unit).name;
                objections.push(format!("found conflict with locally-scheduled Unit({name})"));
            }
        }
        if let Some(replacer) = self.replacer(i, s) {
            let name = &self.wish(replacer).name;
            objections.push(format!("found replace with locally-scheduled Unit({name}), which replaces it"));
        }
        for victim in self.victims(i, s).into_iter().filter(|victim| !self.is_evictable(*victim, s)) {
            let name = &self.wish(victim).name;
            objections.push(format!(
                "found replace with locally-scheduled Unit({name}), which no other machine would take"
            ));
        }
        objections.extend(self.lacks_room(i, s));
        objections
    }

    fn lacks_room(&self, i: WishId, s: SpotId) -> Vec<String> {
        let (wish, spot) = (self.wish(i), &self.spots[s]);
        let Some(machine) = spot.machine.as_ref().filter(|_| wish.home != Some(s)) else { return Vec::new() };
        let (need, info) = (wish.need(), &machine.info);
        let (memory_used, cpu_used) = self.used(s);
        let memory = need.memory_bytes(info.memory_bytes);
        let mut lacks = Vec::new();
        if memory > 0 && info.memory_bytes > 0 && memory_used.saturating_add(memory) > info.memory_bytes {
            let (free, all) = (Size(info.memory_bytes.saturating_sub(memory_used)), Size(info.memory_bytes));
            lacks.push(format!("not enough memory: needs {}, {free} of {all} are free", Size(memory)));
        }
        let cpu = need.cpu_millis;
        if cpu > 0 && info.cpu_millis > 0 && cpu_used.saturating_add(cpu) > info.cpu_millis {
            let (free, all) = (Cpus(info.cpu_millis.saturating_sub(cpu_used)), Cpus(info.cpu_millis));
            lacks.push(format!("not enough CPU: needs {}, {free} of {all} are free", Cpus(cpu)));
        }
        lacks
    }

    /// Why the unit cannot stand there.
    pub(super) fn why_not(&self, i: WishId, s: SpotId) -> String {
        let first = self.objections(i, s).into_iter().next();
        first.unwrap_or_else(|| "the units that must be with it cannot all be there".into())
    }
}
