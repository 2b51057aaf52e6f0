//! `[Install]`: units that other units are to pull in, or that have other names. systemd keeps that as links
//! beside the one by which it finds the file, all made and removed together; and it looks at them only when
//! it reads its files.

use cluster::{UnitFile, UnitName};

use super::calls::call_error;
use super::files::Files;
use super::{Link, Shared};
use crate::systemd::UnitError;

/// What enabling a unit means, in systemd.unit(5).
const SECTION: &str = "Install";

/// A change that systemd has made on the disk: what was done, to which path, and where a link leads.
type Made = (String, String, String);

/// Links the files, and makes those that have an `[Install]` section known to the units that want them. One
/// that cannot be fails them all.
pub async fn link(shared: &Shared, link: &Link, units: &[&UnitName]) -> Result<(), UnitError> {
    let files = &shared.files;
    let (wanted, plain): (Vec<_>, Vec<_>) =
        units.iter().partition(|unit| files.get(unit).is_some_and(|file| has_install(&file)));
    let paths = |units: Vec<&&UnitName>| units.iter().map(|unit| files.path_told(unit)).collect::<Vec<_>>();
    if !plain.is_empty() {
        let linked = link.manager.link_unit_files(paths(plain), true, false).await;
        linked.map_err(|error| call_error("LinkUnitFiles", error))?;
    }
    if !wanted.is_empty() {
        // Nothing is forced: a link that somebody else made stays.
        match link.manager.enable_unit_files(paths(wanted.clone()), true, false).await {
            Ok((_, made)) => read_again_if_others_are_concerned(shared, link, &made).await?,
            Err(error) => {
                // It may have made some of the links. All or none: a unit that has its own has the others.
                let names = wanted.iter().map(|unit| unit.as_str().to_string()).collect();
                let _ = link.manager.disable_unit_files(names, true).await;
                return Err(call_error("EnableUnitFiles", error));
            }
        }
    }
    Ok(())
}

/// Removes all links to these units.
pub async fn unlink(shared: &Shared, link: &Link, units: &[&UnitName]) -> Result<(), UnitError> {
    let names = units.iter().map(|unit| unit.as_str().to_string()).collect();
    let disabled = link.manager.disable_unit_files(names, true).await;
    let made = disabled.map_err(|error| call_error("DisableUnitFiles", error))?;
    read_again_if_others_are_concerned(shared, link, &made).await
}

async fn read_again_if_others_are_concerned(
    shared: &Shared,
    link: &Link,
    made: &[Made],
) -> Result<(), UnitError> {
    if made.iter().any(|(_, path, _)| shared.files.concerns_another(path)) {
        link.manager.reload().await.map_err(|error| call_error("Reload", error))?;
    }
    Ok(())
}

fn has_install(file: &UnitFile) -> bool {
    file.options().iter().any(|option| option.section == SECTION)
}

/// Whether the links that were made for the text which is there now are not those of the new one.
pub fn differs(files: &Files, unit: &UnitName, new: &UnitFile) -> bool {
    let said = |file: &UnitFile| {
        let options = file.options().iter().filter(|option| option.section == SECTION);
        options.cloned().collect::<Vec<_>>()
    };
    files.get(unit).map(|old| said(&old)).unwrap_or_default() != said(new)
}
