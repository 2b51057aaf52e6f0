//! What a document comes to, step by step, in coreos-cloudinit's order: files; the update's settings; for
//! each unit its file, its drop-ins, its mask, its links; then one reload, and the commands in the order of
//! the units.

use std::collections::BTreeSet;
use std::fmt;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::document::{Document, FileEntry, UnitEntry};
use super::unit_dir;

/// Of one file, unpacked.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// What is read by `coreinit-reboot.service`.
const UPDATE_CONF: &str = "/etc/coreinit/update.conf";
const REBOOT_PATH: &str = "coreinit-reboot.path";
/// It gives the slot back that the machine took to reboot.
const REBOOT_DONE: &str = "coreinit-reboot-done.service";
const NETWORKD: &str = "systemd-networkd.service";
const NETWORK_KINDS: [&str; 3] = [".network", ".netdev", ".link"];
/// systemd.unit(5).
const UNIT_KINDS: [&str; 11] = [
    ".service",
    ".socket",
    ".device",
    ".mount",
    ".automount",
    ".swap",
    ".target",
    ".path",
    ".timer",
    ".slice",
    ".scope",
];
const UNIT_NAME_BYTES_MAX: usize = 255;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Write(NewFile),
    /// `KEY=VALUE` lines that take the place of those of the same key; others stay.
    SetLines {
        path: PathBuf,
        lines: Vec<(String, String)>,
    },
    /// A link to /dev/null, in place of whatever is there.
    Mask {
        path: PathBuf,
    },
    /// Such a link is taken away.
    Unmask {
        path: PathBuf,
    },
    /// For systemd.
    Host(HostStep),
}

#[derive(Clone, PartialEq, Eq)]
pub struct NewFile {
    pub path: PathBuf,
    pub bytes: Vec<u8>,
    pub mode: u32,
    /// `USER`, `USER:GROUP` or `:GROUP`, by name or number.
    pub owner: Option<String>,
}

/// What systemd is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostStep {
    Enable { unit: String, runtime: bool },
    Disable { unit: String },
    Reload,
    Job { unit: String, verb: JobVerb },
}

/// coreos-cloudinit's commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobVerb {
    Start,
    Stop,
    Restart,
    Reload,
    TryRestart,
    ReloadOrRestart,
    ReloadOrTryRestart,
}

impl JobVerb {
    const ALL: [(JobVerb, &str); 7] = [
        (JobVerb::Start, "start"),
        (JobVerb::Stop, "stop"),
        (JobVerb::Restart, "restart"),
        (JobVerb::Reload, "reload"),
        (JobVerb::TryRestart, "try-restart"),
        (JobVerb::ReloadOrRestart, "reload-or-restart"),
        (JobVerb::ReloadOrTryRestart, "reload-or-try-restart"),
    ];

    fn of(name: &str) -> Option<JobVerb> {
        JobVerb::ALL.into_iter().find(|(_, known)| *known == name).map(|(verb, _)| verb)
    }

    fn as_str(self) -> &'static str {
        JobVerb::ALL.into_iter().find(|(verb, _)| *verb == self).map_or("", |(_, name)| name)
    }
}

impl Plan {
    /// All of it can be done, or nothing is.
    pub fn of(document: &Document) -> anyhow::Result<Plan> {
        let mut steps = Vec::new();
        for entry in &document.write_files {
            let file = file(entry).with_context(|| format!("write_files: {:?}", entry.path))?;
            steps.push(Step::Write(file));
        }
        let (mut places, mut jobs) = (Vec::new(), Vec::new());
        let mut is_network_new = false;
        if let Some(strategy) = document.coreos.update.reboot_strategy.as_str() {
            let lines = vec![("REBOOT_STRATEGY".into(), strategy.into())];
            steps.push(Step::SetLines { path: UPDATE_CONF.into(), lines });
            let unit = REBOOT_PATH.to_string();
            let verb = if strategy == "off" {
                // A slot that was taken before is still given back.
                places.push(Step::Host(HostStep::Disable { unit: unit.clone() }));
                JobVerb::Stop
            } else {
                for unit in [REBOOT_DONE, REBOOT_PATH] {
                    places.push(Step::Host(HostStep::Enable { unit: unit.into(), runtime: false }));
                }
                JobVerb::Start
            };
            jobs.push(HostStep::Job { unit, verb });
        }
        let mut is_placed = false;
        for unit in &document.coreos.units {
            let (placed, job) = steps_of(unit).with_context(|| format!("units: {:?}", unit.name))?;
            is_placed |= placed.iter().any(|step| !matches!(step, Step::Host(_)));
            is_network_new |= is_network(&unit.name);
            places.extend(placed);
            jobs.extend(job);
        }
        steps.extend(places);
        if is_placed {
            steps.push(Step::Host(HostStep::Reload));
        }
        if is_network_new {
            let restart = HostStep::Job { unit: NETWORKD.into(), verb: JobVerb::Restart };
            steps.push(Step::Host(restart));
        }
        steps.extend(jobs.into_iter().map(Step::Host));
        Ok(Plan { steps })
    }
}

fn is_network(unit: &str) -> bool {
    NETWORK_KINDS.iter().any(|kind| unit.ends_with(kind))
}

fn steps_of(unit: &UnitEntry) -> anyhow::Result<(Vec<Step>, Option<HostStep>)> {
    check_name(&unit.name)?;
    let verb = match unit.command.as_str() {
        "" => None,
        name => Some(JobVerb::of(name).with_context(|| {
            let known: Vec<&str> = JobVerb::ALL.iter().map(|(_, name)| *name).collect();
            format!("command: {name:?} is none of {}", known.join(", "))
        })?),
    };
    let is_network = is_network(&unit.name);
    let dir = unit_dir(unit.runtime, is_network);
    let path = dir.join(&unit.name);
    let text = |path: PathBuf, text: &str| {
        Step::Write(NewFile { path, bytes: text.as_bytes().into(), mode: 0o644, owner: None })
    };
    let mut steps = Vec::new();
    if !unit.content.is_empty() {
        steps.push(text(path.clone(), &unit.content));
    }
    let mut seen = BTreeSet::new();
    for drop_in in &unit.drop_ins {
        let name = &drop_in.name;
        let is_file = !name.contains(['/', '\0']) && name.ends_with(".conf") && !name.starts_with('.');
        ensure!(
            is_file && name.len() <= UNIT_NAME_BYTES_MAX,
            "drop-ins: {name:?} is no name of a drop-in, *.conf"
        );
        ensure!(seen.insert(name), "drop-ins: {name:?} is there twice");
        steps.push(text(dir.join(format!("{}.d", unit.name)).join(name), &drop_in.content));
    }
    if unit.mask {
        steps.push(Step::Mask { path });
    } else if unit.runtime {
        steps.push(Step::Unmask { path });
    }
    if unit.enable && !is_network {
        steps.push(Step::Host(HostStep::Enable { unit: unit.name.clone(), runtime: unit.runtime }));
    }
    let job = verb.filter(|_| !is_network).map(|verb| HostStep::Job { unit: unit.name.clone(), verb });
    Ok((steps, job))
}

fn check_name(name: &str) -> anyhow::Result<()> {
    let kinds = UNIT_KINDS.iter().chain(&NETWORK_KINDS);
    let stem = kinds.into_iter().find_map(|kind| name.strip_suffix(kind));
    let good = |c: u8| c.is_ascii_alphanumeric() || b":-_.\\@".contains(&c);
    let is_good = stem.is_some_and(|stem| !stem.is_empty() && stem.bytes().all(good));
    ensure!(is_good && name.len() <= UNIT_NAME_BYTES_MAX, "this is no unit's name");
    Ok(())
}

fn file(entry: &FileEntry) -> anyhow::Result<NewFile> {
    let path = PathBuf::from(&entry.path);
    let is_plain = |part: Component| matches!(part, Component::RootDir | Component::Normal(_));
    ensure!(
        path.is_absolute() && path.components().all(is_plain) && path.file_name().is_some(),
        "the path is not absolute, or has .. in it"
    );
    ensure!(!entry.append, "append is not known here: the file would grow at each boot");
    let owner = Some(entry.owner.clone()).filter(|owner| !owner.is_empty());
    Ok(NewFile { path, bytes: decoded(entry)?, mode: mode(&entry.permissions)?, owner })
}

fn mode(text: &str) -> anyhow::Result<u32> {
    if text.is_empty() {
        return Ok(0o644);
    }
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let mode = u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o7777);
    mode.with_context(|| format!("permissions: {text:?} are no octal digits such as '0644'"))
}

/// cloud-init's names for it.
fn decoded(entry: &FileEntry) -> anyhow::Result<Vec<u8>> {
    let raw = entry.content.as_bytes();
    let (packed, coded) = match entry.encoding.as_str() {
        "" | "text/plain" => (false, false),
        "b64" | "base64" => (false, true),
        "gz" | "gzip" => (true, false),
        "gz+b64" | "gzip+b64" | "gz+base64" | "gzip+base64" => (true, true),
        other => bail!("encoding: {other:?} is not known"),
    };
    let bytes = if coded {
        let code: Vec<u8> = raw.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
        STANDARD.decode(code).context("content is no base64")?
    } else {
        raw.to_vec()
    };
    if !packed {
        return Ok(bytes);
    }
    let mut unpacked = Vec::new();
    let unpacking = flate2::read::MultiGzDecoder::new(&bytes[..]).take(FILE_BYTES_MAX + 1);
    { unpacking }.read_to_end(&mut unpacked).context("content is not gzip's")?;
    ensure!(
        unpacked.len() as u64 <= FILE_BYTES_MAX,
        "content is longer than {FILE_BYTES_MAX} bytes, unpacked"
    );
    Ok(unpacked)
}

/// The bytes may be a secret.
impl fmt::Debug for NewFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes, mode {:04o}", self.path.display(), self.bytes.len(), self.mode)?;
        if let Some(owner) = &self.owner {
            write!(f, ", owner {owner}")?;
        }
        f.write_str(")")
    }
}

/// One line, for people.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |path: &Path| path.display().to_string();
        match self {
            Step::Write(file) => write!(f, "write {file:?}"),
            Step::SetLines { path, lines } => {
                let lines: Vec<String> = lines.iter().map(|(key, value)| format!("{key}={value}")).collect();
                write!(f, "set {} in {}", lines.join(" "), at(path))
            }
            Step::Mask { path } => write!(f, "mask {}", at(path)),
            Step::Unmask { path } => write!(f, "unmask {}", at(path)),
            Step::Host(step) => write!(f, "{step}"),
        }
    }
}

impl fmt::Display for HostStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostStep::Enable { unit, runtime: false } => write!(f, "enable {unit}"),
            HostStep::Enable { unit, runtime: true } => write!(f, "enable {unit} until the next boot"),
            HostStep::Disable { unit } => write!(f, "disable {unit}"),
            HostStep::Reload => f.write_str("reload systemd's units"),
            HostStep::Job { unit, verb } => write!(f, "{} {unit}", verb.as_str()),
        }
    }
}
