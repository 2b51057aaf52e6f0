//! What a unit file asks of its home, in the sections `[X-Fleet]`, `[X-Coreinit]` and `[X-Flt]`, and what a
//! set of units asks of each other.
//!
//! The rules are fleet's, with three exceptions for the user's sake: an empty value takes back the values
//! before it, as everywhere in systemd; what fleet would have ignored in silence is refused; and what some
//! cluster can meet is taken, also where fleet did not care to (`MachineID=` with others).

mod key;

use std::collections::{BTreeMap, BTreeSet};

use self::key::Key;
pub use self::key::{OptionName, Warning};
use crate::glob::Glob;
use crate::need::{Memory, Need, bytes, cpu_millis, memory};
use crate::unit_file::OUR_SECTIONS;
use crate::{DesiredState, UnitFile, UnitName};

/// What a unit asks of the machine that it runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requirements {
    /// `MachineID=`: the machine's id, or its first eight characters.
    pub(crate) machine: Option<String>,
    /// `MachineOf=`: units that must have the same home.
    pub(crate) peers: BTreeSet<UnitName>,
    /// `MachineMetadata=`: for each key, the values that will do.
    pub(crate) metadata: BTreeMap<String, BTreeSet<String>>,
    /// `Conflicts=`: units that must have another home.
    pub(crate) conflicts: BTreeSet<Glob>,
    /// `Replaces=`: units that have to go when this one comes.
    pub(crate) replaces: BTreeSet<Glob>,
    /// Of a singleton: the roles of which a machine can hold only one.
    pub(crate) roles: BTreeSet<String>,
    /// `Global=`: every machine that fits is a home.
    pub(crate) is_global: bool,
    /// `PreferMetadata=`: the more of these pairs a machine has, the better.
    pub(crate) preferred: BTreeSet<(String, String)>,
    /// `Spread=`: the metadata key over whose values the template's instances are spread.
    pub(crate) spread: Option<String>,
    pub(crate) need: Need,
}

/// Why a unit's requirements cannot be met by any cluster. The texts of impossible combinations are fleet's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequirementError {
    #[error("unresolvable requirements: peer \"{peer}\" matches conflict \"{pattern}\"")]
    PeerConflicts { peer: UnitName, pattern: String },
    #[error("unresolvable requirements: peer \"{peer}\" matches replace \"{pattern}\"")]
    PeerReplaced { peer: UnitName, pattern: String },
    #[error("{0} cannot be used with {1}")]
    Together(&'static str, &'static str),
    #[error("{option}={value} in section [{section}]: {reason}")]
    Value { section: String, option: String, value: String, reason: String },
    #[error("there is not one option in any section of it; a unit file has sections such as [Service]")]
    Empty,
}

/// Checks what a unit asks of the cluster, before it is stored, be it new, replaced, or an instance of a
/// template: what can never be met is an error, what has no effect a warning.
pub fn validate(name: &UnitName, file: &UnitFile) -> Result<Vec<Warning>, RequirementError> {
    if file.options().is_empty() {
        return Err(RequirementError::Empty);
    }
    Requirements::of(name, file)?;
    Ok(key::warnings(name, file))
}

/// Every option of `[X-Coreinit]`, `[X-Fleet]` and `[X-Flt]`, in all spellings.
pub fn option_names() -> &'static [OptionName] {
    &key::OPTIONS
}

/// One value, with the place it came from for error texts.
struct Value<'a> {
    section: &'a str,
    option: &'a str,
    text: String,
    /// A template's value that only an instance fills in.
    is_open: bool,
}

impl Value<'_> {
    fn wrong(&self, reason: impl Into<String>) -> RequirementError {
        let (section, option) = (self.section.into(), self.option.into());
        RequirementError::Value { section, option, value: self.text.clone(), reason: reason.into() }
    }

    fn is_yes(&self) -> bool {
        ["true", "yes", "1", "on", "t"].iter().any(|yes| self.text.eq_ignore_ascii_case(yes))
    }
}

impl Requirements {
    /// Reads them; refuses what no cluster can meet.
    pub fn of(name: &UnitName, file: &UnitFile) -> Result<Requirements, RequirementError> {
        let mut requirements = Requirements { need: Need::of_limits(file), ..Requirements::default() };
        if !file.asks() {
            return Ok(requirements);
        }
        let mut values = collect(name, file);
        let mut of = |key| -> Vec<Value> {
            let mut of = values.remove(&key).unwrap_or_default();
            of.retain(|value| !value.is_open);
            of
        };
        let pins = [of(Key::MachineId), of(Key::ConditionMachineId), of(Key::ConditionMachineBootId)];
        requirements.machine = pins.into_iter().find_map(|pins| pins.into_iter().next()).map(|pin| pin.text);
        for value in of(Key::MachineOf).into_iter().chain(of(Key::Peers)) {
            let peer = UnitName::new(&value.text);
            let peer = peer.map_err(|error| value.wrong(format!("expected the name of a unit: {error}")))?;
            if peer == *name {
                return Err(value.wrong("a unit cannot name itself"));
            }
            requirements.peers.insert(peer);
        }
        for value in of(Key::MachineMetadata) {
            let (key, wanted) = pair(&value)?;
            requirements.metadata.entry(key).or_default().insert(wanted);
        }
        for value in of(Key::PreferMetadata) {
            requirements.preferred.insert(pair(&value)?);
        }
        requirements.spread = of(Key::Spread).pop().map(|value| value.text);
        requirements.conflicts = globs(of(Key::Conflicts))?;
        requirements.replaces = globs(of(Key::Replaces))?;
        requirements.is_global = of(Key::Global).last().is_some_and(Value::is_yes);
        let roles = of(Key::Provides).into_iter().map(|value| value.text).collect();
        if of(Key::MachineSingleton).last().is_some_and(|value| value.text == "true") {
            requirements.roles = roles;
        }
        requirements.read_reservations(of)?;
        requirements.check()?;
        Ok(requirements)
    }

    /// Whether the two units, of which `self` is asked by `name`, cannot share a machine.
    pub(crate) fn clash(&self, name: &UnitName, other: &UnitName, others: &Requirements) -> bool {
        name != other
            && (self.conflicts.iter().any(|glob| glob.matches(other.as_str()))
                || others.conflicts.iter().any(|glob| glob.matches(name.as_str()))
                || !self.roles.is_disjoint(&others.roles))
    }

    pub(crate) fn suits(&self, metadata: &BTreeMap<String, String>) -> bool {
        let fits = |(key, values): (&String, &BTreeSet<String>)| {
            metadata.get(key).is_some_and(|value| values.contains(value))
        };
        self.metadata.iter().all(fits)
    }

    /// What that metadata lacks: for each key, `key=value or key=value`.
    pub(crate) fn unmet(&self, metadata: &BTreeMap<String, String>) -> Vec<String> {
        let fits = |key: &String, values: &BTreeSet<String>| {
            metadata.get(key).is_some_and(|value| values.contains(value))
        };
        let unmet = self.metadata.iter().filter(|(key, values)| !fits(key, values));
        let or = |(key, values): (&String, &BTreeSet<String>)| {
            values.iter().map(|value| format!("{key}={value}")).collect::<Vec<_>>().join(" or ")
        };
        unmet.map(or).collect()
    }

    /// What is reserved counts instead of what the limits say.
    fn read_reservations<'a>(
        &mut self,
        mut of: impl FnMut(Key) -> Vec<Value<'a>>,
    ) -> Result<(), RequirementError> {
        let (megabytes, cores) = (of(Key::MemoryReservationMb), of(Key::CoresReservation));
        if let Some(value) = megabytes.last() {
            let bytes = value.text.parse::<u64>().ok().and_then(|megabytes| megabytes.checked_mul(1 << 20));
            self.need.memory = Memory::Bytes(bytes.ok_or_else(|| value.wrong("expected megabytes"))?);
        }
        if let Some(value) = cores.last() {
            let millis = value.text.parse::<u64>().ok().and_then(|hundredths| hundredths.checked_mul(10));
            self.need.cpu_millis = millis.ok_or_else(|| value.wrong("expected hundredths of a core"))?;
        }
        if let Some(value) = of(Key::MemoryReservation).last() {
            let read = memory(&value.text).or_else(|| bytes(&value.text).map(Memory::Bytes));
            self.need.memory = read.ok_or_else(|| value.wrong("expected a size such as 512M, or 10%"))?;
        }
        if let Some(value) = of(Key::CpuReservation).last() {
            let read = cpu_millis(&value.text);
            self.need.cpu_millis = read.ok_or_else(|| value.wrong("expected processors: 1.5, or 150%"))?;
        }
        Ok(())
    }

    /// Fleet's checks in fleet's order, save those that forbade what can be met.
    fn check(&self) -> Result<(), RequirementError> {
        let clash = |globs: &BTreeSet<Glob>| {
            let pairs = self.peers.iter().flat_map(|peer| globs.iter().map(move |glob| (peer, glob)));
            let mut hits = pairs.filter(|(peer, glob)| glob.matches(peer.as_str()));
            hits.next().map(|(peer, glob)| (peer.clone(), glob.to_string()))
        };
        if let Some((peer, pattern)) = clash(&self.conflicts) {
            return Err(RequirementError::PeerConflicts { peer, pattern });
        }
        if let Some((peer, pattern)) = clash(&self.replaces) {
            return Err(RequirementError::PeerReplaced { peer, pattern });
        }
        let (pin, peers) = (self.machine.is_some(), !self.peers.is_empty());
        let (conflicts, replaces) = (!self.conflicts.is_empty(), !self.replaces.is_empty());
        let impossible = [
            (pin && self.is_global, "MachineID", "Global"),
            (pin && replaces, "MachineID", "Replaces"),
            (self.is_global && peers, "Global", "Peers"),
            (self.is_global && replaces, "Global", "Replaces"),
            (conflicts && replaces, "Conflicts", "Replaces"),
        ];
        let found = impossible.into_iter().find(|(both, ..)| *both);
        found.map_or(Ok(()), |(_, one, other)| Err(RequirementError::Together(one, other)))
    }
}

/// Whether the unit belongs on every machine that fits.
pub fn is_global(name: &UnitName, file: &UnitFile) -> bool {
    file.may_be_global() && Requirements::of(name, file).is_ok_and(|requirements| requirements.is_global)
}

fn pair(value: &Value) -> Result<(String, String), RequirementError> {
    match value.text.split_once('=') {
        Some((key, wanted)) if !key.is_empty() && !wanted.is_empty() && !wanted.contains('=') => {
            Ok((key.into(), wanted.into()))
        }
        _ => Err(value.wrong("expected KEY=VALUE")),
    }
}

fn globs(values: Vec<Value>) -> Result<BTreeSet<Glob>, RequirementError> {
    let mut globs = BTreeSet::new();
    for value in &values {
        for pattern in value.text.split_whitespace() {
            let glob = Glob::new(pattern);
            globs.insert(glob.ok_or_else(|| value.wrong("expected unit names with *, ? or [abc] in them"))?);
        }
    }
    Ok(globs)
}

/// The values of each option, with the unit's name filled in.
fn collect<'a>(name: &UnitName, file: &'a UnitFile) -> BTreeMap<Key, Vec<Value<'a>>> {
    let mut all: BTreeMap<Key, Vec<Value>> = BTreeMap::new();
    for option in file.options_of(&OUR_SECTIONS) {
        let Some((key, metadata_key)) = Key::named(&option.name) else { continue };
        let values = all.entry(key).or_default();
        let said = option.joined();
        if said.is_empty() {
            values.clear();
            continue;
        }
        let said: Vec<String> = match key {
            Key::Peers | Key::Provides => said.split(',').map(|part| part.trim().into()).collect(),
            _ => split(&said),
        };
        values.extend(said.into_iter().filter(|text| !text.is_empty()).map(|text| Value {
            section: &option.section,
            option: &option.name,
            is_open: name.is_template() && ["%n", "%N", "%i"].iter().any(|s| text.contains(s)),
            text: match metadata_key {
                Some(key) => format!("{key}={}", name.fill_in(&text)),
                None => name.fill_in(&text),
            },
        }));
    }
    all
}

/// Fleet's quoting: a line that starts and ends with a quote is split at the blanks outside of quotes; any
/// other is one value.
fn split(line: &str) -> Vec<String> {
    if line.len() < 2 || !line.starts_with('"') || !line.ends_with('"') {
        return vec![line.into()];
    }
    let mut values = vec![String::new()];
    let mut is_quoted = false;
    for c in line.chars() {
        match c {
            '"' => is_quoted = !is_quoted,
            ' ' if !is_quoted => values.push(String::new()),
            c => values.last_mut().expect("one was there from the start").push(c),
        }
    }
    values
}

/// The desired state of each unit of one `corectl start`: launched, but loaded for a service whose socket is
/// started with it, since the socket starts it when somebody calls.
pub fn launch_states(names: &BTreeSet<UnitName>) -> Vec<(UnitName, DesiredState)> {
    names
        .iter()
        .map(|name| {
            let socket = name.with_suffix("socket").ok().filter(|_| name.suffix() == "service");
            let awaited = socket.is_some_and(|socket| names.contains(&socket));
            let state = if awaited { DesiredState::Loaded } else { DesiredState::Launched };
            (name.clone(), state)
        })
        .collect()
}

#[cfg(test)]
mod tests;
