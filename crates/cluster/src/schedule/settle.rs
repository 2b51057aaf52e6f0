//! Which units are well where they are. All others are taken off the board, to be placed.

use std::collections::{BTreeMap, BTreeSet};

use super::board::{Board, SpotId, WishId};

impl Board {
    /// Leaves on the board all units that are well where they are; gives those without a place, those
    /// together that hang together, each group in the order of names. Of two that cannot stand side by side,
    /// the one that was changed last has to go, or the one that the other has replaced, and who needs it goes
    /// with it. Global units stay: an ordinary one has a choice.
    pub(super) fn settle(&mut self) -> Vec<Vec<WishId>> {
        let mut gone = BTreeSet::new();
        self.leave(self.by_name(self.misplaced.iter().copied()), &mut gone);
        for s in self.clashing.clone() {
            self.settle_spot(s, &mut gone);
        }
        let free = self.homeless.iter().chain(&gone).copied();
        self.groups(free.filter(|i| !self.wish(*i).is_impossible()).collect())
    }

    /// Takes them away, and who needs them.
    fn leave(&mut self, mut leaving: Vec<WishId>, gone: &mut BTreeSet<WishId>) {
        gone.extend(leaving.iter().copied());
        while let Some(i) = leaving.pop() {
            self.take_away(i);
            for follower in self.wish(i).needed_by.clone() {
                if self.wish(follower).home.is_some() && gone.insert(follower) {
                    leaving.push(follower);
                }
            }
        }
    }

    fn settle_spot(&mut self, s: SpotId, gone: &mut BTreeSet<WishId>) {
        let ordinary = |board: &Board| -> Vec<WishId> {
            let units = board.spots[s].units.iter().copied();
            board.by_name(units.filter(|unit| !board.wish(*unit).is_global))
        };
        let replaced: Vec<WishId> =
            ordinary(self).into_iter().filter(|i| self.replacer(*i, s).is_some()).collect();
        self.leave(replaced, gone);
        let mut order = ordinary(self);
        order.sort_by_key(|i| self.wish(*i).unit.generation);
        order.iter().for_each(|i| self.take_away(*i));
        for i in order {
            if gone.contains(&i) {
                continue;
            }
            if self.has_conflict(i, s) {
                self.leave(vec![i], gone);
            } else {
                self.place(i, s);
            }
        }
    }

    /// Those together that hang together. Who replaces others comes first: they have to go elsewhere then.
    fn groups(&self, free: BTreeSet<WishId>) -> Vec<Vec<WishId>> {
        let mut seen = BTreeSet::new();
        let mut groups: Vec<Vec<WishId>> = Vec::new();
        let mut names: BTreeMap<(bool, &str), usize> = BTreeMap::new();
        for i in free.iter().copied() {
            if !seen.insert(i) {
                continue;
            }
            let (mut group, mut open) = (vec![i], vec![i]);
            while let Some(at) = open.pop() {
                let wish = self.wish(at);
                for other in wish.needs.iter().chain(&wish.needed_by).copied() {
                    if free.contains(&other) && seen.insert(other) {
                        group.push(other);
                        open.push(other);
                    }
                }
            }
            let group = if group.len() > 1 { self.by_name(group) } else { group };
            let replaces = group.iter().any(|i| !self.wish(*i).replaces.is_empty());
            names.insert((!replaces, self.wish(group[0]).name.as_str()), groups.len());
            groups.push(group);
        }
        names.into_values().map(|number| std::mem::take(&mut groups[number])).collect()
    }
}
