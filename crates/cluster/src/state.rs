//! Everything the cluster knows at one revision. A clone is cheap: the maps share their structure.

mod read_map;
mod weighed;

use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use serde::{Deserialize, Serialize};

use self::read_map::read_map;
pub use self::weighed::{Weigh, Weighed};
use crate::command::{Change, Command, Outcome, Rejected};
use crate::key_space::KeySpace;
use crate::person::{Person, PersonName};
use crate::reboot::{RebootGroup, RebootGroupName};
use crate::record::{Assignment, Cluster, Expelled, Machine, Observed, Token, Unit};
use crate::{MachineId, Revision, UnitName};

/// The records, each behind an `Arc` so that two snapshots share what did not change between them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterState {
    pub revision: Revision,
    pub cluster: Option<Arc<Cluster>>,
    pub units: Weighed<UnitName, Unit>,
    #[serde(deserialize_with = "read_map")]
    pub assignments: OrdMap<UnitName, Arc<Assignment>>,
    #[serde(deserialize_with = "read_map")]
    pub machines: OrdMap<MachineId, Arc<Machine>>,
    pub observed: Weighed<(UnitName, MachineId), Observed>,
    #[serde(deserialize_with = "read_map")]
    pub tokens: OrdMap<String, Arc<Token>>,
    /// Machines that were removed, and are not taken back unasked.
    #[serde(deserialize_with = "read_map")]
    pub expelled: OrdMap<MachineId, Arc<Expelled>>,
    #[serde(deserialize_with = "read_map")]
    pub people: OrdMap<PersonName, Arc<Person>>,
    /// Who may reboot. A group that is not here has the usual number of slots, all free.
    #[serde(deserialize_with = "read_map")]
    pub reboot_groups: OrdMap<RebootGroupName, Arc<RebootGroup>>,
    /// What units tell each other; the cluster itself reads none of it.
    pub keys: KeySpace,
}

impl ClusterState {
    /// Applies the commands of one log entry in order and moves to its revision. Each command stands for
    /// itself: one that is rejected does not hold up the others.
    pub fn apply_all(&mut self, at: Revision, commands: &[Command]) -> Vec<Outcome> {
        let outcomes = commands
            .iter()
            .map(|command| {
                if let Command::Keys { at, change } = command {
                    self.has_level_for(command)?;
                    return self.keys.apply(*at, change).map_err(Rejected::Key);
                }
                let applied = self.apply(at, command)?;
                if let Some(change) = applied.change {
                    self.put(change);
                }
                Ok(applied.kind)
            })
            .collect();
        self.revision = self.revision.max(at);
        #[cfg(debug_assertions)]
        if let Err(broken) = self.check() {
            panic!("after revision {at}: {broken}");
        }
        outcomes
    }

    /// Takes over one change that [`ClusterState::apply`] gave.
    pub fn put(&mut self, change: Change) {
        match change {
            Change::Cluster(cluster) => self.cluster = Some(Arc::new(cluster)),
            Change::Unit(name, unit) => put_weighed(&mut self.units, name, unit),
            Change::Assignment(name, assignment) => put(&mut self.assignments, name, assignment),
            Change::Machine(id, machine) => put(&mut self.machines, id, machine),
            Change::Observed(name, id, observed) => put_weighed(&mut self.observed, (name, id), observed),
            Change::Token(id, token) => put(&mut self.tokens, id, token),
            Change::Expelled(id, expelled) => put(&mut self.expelled, id, expelled),
            Change::Person(name, person) => put(&mut self.people, name, person),
            Change::RebootGroup(name, group) => put(&mut self.reboot_groups, name, group),
        }
    }

    /// How many records of each kind there are beside the cluster's own, for people.
    pub fn counts(&self) -> [(&'static str, usize); 8] {
        // Without `..`: whoever adds a kind has to name it here.
        let ClusterState {
            revision: _,
            cluster: _,
            units,
            assignments,
            machines,
            observed,
            tokens,
            expelled,
            people,
            reboot_groups,
            keys: _,
        } = self;
        [
            ("units", units.len()),
            ("homes", assignments.len()),
            ("machines", machines.len()),
            ("reports", observed.len()),
            ("tokens", tokens.len()),
            ("expelled machines", expelled.len()),
            ("people", people.len()),
            ("reboot groups", reboot_groups.len()),
        ]
    }

    /// Nothing but keys, and the revision, has changed from one to the other. It costs nothing, and may say
    /// no although nothing has changed.
    pub fn is_same_but_keys(&self, other: &ClusterState) -> bool {
        let same_cluster = match (&self.cluster, &other.cluster) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        same_cluster
            && self.units.ptr_eq(&other.units)
            && self.assignments.ptr_eq(&other.assignments)
            && self.machines.ptr_eq(&other.machines)
            && self.observed.ptr_eq(&other.observed)
            && self.tokens.ptr_eq(&other.tokens)
            && self.expelled.ptr_eq(&other.expelled)
            && self.people.ptr_eq(&other.people)
            && self.reboot_groups.ptr_eq(&other.reboot_groups)
    }

    /// What each machine says of that unit, by machine id.
    pub fn observed_of<'a>(
        &'a self,
        name: &'a UnitName,
    ) -> impl Iterator<Item = (&'a MachineId, &'a Arc<Observed>)> + 'a {
        let from = (name.clone(), MachineId::least());
        self.observed
            .range(from..)
            .take_while(move |((unit, _), _)| unit == name)
            .map(|((_, machine), observed)| (machine, observed))
    }
}

fn put<K: Ord + Clone, V>(map: &mut OrdMap<K, Arc<V>>, key: K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key, Arc::new(value)),
        None => map.remove(&key),
    };
}

fn put_weighed<K: Ord + Clone, V: Weigh<K>>(map: &mut Weighed<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key, Arc::new(value)),
        None => map.remove(&key),
    };
}

/// What is not the same in both maps. It costs what has changed, since the two share the rest.
pub fn differences<'a, K: Ord + Clone, V: PartialEq + Clone>(
    old: &'a OrdMap<K, V>,
    new: &'a OrdMap<K, V>,
) -> impl Iterator<Item = (&'a K, Option<&'a V>, Option<&'a V>)> {
    old.diff(new).map(|item| match item {
        DiffItem::Add(key, value) => (key, None, Some(value)),
        DiffItem::Remove(key, value) => (key, Some(value), None),
        DiffItem::Update { old: (_, old), new: (key, new) } => (key, Some(old), Some(new)),
    })
}
