//! Ties units that must share a machine. A change of one unit concerns all that hang together with it by
//! name, and no others.

use std::collections::BTreeSet;

use super::board::{Board, WishId};
use crate::{UnitName, activated_unit};

impl Board {
    /// Ties anew all units that hang together with one of these names; notes them in `touched`.
    pub(super) fn tie(&mut self, names: &BTreeSet<UnitName>, touched: &mut BTreeSet<WishId>) {
        let members = self.component(names);
        for i in &members {
            self.untie(*i);
        }
        for i in &members {
            self.tie_peers(*i);
        }
        // Who needs what is impossible is impossible.
        let mut has_changed = true;
        while has_changed {
            has_changed = false;
            for i in &members {
                let wish = self.wish(*i);
                let impossible = |peer: &&WishId| wish.missing.is_none() && self.wish(**peer).is_impossible();
                let Some(peer) = wish.peers().iter().find(impossible).copied() else { continue };
                let name = self.wish(peer).name.clone();
                self.wish_mut(*i).missing = Some(name);
                has_changed = true;
            }
        }
        for i in &members {
            self.tie_activated(*i);
        }
        for i in &members {
            for need in self.wish(*i).needs.clone() {
                self.wish_mut(need).needed_by.insert(*i);
            }
        }
        touched.extend(members);
    }

    /// Takes a unit's ties away.
    pub(super) fn untie(&mut self, i: WishId) {
        for need in std::mem::take(&mut self.wish_mut(i).needs) {
            self.wish_mut(need).needed_by.remove(&i);
        }
        for follower in std::mem::take(&mut self.wish_mut(i).needed_by) {
            let follower = self.wish_mut(follower);
            let Some(at) = follower.needs.iter().position(|need| *need == i) else { continue };
            follower.needs.remove(at);
            follower.peer_count -= usize::from(at < follower.peer_count);
        }
        let wish = self.wish_mut(i);
        (wish.peer_count, wish.missing) = (0, None);
        wish.on_global.clear();
    }

    /// All units that hang together with one of these names, in the order of names.
    fn component(&self, names: &BTreeSet<UnitName>) -> Vec<WishId> {
        let mut open: Vec<&UnitName> = names.iter().collect();
        let mut seen: BTreeSet<&UnitName> = BTreeSet::new();
        let mut members = Vec::new();
        while let Some(name) = open.pop() {
            let referrers = self.referrers.get(name);
            let wish = self.wish_of(name);
            if referrers.is_none() && wish.is_none_or(|i| self.wish(i).refers.is_empty()) {
                // It hangs together with nobody, as most units do.
                continue;
            }
            if !seen.insert(name) {
                continue;
            }
            if let Some(i) = wish {
                members.push(i);
                open.extend(&self.wish(i).refers);
            }
            open.extend(referrers.into_iter().flatten().map(|i| &self.wish(*i).name));
        }
        self.by_name(members)
    }

    fn tie_peers(&mut self, i: WishId) {
        let Ok(requirements) = &self.wish(i).requirements else { return };
        let (mut peers, mut on_global, mut missing) = (Vec::new(), Vec::new(), None);
        for peer in &requirements.peers {
            match self.wish_of(peer) {
                Some(global) if self.wish(global).is_global => on_global.push(global),
                Some(peer) => peers.push(peer),
                None => missing = missing.or_else(|| Some(peer.clone())),
            }
        }
        let wish = self.wish_mut(i);
        (wish.peer_count, wish.needs, wish.on_global, wish.missing) =
            (peers.len(), peers, on_global, missing);
    }

    /// A unit and all that have to be with it because somebody said so.
    fn with_peers(&self, i: WishId) -> BTreeSet<WishId> {
        let (mut all, mut open) = (BTreeSet::from([i]), vec![i]);
        while let Some(at) = open.pop() {
            open.extend(self.wish(at).peers().iter().copied().filter(|peer| all.insert(*peer)));
        }
        all
    }

    fn tie_activated(&mut self, i: WishId) {
        let wish = self.wish(i);
        let activated = activated_unit(&wish.name, &wish.unit.file).and_then(|name| self.wish_of(&name));
        let Some(activated) = activated.filter(|activated| *activated != i) else { return };
        let is_out = |wish: WishId| self.wish(wish).is_impossible() || self.wish(wish).is_global;
        // Nobody said that they belong together; that they do not may have been said, of them or of those
        // that have to be with them.
        let (ours, theirs) = (self.with_peers(i), self.with_peers(activated));
        let are_apart = ours.iter().any(|one| theirs.iter().any(|other| self.clash(*one, *other)));
        if is_out(i) || is_out(activated) || are_apart {
            return;
        }
        for (one, other) in [(i, activated), (activated, i)] {
            if !self.wish(one).needs.contains(&other) {
                self.wish_mut(one).needs.push(other);
            }
        }
    }
}
