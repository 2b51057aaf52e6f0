//! The ready machines and the wanted units while a schedule is made: who stands where, who may stand beside
//! whom.

use std::collections::BTreeMap;

use crate::glob::Glob;
use crate::record::{Liveness, Machine, Unit};
use crate::requirement::{RequirementError, Requirements};
use crate::{ClusterState, Condition, DesiredState, MachineId, UnitName, activated_unit};

/// A ready machine.
pub(super) struct Spot<'a> {
    pub(super) id: &'a MachineId,
    metadata: BTreeMap<String, String>,
    units: Vec<usize>,
    /// For each pattern: how many units here have it among their conflicts, and how many it matches.
    carriers: Vec<u32>,
    hits: Vec<u32>,
}

/// A unit that is wanted on some machine.
pub(super) struct Wish<'a> {
    pub(super) name: &'a UnitName,
    pub(super) unit: &'a Unit,
    pub(super) assigned: Option<&'a MachineId>,
    /// The assigned machine, if it is ready.
    pub(super) home: Option<usize>,
    pub(super) requirements: Result<Requirements, RequirementError>,
    /// A unit that it cannot do without and that is not wanted anywhere.
    pub(super) missing: Option<UnitName>,
    /// Units that must be on the same machine: the declared peers first, then those which activate it or
    /// which it activates.
    pub(super) needs: Vec<usize>,
    pub(super) peer_count: usize,
    /// The patterns that it has, and those that match it.
    carries: Vec<usize>,
    hit_by: Vec<usize>,
    /// Where it stands in the schedule that is being made.
    pub(super) spot: Option<usize>,
}

impl Wish<'_> {
    pub(super) fn peers(&self) -> &[usize] {
        &self.needs[..self.peer_count]
    }

    /// Whether nothing that another unit or machine does can make it move.
    pub(super) fn is_plain(&self) -> bool {
        self.needs.is_empty() && !self.unit.file.asks()
    }
}

pub(super) struct Board<'a> {
    pub(super) state: &'a ClusterState,
    pub(super) spots: Vec<Spot<'a>>,
    pub(super) wishes: Vec<Wish<'a>>,
    pub(super) has_conflicts: bool,
}

impl<'a> Board<'a> {
    pub(super) fn new(state: &'a ClusterState) -> Board<'a> {
        let ready = |machine: &Machine| machine.liveness == Liveness::Ready;
        let spots = state.machines.iter().filter(|(_, machine)| ready(machine)).map(|(id, machine)| Spot {
            id,
            metadata: machine.metadata(),
            units: Vec::new(),
            carriers: Vec::new(),
            hits: Vec::new(),
        });
        let mut board = Board { state, spots: spots.collect(), wishes: Vec::new(), has_conflicts: false };
        let wanted = state.units.iter().filter(|(_, unit)| unit.desired != DesiredState::Inactive);
        for (name, unit) in wanted {
            let assigned = state.assignments.get(name).map(|assignment| &assignment.machine);
            board.wishes.push(Wish {
                name,
                unit,
                assigned,
                home: assigned.and_then(|machine| board.spot_of(machine)),
                requirements: Requirements::of(name, &unit.file),
                missing: None,
                needs: Vec::new(),
                peer_count: 0,
                carries: Vec::new(),
                hit_by: Vec::new(),
                spot: None,
            });
        }
        board.tie_peers();
        board.tie_activated();
        board.index_conflicts();
        board
    }

    fn spot_of(&self, machine: &MachineId) -> Option<usize> {
        self.spots.binary_search_by_key(&machine, |spot| spot.id).ok()
    }

    fn wish_of(&self, name: &UnitName) -> Option<usize> {
        self.wishes.binary_search_by_key(&name, |wish| wish.name).ok()
    }

    fn tie_peers(&mut self) {
        for i in 0..self.wishes.len() {
            let Ok(requirements) = &self.wishes[i].requirements else { continue };
            let mut peers = Vec::new();
            let mut missing = None;
            for peer in &requirements.peers {
                match self.wish_of(peer) {
                    Some(peer) => peers.push(peer),
                    None => missing = missing.or_else(|| Some(peer.clone())),
                }
            }
            let wish = &mut self.wishes[i];
            (wish.peer_count, wish.needs, wish.missing) = (peers.len(), peers, missing);
        }
        // Who needs what is impossible is impossible.
        let mut has_changed = true;
        while has_changed {
            has_changed = false;
            for i in 0..self.wishes.len() {
                if self.wishes[i].missing.is_none()
                    && let Some(peer) = self.wishes[i].peers().iter().find(|peer| self.is_impossible(**peer))
                {
                    self.wishes[i].missing = Some(self.wishes[*peer].name.clone());
                    has_changed = true;
                }
            }
        }
    }

    /// Whether no machine can be found for it, whatever there is.
    pub(super) fn is_impossible(&self, i: usize) -> bool {
        self.wishes[i].missing.is_some() || self.wishes[i].requirements.is_err()
    }

    fn tie_activated(&mut self) {
        for i in 0..self.wishes.len() {
            let Some(activated) = activated_unit(self.wishes[i].name, &self.wishes[i].unit.file) else {
                continue;
            };
            let Some(activated) = self.wish_of(&activated).filter(|activated| *activated != i) else {
                continue;
            };
            if self.is_impossible(i) || self.is_impossible(activated) {
                continue;
            }
            for (one, other) in [(i, activated), (activated, i)] {
                if !self.wishes[one].needs.contains(&other) {
                    self.wishes[one].needs.push(other);
                }
            }
        }
    }

    fn index_conflicts(&mut self) {
        let mut patterns: BTreeMap<&Glob, usize> = BTreeMap::new();
        let mut carries = Vec::new();
        for wish in &self.wishes {
            let globs = wish.requirements.iter().flat_map(|requirements| &requirements.conflicts);
            carries.push(
                globs
                    .map(|glob| {
                        let number = patterns.len();
                        *patterns.entry(glob).or_insert(number)
                    })
                    .collect::<Vec<_>>(),
            );
        }
        if patterns.is_empty() {
            return;
        }
        let hit_by: Vec<Vec<usize>> = self
            .wishes
            .iter()
            .map(|wish| {
                let hits = patterns.iter().filter(|(glob, _)| glob.matches(wish.name.as_str()));
                hits.map(|(_, number)| *number).collect()
            })
            .collect();
        self.has_conflicts = true;
        let count = patterns.len();
        for (wish, (carries, hit_by)) in self.wishes.iter_mut().zip(carries.into_iter().zip(hit_by)) {
            (wish.carries, wish.hit_by) = (carries, hit_by);
        }
        for spot in &mut self.spots {
            (spot.carriers, spot.hits) = (vec![0; count], vec![0; count]);
        }
    }

    pub(super) fn place(&mut self, i: usize, s: usize) {
        debug_assert!(self.wishes[i].spot.is_none());
        let (wish, spot) = (&mut self.wishes[i], &mut self.spots[s]);
        wish.spot = Some(s);
        spot.units.push(i);
        wish.carries.iter().for_each(|p| spot.carriers[*p] += 1);
        wish.hit_by.iter().for_each(|p| spot.hits[*p] += 1);
    }

    pub(super) fn take_away(&mut self, i: usize) {
        let Some(s) = self.wishes[i].spot.take() else { return };
        let (wish, spot) = (&self.wishes[i], &mut self.spots[s]);
        spot.units.retain(|unit| *unit != i);
        wish.carries.iter().for_each(|p| spot.carriers[*p] -= 1);
        wish.hit_by.iter().for_each(|p| spot.hits[*p] -= 1);
    }

    pub(super) fn load(&self, s: usize) -> usize {
        self.spots[s].units.len()
    }

    /// Whether some unit on that machine conflicts with this one, which is not there.
    pub(super) fn has_conflict(&self, i: usize, s: usize) -> bool {
        let (wish, spot) = (&self.wishes[i], &self.spots[s]);
        self.has_conflicts
            && (wish.carries.iter().any(|p| spot.hits[*p] > 0)
                || wish.hit_by.iter().any(|p| spot.carriers[*p] > 0))
    }

    pub(super) fn are_in_conflict(&self, i: usize, j: usize) -> bool {
        let (one, other) = (&self.wishes[i], &self.wishes[j]);
        i != j
            && (one.carries.iter().any(|p| other.hit_by.contains(p))
                || other.carries.iter().any(|p| one.hit_by.contains(p)))
    }

    /// What the machine itself lacks for the unit, in fleet's words.
    pub(super) fn lack(&self, i: usize, s: usize) -> Option<String> {
        let Ok(requirements) = &self.wishes[i].requirements else { return None };
        let spot = &self.spots[s];
        if let Some(pin) = &requirements.machine
            && pin != spot.id.as_str()
            && pin != spot.id.short()
        {
            return Some(format!("agent ID \"{}\" does not match required \"{pin}\"", spot.id));
        }
        let fits = |key: &String, values: &std::collections::BTreeSet<String>| {
            spot.metadata.get(key).is_some_and(|value| values.contains(value))
        };
        let (key, values) = requirements.metadata.iter().find(|(key, values)| !fits(key, values))?;
        let wanted: Vec<_> = values.iter().map(|value| format!("{key}={value}")).collect();
        Some(format!("local Machine metadata insufficient: needs {}", wanted.join(" or ")))
    }

    /// Why the unit cannot stand there, in fleet's words.
    pub(super) fn why_not(&self, i: usize, s: usize) -> String {
        if let Some(lack) = self.lack(i, s) {
            return lack;
        }
        let wish = &self.wishes[i];
        if let Some(peer) = wish.needs.iter().find(|peer| self.wishes[**peer].spot != Some(s)) {
            let peer = &self.wishes[*peer];
            let place = match (peer.spot, peer.assigned) {
                (Some(spot), _) => format!("it is on {}", self.label(self.spots[spot].id)),
                (None, Some(machine)) => format!("it was on {}", self.label(machine)),
                (None, None) => "it has no machine either".into(),
            };
            return format!("required peer Unit({}) is not scheduled locally: {place}", peer.name);
        }
        match self.spots[s].units.iter().find(|unit| self.are_in_conflict(i, **unit)) {
            Some(unit) => format!("found conflict with locally-scheduled Unit({})", self.wishes[*unit].name),
            None => "the units that must be with it cannot all be there".into(),
        }
    }

    /// The ready machines whose systemd still has the unit up, or on its way up or down.
    pub(super) fn runs_on(&self, i: usize) -> Vec<usize> {
        let reports = self.state.observed_of(self.wishes[i].name);
        let running = reports.filter(|(_, observed)| match observed.condition() {
            Condition::Up | Condition::Starting | Condition::Stopping => true,
            Condition::Down | Condition::Failed => false,
        });
        running.filter_map(|(machine, _)| self.spot_of(machine)).collect()
    }

    /// The machine as people know it.
    pub(super) fn label(&self, id: &MachineId) -> String {
        match self.state.machines.get(id).map(|machine| machine.info.name.as_str()) {
            None | Some("") => id.short().into(),
            Some(name) => format!("{name} ({})", id.short()),
        }
    }
}
