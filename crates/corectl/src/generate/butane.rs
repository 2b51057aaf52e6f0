//! Butane's form, YAML for people, out of which `butane` makes Ignition's:
//! <https://coreos.github.io/butane/specs/>.

use crate::cli::Variant;

use super::new_machine::{Contents, NewMachine};

pub fn write(machine: &NewMachine, variant: Variant) -> String {
    // Both come to Ignition 3.3.0.
    let (variant, version) = match variant {
        Variant::Flatcar => ("flatcar", "1.0.0"),
        Variant::Fcos => ("fcos", "1.4.0"),
    };
    let mut text = format!("variant: {variant}\nversion: {version}\nstorage:\n  files:\n");
    for file in &machine.files {
        text.push_str(
            &format!("    - path: {}\n      mode: {:#05o}\n", file.path, file.mode).replace("0o", "0"),
        );
        text.push_str("      overwrite: true\n      contents:\n");
        match &file.contents {
            Contents::Text(inline) => text.push_str(&format!("        inline: {}", block(inline, 10))),
            Contents::From(url) => text.push_str(&format!("        source: {}\n", quoted(url))),
        }
    }
    text.push_str("systemd:\n  units:\n");
    for unit in &machine.units {
        text.push_str(&format!("    - name: {}\n", unit.name));
        if unit.enabled {
            text.push_str("      enabled: true\n");
        }
        if let Some(contents) = &unit.text {
            text.push_str(&format!("      contents: {}", block(contents, 8)));
        }
    }
    text
}

/// A text as it is, its lines so far to the right. It ends with a line's end, and its first line does not
/// begin with a blank.
pub fn block(text: &str, columns: usize) -> String {
    let mut block = String::from("|\n");
    for line in text.lines() {
        if !line.is_empty() {
            block.push_str(&" ".repeat(columns));
            block.push_str(line);
        }
        block.push('\n');
    }
    block
}

/// On one line, whatever is in it: YAML's double quotes are JSON's.
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
