//! The state's records as keys and values: one key a record, each value JSON with a version of its own.
//!
//! What is written here is read by other versions of this program, and by people with etcdctl.

use cluster::{
    Assignment, Change, Cluster, ClusterState, DesiredState, Expelled, Generation, Machine, MachineId,
    Observed, Person, PersonName, RebootGroup, RebootGroupName, Revision, Token, Unit, UnitFile, UnitName,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Of the values. A newer one is never guessed at.
const VERSION: u32 = 1;

/// The generation of a unit whose wish changes with the write that is being made: its number is known when
/// the write is.
pub const BY_THIS_WRITE: Revision = Revision(u64::MAX);

/// Which record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Cluster,
    Unit(UnitName),
    Assignment(UnitName),
    Machine(MachineId),
    Observed(UnitName, MachineId),
    Token(String),
    Expelled(MachineId),
    Person(PersonName),
    RebootGroup(RebootGroupName),
}

impl Key {
    /// Where the record is, below the place of all records.
    pub fn path(&self) -> String {
        match self {
            Key::Cluster => "cluster".into(),
            Key::Unit(unit) => format!("units/{unit}"),
            Key::Assignment(unit) => format!("assignments/{unit}"),
            Key::Machine(machine) => format!("machines/{machine}"),
            Key::Observed(unit, machine) => format!("observed/{unit}/{machine}"),
            Key::Token(id) => format!("tokens/{id}"),
            Key::Expelled(machine) => format!("expelled/{machine}"),
            Key::Person(name) => format!("people/{name}"),
            Key::RebootGroup(name) => format!("reboot/{name}"),
        }
    }

    /// The record that is kept at `path`; `None` for what is no place of a record.
    pub fn parse(path: &str) -> Option<Key> {
        let unit = |text| UnitName::new(text).ok();
        let machine = |text| MachineId::new(text).ok();
        match path.split_once('/') {
            None if path == "cluster" => Some(Key::Cluster),
            Some(("units", name)) => Some(Key::Unit(unit(name)?)),
            Some(("assignments", name)) => Some(Key::Assignment(unit(name)?)),
            Some(("machines", id)) => Some(Key::Machine(machine(id)?)),
            Some(("tokens", id)) if id.bytes().all(|b| b.is_ascii_alphanumeric()) && !id.is_empty() => {
                Some(Key::Token(id.into()))
            }
            Some(("expelled", id)) => Some(Key::Expelled(machine(id)?)),
            Some(("people", name)) => Some(Key::Person(PersonName::new(name).ok()?)),
            Some(("reboot", name)) => Some(Key::RebootGroup(RebootGroupName::new(name).ok()?)),
            Some(("observed", rest)) => {
                let (name, id) = rest.rsplit_once('/')?;
                Some(Key::Observed(unit(name)?, machine(id)?))
            }
            _ => None,
        }
    }

    /// The change that takes this record away; `None` for the cluster's own, which nobody takes away.
    pub fn removed(&self) -> Option<Change> {
        match self.clone() {
            Key::Cluster => None,
            Key::Unit(name) => Some(Change::Unit(name, None)),
            Key::Assignment(name) => Some(Change::Assignment(name, None)),
            Key::Machine(id) => Some(Change::Machine(id, None)),
            Key::Observed(name, id) => Some(Change::Observed(name, id, None)),
            Key::Token(id) => Some(Change::Token(id, None)),
            Key::Expelled(id) => Some(Change::Expelled(id, None)),
            Key::Person(name) => Some(Change::Person(name, None)),
            Key::RebootGroup(name) => Some(Change::RebootGroup(name, None)),
        }
    }
}

/// Why a value is not a record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("the record {path} is of version {version}, and this program knows up to {VERSION}")]
    Newer { path: String, version: u32 },
    #[error("the record {path} cannot be read")]
    Unreadable { path: String, source: serde_json::Error },
    #[error("the record of a cluster was taken away")]
    ClusterGone,
}

#[derive(Serialize, Deserialize)]
struct Value<T> {
    version: u32,
    record: T,
}

#[derive(Deserialize)]
struct OnlyVersion {
    version: u32,
}

/// A unit without a generation got the one that its write has.
#[derive(Serialize, Deserialize)]
struct StoredUnit {
    file: UnitFile,
    desired: DesiredState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    generation: Option<Generation>,
}

/// Where a change is written, and what; no value takes the record away.
pub fn encode(change: &Change) -> (Key, Option<Vec<u8>>) {
    match change {
        Change::Cluster(cluster) => (Key::Cluster, Some(value(cluster))),
        Change::Unit(name, unit) => {
            let stored = unit.as_ref().map(|unit| {
                let generation = Some(unit.generation).filter(|g| g.0 != BY_THIS_WRITE.0);
                value(&StoredUnit { file: unit.file.clone(), desired: unit.desired, generation })
            });
            (Key::Unit(name.clone()), stored)
        }
        Change::Assignment(name, new) => (Key::Assignment(name.clone()), new.as_ref().map(value)),
        Change::Machine(id, new) => (Key::Machine(id.clone()), new.as_ref().map(value)),
        Change::Observed(name, id, new) => (Key::Observed(name.clone(), id.clone()), new.as_ref().map(value)),
        Change::Token(id, new) => (Key::Token(id.clone()), new.as_ref().map(value)),
        Change::Expelled(id, new) => (Key::Expelled(id.clone()), new.as_ref().map(value)),
        Change::Person(name, new) => (Key::Person(name.clone()), new.as_ref().map(value)),
        Change::RebootGroup(name, new) => (Key::RebootGroup(name.clone()), new.as_ref().map(value)),
    }
}

fn value<T: Serialize>(record: &T) -> Vec<u8> {
    let value = Value { version: VERSION, record };
    serde_json::to_vec(&value).expect("a record has string keys only")
}

/// The change that a write made at `at` is; no value took the record away.
pub fn decode(key: &Key, bytes: Option<&[u8]>, at: Revision) -> Result<Change, RecordError> {
    let Some(bytes) = bytes else { return key.removed().ok_or(RecordError::ClusterGone) };
    Ok(match key.clone() {
        Key::Cluster => Change::Cluster(read::<Cluster>(key, bytes)?),
        Key::Unit(name) => {
            let StoredUnit { file, desired, generation } = read(key, bytes)?;
            let generation = generation.unwrap_or(Generation(at.0));
            Change::Unit(name, Some(Unit { file, desired, generation }))
        }
        Key::Assignment(name) => Change::Assignment(name, Some(read::<Assignment>(key, bytes)?)),
        Key::Machine(id) => Change::Machine(id, Some(read::<Machine>(key, bytes)?)),
        Key::Observed(name, id) => Change::Observed(name, id, Some(read::<Observed>(key, bytes)?)),
        Key::Token(id) => Change::Token(id, Some(read::<Token>(key, bytes)?)),
        Key::Expelled(id) => Change::Expelled(id, Some(read::<Expelled>(key, bytes)?)),
        Key::Person(name) => Change::Person(name, Some(read::<Person>(key, bytes)?)),
        Key::RebootGroup(name) => Change::RebootGroup(name, Some(read::<RebootGroup>(key, bytes)?)),
    })
}

fn read<T: DeserializeOwned>(key: &Key, bytes: &[u8]) -> Result<T, RecordError> {
    let unreadable = |source| RecordError::Unreadable { path: key.path(), source };
    let OnlyVersion { version } = serde_json::from_slice(bytes).map_err(unreadable)?;
    if version > VERSION {
        return Err(RecordError::Newer { path: key.path(), version });
    }
    Ok(serde_json::from_slice::<Value<T>>(bytes).map_err(unreadable)?.record)
}

/// Every record of a state, as the change that makes it.
pub fn records(state: &ClusterState) -> impl Iterator<Item = Change> {
    // Without `..`: a kind that is left out here is lost wherever a state is written whole.
    let ClusterState {
        revision: _,
        cluster,
        units,
        assignments,
        machines,
        observed,
        tokens,
        expelled,
        people,
        reboot_groups,
        // An etcd has keys of its own.
        keys: _,
    } = state;
    let cluster = cluster.iter().map(|cluster| Change::Cluster((**cluster).clone()));
    let units = units.iter().map(|(n, u)| Change::Unit(n.clone(), Some((**u).clone())));
    let assignments = assignments.iter();
    let assignments = assignments.map(|(n, a)| Change::Assignment(n.clone(), Some((**a).clone())));
    let machines = machines.iter().map(|(id, m)| Change::Machine(id.clone(), Some((**m).clone())));
    let observed = observed.iter();
    let observed = observed.map(|((n, id), o)| Change::Observed(n.clone(), id.clone(), Some((**o).clone())));
    let tokens = tokens.iter().map(|(id, t)| Change::Token(id.clone(), Some((**t).clone())));
    let expelled = expelled.iter();
    let expelled = expelled.map(|(id, e)| Change::Expelled(id.clone(), Some((**e).clone())));
    let people = people.iter().map(|(name, p)| Change::Person(name.clone(), Some((**p).clone())));
    let groups = reboot_groups.iter();
    let groups = groups.map(|(name, g)| Change::RebootGroup(name.clone(), Some((**g).clone())));
    cluster
        .chain(units)
        .chain(assignments)
        .chain(machines)
        .chain(observed)
        .chain(tokens)
        .chain(expelled)
        .chain(people)
        .chain(groups)
}

#[cfg(test)]
mod tests {
    use cluster::Command;
    use store::conformance::chance::{Dice, Plan};

    use super::*;

    fn unit(generation: u64) -> Change {
        let file = UnitFile::parse("# ä \"quoted\"\n[Service]\nExecStart=/bin/true \\\n  a\n").unwrap();
        let name = UnitName::new("web@1.service").unwrap();
        let generation = Generation(generation);
        Change::Unit(name, Some(Unit { file, desired: DesiredState::Launched, generation }))
    }

    fn there_and_back(change: &Change, at: u64) -> Change {
        let (key, bytes) = encode(change);
        assert_eq!(Key::parse(&key.path()), Some(key.clone()));
        decode(&key, bytes.as_deref(), Revision(at)).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(there_and_back(&unit(7), 9), unit(7));
        let (name, id) = (UnitName::new("a.service").unwrap(), MachineId::new("m-1").unwrap());
        let gone = Change::Observed(name.clone(), id.clone(), None);
        assert_eq!(there_and_back(&gone, 9), gone);
        let home = Assignment { machine: id, generation: Generation(3), reason: "r".into(), leaving: None };
        let home = Change::Assignment(name, Some(home));
        assert_eq!(there_and_back(&home, 9), home);
    }

    /// A state is its records: taken apart and put together, in any order, it is the same. So is each on its
    /// way there, with all that commands can make of it.
    #[test]
    fn a_state_is_the_same_after_it_was_written_whole() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..40 {
            let mut dice = Dice(seed);
            let mut state = ClusterState::default();
            let init = Command::InitCluster { id: format!("c-{seed}"), name: "\u{e4}\"\n".into() };
            state.apply_all(Revision(1), &[init]);
            for at in 2..400 {
                let command = Plan::draw(&mut dice).command(&state);
                state.apply_all(Revision(at * 1000), &[command]);
            }
            let mut all: Vec<Change> = records(&state).collect();
            seen.extend(all.iter().map(std::mem::discriminant).map(|kind| format!("{kind:?}")));
            all.sort_by_cached_key(|_| dice.roll(1 << 30));
            let mut copy = ClusterState { revision: state.revision, ..ClusterState::default() };
            for change in &all {
                // At another revision than any that a record names: none may come from there.
                copy.put(there_and_back(change, 7));
            }
            assert_eq!(copy, state, "seed {seed}");
        }
        assert_eq!(seen.len(), 9, "all kinds of records were there: {seen:?}");
    }

    #[test]
    fn a_write_gives_a_wish_its_generation() {
        assert_eq!(there_and_back(&unit(BY_THIS_WRITE.0), 9), unit(9));
    }

    #[test]
    fn what_is_newer_or_broken_is_refused() {
        let key = Key::Cluster;
        let check = |text: &str, expected: &str| {
            let error = decode(&key, Some(text.as_bytes()), Revision(1)).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        };
        check("{\"version\":2,\"record\":{\"unknown\":1}}", "of version 2");
        check("{\"version\":1,\"record\":{\"id\":\"a\"}}", "cannot be read");
        check("hello", "cannot be read");
        assert!(decode(&key, None, Revision(1)).is_err());
        for path in ["", "units", "units/a", "units/a.conf", "machines/a b", "observed/a.service", "x/y"] {
            assert_eq!(Key::parse(path), None, "{path}");
        }
    }
}
