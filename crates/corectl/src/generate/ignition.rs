//! Ignition's own form, JSON: <https://coreos.github.io/ignition/configuration-v3_3/>.

use serde_json::{Map, Value, json};

use super::new_machine::{Contents, NewFile, NewMachine, NewUnit};

/// Known to Ignition from 2.11 on: every Flatcar and Fedora CoreOS that is still kept.
const VERSION: &str = "3.3.0";

pub fn write(machine: &NewMachine) -> String {
    let config = json!({
        "ignition": { "version": VERSION },
        "storage": { "files": machine.files.iter().map(file).collect::<Vec<_>>() },
        "systemd": { "units": machine.units.iter().map(unit).collect::<Vec<_>>() },
    });
    format!("{config:#}\n")
}

fn file(file: &NewFile) -> Value {
    let source = match &file.contents {
        Contents::Text(text) => data_url(text),
        Contents::From(url) => url.clone(),
    };
    json!({ "path": file.path, "mode": file.mode, "overwrite": true, "contents": { "source": source } })
}

fn unit(unit: &NewUnit) -> Value {
    let mut entry = Map::new();
    entry.insert("name".into(), unit.name.into());
    if unit.enabled {
        entry.insert("enabled".into(), true.into());
    }
    if let Some(text) = &unit.text {
        entry.insert("contents".into(), text.as_str().into());
    }
    entry.into()
}

/// RFC 2397, each byte escaped that RFC 3986 does not call unreserved.
fn data_url(text: &str) -> String {
    let mut url = String::from("data:,");
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => url.push(byte.into()),
            _ => url.push_str(&format!("%{byte:02X}")),
        }
    }
    url
}
