//! `start --require` and `--all-machines`: what is asked for on the command line is written into the unit
//! file that the cluster gets, in a section `[X-Coreinit]` at its end.

use anyhow::{Context, bail};
use cluster::{UnitFile, UnitName};

/// What the command line adds to each unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amendment {
    pub require: Vec<(String, String)>,
    pub all_machines: bool,
}

const SECTIONS: [&str; 3] = ["X-Fleet", "X-Coreinit", "X-Flt"];

impl Amendment {
    pub fn is_empty(&self) -> bool {
        *self == Amendment::default()
    }

    /// The file with what it does not say yet.
    pub fn of(&self, name: &UnitName, file: &UnitFile) -> anyhow::Result<UnitFile> {
        let values = |option: &str| -> Vec<String> {
            let of_section =
                |section| file.values(section, option).map(String::from).collect::<Vec<String>>();
            SECTIONS.into_iter().flat_map(of_section).collect()
        };
        let mut lines = Vec::new();
        let said: Vec<String> = values("MachineMetadata")
            .iter()
            .chain(&values("X-ConditionMachineMetadata"))
            .flat_map(|value| value.split('"').map(|part| part.trim().to_string()).collect::<Vec<String>>())
            .collect();
        for (key, value) in &self.require {
            let pair = format!("{key}={value}");
            // Two values of one key mean that either will do: less than what is asked for here.
            let other = said
                .iter()
                .find(|said| **said != pair && said.split_once('=').is_some_and(|(known, _)| known == key));
            if let Some(other) = other {
                bail!("{name} asks for {other} itself, so {pair} cannot be required too");
            }
            if !said.contains(&pair) {
                lines.push(format!("MachineMetadata={pair}"));
            }
        }
        let is_global = values("Global").last().is_some_and(|value| {
            ["true", "yes", "1", "on", "t"].iter().any(|truth| value.eq_ignore_ascii_case(truth))
        });
        if self.all_machines && !is_global {
            lines.push("Global=true".into());
        }
        if lines.is_empty() {
            return Ok(file.clone());
        }
        let text = file.text();
        let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        let amended = format!("{text}{end}\n[X-Coreinit]\n{}\n", lines.join("\n"));
        UnitFile::parse(&amended).with_context(|| format!("{name} with what the command line asks for"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_amended_once() {
        let name = UnitName::new("a.service").unwrap();
        let all = Amendment { require: vec![("disk".into(), "ssd".into())], all_machines: true };
        let file = UnitFile::parse("[Service]\nExecStart=/bin/true").unwrap();
        let amended = all.of(&name, &file).unwrap();
        let expected =
            "[Service]\nExecStart=/bin/true\n\n[X-Coreinit]\nMachineMetadata=disk=ssd\nGlobal=true\n";
        assert_eq!(amended.text(), expected);
        assert_eq!(all.of(&name, &amended).unwrap().text(), expected, "nothing is said twice");
        let other = UnitFile::parse("[X-Fleet]\nMachineMetadata=\"disk=hdd\" \"a=b\"\n").unwrap();
        assert!(all.of(&name, &other).unwrap_err().to_string().contains("disk=hdd"));
        assert_eq!(Amendment::default().of(&name, &file).unwrap().text(), file.text());
    }
}
