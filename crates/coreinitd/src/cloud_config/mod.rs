//! `#cloud-config`: user data as CoreOS's machines got it. What it says is read and checked as a whole
//! (`document`), turned into steps in the order in which coreos-cloudinit took them (`plan`), and carried
//! out: files here (`files`), the rest by the systemd room. The daemon's options go to the configuration.
//!
//! It is carried out once a boot, like coreos-cloudinit did it, and not at each start of the daemon.

mod document;
mod files;
mod plan;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::config::Flags;
use crate::systemd::Host;

pub use document::{Addresses, Document};
pub use plan::{HostStep, JobVerb, Plan, Step};

/// What was carried out since the machine has booted.
const DONE: &str = "/run/coreinit/cloud-config-done";
/// No cloud gives a machine more user data; most give less.
const BYTES_MAX: u64 = 4 << 20;

/// A file that was read, and found to make sense.
#[derive(Clone, Debug, Default)]
pub struct CloudConfig {
    pub plan: Plan,
    /// Of the daemon's configuration file.
    pub options: toml::Table,
    /// Of fleet's.
    pub fleet: BTreeMap<String, String>,
    /// What is left to others, one line each.
    pub notes: Vec<String>,
    digest: String,
}

/// Reads the file; nothing is done yet.
pub fn read(path: &Path) -> anyhow::Result<CloudConfig> {
    let text = text_of(path).with_context(|| format!("cannot read {}", path.display()))?;
    understood(&text, &Addresses::of_this_machine).with_context(|| format!("in {}", path.display()))
}

fn text_of(path: &Path) -> anyhow::Result<String> {
    if std::fs::metadata(path)?.len() > BYTES_MAX {
        bail!("it is larger than {BYTES_MAX} bytes");
    }
    Ok(std::fs::read_to_string(path)?)
}

fn understood(text: &str, addresses: &dyn Fn() -> Addresses) -> anyhow::Result<CloudConfig> {
    let document = Document::parse(text, addresses)?;
    let plan = Plan::of(&document)?;
    let (options, fleet) = (document.options()?, document.fleet()?);
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let digest = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(CloudConfig { plan, options, fleet, notes: document.notes, digest })
}

impl CloudConfig {
    /// Whether it, as it is, was not carried out yet since the machine has booted.
    fn is_due(&self) -> bool {
        std::fs::read_to_string(DONE).map(|done| done != self.digest).unwrap_or(true)
    }

    fn note_done(&self) -> std::io::Result<()> {
        std::fs::create_dir_all(Path::new(DONE).parent().unwrap_or(Path::new("/")))?;
        std::fs::write(DONE, &self.digest)
    }

    /// Carries it out, if that is due; what failed comes back, one line each. `bus`: as of the configuration,
    /// of which the files may be a part.
    async fn carry_out(&self, bus: impl FnOnce() -> Option<String>) -> Vec<String> {
        if !self.is_due() {
            return Vec::new();
        }
        let mut failed = Vec::new();
        for step in self.plan.steps.iter().filter(|step| !matches!(step, Step::Host(_))) {
            if let Err(error) = files::carry_out(step, Path::new("/")) {
                failed.push(format!("{step}: {error:#}"));
            }
        }
        let of_host = |step: &Step| match step {
            Step::Host(step) => Some(step.clone()),
            Step::Write(_) | Step::SetLines { .. } | Step::Mask { .. } | Step::Unmask { .. } => None,
        };
        let steps: Vec<HostStep> = self.plan.steps.iter().filter_map(of_host).collect();
        if !steps.is_empty() {
            match Host::connect(bus()).await {
                Ok(host) => failed.extend(host.carry_out(&steps).await),
                Err(error) => failed.push(format!("systemd: {error:#}")),
            }
        }
        if failed.is_empty()
            && let Err(error) = self.note_done()
        {
            failed.push(format!("{DONE}: {error}"));
        }
        failed
    }
}

/// What the daemon's program does with it in place of running; `None`: it is to run.
pub fn act(flags: &Flags) -> Option<anyhow::Result<String>> {
    if !flags.cloud_config_only && !flags.cloud_config_check {
        return None;
    }
    let Some(path) = &flags.cloud_config else {
        return Some(Ok("no --cloud-config is given; nothing was done".into()));
    };
    Some(acted(flags, path))
}

fn acted(flags: &Flags, path: &Path) -> anyhow::Result<String> {
    let cloud = read(path)?;
    let mut said: Vec<String> = cloud.notes.iter().map(|note| format!("note: {note}")).collect();
    if flags.cloud_config_check {
        said.extend(cloud.plan.steps.iter().map(ToString::to_string));
        return Ok(said.join("\n"));
    }
    let failed = carried_out(flags, &cloud)?;
    if !failed.is_empty() {
        bail!("not all of {} was carried out: {}", path.display(), failed.join("; "));
    }
    said.push(format!("{} is carried out", path.display()));
    Ok(said.join("\n"))
}

/// Before the daemon runs: a machine whose user data fails is still a machine of the cluster.
pub fn before_running(flags: &Flags) -> anyhow::Result<Vec<String>> {
    let Some(path) = &flags.cloud_config else { return Ok(Vec::new()) };
    let failed = carried_out(flags, &read(path)?)?;
    let why =
        |failure| format!("{}: {failure} (coreinit-cloud-config.service does it as root)", path.display());
    Ok(failed.into_iter().map(why).collect())
}

fn carried_out(flags: &Flags, cloud: &CloudConfig) -> anyhow::Result<Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let bus = || crate::config::Config::load(flags).ok().and_then(|config| config.bus);
    Ok(runtime.block_on(cloud.carry_out(bus)))
}

/// Where systemd looks for units: below `etc`, or `run` for those that end with the boot.
fn unit_dir(runtime: bool, is_network: bool) -> PathBuf {
    let base = if runtime { "/run/systemd" } else { "/etc/systemd" };
    Path::new(base).join(if is_network { "network" } else { "system" })
}

#[cfg(test)]
mod tests;
