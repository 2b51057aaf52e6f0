//! `#cloud-config`: user data as CoreOS's machines got it. What it says is read and checked as a whole
//! (`document`), turned into steps in the order in which coreos-cloudinit took them (`plan`), and carried
//! out: files here (`files`), the rest by the systemd room. The daemon's options go to the configuration.
//!
//! It is carried out once a boot, like coreos-cloudinit did it, and never by the daemon itself: a step that
//! restarts the daemon would do so for ever. What failed is told, and not tried again.

mod document;
mod files;
mod plan;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::{Instant, sleep};

use crate::config::Flags;
use crate::systemd::Host;

use document::NoAddress;
pub use document::{Addresses, Document};
pub use plan::{HostStep, JobVerb, Plan, Step};

/// What was carried out since the machine has booted. dist/tmpfiles.d takes it away where a boot leaves /run.
const DONE: &str = "/run/coreinit/cloud-config-done";
/// How long this machine is given to get an address: DHCP's answer takes seconds, and the daemon, which may
/// find its configuration among the files here, is kept waiting meanwhile.
const ADDRESS_WAIT: Duration = Duration::from_secs(60);
const ADDRESS_INTERVAL: Duration = Duration::from_millis(500);
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
    fn is_due(&self, root: &Path) -> bool {
        std::fs::read_to_string(files::below(root, Path::new(DONE))).map_or(true, |done| done != self.digest)
    }

    /// Whatever comes of it: a step that fails does so at the next try, too, and the others are not to be
    /// done twice. Before systemd is asked for anything, which may end this very process.
    fn note_done(&self, root: &Path) -> anyhow::Result<()> {
        let path = files::below(root, Path::new(DONE));
        let written = std::fs::create_dir_all(path.parent().unwrap_or(root));
        written
            .and_then(|()| std::fs::write(path, &self.digest))
            .with_context(|| format!("cannot write {DONE}"))
    }

    /// Carries it out below `root`, which is `/` but for tests, if that is due. What failed comes back, one
    /// line each; an error is for what may be tried again. `bus`: as of the configuration, of which the files
    /// may be a part.
    async fn carry_out(
        &self,
        root: &Path,
        bus: impl FnOnce() -> Option<String>,
    ) -> anyhow::Result<Vec<String>> {
        if !self.is_due(root) {
            return Ok(Vec::new());
        }
        let mut failed = Vec::new();
        for step in self.plan.steps.iter().filter(|step| !matches!(step, Step::Host(_))) {
            if let Err(error) = files::carry_out(step, root) {
                failed.push(format!("{step}: {error:#}"));
            }
        }
        let of_host = |step: &Step| match step {
            Step::Host(step) => Some(step.clone()),
            Step::Write(_) | Step::SetLines { .. } | Step::Mask { .. } | Step::Unmask { .. } => None,
        };
        let steps: Vec<HostStep> = self.plan.steps.iter().filter_map(of_host).collect();
        if steps.is_empty() {
            self.note_done(root)?;
            return Ok(failed);
        }
        let host = Host::connect(bus()).await.context(Later).context("systemd cannot be asked")?;
        self.note_done(root)?;
        failed.extend(host.carry_out(&steps).await);
        Ok(failed)
    }
}

/// Why nothing was done that is not to be done again: a later try may do better.
#[derive(Debug, thiserror::Error)]
#[error("a later try may do better")]
pub struct Later;

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
    if flags.cloud_config_check {
        let cloud = read(path)?;
        let said = notes_of(&cloud).chain(cloud.plan.steps.iter().map(ToString::to_string));
        return Ok(said.collect::<Vec<_>>().join("\n"));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (cloud, failed) = runtime.block_on(async {
        let cloud = read_with_addresses(&|| read(path)).await?;
        let bus = || crate::config::Config::load(flags).ok().and_then(|config| config.bus);
        let failed = cloud.carry_out(Path::new("/"), bus).await?;
        anyhow::Ok((cloud, failed))
    })?;
    if !failed.is_empty() {
        bail!(
            "not all of {} was carried out, and what failed is not tried again in this boot: {}",
            path.display(),
            failed.join("; ")
        );
    }
    let said = notes_of(&cloud).chain([format!("{} is carried out", path.display())]);
    Ok(said.collect::<Vec<_>>().join("\n"))
}

fn notes_of(cloud: &CloudConfig) -> impl Iterator<Item = String> {
    cloud.notes.iter().map(|note| format!("note: {note}"))
}

/// Waits a while for the addresses that the file names, when the machine has none yet.
async fn read_with_addresses(read: &dyn Fn() -> anyhow::Result<CloudConfig>) -> anyhow::Result<CloudConfig> {
    let end = Instant::now() + ADDRESS_WAIT;
    loop {
        match read() {
            Err(error) if error.downcast_ref::<NoAddress>().is_some() => {
                if end <= Instant::now() {
                    return Err(error.context(Later));
                }
            }
            read => return read,
        }
        sleep(ADDRESS_INTERVAL).await;
    }
}

/// For the daemon, which takes its options only: whether the rest of it waits for somebody to carry it out.
pub fn left_undone(flags: &Flags) -> Option<String> {
    let path = flags.cloud_config.as_deref()?;
    let cloud = read(path).ok()?;
    if cloud.plan.steps.is_empty() || !cloud.is_due(Path::new("/")) {
        return None;
    }
    Some(format!(
        "{}: its files and units are not carried out in this boot; coreinit-cloud-config.service does that",
        path.display()
    ))
}

/// Where systemd looks for units: below `etc`, or `run` for those that end with the boot.
fn unit_dir(runtime: bool, is_network: bool) -> PathBuf {
    let base = if runtime { "/run/systemd" } else { "/etc/systemd" };
    Path::new(base).join(if is_network { "network" } else { "system" })
}

#[cfg(test)]
mod tests;
