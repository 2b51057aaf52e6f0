//! The machines and the wanted units, as far as a schedule is concerned with them: who stands where, who may
//! stand beside whom. It is kept from one schedule to the next; `absorb` brings it up to date.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::pattern::{Count, PatternId, Patterns};
use super::search::{Searches, Wants};
use crate::need::Need;
use crate::record::{Leaving, Machine, Unit};
use crate::requirement::{RequirementError, Requirements};
use crate::{ClusterState, Condition, MachineId, UnitName};

pub(crate) type WishId = usize;
pub(crate) type SpotId = usize;

/// A machine, or one that was removed and is still named in some record.
#[derive(Default)]
pub(crate) struct Spot {
    pub(crate) machine: Option<Arc<Machine>>,
    pub(super) is_ready: bool,
    pub(crate) metadata: BTreeMap<String, String>,
    /// The wishes that are assigned to it.
    pub(super) assigned: BTreeSet<WishId>,
    /// What stands here, the global units among them.
    pub(crate) units: Vec<WishId>,
    pub(super) globals: Vec<WishId>,
    /// What it last told of.
    pub(super) reported: BTreeSet<UnitName>,
    pub(super) counts: BTreeMap<PatternId, Count>,
}

/// A unit that is wanted somewhere.
pub(crate) struct Wish {
    pub(crate) name: UnitName,
    pub(super) unit: Arc<Unit>,
    pub(crate) requirements: Result<Requirements, RequirementError>,
    /// Units with equal wants suit the same machines, as far as the machines go.
    pub(super) wants: usize,
    pub(super) is_global: bool,
    /// The machine that it is assigned to.
    pub(crate) assigned: Option<SpotId>,
    pub(super) leaving: Option<Leaving>,
    /// The assigned machine, if it is ready and the unit was not asked to leave.
    pub(crate) home: Option<SpotId>,
    /// The assigned machine, if it is ready and the unit was asked to leave.
    pub(crate) left: Option<SpotId>,
    /// The names of units that it hangs together with, whether they exist or not.
    pub(super) refers: Vec<UnitName>,
    /// A unit that it cannot do without and that is not wanted anywhere.
    pub(super) missing: Option<UnitName>,
    /// Units that must be on the same machine: the declared peers first, then those which activate it or
    /// which it activates.
    pub(super) needs: Vec<WishId>,
    pub(super) peer_count: usize,
    pub(super) needed_by: BTreeSet<WishId>,
    /// Global units that have to be on its machine.
    pub(super) on_global: Vec<WishId>,
    /// The patterns that it has against others, and those that match it.
    pub(super) carries: Vec<PatternId>,
    pub(super) replaces: Vec<PatternId>,
    pub(super) hit_by: Vec<PatternId>,
    /// Where it stands.
    pub(crate) spot: Option<SpotId>,
}

impl Wish {
    pub(super) fn peers(&self) -> &[WishId] {
        &self.needs[..self.peer_count]
    }

    pub(super) fn need(&self) -> Need {
        self.requirements.as_ref().map_or(Need::default(), |requirements| requirements.need)
    }

    pub(super) fn is_impossible(&self) -> bool {
        self.missing.is_some() || self.requirements.is_err()
    }
}

/// Between two schedules, every unit that has a home stands there, well or not.
#[derive(Default)]
pub(crate) struct Board {
    pub(super) state: ClusterState,
    pub(crate) spots: Vec<Spot>,
    pub(crate) spot_names: Vec<MachineId>,
    pub(crate) spot_ids: BTreeMap<MachineId, SpotId>,
    wishes: Vec<Option<Wish>>,
    unused: Vec<WishId>,
    pub(crate) wish_ids: BTreeMap<UnitName, WishId>,
    pub(super) globals: BTreeMap<UnitName, WishId>,
    pub(super) patterns: Patterns,
    /// Who refers to a name.
    pub(super) referrers: BTreeMap<UnitName, BTreeSet<WishId>>,
    /// Units without a home; those for which there cannot be one; those whose home does not suit them.
    pub(super) homeless: BTreeSet<WishId>,
    pub(super) impossible: BTreeSet<WishId>,
    pub(super) misplaced: BTreeSet<WishId>,
    /// Ready machines on which two units stand that cannot.
    pub(super) clashing: BTreeSet<SpotId>,
    /// Machines that are not ready and were heard of units.
    pub(super) silent: BTreeSet<SpotId>,
    /// Assignments of what is no wish, or a global one.
    pub(super) strays: BTreeSet<UnitName>,
    /// The ready machines by the number of their units.
    pub(crate) order: BTreeSet<(usize, MachineId, SpotId)>,
    pub(super) wants: BTreeMap<Wants, usize>,
    pub(super) searches: Searches,
    /// What a schedule did on the board, to be undone: where each unit stood before.
    journal: Vec<(WishId, Option<SpotId>)>,
    /// Units that had to go for others, in the schedule that is being made.
    pub(super) evicted: BTreeSet<WishId>,
    /// Look at every machine for every unit, instead of what the indexes say.
    pub(super) is_exhaustive: bool,
}

impl Board {
    /// A board that takes no short cuts.
    pub(super) fn exhaustive() -> Board {
        Board { is_exhaustive: true, ..Board::default() }
    }

    pub(crate) fn wish(&self, i: WishId) -> &Wish {
        self.wishes[i].as_ref().expect("a wish in use")
    }

    pub(crate) fn wish_mut(&mut self, i: WishId) -> &mut Wish {
        self.wishes[i].as_mut().expect("a wish in use")
    }

    pub(super) fn add(&mut self, wish: Wish) -> WishId {
        match self.unused.pop() {
            Some(i) => {
                self.wishes[i] = Some(wish);
                i
            }
            None => {
                self.wishes.push(Some(wish));
                self.wishes.len() - 1
            }
        }
    }

    pub(super) fn remove(&mut self, i: WishId) {
        self.wishes[i] = None;
        self.unused.push(i);
    }

    pub(crate) fn wish_of(&self, name: &UnitName) -> Option<WishId> {
        self.wish_ids.get(name).copied()
    }

    /// In the order of names: what is decided must not hang on the board's history.
    pub(crate) fn by_name(&self, ids: impl IntoIterator<Item = WishId>) -> Vec<WishId> {
        let mut ids: Vec<WishId> = ids.into_iter().collect();
        ids.sort_by(|a, b| self.wish(*a).name.cmp(&self.wish(*b).name));
        ids
    }

    pub(crate) fn load(&self, s: SpotId) -> usize {
        self.spots[s].units.len()
    }

    /// Puts an ordinary unit that stands nowhere onto a machine, for the schedule that is being made.
    pub(crate) fn place(&mut self, i: WishId, s: SpotId) {
        self.journal.push((i, None));
        self.seat(i, s);
        self.searches.note_seat(self.wishes[i].as_ref().expect("a wish in use"), &self.spots[s], 1);
    }

    pub(crate) fn take_away(&mut self, i: WishId) {
        let Some(s) = self.wish(i).spot else { return };
        self.journal.push((i, Some(s)));
        self.unseat(i);
        self.searches.note_seat(self.wishes[i].as_ref().expect("a wish in use"), &self.spots[s], -1);
    }

    /// What was done so far is never undone.
    pub(crate) fn commit(&mut self) {
        self.journal.clear();
    }

    /// Everything as it was before the schedule.
    pub(super) fn undo(&mut self) {
        while let Some((i, before)) = self.journal.pop() {
            match before {
                None => self.unseat(i),
                Some(s) => self.seat(i, s),
            }
        }
        self.searches = Searches::default();
        self.evicted.clear();
    }

    /// Puts an ordinary unit onto a machine.
    pub(super) fn seat(&mut self, i: WishId, s: SpotId) {
        debug_assert!(self.wish(i).spot.is_none(), "{} stands somewhere already", self.wish(i).name);
        self.wish_mut(i).spot = Some(s);
        self.count(i, s, true);
    }

    pub(super) fn unseat(&mut self, i: WishId) {
        if let Some(s) = self.wish_mut(i).spot.take() {
            self.count(i, s, false);
        }
    }

    /// Enters a unit into the machine's numbers, or takes it out.
    pub(super) fn count(&mut self, i: WishId, s: SpotId, comes: bool) {
        let wish = self.wishes[i].as_ref().expect("a wish in use");
        let spot = &mut self.spots[s];
        let load = spot.units.len();
        if comes {
            spot.units.push(i);
        } else {
            spot.units.retain(|unit| *unit != i);
        }
        let add = |number: &mut usize| if comes { *number += 1 } else { *number -= 1 };
        let mut change = |p: &PatternId, change: &dyn Fn(&mut Count)| {
            let count = spot.counts.entry(*p).or_default();
            change(count);
            if *count == Count::default() {
                spot.counts.remove(p);
            }
        };
        for p in &wish.carries {
            change(p, &|count| add(&mut count.carriers));
            if wish.hit_by.contains(p) {
                change(p, &|count| add(&mut count.self_carriers));
            }
        }
        for p in &wish.replaces {
            change(p, &|count| add(&mut count.replacers));
            if wish.hit_by.contains(p) {
                change(p, &|count| add(&mut count.self_replacers));
            }
        }
        for p in &wish.hit_by {
            change(p, &|count| add(&mut count.hits));
        }
        if spot.is_ready {
            let id = self.spot_names[s].clone();
            let mut key = (load, id, s);
            self.order.remove(&key);
            key.0 = spot.units.len();
            self.order.insert(key);
        }
    }

    /// The ready machines whose systemd still has the unit up, or on its way up or down.
    pub(super) fn runs_on(&self, i: WishId) -> Vec<SpotId> {
        let reports = self.state.observed_of(&self.wish(i).name);
        let running = reports.filter(|(_, observed)| match observed.condition() {
            Condition::Up | Condition::Starting | Condition::Stopping => true,
            Condition::Down | Condition::Failed => false,
        });
        let spots = running.filter_map(|(machine, _)| self.spot_ids.get(machine).copied());
        spots.filter(|s| self.spots[*s].is_ready).collect()
    }

    /// The machine as people know it.
    pub(crate) fn label(&self, s: SpotId) -> String {
        let name = self.spots[s].machine.as_ref().map(|machine| machine.info.name.as_str());
        let id = self.spot_names[s].short();
        match name {
            None | Some("") => id.into(),
            Some(name) => format!("{name} ({id})"),
        }
    }
}
