//! Which patterns over unit names match which units: asked once for each name and each pattern, not once for
//! each pair.

use std::collections::{BTreeMap, BTreeSet};

use super::board::WishId;
use crate::UnitName;
use crate::glob::Glob;

/// What a unit can have against others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pattern {
    /// All units with such a name.
    Names(Glob),
    /// All singletons of that role.
    Role(String),
}

pub(super) type PatternId = usize;

#[derive(Default)]
pub(super) struct Patterns {
    numbers: BTreeMap<Pattern, PatternId>,
    entries: BTreeMap<PatternId, Entry>,
    next: PatternId,
    /// The patterns over names, by what every match begins with.
    by_prefix: BTreeMap<String, BTreeSet<PatternId>>,
    /// How many different beginnings there are of each length.
    lengths: BTreeMap<usize, usize>,
}

struct Entry {
    pattern: Pattern,
    prefix: String,
    /// How many units have it.
    users: usize,
    matched: BTreeSet<WishId>,
}

impl Patterns {
    /// One more unit has that pattern; whether it is the first.
    pub(super) fn add_user(&mut self, pattern: Pattern) -> (PatternId, bool) {
        if let Some(number) = self.numbers.get(&pattern) {
            self.entries.get_mut(number).expect("a numbered pattern has an entry").users += 1;
            return (*number, false);
        }
        let number = self.next;
        self.next += 1;
        let prefix = match &pattern {
            Pattern::Names(glob) => {
                let prefix = glob.literal_prefix();
                let numbers = self.by_prefix.entry(prefix.clone()).or_default();
                if numbers.is_empty() {
                    *self.lengths.entry(prefix.len()).or_default() += 1;
                }
                numbers.insert(number);
                prefix
            }
            Pattern::Role(_) => String::new(),
        };
        self.numbers.insert(pattern.clone(), number);
        self.entries.insert(number, Entry { pattern, prefix, users: 1, matched: BTreeSet::new() });
        (number, true)
    }

    /// One unit less has it; when it was the last, the pattern goes, and these are the units it matched.
    pub(super) fn remove_user(&mut self, number: PatternId) -> Option<BTreeSet<WishId>> {
        let entry = self.entries.get_mut(&number).expect("a pattern in use has an entry");
        entry.users -= 1;
        if entry.users > 0 {
            return None;
        }
        let entry = self.entries.remove(&number)?;
        self.numbers.remove(&entry.pattern);
        if let Pattern::Names(_) = entry.pattern {
            let numbers = self.by_prefix.get_mut(&entry.prefix).expect("its beginning is noted");
            numbers.remove(&number);
            if numbers.is_empty() {
                self.by_prefix.remove(&entry.prefix);
                let count = self.lengths.get_mut(&entry.prefix.len()).expect("its length is noted");
                *count -= 1;
                if *count == 0 {
                    self.lengths.remove(&entry.prefix.len());
                }
            }
        }
        Some(entry.matched)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The patterns that match a name.
    pub(super) fn of_name(&self, name: &UnitName) -> Vec<PatternId> {
        let name = name.as_str();
        let prefixes = self.lengths.keys().filter_map(|length| name.get(..*length));
        let numbers = prefixes.filter_map(|prefix| self.by_prefix.get(prefix)).flatten();
        let matches = |number: &PatternId| match &self.entries[number].pattern {
            Pattern::Names(glob) => glob.matches(name),
            Pattern::Role(_) => false,
        };
        numbers.copied().filter(matches).collect()
    }

    /// Whether it speaks of names, so that a name alone says whether it matches.
    pub(super) fn is_over_names(&self, number: PatternId) -> bool {
        matches!(self.entries[&number].pattern, Pattern::Names(_))
    }

    /// What every name that the pattern matches begins with.
    pub(super) fn prefix(&self, number: PatternId) -> &str {
        &self.entries[&number].prefix
    }

    pub(super) fn matches(&self, number: PatternId, name: &UnitName) -> bool {
        match &self.entries[&number].pattern {
            Pattern::Names(glob) => glob.matches(name.as_str()),
            Pattern::Role(_) => false,
        }
    }

    pub(super) fn matched(&self, number: PatternId) -> &BTreeSet<WishId> {
        &self.entries[&number].matched
    }

    pub(super) fn set_matched(&mut self, number: PatternId, wish: WishId, is_matched: bool) {
        let Some(entry) = self.entries.get_mut(&number) else { return };
        if is_matched {
            entry.matched.insert(wish);
        } else {
            entry.matched.remove(&wish);
        }
    }
}

/// How many units in one place have a pattern against others, and how many it matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// Units that conflict with all it matches, and those of them that it matches.
    pub(super) carriers: usize,
    pub(super) self_carriers: usize,
    /// Units that replace all it matches, and those of them that it matches.
    pub(super) replacers: usize,
    pub(super) self_replacers: usize,
    pub(super) hits: usize,
}

impl Count {
    pub(super) fn has_conflict(&self) -> bool {
        self.carriers * self.hits > self.self_carriers
    }

    pub(super) fn has_replaced(&self) -> bool {
        self.replacers * self.hits > self.self_replacers
    }
}
