//! Units that are asked to leave their machine: whether another would take them, and which ones should go so
//! that machines are evenly used. Nothing is moved here; `schedule` does that once a unit was asked.

use std::collections::{BTreeMap, BTreeSet};

use crate::schedule::{Board, Rank, SpotId, WishId};
use crate::{ClusterState, Command, Condition, MachineId, UnitName, is_global};

/// Why a unit is not asked to leave its machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} cannot be moved: {why}")]
pub struct MoveRefused {
    pub name: UnitName,
    pub why: String,
    /// Whether this goes by itself, as soon as the machine has told what became of the unit.
    pub is_passing: bool,
}

/// A unit that would better be elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relocation {
    pub unit: UnitName,
    /// Units that hang together with it, and go with it.
    pub with: Vec<UnitName>,
    pub from: MachineId,
    pub to: MachineId,
    pub reason: String,
}

/// What to propose so that the unit leaves its machine, for `to` if one is named: one command for the unit,
/// and one for each that hangs together with it; nothing for a unit that is leaving like this already.
/// Refused when no other machine would take them as things are, or when the machine may be about to start
/// the unit just now.
pub fn move_unit(
    state: &ClusterState,
    name: &UnitName,
    to: Option<&MachineId>,
) -> Result<Vec<Command>, MoveRefused> {
    let refuse = |why: String| MoveRefused { name: name.clone(), why, is_passing: false };
    let unit = state.units.get(name).ok_or_else(|| refuse("it does not exist".into()))?;
    if is_global(name, &unit.file) {
        return Err(refuse("it is global, and belongs on every machine that suits it".into()));
    }
    let mut board = Board::default();
    board.absorb(state);
    let assignment = state.assignments.get(name);
    let i = board.wish_of(name).filter(|_| assignment.is_some());
    let (Some(assignment), Some(i)) = (assignment, i) else {
        return Err(refuse("it is on no machine".into()));
    };
    match &assignment.leaving {
        Some(leaving) if to.is_none() || leaving.to.as_ref() == to => return Ok(Vec::new()),
        Some(_) => return Err(refuse(format!("it is leaving machine {} already", assignment.machine))),
        None => {}
    }
    let Some(home) = board.wish(i).home else {
        return Err(refuse(format!("machine {} is lost", assignment.machine)));
    };
    let company = board.company(i, home);
    for member in &company {
        let wish = board.wish(*member);
        if !has_acted(state, &wish.name, &assignment.machine) {
            let place = board.label(home);
            let why = format!("{place} has not told yet that it has started {}", wish.name);
            return Err(MoveRefused { is_passing: true, ..refuse(why) });
        }
    }
    board.send_away(&company);
    match to {
        Some(to) if *to == assignment.machine => return Err(refuse("it is there already".into())),
        Some(to) => {
            let target = board.spot_ids.get(to).copied();
            let target = target.ok_or_else(|| refuse(format!("machine {to} is not known to the cluster")))?;
            if !board.takes(&company, target) {
                return Err(refuse(format!("{} would not take it: {}", to, board.against(&company, target))));
            }
        }
        None if board.refuge(&company, home).is_none() => {
            return Err(refuse(board.why_nowhere(|board, s| board.against(&company, s))));
        }
        None => {}
    }
    let machine = &assignment.machine;
    let ask = |member: &WishId| Command::MoveUnit {
        unit: board.wish(*member).name.clone(),
        machine: machine.clone(),
        to: to.cloned(),
    };
    Ok(company.iter().map(ask).collect())
}

/// Whether the machine has told what became of the unit's wish, so that it cannot start the unit unheard.
fn has_acted(state: &ClusterState, name: &UnitName, machine: &MachineId) -> bool {
    let generation = state.units.get(name).map(|unit| unit.generation);
    let observed = state.observed.get(&(name.clone(), machine.clone()));
    observed.is_some_and(|observed| {
        let runs = match observed.condition() {
            Condition::Up | Condition::Starting | Condition::Stopping => true,
            Condition::Down | Condition::Failed => false,
        };
        runs || observed.generation == generation
    })
}

/// The moves that would make machines more evenly used, each better than the ones before it left things:
/// first units that could be where they like it better (`Spread=`, `PreferMetadata=`), then units of the
/// fullest machines, until nothing is to be gained by either. Carried out one after another, they leave none
/// to be made.
///
/// This ends: instances of a template count for each other alike, so each move of the first kind makes the
/// ranks of all units together better; one of the second kind makes them no worse, and the loads more even.
pub fn rebalance(state: &ClusterState) -> Vec<Relocation> {
    let mut board = Board::default();
    board.absorb(state);
    board.decide();
    let (liked, alike) = (board.with_rank(), board.alike());
    let mut relocations = Vec::new();
    loop {
        relocations.extend(board.improve_ranks(&liked, &alike));
        let evened = board.even_out();
        // What went may have been in the way of a unit that likes it better there.
        let is_over = evened.is_empty() || liked.is_empty();
        relocations.extend(evened);
        if is_over {
            return relocations;
        }
    }
}

impl Board {
    /// Takes units off their machine, to which they are not to return.
    fn send_away(&mut self, company: &[WishId]) {
        for i in company {
            self.take_away(*i);
            let wish = self.wish_mut(*i);
            (wish.left, wish.home) = (wish.home, None);
        }
    }

    /// What speaks against that machine for the first of them for which something does.
    fn against(&self, company: &[WishId], s: SpotId) -> String {
        for i in company {
            let objections = self.own_objections(*i, s);
            if let Some(objection) = objections.into_iter().next() {
                return match company {
                    [_] => objection,
                    _ => format!("{}: {objection}", self.wish(*i).name),
                };
            }
        }
        for (n, i) in company.iter().enumerate() {
            if let Some(j) = company[n + 1..].iter().find(|j| self.clash(*i, **j)) {
                let (one, other) = (&self.wish(*i).name, &self.wish(*j).name);
                return format!("{one} and {other} are to go together and rule each other out");
            }
        }
        "there is no room for all of them together".into()
    }

    fn may_relocate(&self, i: WishId) -> Option<(SpotId, Vec<WishId>)> {
        let s = self.wish(i).spot.filter(|s| self.wish(i).home == Some(*s))?;
        let company = self.company(i, s);
        let at_home = company.iter().all(|member| self.wish(*member).home == Some(s));
        (at_home && company[0] == i).then_some((s, company))
    }

    /// Of all companies in which some unit likes one machine better than another, who stands for them; in the
    /// order of names.
    fn with_rank(&self) -> Vec<WishId> {
        let mut seen = BTreeSet::new();
        let ranked = self.wish_ids.values().copied().filter(|i| self.has_rank(*i));
        let first = |i: WishId| self.wish(i).spot.map(|s| self.company(i, s)[0]);
        ranked.filter_map(first).filter(|i| seen.insert(*i)).collect()
    }

    /// The machines, those together that are the same to all that units may like.
    fn alike(&self) -> Vec<Vec<SpotId>> {
        let mut keys: BTreeSet<&str> = BTreeSet::new();
        for i in self.wish_ids.values() {
            let Ok(asked) = &self.wish(*i).requirements else { continue };
            keys.extend(asked.spread.as_deref());
            keys.extend(asked.preferred.iter().map(|(key, _)| key.as_str()));
        }
        let mut alike: BTreeMap<Vec<Option<&String>>, Vec<SpotId>> = BTreeMap::new();
        for (.., s) in &self.order {
            let metadata = &self.spots[*s].metadata;
            alike.entry(keys.iter().map(|key| metadata.get(*key)).collect()).or_default().push(*s);
        }
        alike.into_values().collect()
    }

    /// Moves units to where they like it better, for as long as there is such a place for one of them.
    fn improve_ranks(&mut self, liked: &[WishId], alike: &[Vec<SpotId>]) -> Vec<Relocation> {
        let mut relocations = Vec::new();
        loop {
            let before = relocations.len();
            for i in liked {
                relocations.extend(self.find_better_rank(*i, alike));
                self.commit();
            }
            if relocations.len() == before {
                return relocations;
            }
        }
    }

    /// Moves a unit to where it likes it better, with all that hang together with it.
    fn find_better_rank(&mut self, i: WishId, alike: &[Vec<SpotId>]) -> Option<Relocation> {
        let (s, company) = self.may_relocate(i)?;
        company.iter().for_each(|member| self.take_away(*member));
        let now = self.rank(&company, s);
        let mut better: BTreeMap<Rank, Vec<SpotId>> = BTreeMap::new();
        for spots in alike {
            let rank = self.rank(&company, spots[0]);
            if rank < now {
                better.entry(rank).or_default().extend(spots);
            }
        }
        let found = better.into_iter().find_map(|(rank, spots)| {
            let taking = spots.into_iter().filter(|t| self.takes(&company, *t));
            let least = taking.min_by_key(|t| (self.load(*t), &self.spot_names[*t]));
            least.map(|t| (rank, t))
        });
        match found {
            Some((rank, t)) => {
                let reason = match rank.0 < now.0 {
                    true => self.spread_reason(&company, (s, now.0), (t, rank.0)),
                    false => format!("{} has more of what it prefers", self.label(t)),
                };
                Some(self.relocate(&company, s, t, reason))
            }
            None => {
                company.iter().for_each(|member| self.place(*member, s));
                None
            }
        }
    }

    fn spread_reason(&self, company: &[WishId], from: (SpotId, usize), to: (SpotId, usize)) -> String {
        let requirements = company.iter().filter_map(|i| self.wish(*i).requirements.as_ref().ok());
        let key = requirements.filter_map(|asked| asked.spread.as_ref()).next().map_or("", String::as_str);
        let place = |s: SpotId| match self.spots[s].metadata.get(key) {
            Some(value) => format!("{key}={value}"),
            None => format!("machines without {key}"),
        };
        let (here, there) = (place(from.0), place(to.0));
        format!("beside it, {here} has {} instances of its template, {there} has {}", from.1, to.1)
    }

    /// Moves units of the fullest machines to emptier ones, for as long as that makes them more even.
    fn even_out(&mut self) -> Vec<Relocation> {
        let mut relocations = Vec::new();
        // Machines that none of their units can leave, and whether any unit has moved since.
        let (mut stuck, mut has_moved) = (BTreeSet::new(), false);
        loop {
            let least = self.order.first().map_or(0, |(load, ..)| *load);
            let uneven = self.order.iter().rev().take_while(|(load, ..)| least + 1 < *load);
            let fullest = uneven.map(|(.., s)| *s).find(|s| !stuck.contains(s));
            match fullest.map(|s| (s, self.find_emptier_machine(s))) {
                Some((_, Some(relocation))) => {
                    relocations.push(relocation);
                    has_moved = true;
                }
                Some((s, None)) => drop(stuck.insert(s)),
                // It may be that what was in the way has gone.
                None if has_moved && !stuck.is_empty() => (stuck, has_moved) = (BTreeSet::new(), false),
                None => return relocations,
            }
            self.commit();
        }
    }

    /// Moves some unit of that machine to one that has fewer units even then.
    fn find_emptier_machine(&mut self, s: SpotId) -> Option<Relocation> {
        let load = self.load(s);
        let units = self.by_name(self.spots[s].units.iter().copied());
        for i in units {
            let Some((_, company)) = self.may_relocate(i) else { continue };
            let size = company.len();
            company.iter().for_each(|member| self.take_away(*member));
            let now = self.rank(&company, s);
            let emptier = self.order.iter().take_while(|(count, ..)| count + size < load);
            let emptier: Vec<SpotId> = emptier.map(|(.., t)| *t).filter(|t| *t != s).collect();
            let found =
                emptier.into_iter().find(|t| self.takes(&company, *t) && self.rank(&company, *t) <= now);
            if let Some(t) = found {
                let (from, to, there) = (self.label(s), self.label(t), self.load(t));
                let reason = format!("{from} has {load} units, {to} has {there}");
                return Some(self.relocate(&company, s, t, reason));
            }
            company.iter().for_each(|member| self.place(*member, s));
        }
        None
    }

    fn relocate(&mut self, company: &[WishId], s: SpotId, t: SpotId, reason: String) -> Relocation {
        for member in company {
            self.place(*member, t);
            self.wish_mut(*member).home = Some(t);
        }
        let mut names = company.iter().map(|member| self.wish(*member).name.clone());
        let unit = names.next().expect("a unit is in its own company");
        let with = names.collect();
        Relocation { unit, with, from: self.spot_names[s].clone(), to: self.spot_names[t].clone(), reason }
    }
}
