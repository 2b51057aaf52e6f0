//! The only rule of change. Called when a log entry commits, on every replica, so it decides nothing: it
//! checks what must hold and records.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::command::{Applied, Change, Command, Kind, Rejected};
use crate::person::{Person, PersonName};
use crate::record::{
    Assignment, Cluster, DesiredState, Leaving, Liveness, Machine, MachineInfo, Observed, Unit,
};
use crate::{ClusterState, Generation, MachineId, Revision, UnitFile, UnitName};

impl ClusterState {
    /// What `command` does to the state when it commits at revision `at`; the state itself is left as it is.
    pub fn apply(&self, at: Revision, command: &Command) -> Result<Applied, Rejected> {
        self.has_level_for(command)?;
        match command {
            Command::InitCluster { id, name } => self.init_cluster(id, name),
            Command::SetUnit { name, file, desired } => self.set_unit(at, name, file.as_ref(), *desired),
            Command::DestroyUnit { name } => match self.units.get(name) {
                Some(_) => Ok(removed(Change::Unit(name.clone(), None))),
                None => Err(Rejected::UnitUnknown { name: name.clone() }),
            },
            Command::Assign { unit, machine, generation, reason } => {
                let (machine, generation, reason) = (machine.clone(), *generation, reason.clone());
                self.assign(unit, Assignment { machine, generation, reason, leaving: None })
            }
            Command::Unassign { unit, machine } => match self.assignments.get(unit) {
                Some(now) if now.machine == *machine => Ok(removed(Change::Assignment(unit.clone(), None))),
                _ => Err(Rejected::NotAssigned { name: unit.clone(), machine: machine.clone() }),
            },
            Command::RegisterMachine { id, info } => self.register_machine(id, info),
            Command::SetMachineMetadata { id, set } => {
                self.alter_machine(id, |machine| machine.metadata_set.extend(set.clone()))
            }
            Command::MarkLost { machine } => {
                self.alter_machine(machine, |machine| machine.liveness = Liveness::Lost)
            }
            Command::MarkReady { machine } => {
                self.alter_machine(machine, |machine| machine.liveness = Liveness::Ready)
            }
            Command::Report { machine, unit, observed } => match (observed, self.machines.get(machine)) {
                (Some(_), None) => Err(Rejected::MachineUnknown { machine: machine.clone() }),
                _ => Ok(self.set_observed(unit, machine, observed.as_ref())),
            },
            Command::Forget { machine, unit } => match self.machines.get(machine).map(|m| m.liveness) {
                Some(Liveness::Ready) => Err(Rejected::MachineNotLost { machine: machine.clone() }),
                Some(Liveness::Lost) | None => Ok(self.set_observed(unit, machine, None)),
            },
            Command::RemoveMachine { id } => self.remove_machine(id),
            Command::SetSchedulable { id, schedulable } => {
                self.alter_machine(id, |machine| machine.schedulable = *schedulable)
            }
            Command::MoveUnit { unit, machine, to } => self.move_unit(unit, machine, to.as_ref()),
            Command::CreateToken { id, token } => self.create_token(id, token),
            Command::UseToken { id, digest, machine, at } => self.use_token(id, digest, machine, *at),
            Command::RevokeToken { id } => self.revoke_token(id),
            Command::Expel { machine, expelled } => self.expel(machine, expelled),
            Command::Readmit { machine } => Ok(self.readmit(machine)),
            Command::InvitePerson { name, person, replace } => self.invite(name, person, *replace),
            Command::RemovePerson { name } => match self.people.get(name) {
                Some(_) => Ok(removed(Change::Person(name.clone(), None))),
                None => Err(Rejected::PersonUnknown { name: name.clone() }),
            },
            Command::RaiseFeatureLevel { to } => self.raise_feature_level(*to),
            Command::Rotate(step) => self.rotate(step),
            Command::RebootLock { group, change } => self.change_reboot_group(group, change),
            // `apply_all` has made it; a store that asks here keeps one record a change, and no tree of keys.
            Command::Keys { .. } => Err(Rejected::KeysElsewhere),
            #[cfg(feature = "next")]
            Command::Next { name } => match &self.cluster {
                Some(cluster) => {
                    let renamed = Cluster { name: name.clone(), ..(**cluster).clone() };
                    Ok(Applied { kind: Kind::Updated, change: Some(Change::Cluster(renamed)) })
                }
                None => Err(Rejected::LevelNotReached { needs: command.feature_level(), at: 0 }),
            },
        }
    }

    fn init_cluster(&self, id: &str, name: &str) -> Result<Applied, Rejected> {
        match &self.cluster {
            Some(cluster) if cluster.id == id => Ok(unchanged()),
            Some(cluster) => Err(Rejected::ClusterExists { id: cluster.id.clone() }),
            None => {
                let cluster =
                    Cluster { id: id.into(), name: name.into(), feature_level: 1, ..Cluster::default() };
                Ok(Applied { kind: Kind::Created, change: Some(Change::Cluster(cluster)) })
            }
        }
    }

    fn set_unit(
        &self,
        at: Revision,
        name: &UnitName,
        file: Option<&UnitFile>,
        desired: Option<DesiredState>,
    ) -> Result<Applied, Rejected> {
        let generation = Generation(at.0);
        let (kind, unit) = match (self.units.get(name), file) {
            (None, None) => return Err(Rejected::UnitWithoutFile { name: name.clone() }),
            (None, Some(file)) => {
                let desired = desired.unwrap_or(DesiredState::Inactive);
                (Kind::Created, Unit { file: file.clone(), desired, generation })
            }
            (Some(old), Some(file)) if old.file.hash() != file.hash() => {
                let desired = desired.unwrap_or(DesiredState::Inactive);
                (Kind::Replaced, Unit { file: file.clone(), desired, generation })
            }
            (Some(old), file) => {
                // The same options in other words, such as a comment more: kept, but nothing that a machine
                // must act on. The canonical text is what fleet's clients send of a file that they have read;
                // it has less to say.
                let file = file.filter(|file| file.text() != file.canonical()).unwrap_or(&old.file);
                let desired = desired.unwrap_or(old.desired);
                if desired == old.desired && *file == old.file {
                    return Ok(unchanged());
                }
                let generation = if desired == old.desired { old.generation } else { generation };
                (Kind::Updated, Unit { file: file.clone(), desired, generation })
            }
        };
        if name.is_template() && unit.desired != DesiredState::Inactive {
            return Err(Rejected::TemplateActivated { name: name.clone() });
        }
        self.has_room_for(name, &unit)?;
        Ok(Applied { kind, change: Some(Change::Unit(name.clone(), Some(unit))) })
    }

    fn assign(&self, name: &UnitName, assignment: Assignment) -> Result<Applied, Rejected> {
        let unit = self.units.get(name).ok_or_else(|| Rejected::UnitUnknown { name: name.clone() })?;
        if unit.generation != assignment.generation {
            let (seen, now) = (assignment.generation, unit.generation);
            return Err(Rejected::GenerationStale { name: name.clone(), seen, now });
        }
        if unit.desired == DesiredState::Inactive {
            return Err(Rejected::UnitInactive { name: name.clone() });
        }
        let machine = assignment.machine.clone();
        let is_there = self.assignments.get(name).is_some_and(|now| now.machine == machine);
        if !self.ready(&machine)?.schedulable && !is_there {
            return Err(Rejected::MachineCordoned { machine });
        }
        if self.reboots(&machine) && !is_there {
            return Err(Rejected::MachineReboots { machine });
        }
        let kind = match self.assignments.get(name) {
            None => Kind::Created,
            Some(now) if **now == assignment => return Ok(unchanged()),
            Some(_) => Kind::Updated,
        };
        Ok(Applied { kind, change: Some(Change::Assignment(name.clone(), Some(assignment))) })
    }

    fn ready(&self, id: &MachineId) -> Result<&Machine, Rejected> {
        match self.machines.get(id) {
            Some(machine) if machine.liveness == Liveness::Ready => Ok(machine),
            Some(_) => Err(Rejected::MachineLost { machine: id.clone() }),
            None => Err(Rejected::MachineUnknown { machine: id.clone() }),
        }
    }

    fn move_unit(
        &self,
        name: &UnitName,
        machine: &MachineId,
        to: Option<&MachineId>,
    ) -> Result<Applied, Rejected> {
        let now = self.assignments.get(name).filter(|now| now.machine == *machine);
        let now =
            now.ok_or_else(|| Rejected::NotAssigned { name: name.clone(), machine: machine.clone() })?;
        match to {
            Some(to) if to == machine => {
                return Err(Rejected::AlreadyThere { name: name.clone(), machine: machine.clone() });
            }
            Some(to) if !self.ready(to)?.schedulable => {
                return Err(Rejected::MachineCordoned { machine: to.clone() });
            }
            Some(to) if self.reboots(to) => return Err(Rejected::MachineReboots { machine: to.clone() }),
            _ => {}
        }
        let leaving = Some(Leaving { to: to.cloned() });
        if now.leaving == leaving {
            return Ok(unchanged());
        }
        let assignment = Assignment { leaving, ..(**now).clone() };
        Ok(Applied { kind: Kind::Updated, change: Some(Change::Assignment(name.clone(), Some(assignment))) })
    }

    fn register_machine(&self, id: &MachineId, info: &MachineInfo) -> Result<Applied, Rejected> {
        if self.expelled.contains_key(id) {
            return Err(Rejected::MachineExpelled { machine: id.clone() });
        }
        self.may_register(id, info)?;
        if self.machines.contains_key(id) {
            return self.alter_machine(id, |machine| machine.info = info.clone());
        }
        let (info, metadata_set) = (info.clone(), BTreeMap::new());
        let machine = Machine { info, metadata_set, liveness: Liveness::Ready, schedulable: true };
        Ok(Applied { kind: Kind::Created, change: Some(Change::Machine(id.clone(), Some(machine))) })
    }

    fn alter_machine(&self, id: &MachineId, alter: impl FnOnce(&mut Machine)) -> Result<Applied, Rejected> {
        let old = self.machines.get(id).ok_or_else(|| Rejected::MachineUnknown { machine: id.clone() })?;
        let mut new = (**old).clone();
        alter(&mut new);
        if new == **old {
            return Ok(unchanged());
        }
        Ok(Applied { kind: Kind::Updated, change: Some(Change::Machine(id.clone(), Some(new))) })
    }

    fn remove_machine(&self, id: &MachineId) -> Result<Applied, Rejected> {
        if !self.machines.contains_key(id) {
            return Err(Rejected::MachineUnknown { machine: id.clone() });
        }
        match self.assignments.iter().find(|(_, a)| a.machine == *id) {
            Some((unit, _)) => Err(Rejected::MachineInUse { machine: id.clone(), unit: unit.clone() }),
            None => Ok(removed(Change::Machine(id.clone(), None))),
        }
    }

    fn invite(&self, name: &PersonName, person: &Person, replace: bool) -> Result<Applied, Rejected> {
        let kind = match self.people.get(name) {
            None => Kind::Created,
            Some(now) if **now == *person => return Ok(unchanged()),
            Some(_) if !replace => return Err(Rejected::PersonInvited { name: name.clone() }),
            Some(_) => Kind::Updated,
        };
        Ok(Applied { kind, change: Some(Change::Person(name.clone(), Some(person.clone()))) })
    }

    fn set_observed(&self, unit: &UnitName, machine: &MachineId, new: Option<&Observed>) -> Applied {
        let old = self.observed.get(&(unit.clone(), machine.clone()));
        let new = new.map(|new| self.kept(unit, machine, new));
        let kind = match (old, &new) {
            (None, None) => return unchanged(),
            (Some(old), Some(new)) if **old == **new => return unchanged(),
            (None, Some(_)) => Kind::Created,
            (Some(_), Some(_)) => Kind::Updated,
            (Some(_), None) => Kind::Removed,
        };
        let change = Change::Observed(unit.clone(), machine.clone(), new.map(Cow::into_owned));
        Applied { kind, change: Some(change) }
    }
}

fn unchanged() -> Applied {
    Applied { kind: Kind::Unchanged, change: None }
}

fn removed(change: Change) -> Applied {
    Applied { kind: Kind::Removed, change: Some(change) }
}
