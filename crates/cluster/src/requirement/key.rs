//! The names of what can be asked, in all spellings that coreinit and fleet ever had, and what was probably
//! meant by a name that is none of them.

use std::fmt;

use crate::unit_file::OUR_SECTIONS;
use crate::{UnitFile, UnitName};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
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

/// An option of our sections. The table of them is all that there is: what is read, what is offered instead
/// of a slip, and what the documentation lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionName {
    pub name: &'static str,
    key: Key,
    /// It is an older way to write this option.
    pub today: Option<&'static str>,
    /// How values look.
    pub value: &'static str,
    /// What it does, in Markdown.
    pub meaning: &'static str,
}

const fn now(name: &'static str, key: Key, value: &'static str, meaning: &'static str) -> OptionName {
    OptionName { name, key, today: None, value, meaning }
}

const fn old(
    name: &'static str,
    key: Key,
    today: &'static str,
    value: &'static str,
    meaning: &'static str,
) -> OptionName {
    OptionName { name, key, today: Some(today), value, meaning }
}

/// What is written today comes first.
pub(super) const OPTIONS: [OptionName; 20] = [
    now(
        "MachineID",
        Key::MachineId,
        "a machine's id, or its first eight characters",
        "Only on this machine. The first one counts. Not with `Global` or `Replaces`.",
    ),
    now(
        "MachineOf",
        Key::MachineOf,
        "a unit",
        "On the machine of that unit, wherever that is, and along with it when it moves. May be given \
         several times: all of them share a machine. Not with `Global`.",
    ),
    now(
        "MachineMetadata",
        Key::MachineMetadata,
        "`KEY=VALUE`, several in quotes: `\"disk=ssd\" \"region=eu\"`",
        "Only on machines whose metadata say so. Several values of one key: any of them will do. \
         Several keys: all of them are required.",
    ),
    now(
        "Conflicts",
        Key::Conflicts,
        "names of units, blanks between them, also with `*`, `?` and `[abc]`",
        "Never on a machine with one of these. It holds in both directions, and does not hold against \
         the unit itself. Not with `Replaces`.",
    ),
    now(
        "Global",
        Key::Global,
        "`true`",
        "On every machine that suits it, also on those that come later. The last one counts. Not with \
         `MachineID`, `MachineOf` or `Replaces`.",
    ),
    now(
        "Replaces",
        Key::Replaces,
        "names of units, as of `Conflicts`",
        "Takes the machine of one of these, which moves to another one. Where no other takes that, \
         this unit waits.",
    ),
    now(
        "PreferMetadata",
        Key::PreferMetadata,
        "`KEY=VALUE`, several in quotes",
        "The more of these a machine has, the better. A wish: without such a machine, any other will do.",
    ),
    now(
        "Spread",
        Key::Spread,
        "a key of the metadata",
        "Spreads the instances of a template over the values of that key, such as `zone`. Only in \
         templates and instances.",
    ),
    now(
        "MemoryReservation",
        Key::MemoryReservation,
        "`512M`, `1.5G`, `10%`",
        "So much of a machine's memory has to be free of other reservations. Counts instead of \
         `MemoryMax=` and `MemoryHigh=`.",
    ),
    now(
        "CPUReservation",
        Key::CpuReservation,
        "`1.5` or `150%`: processors",
        "So much of a machine's processors has to be free of other reservations. Counts instead of \
         `CPUQuota=`.",
    ),
    old(
        "X-ConditionMachineID",
        Key::ConditionMachineId,
        "MachineID",
        "the same",
        "fleet 0.3 to 0.7. `MachineID` goes before it.",
    ),
    old(
        "X-ConditionMachineBootID",
        Key::ConditionMachineBootId,
        "MachineID",
        "the same",
        "fleet before 0.3, the first coreinit. The two above go before it.",
    ),
    old(
        "X-ConditionMachineOf",
        Key::MachineOf,
        "MachineOf",
        "the same",
        "fleet before 0.8, the first coreinit.",
    ),
    old(
        "X-ConditionMachineMetadata",
        Key::MachineMetadata,
        "MachineMetadata",
        "the same",
        "fleet before 0.8. Also with the key in the name, as the first coreinit wrote down `start \
         --require`: `X-MachineMetadataregion=eu`.",
    ),
    old("X-Conflicts", Key::Conflicts, "Conflicts", "the same", "fleet before 0.8, the first coreinit."),
    old("X-Coreinit-Peers", Key::Peers, "MachineOf", "units, commas between them", "The first coreinit."),
    old(
        "X-Coreinit-Provides",
        Key::Provides,
        "Conflicts",
        "roles, commas between them",
        "The first coreinit. A role has an effect with `X-Coreinit-MachineSingleton` only.",
    ),
    old(
        "X-Coreinit-MachineSingleton",
        Key::MachineSingleton,
        "Conflicts",
        "`true`",
        "The first coreinit. Two such units with a role in common never share a machine.",
    ),
    old(
        "X-MemoryReservation",
        Key::MemoryReservationMb,
        "MemoryReservation",
        "megabytes",
        "fleet 0.5 to 0.7. `MemoryReservation` goes before it.",
    ),
    old(
        "X-CoresReservation",
        Key::CoresReservation,
        "CPUReservation",
        "hundredths of a processor",
        "fleet 0.5 to 0.7. `CPUReservation` goes before it.",
    ),
];

/// fleet 0.5 to 0.7 had it; a warning says that it has no effect.
const DISK_RESERVATION: &str = "X-DiskReservation";

/// The options of today.
fn names() -> impl Iterator<Item = &'static str> {
    OPTIONS.iter().filter(|option| option.today.is_none()).map(|option| option.name)
}

impl Key {
    /// The option of that name, and the metadata key that is part of the name, if one is.
    pub(super) fn named(name: &str) -> Option<(Key, Option<&str>)> {
        if let Some(option) = OPTIONS.iter().find(|option| option.name == name) {
            return Some((option.key, None));
        }
        if name == DISK_RESERVATION {
            return Some((Key::DiskReservation, None));
        }
        let key = name.strip_prefix(METADATA_WITH_KEY).filter(|key| !key.is_empty())?;
        Some((Key::MachineMetadata, Some(key)))
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
    old.or_else(|| names().find(|known| known.eq_ignore_ascii_case(plain))).or_else(|| {
        // One letter wrong in a short name, two in a long one.
        let distance = |known: &&str| edits(&plain.to_ascii_lowercase(), &known.to_ascii_lowercase());
        let near = names().min_by_key(distance)?;
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
