//! The cluster-wide reboot lock: machines of one group reboot only as many at a time as the group has slots,
//! and each is emptied first. What is stored, how it changes, and what is to be done next to empty a machine.
//!
//! A machine that holds a slot takes no new units, for as long as it holds it: that follows from the record
//! and is written nowhere else, so that it ends with the slot.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::command::{Applied, Change, Command, Kind, Rejected};
use crate::{ClusterState, Condition, Machine, MachineId, UnitName, is_global, move_unit};

/// Of a group that nobody has set anything for: one machine after another.
pub const REBOOT_SLOTS_USUAL: u32 = 1;
/// More machines than any cluster has.
pub const REBOOT_SLOTS_MAX: u32 = 10_000;
/// A group is kept for as long as it says something; whoever may ask for slots could make up any number.
const GROUPS_MAX: usize = 100;

/// Machines that share slots: 1 to 64 of `[0-9a-zA-Z.-]`, as FleetLock's `group`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RebootGroupName(Arc<str>);

/// Why a text is no reboot group's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("reboot group {0:?} is not 1 to 64 of the characters 0-9 a-z A-Z . -")]
pub struct RebootGroupError(String);

impl RebootGroupName {
    pub fn new(text: &str) -> Result<RebootGroupName, RebootGroupError> {
        let good = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-');
        if text.is_empty() || text.len() > 64 || !text.bytes().all(good) {
            return Err(RebootGroupError(text.chars().take(80).collect()));
        }
        Ok(RebootGroupName(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What Zincati is in unless it is told otherwise.
impl Default for RebootGroupName {
    fn default() -> RebootGroupName {
        RebootGroupName("default".into())
    }
}

impl Borrow<str> for RebootGroupName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RebootGroupName {
    type Error = RebootGroupError;
    fn try_from(text: String) -> Result<RebootGroupName, RebootGroupError> {
        RebootGroupName::new(&text)
    }
}

impl From<RebootGroupName> for String {
    fn from(name: RebootGroupName) -> String {
        name.0.to_string()
    }
}

impl fmt::Display for RebootGroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RebootGroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Machines that share slots. Written by whoever asks for a slot for a machine, and by an administrator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebootGroup {
    pub slots: u32,
    pub holders: BTreeMap<MachineId, RebootHolder>,
}

impl Default for RebootGroup {
    fn default() -> RebootGroup {
        RebootGroup { slots: REBOOT_SLOTS_USUAL, holders: BTreeMap::new() }
    }
}

/// A machine that is about to reboot, or does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebootHolder {
    /// In seconds since 1970, by the clock of the machine that was asked.
    pub since: u64,
}

/// What is to become of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RebootChange {
    /// The machine gets a slot, if one is free; one that has a slot keeps it.
    Take { machine: MachineId, at: u64 },
    /// The machine gives its slot back, if it has one.
    Release { machine: MachineId },
    /// Whoever has a slot keeps it.
    SetSlots(u32),
}

impl ClusterState {
    /// Whether the machine holds a slot of the reboot lock, in whichever group.
    pub fn reboots(&self, machine: &MachineId) -> bool {
        self.reboot_groups.values().any(|group| group.holders.contains_key(machine))
    }

    /// The machine as the schedule has to take it: one that is to reboot gets no new units.
    pub(crate) fn machine_to_use(&self, id: &MachineId) -> Option<Arc<Machine>> {
        let machine = self.machines.get(id)?;
        if !machine.schedulable || !self.reboots(id) {
            return Some(machine.clone());
        }
        Some(Arc::new(Machine { schedulable: false, ..(**machine).clone() }))
    }

    pub(crate) fn change_reboot_group(
        &self,
        name: &RebootGroupName,
        change: &RebootChange,
    ) -> Result<Applied, Rejected> {
        let old = self.reboot_groups.get(name);
        let mut group = old.map(|old| (**old).clone()).unwrap_or_default();
        // A machine that was removed does not come back to say that it has rebooted.
        group.holders.retain(|holder, _| self.machines.contains_key(holder));
        match change {
            RebootChange::Take { machine, at } => {
                if !self.machines.contains_key(machine) {
                    return Err(Rejected::MachineUnknown { machine: machine.clone() });
                }
                let slots = usize::try_from(group.slots).unwrap_or(usize::MAX);
                if !group.holders.contains_key(machine) {
                    if group.holders.len() >= slots {
                        let holders = group.holders.into_keys().collect();
                        let (group, slots) = (name.clone(), group.slots);
                        return Err(Rejected::RebootSlotsTaken { group, slots, holders });
                    }
                    group.holders.insert(machine.clone(), RebootHolder { since: *at });
                }
            }
            RebootChange::Release { machine } => drop(group.holders.remove(machine)),
            RebootChange::SetSlots(slots) => group.slots = *slots,
        }
        if old.is_none() && self.reboot_groups.len() >= GROUPS_MAX {
            return Err(Rejected::RebootGroupsFull { max: GROUPS_MAX });
        }
        // Nothing is kept of a group that is as every other.
        let group = Some(group).filter(|group| *group != RebootGroup::default());
        let kind = match (old, &group) {
            (None, None) => Kind::Unchanged,
            (Some(old), Some(new)) if **old == *new => Kind::Unchanged,
            (None, Some(_)) => Kind::Created,
            (Some(_), Some(_)) => Kind::Updated,
            (Some(_), None) => Kind::Removed,
        };
        let change = (kind != Kind::Unchanged).then(|| Change::RebootGroup(name.clone(), group));
        Ok(Applied { kind, change })
    }
}

/// What has to be done next for a machine to be empty, but for global units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DrainStep {
    /// It is.
    Done,
    /// These are leaving, or their machine has not told yet what became of them.
    Wait(Vec<UnitName>),
    /// To propose, all at once: units that hang together leave together.
    Move(Vec<Command>),
    /// Nothing more can leave: why the first of the rest cannot.
    Stuck(String),
}

/// One step on the way to an empty machine, from where things are.
pub fn drain_step(state: &ClusterState, machine: &MachineId) -> DrainStep {
    let here = |assigned: &MachineId| assigned == machine;
    let units: Vec<(&UnitName, bool)> = state
        .assignments
        .iter()
        .filter(|(_, assignment)| here(&assignment.machine))
        .map(|(name, assignment)| (name, assignment.leaving.is_some()))
        .collect();
    let leaving: Vec<UnitName> =
        units.iter().filter(|(_, is_leaving)| *is_leaving).map(|(name, _)| (*name).clone()).collect();
    if !leaving.is_empty() {
        return DrainStep::Wait(leaving);
    }
    let (mut passing, mut refused) = (Vec::new(), None);
    for (name, _) in &units {
        match move_unit(state, name, None) {
            Ok(commands) if commands.is_empty() => passing.push((*name).clone()),
            Ok(commands) => return DrainStep::Move(commands),
            Err(why) if why.is_passing => passing.push((*name).clone()),
            Err(why) => drop(refused.get_or_insert(why)),
        }
    }
    passing.extend(still_running(state, machine));
    match refused {
        _ if !passing.is_empty() => DrainStep::Wait(passing),
        Some(why) => DrainStep::Stuck(why.to_string()),
        None => DrainStep::Done,
    }
}

/// Why a machine could not be emptied as things are; `None`: as far as can be said, it could.
pub fn drain_obstacle(state: &ClusterState, machine: &MachineId) -> Option<String> {
    let here = state.assignments.iter().filter(|(_, assignment)| assignment.machine == *machine);
    here.filter_map(|(name, _)| move_unit(state, name, None).err())
        .find(|refused| !refused.is_passing)
        .map(|refused| refused.to_string())
}

/// Units whose home is elsewhere by now, and which the machine has yet to stop.
fn still_running(state: &ClusterState, machine: &MachineId) -> Vec<UnitName> {
    let here = state.observed.iter().filter(|((_, holder), _)| holder == machine);
    let running = here.filter(|(_, observed)| match observed.condition() {
        Condition::Up | Condition::Starting | Condition::Stopping => true,
        Condition::Down | Condition::Failed => false,
    });
    let ordinary = running.filter(|((name, _), _)| {
        let is_ready = state.machines.get(machine).is_some_and(|m| m.liveness == crate::Liveness::Ready);
        let elsewhere = state.assignments.get(name).is_some_and(|home| home.machine != *machine);
        let is_global = state.units.get(name).is_some_and(|unit| is_global(name, &unit.file));
        is_ready && elsewhere && !is_global
    });
    ordinary.map(|((name, _), _)| name.clone()).collect()
}

#[cfg(test)]
#[path = "reboot/tests.rs"]
mod tests;
