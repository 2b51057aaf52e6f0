//! What a unit file asks of its home, in the sections `[X-Fleet]`, `[X-Coreinit]` and `[X-Flt]`, and what a
//! set of units asks of each other.
//!
//! The rules are fleet's, with two exceptions for the user's sake: an empty value takes back the values
//! before it, as everywhere in systemd, and what fleet would have ignored in silence is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::glob::Glob;
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
    #[error(
        "Global units are not supported yet; start an instance for each machine, with Conflicts= between them"
    )]
    Global,
    #[error("there is not one option in any section of it; a unit file has sections such as [Service]")]
    Empty,
    #[error("Replaces= is not supported yet; use Conflicts=, or destroy the unit that is to be replaced")]
    Replaces,
}

/// Something in a unit file that is probably not what its author meant. It has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    section: String,
    name: String,
    hint: Option<&'static str>,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unrecognized requirement in [{}] section: {:?}", self.section, self.name)?;
        self.hint.map_or(Ok(()), |hint| write!(f, "; did you mean {hint:?}?"))
    }
}

/// Checks what a unit asks of the cluster, before it is stored: what can never be met is an error, what has
/// no effect a warning.
pub fn validate(name: &UnitName, file: &UnitFile) -> Result<Vec<Warning>, RequirementError> {
    if file.options().is_empty() {
        return Err(RequirementError::Empty);
    }
    Requirements::of(name, file)?;
    let ours = file.options().iter().filter(|option| OUR_SECTIONS.contains(&&*option.section));
    let unknown = ours.filter(|option| Key::named(&option.name).is_none());
    Ok(unknown
        .map(|option| Warning {
            section: option.section.clone(),
            name: option.name.clone(),
            hint: hint(&option.name),
        })
        .collect())
}

/// The option that was probably meant by one that does not exist.
fn hint(name: &str) -> Option<&'static str> {
    const OLD: [(&str, &str); 4] = [
        ("X-Coreinit-Peers", "MachineOf"),
        ("X-Coreinit-MachineSingleton", "Conflicts"),
        ("X-Peers", "MachineOf"),
        ("Peers", "MachineOf"),
    ];
    let plain = name.trim_start_matches("X-").trim_start_matches("Condition");
    let now = ["MachineID", "MachineOf", "MachineMetadata", "Conflicts", "Global", "Replaces"];
    let old = OLD.iter().find(|(old, _)| *old == name).map(|(_, now)| *now);
    old.or_else(|| now.into_iter().find(|known| known.eq_ignore_ascii_case(plain)))
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    MachineId,
    ConditionMachineId,
    ConditionMachineBootId,
    MachineOf,
    MachineMetadata,
    Conflicts,
    Global,
    Replaces,
}

impl Key {
    fn named(name: &str) -> Option<Key> {
        Some(match name {
            "MachineID" => Key::MachineId,
            "X-ConditionMachineID" => Key::ConditionMachineId,
            "X-ConditionMachineBootID" => Key::ConditionMachineBootId,
            "MachineOf" | "X-ConditionMachineOf" => Key::MachineOf,
            "MachineMetadata" | "X-ConditionMachineMetadata" => Key::MachineMetadata,
            "Conflicts" | "X-Conflicts" => Key::Conflicts,
            "Global" => Key::Global,
            "Replaces" => Key::Replaces,
            _ => return None,
        })
    }
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
}

impl Requirements {
    /// Reads them; refuses what no cluster can meet, or this one not yet.
    pub fn of(name: &UnitName, file: &UnitFile) -> Result<Requirements, RequirementError> {
        if !file.asks() {
            return Ok(Requirements::default());
        }
        let mut values = collect(name, file);
        let mut of = |key| values.remove(&key).unwrap_or_default();
        let pins = [of(Key::MachineId), of(Key::ConditionMachineId), of(Key::ConditionMachineBootId)];
        let machine = pins.into_iter().find_map(|pins| pins.into_iter().next()).map(|pin| pin.text);
        let mut peers = BTreeSet::new();
        for value in of(Key::MachineOf).iter().filter(|value| !value.is_open) {
            let peer = UnitName::new(&value.text);
            let peer = peer.map_err(|error| value.wrong(format!("expected the name of a unit: {error}")))?;
            if peer == *name {
                return Err(value.wrong("a unit cannot name itself"));
            }
            peers.insert(peer);
        }
        let mut metadata: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for value in of(Key::MachineMetadata).iter().filter(|value| !value.is_open) {
            match value.text.split_once('=') {
                Some((key, wanted)) if !key.is_empty() && !wanted.is_empty() && !wanted.contains('=') => {
                    metadata.entry(key.into()).or_default().insert(wanted.into());
                }
                _ => return Err(value.wrong("expected KEY=VALUE")),
            }
        }
        let conflicts = globs(of(Key::Conflicts))?;
        let replaces = globs(of(Key::Replaces))?;
        let is_global = of(Key::Global).last().is_some_and(|value| {
            ["true", "yes", "1", "on", "t"].iter().any(|yes| value.text.eq_ignore_ascii_case(yes))
        });
        let requirements = Requirements { machine, peers, metadata, conflicts };
        requirements.check(&replaces, is_global)?;
        Ok(requirements)
    }

    /// Fleet's checks in fleet's order, then what is not built yet.
    fn check(&self, replaces: &BTreeSet<Glob>, is_global: bool) -> Result<(), RequirementError> {
        let clash = |globs: &BTreeSet<Glob>| {
            let pairs = self.peers.iter().flat_map(|peer| globs.iter().map(move |glob| (peer, glob)));
            let mut hits = pairs.filter(|(peer, glob)| glob.matches(peer.as_str()));
            hits.next().map(|(peer, glob)| (peer.clone(), glob.to_string()))
        };
        if let Some((peer, pattern)) = clash(&self.conflicts) {
            return Err(RequirementError::PeerConflicts { peer, pattern });
        }
        if let Some((peer, pattern)) = clash(replaces) {
            return Err(RequirementError::PeerReplaced { peer, pattern });
        }
        let (pin, peers) = (self.machine.is_some(), !self.peers.is_empty());
        let (conflicts, replaces) = (!self.conflicts.is_empty(), !replaces.is_empty());
        let impossible = [
            (pin && peers, "MachineID", "Peers"),
            (pin && conflicts, "MachineID", "Conflicts"),
            (pin && is_global, "MachineID", "Global"),
            (pin && replaces, "MachineID", "Replaces"),
            (is_global && peers, "Global", "Peers"),
            (is_global && replaces, "Global", "Replaces"),
            (conflicts && replaces, "Conflicts", "Replaces"),
        ];
        if let Some((_, one, other)) = impossible.into_iter().find(|(both, ..)| *both) {
            return Err(RequirementError::Together(one, other));
        }
        if is_global {
            return Err(RequirementError::Global);
        }
        if replaces { Err(RequirementError::Replaces) } else { Ok(()) }
    }
}

fn globs(values: Vec<Value>) -> Result<BTreeSet<Glob>, RequirementError> {
    let mut globs = BTreeSet::new();
    for value in values.iter().filter(|value| !value.is_open) {
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
    for option in file.options().iter().filter(|option| OUR_SECTIONS.contains(&&*option.section)) {
        let Some(key) = Key::named(&option.name) else { continue };
        let values = all.entry(key).or_default();
        let said = option.joined();
        if said.is_empty() {
            values.clear();
            continue;
        }
        values.extend(split(&said).into_iter().filter(|text| !text.is_empty()).map(|text| Value {
            section: &option.section,
            option: &option.name,
            is_open: name.is_template() && ["%n", "%N", "%i"].iter().any(|s| text.contains(s)),
            text: fill_in(name, &text),
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

/// Replaces the four specifiers that fleet knew; a `%` before anything else is left alone.
fn fill_in(name: &UnitName, text: &str) -> String {
    let filled = text.replace("%n", name.as_str()).replace("%N", name.stem());
    filled.replace("%p", name.prefix()).replace("%i", name.instance().unwrap_or(""))
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
