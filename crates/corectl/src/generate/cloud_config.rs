//! `#cloud-config`, in both of its dialects: cloud-init's
//! (<https://cloudinit.readthedocs.io/en/latest/reference/modules.html>), and that of CoreOS, which
//! `coreinitd --cloud-config` reads.

use anyhow::bail;

use super::butane::{block, quoted};
use super::new_machine::{Contents, NewFile, NewMachine};

/// Units are files like others there, and made known by commands.
pub fn for_cloud_init(machine: &NewMachine) -> String {
    let mut text = String::from("#cloud-config\nwrite_files:\n");
    let mut commands = Vec::new();
    for file in &machine.files {
        match &file.contents {
            Contents::Text(contents) => text.push_str(&entry(&file.path, file.mode, contents)),
            Contents::From(url) => {
                let mode = format!("{:o}", file.mode);
                commands.push(list(&[
                    "curl",
                    "-fsSL",
                    "--create-dirs",
                    "--retry",
                    "10",
                    "-o",
                    &file.path,
                    url,
                ]));
                commands.push(list(&["chmod", &mode, &file.path]));
            }
        }
    }
    for unit in &machine.units {
        if let Some(contents) = &unit.text {
            text.push_str(&entry(&format!("/etc/systemd/system/{}", unit.name), 0o644, contents));
        }
    }
    commands.push(list(&["systemctl", "daemon-reload"]));
    for unit in machine.units.iter().filter(|unit| unit.enabled) {
        commands.push(list(&["systemctl", "enable", "--now", "--no-block", unit.name]));
    }
    text.push_str("runcmd:\n");
    text.push_str(&commands.concat());
    text
}

/// Nothing can be fetched there.
pub fn for_coreos(machine: &NewMachine) -> anyhow::Result<String> {
    let mut text = String::from("#cloud-config\nwrite_files:\n");
    for NewFile { path, mode, contents } in &machine.files {
        match contents {
            Contents::Text(contents) => text.push_str(&entry(path, *mode, contents)),
            Contents::From(_) => bail!(
                "--programs: a cloud-config of CoreOS's kind fetches nothing; use ignition or butane, \
                 or cloud-init's dialect"
            ),
        }
    }
    text.push_str("coreos:\n  units:\n");
    for unit in &machine.units {
        text.push_str(&format!("    - name: {}\n", unit.name));
        if unit.enabled {
            text.push_str("      enable: true\n      command: start\n");
        }
        if let Some(contents) = &unit.text {
            text.push_str(&format!("      content: {}", block(contents, 8)));
        }
    }
    Ok(text)
}

fn entry(path: &str, mode: u32, contents: &str) -> String {
    format!("  - path: {path}\n    permissions: '0{mode:o}'\n    content: {}", block(contents, 6))
}

fn list(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    format!("  - [{}]\n", words.join(", "))
}
