//! From arguments to units that the cluster has: by name, or by pattern.

use std::collections::{BTreeMap, BTreeSet};

use api::Client;
use api::v1::{Unit, Units};
use cluster::UnitName;

use crate::names::{is_pattern, matches, unit_name};

/// Names in one request. For more it is less work, and a shorter request, to ask for all units.
pub const NAMES_MAX: usize = 50;

/// Those of the named units that there are.
pub async fn by_name(
    client: &Client,
    names: &BTreeSet<UnitName>,
    stale: bool,
) -> anyhow::Result<BTreeMap<UnitName, Unit>> {
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let few: Vec<UnitName> = names.iter().filter(|_| names.len() <= NAMES_MAX).cloned().collect();
    let units = client.units(&few, stale).await?.units;
    Ok(units.into_iter().filter(|unit| names.contains(&unit.name)).map(|u| (u.name.clone(), u)).collect())
}

/// What the arguments of a command mean.
pub struct Chosen {
    pub units: BTreeMap<UnitName, Unit>,
    /// Why some arguments mean nothing.
    pub unknown: Vec<String>,
}

pub async fn choose(client: &Client, arguments: &[String], stale: bool) -> anyhow::Result<Chosen> {
    let (patterns, names): (Vec<&String>, Vec<&String>) = arguments.iter().partition(|a| is_pattern(a));
    let (mut unknown, mut wanted) = (Vec::new(), BTreeSet::new());
    for name in names {
        match unit_name(name) {
            Ok(name) => drop(wanted.insert(name)),
            Err(error) => unknown.push(format!("{error:#}")),
        }
    }
    let mut units = match patterns.is_empty() {
        true => by_name(client, &wanted, stale).await?,
        false => {
            let all = client.units(&[], stale).await?.units;
            all.into_iter().map(|unit| (unit.name.clone(), unit)).collect()
        }
    };
    let missing = wanted.iter().filter(|name| !units.contains_key(*name));
    unknown.extend(missing.map(|name| format!("unit {name} is not in the cluster")));
    for pattern in &patterns {
        if !units.keys().any(|name| matches(pattern, name.as_str())) {
            unknown.push(format!("no unit in the cluster matches {pattern:?}"));
        }
    }
    units.retain(|name, _| wanted.contains(name) || patterns.iter().any(|p| matches(p, name.as_str())));
    Ok(Chosen { units, unknown })
}

/// For lists: the units that the arguments mean, or all. What matches nothing is an empty list, as with
/// systemctl.
pub async fn listed(client: &Client, arguments: &[String], stale: bool) -> anyhow::Result<Units> {
    let mut units = client.units(&[], stale).await?;
    if !arguments.is_empty() {
        let names: Vec<UnitName> = arguments.iter().filter_map(|argument| unit_name(argument).ok()).collect();
        let patterns: Vec<&String> = arguments.iter().filter(|argument| is_pattern(argument)).collect();
        units.units.retain(|unit| {
            names.contains(&unit.name) || patterns.iter().any(|pattern| matches(pattern, unit.name.as_str()))
        });
    }
    Ok(units)
}
