//! Units that systemd starts because of another unit: the service behind a socket, a timer or a path. The two
//! are of no use on different machines, and the one must be known to systemd before the other starts.

use crate::{UnitFile, UnitName};

/// The unit that the unit `name` starts when its time comes: `Service=` of a socket, `Unit=` of a timer or a
/// path, and without such a line the service of the same name (systemd.socket(5), systemd.timer(5),
/// systemd.path(5)).
pub fn activated_unit(name: &UnitName, file: &UnitFile) -> Option<UnitName> {
    let (section, option) = match name.suffix() {
        "socket" => ("Socket", "Service"),
        "timer" => ("Timer", "Unit"),
        "path" => ("Path", "Unit"),
        _ => return None,
    };
    match &*file.values(section, option).last().unwrap_or_default() {
        "" => name.with_suffix("service").ok(),
        said => UnitName::new(said).ok(),
    }
}
