//! What a person does on a host of a cluster: lays out unit files, types commands, and looks whether anything
//! is left behind.

use std::fmt;
use std::path::Path;

use crate::deploy::Cluster;
use crate::rack::UnitStatus;

/// Where unit files are laid out on a host.
const FOLDER: &str = "/tmp/units";
/// The names of our units.
const OURS: [&str; 2] = ["probe*", "mnt-probe*"];
/// Where the daemon and systemd keep what belongs to units, for as long as the host is on.
const TRACES: [&str; 3] = ["/run/coreinit/units", "/run/coreinit/done", "/run/systemd/system"];

/// What a command said, and how it ended.
#[derive(Clone, Debug)]
pub struct Said {
    pub command: String,
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`corectl {}` ended with {}:\n{}{}", self.command, self.code, self.out, self.err)
    }
}

impl Said {
    /// It must have ended with this code, and have said each of these.
    #[track_caller]
    pub fn is(self, code: i32, words: &[&str]) -> Said {
        let all = [&*self.out, &*self.err].concat();
        let missing = words.iter().find(|word| !all.contains(**word));
        assert!(self.code == code && missing.is_none(), "expected {code} and {words:?}, but {self}");
        self
    }

    #[track_caller]
    pub fn well(self) -> Said {
        self.is(0, &[])
    }
}

impl Cluster {
    /// Puts unit files into a folder of the host, and gives their paths, blanks between them.
    #[track_caller]
    pub fn lay_out(&self, host: &str, files: &[(&str, &str)]) -> String {
        let folder = self.rack.path(host, FOLDER).unwrap_or_else(|| panic!("{host} is off"));
        std::fs::create_dir_all(&folder).expect("the folder can be made");
        for (name, text) in files {
            std::fs::write(folder.join(name), text).expect("the file can be written");
        }
        files.iter().map(|(name, _)| format!("{FOLDER}/{name}")).collect::<Vec<_>>().join(" ")
    }

    /// Types `corectl` and these words on the host.
    #[track_caller]
    pub fn types(&self, host: &str, words: &str) -> Said {
        let output = self.corectl(host, &words.split_whitespace().collect::<Vec<_>>());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        // Without a code, a signal has ended it.
        let code = output.status.code().unwrap_or(-1);
        Said { command: words.into(), code, out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// What the host's systemd says of the unit, such as `loaded active running`; `none` when it has none.
    pub fn systemd_says(&self, host: &str, unit: &str) -> Result<String, String> {
        let told = |unit: &UnitStatus| format!("{} {} {}", unit.load, unit.active, unit.sub);
        Ok(self.rack.units(host, &[unit])?.values().next().map_or("none".into(), told))
    }

    /// What the daemon of the unit's machine has told the cluster, such as `loaded active running`.
    pub fn cluster_says(&self, host: &str, unit: &str) -> Result<String, String> {
        let unit = self.unit(host, unit)?;
        let home = unit.states.iter().find(|state| Some(&state.machine) == unit.machine.as_ref());
        let home = home.ok_or_else(|| format!("{} on no machine: {:?}", unit.name, unit.states))?;
        Ok(format!("{} {} {}", home.load, home.active, home.sub))
    }

    /// The text of a file of the host; empty without one.
    pub fn read(&self, host: &str, path: &str) -> String {
        let path = self.rack.path(host, path).unwrap_or_else(|| panic!("{host} is off"));
        std::fs::read_to_string(path).unwrap_or_default()
    }

    /// Makes an empty file on the host.
    #[track_caller]
    pub fn touch(&self, host: &str, path: &str) {
        let path = self.rack.path(host, path).unwrap_or_else(|| panic!("{host} is off"));
        std::fs::write(path, "").expect("the file can be made");
    }

    /// No host has any trace of a unit of ours: no file, no link, no mark, nothing in systemd's memory. Ours
    /// begin with `probe`, or are below /mnt/probe. The slices of instances are systemd's own.
    pub fn nothing_left_now(&self) -> Result<(), String> {
        for host in self.rack.hosts() {
            let loaded = self.rack.units(host, &OURS)?;
            let loaded: Vec<_> = loaded.into_iter().filter(|(name, _)| !name.ends_with(".slice")).collect();
            if !loaded.is_empty() {
                return Err(format!("{host} has loaded {loaded:?}"));
            }
            for folder in TRACES {
                let path = self.rack.path(host, folder).ok_or_else(|| format!("{host} is off"))?;
                if let Some(trace) = trace_below(&path) {
                    return Err(format!("{host} has {trace} in {folder}"));
                }
            }
        }
        Ok(())
    }
}

fn trace_below(folder: &Path) -> Option<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.into_iter().find_map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            _ if OURS.iter().any(|ours| name.starts_with(ours.trim_end_matches('*'))) => Some(name),
            true => trace_below(&entry.path()),
            false => None,
        }
    })
}
