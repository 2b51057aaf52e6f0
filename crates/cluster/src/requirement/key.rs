//! The names of what can be asked, in all spellings that coreinit and fleet ever had, and what was probably
//! meant by a name that is none of them.

use std::fmt;

use crate::unit_file::OUR_SECTIONS;
use crate::{UnitFile, UnitName};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    MachineId,
    ConditionMachineId,
    ConditionMachineBootId,
    MachineOf,
    /// `MachineOf=` with commas between the names.
    Peers,
    MachineMetadata,
    Conflicts,
    Global,
    Replaces,
    /// Roles, with commas between them; singletons of one role cannot share a machine.
    Provides,
    MachineSingleton,
    PreferMetadata,
    Spread,
    MemoryReservation,
    CpuReservation,
    /// fleet's, in megabytes.
    MemoryReservationMb,
    /// fleet's, in hundredths of a core.
    CoresReservation,
    /// fleet's; disks are not counted.
    DiskReservation,
}

/// `X-MachineMetadataregion=us` was how coreinit wrote down `start --require region=us`.
const METADATA_WITH_KEY: &str = "X-MachineMetadata";

/// What is written today.
const NAMES: [&str; 10] = [
    "MachineID",
    "MachineOf",
    "MachineMetadata",
    "Conflicts",
    "Global",
    "Replaces",
    "PreferMetadata",
    "Spread",
    "MemoryReservation",
    "CPUReservation",
];

impl Key {
    /// The option of that name, and the metadata key that is part of the name, if one is.
    pub(super) fn named(name: &str) -> Option<(Key, Option<&str>)> {
        let key = match name {
            "MachineID" => Key::MachineId,
            "X-ConditionMachineID" => Key::ConditionMachineId,
            "X-ConditionMachineBootID" => Key::ConditionMachineBootId,
            "MachineOf" | "X-ConditionMachineOf" => Key::MachineOf,
            "X-Coreinit-Peers" => Key::Peers,
            "MachineMetadata" | "X-ConditionMachineMetadata" => Key::MachineMetadata,
            "Conflicts" | "X-Conflicts" => Key::Conflicts,
            "Global" => Key::Global,
            "Replaces" => Key::Replaces,
            "X-Coreinit-Provides" => Key::Provides,
            "X-Coreinit-MachineSingleton" => Key::MachineSingleton,
            "PreferMetadata" => Key::PreferMetadata,
            "Spread" => Key::Spread,
            "MemoryReservation" => Key::MemoryReservation,
            "CPUReservation" => Key::CpuReservation,
            "X-MemoryReservation" => Key::MemoryReservationMb,
            "X-CoresReservation" => Key::CoresReservation,
            "X-DiskReservation" => Key::DiskReservation,
            _ => {
                let key = name.strip_prefix(METADATA_WITH_KEY).filter(|key| !key.is_empty())?;
                return Some((Key::MachineMetadata, Some(key)));
            }
        };
        Some((key, None))
    }
}

/// Something in a unit file that is probably not what its author meant. It has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// In one of our sections, an option that does not exist.
    UnknownOption { section: String, name: String, hint: Option<&'static str> },
    /// A section that looks like one of ours.
    UnknownSection { section: String, hint: &'static str },
    /// One of our options where systemd reads it, and ignores it.
    WrongSection { section: String, name: String },
    /// An option that does nothing.
    NoEffect { section: String, name: String, reason: &'static str },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::UnknownOption { section, name, hint } => {
                write!(f, "unrecognized requirement in [{section}] section: {name:?}")?;
                hint.map_or(Ok(()), |hint| write!(f, "; did you mean {hint:?}?"))
            }
            Warning::UnknownSection { section, hint } => {
                write!(f, "section [{section}] has no effect; did you mean [{hint}]?")
            }
            Warning::WrongSection { section, name } => {
                write!(f, "{name}= has no effect in section [{section}]; it belongs into [X-Coreinit]")
            }
            Warning::NoEffect { section, name, reason } => {
                write!(f, "{name}= in section [{section}] has no effect: {reason}")
            }
        }
    }
}

/// All that has no effect, in the order of the file.
pub(super) fn warnings(name: &UnitName, file: &UnitFile) -> Vec<Warning> {
    let mut warnings: Vec<Warning> = Vec::new();
    for option in file.options() {
        let section = option.section.clone();
        let warning = if OUR_SECTIONS.contains(&&*section) {
            match Key::named(&option.name) {
                None => {
                    let (name, hint) = (option.name.clone(), hint(&option.name));
                    Some(Warning::UnknownOption { section, name, hint })
                }
                Some((Key::DiskReservation, _)) => {
                    let reason = "disk space is not counted";
                    Some(Warning::NoEffect { section, name: option.name.clone(), reason })
                }
                Some((Key::Spread, _)) if name.instance().is_none() => {
                    let reason = "it spreads the instances of a template, and this unit is neither";
                    Some(Warning::NoEffect { section, name: option.name.clone(), reason })
                }
                Some(_) => None,
            }
        } else if let Some(hint) = section_hint(&section) {
            Some(Warning::UnknownSection { section, hint })
        } else {
            // `Conflicts=` means something to systemd, too.
            let is_ours = option.name != "Conflicts" && Key::named(&option.name).is_some();
            let reads = !section.starts_with("X-");
            (is_ours && reads).then(|| Warning::WrongSection { section, name: option.name.clone() })
        };
        warnings.extend(warning.filter(|warning| !warnings.contains(warning)));
    }
    warnings
}

/// The option that was probably meant by one that does not exist.
fn hint(name: &str) -> Option<&'static str> {
    const OLD: [(&str, &str); 7] = [
        ("Peers", "MachineOf"),
        ("MachineSingleton", "X-Coreinit-MachineSingleton"),
        ("Provides", "X-Coreinit-Provides"),
        ("CoresReservation", "CPUReservation"),
        ("MachineBootID", "MachineID"),
        ("BootID", "MachineID"),
        ("Metadata", "MachineMetadata"),
    ];
    let plain = name.strip_prefix("X-").unwrap_or(name);
    let plain = plain.strip_prefix("Coreinit-").unwrap_or(plain);
    let plain = plain.strip_prefix("Condition").unwrap_or(plain);
    let old = OLD.iter().find(|(old, _)| old.eq_ignore_ascii_case(plain)).map(|(_, now)| *now);
    old.or_else(|| NAMES.into_iter().find(|known| known.eq_ignore_ascii_case(plain))).or_else(|| {
        // One letter wrong in a short name, two in a long one.
        let distance = |known: &&str| edits(&plain.to_ascii_lowercase(), &known.to_ascii_lowercase());
        let near = NAMES.into_iter().min_by_key(distance)?;
        (distance(&near) <= near.len() / 5).then_some(near)
    })
}

fn section_hint(section: &str) -> Option<&'static str> {
    let letters = |text: &str| text.to_ascii_lowercase().replace(['-', '_', ' '], "");
    let said = letters(section);
    let said = said.strip_prefix('x').unwrap_or(&said);
    let bare = |ours: &str| letters(ours).trim_start_matches('x').to_owned();
    OUR_SECTIONS.into_iter().find(|ours| bare(ours) == said)
}

/// How many letters have to be put in, taken out or changed to make the one text the other.
fn edits(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in other.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_edits() {
        let check = |one: &str, other: &str, expected: usize| assert_eq!(edits(one, other), expected);
        check("", "abc", 3);
        check("kitten", "sitting", 3);
        check("machineof", "machinof", 1);
        check("same", "same", 0);
    }

    #[test]
    fn finds_what_was_meant() {
        let check = |name: &str, expected: Option<&str>| assert_eq!(hint(name), expected, "{name}");
        for name in ["Machineof", "machineof", "MachinOf", "MachineOff", "X-MachineOf", "X-Peers", "Peers"] {
            check(name, Some("MachineOf"));
        }
        for name in ["MachineId", "X-ConditionMachineId", "machineid", "X-BootID"] {
            check(name, Some("MachineID"));
        }
        for name in ["X-MachineMetadata", "X-ConditionMetadata", "MachineMetaData", "MachineMetdata"] {
            check(name, Some("MachineMetadata"));
        }
        for name in ["Conflict", "X-ConditionConflicts", "conflicts"] {
            check(name, Some("Conflicts"));
        }
        check("X-Global", Some("Global"));
        check("Replace", Some("Replaces"));
        check("MemoryReservations", Some("MemoryReservation"));
        check("CpuReservation", Some("CPUReservation"));
        check("Foo", None);
        check("Description", None);
    }

    #[test]
    fn finds_the_section_that_was_meant() {
        let check = |section: &str, expected: Option<&str>| assert_eq!(section_hint(section), expected);
        for section in ["X-fleet", "x-Fleet", "XFleet", "X_Fleet", "Fleet"] {
            check(section, Some("X-Fleet"));
        }
        check("Coreinit", Some("X-Coreinit"));
        check("x-flt", Some("X-Flt"));
        check("X-Other", None);
        check("Service", None);
    }
}
