//! systemd's methods and properties, each called with an answer's limit, and what their errors mean.

use std::collections::{BTreeMap, BTreeSet};

use cluster::UnitName;
use futures::future::join_all;
use tokio::sync::Semaphore;
use zbus::OwnedVariant;

use super::{Link, Shared};
use crate::systemd::{Seen, UnitError};

const UNIT: &str = "org.freedesktop.systemd1.Unit";

/// Why a property could not be read.
pub enum PropertyError {
    /// systemd does not know the unit, or units of that type have no such property.
    NoUnit,
    Call(UnitError),
}

/// What systemd says of these units, in one call; it loads those that it can find. `linked` and
/// `needs_reload` are left unset.
pub async fn list(link: &Link, units: &BTreeSet<UnitName>) -> Result<BTreeMap<UnitName, Seen>, UnitError> {
    // A template cannot be loaded, and would fail the whole call.
    let names = units.iter().filter(|unit| !unit.is_template());
    let names = names.map(|unit| unit.as_str().to_string()).collect();
    let listed = link.manager.list_units_by_names(names).await;
    let listed = listed.map_err(|error| call_error("ListUnitsByNames", error))?;
    // systemd leaves out what it takes for no unit's name.
    let mut seen: BTreeMap<UnitName, Seen> =
        units.iter().map(|unit| (unit.clone(), Seen::nothing())).collect();
    for (asked, _, load, active, sub, ..) in listed {
        if let Some(unit) = UnitName::new(&asked).ok().and_then(|name| seen.get_mut(&name)) {
            (unit.load, unit.active, unit.sub) = (load.into(), active.into(), sub.into());
        }
    }
    Ok(seen)
}

/// Those of the units that are not ours, with the path of their file.
pub async fn foreign(
    link: &Link,
    shared: &Shared,
    units: &[UnitName],
) -> Result<BTreeMap<UnitName, String>, UnitError> {
    let files = &shared.files;
    let fragments =
        units.iter().map(|unit| property::<String>(link, unit, UNIT, "FragmentPath", &shared.calls));
    let mut foreign = BTreeMap::new();
    for (unit, fragment) in units.iter().zip(join_all(fragments).await) {
        match fragment {
            Ok(path) if path.is_empty() => {
                // No file, or one that is gone: a slice that others made, a file system mounted by hand, or a
                // unit of the machine's own that still runs. One that was ours stays so, whoever has deleted
                // its file.
                let ours = files.holds(unit) || shared.ours().contains(unit);
                if !ours && !matches!(unit.suffix(), "slice" | "mount" | "swap") {
                    foreign.insert(unit.clone(), "without a file".into());
                }
            }
            Ok(path) if files.was_ours(unit, &path) => {}
            Ok(path) => {
                foreign.insert(unit.clone(), path);
            }
            Err(PropertyError::NoUnit) => {}
            Err(PropertyError::Call(error)) => return Err(error),
        }
    }
    Ok(foreign)
}

pub async fn need_daemon_reload(
    link: &Link,
    unit: &UnitName,
    calls: &Semaphore,
) -> Result<bool, PropertyError> {
    property(link, unit, UNIT, "NeedDaemonReload", calls).await
}

/// Forgets that the unit failed, and how often it was started of late. One that did not fail is not an error.
pub async fn reset_failed(link: &Link, unit: &UnitName, calls: &Semaphore) {
    let _turn = calls.acquire().await;
    let _ = link.manager.reset_failed_unit(unit.as_str().into()).await;
}

/// One property of a unit, from the interface of that name.
pub async fn property<T>(
    link: &Link,
    unit: &UnitName,
    interface: &str,
    name: &str,
    calls: &Semaphore,
) -> Result<T, PropertyError>
where
    T: TryFrom<OwnedVariant>,
{
    let _turn = calls.acquire().await;
    let answer = link
        .connection
        .call_method(
            Some("org.freedesktop.systemd1"),
            object_path(unit).as_str(),
            Some("org.freedesktop.DBus.Properties"),
            "Get",
            &(interface, name),
        )
        .await;
    let value = answer.and_then(|answer| answer.body().deserialize::<OwnedVariant>());
    match value {
        Ok(value) => T::try_from(value).map_err(|_| PropertyError::NoUnit),
        Err(error) => match call_error("Properties.Get", error) {
            UnitError::Refused { .. } => Err(PropertyError::NoUnit),
            error => Err(PropertyError::Call(error)),
        },
    }
}

/// The object of a unit: its name with each byte that D-Bus does not allow, and a leading digit, as `_` and
/// two hex digits (sd_bus_path_encode(3)). A unit that is not loaded is loaded when its object is asked.
fn object_path(unit: &UnitName) -> String {
    let mut path = String::from("/org/freedesktop/systemd1/unit/");
    for (at, byte) in unit.as_str().bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => path.push(byte.into()),
            b'0'..=b'9' if at > 0 => path.push(byte.into()),
            _ => path.push_str(&format!("_{byte:02x}")),
        }
    }
    path
}

/// An answer that says no is systemd's; anything else is the connection's.
pub fn call_error(call: &'static str, error: zbus::Error) -> UnitError {
    match error {
        zbus::Error::MethodError(name, text, _) => {
            let reason = text.unwrap_or_else(|| name.to_string());
            match name.as_str() {
                // The bus's own words for a systemd that is not there now.
                "org.freedesktop.DBus.Error.ServiceUnknown"
                | "org.freedesktop.DBus.Error.NameHasNoOwner"
                | "org.freedesktop.DBus.Error.NoReply"
                | "org.freedesktop.DBus.Error.Disconnected"
                | "org.freedesktop.DBus.Error.Timeout"
                | "org.freedesktop.DBus.Error.TimedOut" => UnitError::Unreachable { reason },
                _ => UnitError::Refused { call, reason },
            }
        }
        error => UnitError::Unreachable { reason: format!("{call}: {error}") },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_paths_are_systemds() {
        let check = |unit: &str, expected: &str| {
            let path = object_path(&UnitName::new(unit).unwrap());
            assert_eq!(path, format!("/org/freedesktop/systemd1/unit/{expected}"));
        };
        check("web@8000.service", "web_408000_2eservice");
        check("6to4-a_b.service", "_36to4_2da_5fb_2eservice");
    }
}
