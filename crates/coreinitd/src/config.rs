//! What the daemon was told: a TOML file, `COREINIT_*` variables over it, flags over both; and a `fleet.conf`
//! under all of them, when there is one.

mod address;
mod etcd;
mod fleet_conf;
mod fleet_etcd;
mod key_listen;
pub mod keys;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use cluster::{MachineId, PersonRole};
use identity::Kept;
use serde::Deserialize;

pub(crate) use address::is_loopback;
pub(crate) use address::own_address;
use etcd::EtcdApi;
pub use etcd::{Backend, Etcd};
use fleet_conf::FleetConf;
use key_listen::OneOrMany;

use crate::cloud_config::{self, CloudConfig};
use crate::trust::Trust;
use crate::{keys as trust_keys, lookup};

/// The port for everything that daemons say to each other.
pub const PORT: u16 = 7340;
/// The port on which people with certificates are served, unless another is named.
pub const PEOPLE_PORT: u16 = 7421;
/// openraft tells every step of every election at `info`, and every call to a machine that is down at `warn`.
const LOG: &str = "info,openraft=error";
/// fleet's `verbosity = 1`.
const LOG_VERBOSE: &str = "debug,openraft=error";
const CONFIG_PATH: &str = "/etc/coreinit/coreinitd.toml";

/// systemd at the level of the cluster: the daemon of one machine.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "coreinitd", version, long_version = crate::version::long())]
pub struct Flags {
    /// The configuration file [default: /etc/coreinit/coreinitd.toml, if it exists]
    #[arg(long, env = "COREINIT_CONFIG", value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// fleet's configuration file: what still means something is taken from it
    #[arg(long, env = "COREINIT_FLEET_CONFIG", value_name = "FILE")]
    pub fleet_config: Option<PathBuf>,
    /// User data, as CoreOS's machines got it, that begins with #cloud-config: options of this daemon in it
    /// win over the configuration file
    #[arg(long, env = "COREINIT_CLOUD_CONFIG", value_name = "FILE")]
    pub cloud_config: Option<PathBuf>,
    /// Only carry the cloud-config's files and units out, once a boot, and end
    #[arg(long)]
    pub cloud_config_only: bool,
    /// Only check the cloud-config, print what would be done, and end
    #[arg(long)]
    pub cloud_config_check: bool,
    /// Where this machine's share of the state is kept [default: /var/lib/coreinit]
    #[arg(long, env = "COREINIT_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The socket of the API [default: /run/coreinit.sock]
    #[arg(long, env = "COREINIT_SOCKET", value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Where to listen for other machines [default: 0.0.0.0:7340, once the machine belongs to a cluster]
    #[arg(long, env = "COREINIT_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Where other machines reach this one [default: found from `join` or the default route]
    #[arg(long, env = "COREINIT_ADVERTISE", value_name = "ADDRESS")]
    pub advertise: Option<String>,
    /// How many machines form the cluster together
    #[arg(long, env = "COREINIT_BOOTSTRAP_EXPECT", value_name = "N")]
    pub bootstrap_expect: Option<usize>,
    /// The machines to form or join a cluster with
    #[arg(long, env = "COREINIT_JOIN", value_name = "ADDRESS", value_delimiter = ',')]
    pub join: Option<Vec<String>>,
    /// A file with the secret that all machines of the cluster share: with it, everything between them is
    /// encrypted, and only they are let in
    #[arg(long, env = "COREINIT_CLUSTER_SECRET_FILE", value_name = "PATH")]
    pub cluster_secret_file: Option<PathBuf>,
    /// Open the port beyond loopback although nothing on it is encrypted or checked
    #[arg(long, env = "COREINIT_INSECURE_TRANSPORT", num_args = 0..=1, default_missing_value = "true")]
    pub insecure_transport: Option<bool>,
    /// This machine's id [default: the content of /etc/machine-id]
    #[arg(long, env = "COREINIT_MACHINE_ID", value_name = "ID")]
    pub machine_id: Option<String>,
    /// The engine under the store: sled or redb
    #[arg(long, env = "COREINIT_ENGINE", value_name = "ENGINE")]
    pub engine: Option<Engine>,
    /// Where the cluster's state is kept: raft or etcd
    #[arg(long, env = "COREINIT_BACKEND", value_name = "BACKEND")]
    pub backend: Option<Backend>,
    /// The members of the etcd to keep it in
    #[arg(long, env = "COREINIT_ETCD_ENDPOINTS", value_name = "URL", value_delimiter = ',')]
    pub etcd_endpoints: Option<Vec<String>>,
    /// Only move the state from the other backend to this one, and end
    #[arg(long, value_name = "BACKEND", hide = true)]
    pub migrate_to: Option<Backend>,
    /// Only make this machine the first member of a new cluster with the state of this backup, and end
    #[arg(long, value_name = "FILE", hide = true)]
    pub restore: Option<PathBuf>,
    /// Only make this machine the only member of its cluster's next life, and end
    #[arg(long, hide = true)]
    pub recover: bool,
    /// Whoever asks for that knows what becomes of the store that is there
    #[arg(long, hide = true)]
    pub sure: bool,
    /// Only look at the store in this folder, and end
    #[arg(long, value_name = "DIR", hide = true)]
    pub check_store: Option<PathBuf>,
    /// What to log, such as `info` or `debug,raft=trace`
    #[arg(long, env = "COREINIT_LOG", value_name = "FILTER")]
    pub log: Option<String>,
}

/// The configuration file. A key that is not known is an error: it is a slip that would change nothing in
/// silence.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    data_dir: Option<PathBuf>,
    runtime_dir: Option<PathBuf>,
    socket: Option<PathBuf>,
    fleet_socket: Option<PathBuf>,
    api_listen: Vec<String>,
    api_listen_role: Option<PersonRole>,
    api_tls_listen: Option<String>,
    socket_role: Option<PersonRole>,
    listen: Option<String>,
    advertise: Option<String>,
    bootstrap_expect: Option<usize>,
    join: Option<Vec<String>>,
    cluster_secret_file: Option<PathBuf>,
    insecure_transport: Option<bool>,
    machine_id: Option<String>,
    machine_name: Option<String>,
    public_ip: Option<String>,
    metadata: BTreeMap<String, String>,
    cluster_name: Option<String>,
    machine_lost_after: Option<String>,
    stop_units_on_exit: bool,
    bus: Option<String>,
    engine: Option<Engine>,
    backend: Option<Backend>,
    etcd_listen: Option<OneOrMany>,
    etcd_endpoints: Option<Vec<String>>,
    etcd_api: Option<EtcdApi>,
    etcd_prefix: Option<String>,
    etcd_user: Option<String>,
    etcd_password_file: Option<PathBuf>,
    etcd_ca_file: Option<PathBuf>,
    etcd_cert_file: Option<PathBuf>,
    etcd_key_file: Option<PathBuf>,
    log: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    #[default]
    Sled,
    Redb,
}

impl Engine {
    pub fn name(self) -> &'static str {
        match self {
            Engine::Sled => "sled",
            Engine::Redb => "redb",
        }
    }
}

/// Everything the daemon was told, checked and complete.
#[derive(Clone, Debug)]
pub struct Config {
    pub machine: MachineId,
    pub machine_name: String,
    pub metadata: BTreeMap<String, String>,
    pub data_dir: PathBuf,
    /// For what lives no longer than the boot: unit files, and what was done with them.
    pub runtime_dir: PathBuf,
    pub socket: PathBuf,
    /// The same API once more, where fleet's clients look for it.
    pub fleet_socket: Option<PathBuf>,
    /// What may be done over the sockets by others than root.
    pub socket_role: PersonRole,
    /// The same API over TCP, unencrypted.
    pub api_listen: Vec<String>,
    pub api_listen_role: PersonRole,
    /// The same API over TLS, for people with certificates.
    pub api_tls_listen: Option<String>,
    /// etcd's key API over TCP, unencrypted, for whoever reaches it.
    pub etcd_listen: Vec<String>,
    pub listen: String,
    pub advertise: Option<String>,
    /// The same, only if the configuration says it.
    pub advertise_told: Option<String>,
    pub bootstrap_expect: usize,
    pub join: Vec<String>,
    pub cluster_name: String,
    pub machine_lost_after: Duration,
    /// At the daemon's end the cluster's units on this machine are stopped, as fleet did.
    pub stop_units_on_exit: bool,
    /// D-Bus address of systemd's bus; `None`: the system bus.
    pub bus: Option<String>,
    pub engine: Engine,
    /// The etcd that keeps the state; `None`: the daemons do.
    pub etcd: Option<Etcd>,
    pub log: String,
    /// What machines of one cluster know each other by.
    pub cluster_secret_file: Option<PathBuf>,
    /// This machine becomes a member by `corectl cluster init` or `join`, not by its configuration.
    pub by_hand: bool,
    /// What came of that, if anything yet.
    pub trust: Option<Trust>,
    /// How far this machine is with a change of the cluster's secret.
    pub kept: Option<Kept>,
    /// The port is open to other machines, and nothing on it is encrypted.
    pub exposed: bool,
    /// `insecure_transport`: ports may be open to other machines although nothing on them is encrypted.
    pub insecure_transport: bool,
    /// The address that people are shown, if it is not the one that peers use.
    pub public_ip: Option<String>,
    /// What there is to say about the configuration, one line each.
    pub notes: Vec<String>,
}

impl Config {
    /// Reads the file that the flags name, or the usual one if it is there, and puts the flags over it.
    pub fn load(flags: &Flags) -> anyhow::Result<Config> {
        let path = flags.config.clone().unwrap_or_else(|| CONFIG_PATH.into());
        let file = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && flags.config.is_none() => String::new(),
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
        };
        let cloud = flags.cloud_config.as_deref().map(cloud_config::read).transpose()?.unwrap_or_default();
        let file = with_options(&file, &cloud).with_context(|| format!("cannot use {}", path.display()))?;
        let mut fleet = match &flags.fleet_config {
            Some(path) => {
                let text = std::fs::read_to_string(path);
                let text = text.with_context(|| format!("cannot read {}", path.display()))?;
                let environment = std::env::vars_os();
                let environment = environment
                    .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
                let mut fleet = fleet_conf::read(&text, environment);
                fleet.etcd.origin = format!("{}: ", path.display());
                fleet.notes.iter_mut().for_each(|note| *note = format!("{}: {note}", path.display()));
                fleet
            }
            None => FleetConf::default(),
        };
        fleet.add(&cloud.fleet);
        Config::merge(flags, file, fleet).with_context(|| format!("in {} and the flags", path.display()))
    }

    fn merge(flags: &Flags, file: File, fleet: FleetConf) -> anyhow::Result<Config> {
        let mut notes = fleet.notes;
        let etcd = etcd::read(flags, &file, &fleet.etcd, &mut notes)?;
        let join: Vec<String> = flags.join.clone().or(file.join).unwrap_or_default();
        let join: Vec<String> = join.iter().map(|text| lookup::place(text)).collect();
        let bootstrap_expect = flags.bootstrap_expect.or(file.bootstrap_expect).unwrap_or(0);
        ensure!(
            bootstrap_expect == 0 || !join.is_empty(),
            "bootstrap_expect is {bootstrap_expect}, but `join` names no machines; name all of them"
        );
        ensure!(
            bootstrap_expect <= raft::FOUNDERS_MAX,
            "bootstrap_expect is {bootstrap_expect}; at most {} machines form a cluster, others join later",
            raft::FOUNDERS_MAX
        );
        let listen = flags.listen.clone().or(file.listen).map(|listen| raft::with_port(&listen, PORT));
        let cluster_secret_file = flags.cluster_secret_file.clone().or(file.cluster_secret_file);
        let insecure_transport = flags.insecure_transport.or(file.insecure_transport).unwrap_or(false);
        let stays_here = listen.as_deref().is_some_and(is_loopback);
        let has_way = cluster_secret_file.is_some() || insecure_transport || stays_here || etcd.is_some();
        let data_dir = flags.data_dir.clone().or(file.data_dir).unwrap_or_else(|| "/var/lib/coreinit".into());
        let trust = if has_way { None } else { Trust::read(&data_dir)? };
        let by_hand = !has_way;
        let has_secret = by_hand || cluster_secret_file.is_some();
        let kept = if has_secret { trust_keys::kept(&data_dir)? } else { None };
        if by_hand && trust.is_none() && !join.is_empty() {
            bail!(
                "`join` names other machines, and nothing says how to tell them from strangers; set \
                 cluster_secret_file, the same on all of them, to encrypt what they say and to let only them \
                 in; or take `join` out and use `corectl cluster init` on one and `corectl cluster join` on \
                 the others (or, if the network is yours alone, say so with insecure_transport = true)"
            );
        }
        let mut join = join;
        if let Some(trust) = &trust {
            let more: Vec<String> = trust.join.iter().filter(|one| !join.contains(one)).cloned().collect();
            join.extend(more);
        }
        let is_encrypted = by_hand || cluster_secret_file.is_some();
        let listen = listen.unwrap_or_else(|| {
            let host = if is_encrypted { "0.0.0.0" } else { "127.0.0.1" };
            raft::with_port(host, PORT)
        });
        // With etcd there is no such port without a secret.
        let open = (etcd.is_none() || cluster_secret_file.is_some()) && !is_loopback(&listen);
        let exposed = open && !is_encrypted;
        for address in &file.api_listen {
            ensure!(address.contains(':'), "api_listen: {address:?} has no port; write \"127.0.0.1:49153\"");
            ensure!(
                insecure_transport || is_loopback(address),
                "api_listen: {address:?} opens the API to other machines, and nothing on it is encrypted or \
                 checked; if the network is yours alone, say so with insecure_transport = true"
            );
        }
        let etcd_listen = key_listen::read(file.etcd_listen, etcd.is_some(), insecure_transport)?;
        let api_tls_listen = file.api_tls_listen.map(|address| raft::with_port(&address, PEOPLE_PORT));
        ensure!(
            api_tls_listen.is_none() || cluster_secret_file.is_some() || by_hand,
            "api_tls_listen serves people by their certificates, which are made out of the cluster's secret; \
             set cluster_secret_file, or take insecure_transport and a `listen` on loopback out"
        );
        let machine = match flags.machine_id.clone().or(file.machine_id) {
            Some(id) => id,
            None => std::fs::read_to_string("/etc/machine-id").context("cannot read /etc/machine-id")?,
        };
        let advertise = flags.advertise.clone().or(file.advertise);
        let advertise_told = advertise.map(|address| raft::with_port(&address, PORT));
        let by_hand_told = trust.as_ref().and_then(|trust| trust.advertise.clone());
        let advertise = match advertise_told.clone().or(by_hand_told) {
            // Also without a port for machines, people are shown where this one is.
            None if etcd.is_some() && is_loopback(&listen) => own_address(&format!("0.0.0.0:{PORT}"), &[])
                .inspect_err(|error| notes.push(format!("people are shown a loopback address: {error}")))
                .ok(),
            None if etcd.is_some() => own_address(&listen, &[])
                .inspect_err(|error| notes.push(format!("people are shown a loopback address: {error}")))
                .ok(),
            // A machine without a network may be a cluster of its own.
            None if by_hand && join.is_empty() => {
                let found = own_address(&listen, &[]);
                found.inspect_err(|error| notes.push(format!("other machines cannot join: {error}"))).ok()
            }
            None if open => Some(own_address(&listen, &join)?),
            told => told,
        };
        let machine_lost_after = match (&file.machine_lost_after, fleet.machine_lost_after) {
            (None, Some(told)) => told,
            (told, _) => lost_after(told.as_deref().unwrap_or("6s"))?,
        };
        let mut metadata = fleet.metadata;
        metadata.extend(file.metadata);
        Ok(Config {
            machine: MachineId::new(machine.trim()).context("the machine id is not usable")?,
            machine_name: file.machine_name.unwrap_or_else(host_name),
            metadata,
            data_dir,
            runtime_dir: file.runtime_dir.unwrap_or_else(|| "/run/coreinit".into()),
            socket: flags.socket.clone().or(file.socket).unwrap_or_else(|| "/run/coreinit.sock".into()),
            fleet_socket: file.fleet_socket,
            socket_role: file.socket_role.unwrap_or(PersonRole::Admin),
            api_listen: file.api_listen,
            // Whoever reaches a port of loopback may be anybody on the machine.
            api_listen_role: file.api_listen_role.unwrap_or(PersonRole::Operator),
            api_tls_listen,
            etcd_listen,
            listen,
            advertise,
            advertise_told,
            bootstrap_expect,
            join,
            cluster_name: file.cluster_name.unwrap_or_else(|| "coreinit".into()),
            machine_lost_after,
            stop_units_on_exit: file.stop_units_on_exit,
            bus: file.bus,
            engine: flags.engine.or(file.engine).unwrap_or_default(),
            etcd,
            log: flags.log.clone().or(file.log).unwrap_or_else(|| {
                let log = if fleet.is_verbose { LOG_VERBOSE } else { LOG };
                log.into()
            }),
            cluster_secret_file,
            by_hand,
            trust,
            kept,
            exposed,
            insecure_transport,
            public_ip: file.public_ip.or(fleet.public_ip),
            notes,
        })
    }

    pub fn units_dir(&self) -> PathBuf {
        self.runtime_dir.join("units")
    }

    /// Where peers reach this machine, as the daemon itself says it once it listens for others.
    pub fn peer_address(&self) -> &str {
        match (&self.advertise, is_loopback(&self.listen)) {
            (Some(address), false) => address,
            _ => &self.listen,
        }
    }

    /// The address that people are shown: `public_ip`, or the one peers use, without its port.
    pub fn address(&self) -> String {
        if let Some(address) = &self.public_ip {
            return address.clone();
        }
        let address = self.advertise.as_deref().unwrap_or(&self.listen);
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        host.trim_matches(['[', ']']).into()
    }
}

/// The configuration file, with what a cloud-config says over it.
fn with_options(text: &str, cloud: &CloudConfig) -> anyhow::Result<File> {
    if cloud.options.is_empty() {
        return toml::from_str(text).map_err(|error| without_the_line(text, &error));
    }
    let mut table: toml::Table = toml::from_str(text).map_err(|error| without_the_line(text, &error))?;
    table.extend(cloud.options.clone());
    table.try_into().context("with the options of the cloud-config")
}

/// The line itself stays out of the journal: it may hold a password that somebody has put there.
fn without_the_line(text: &str, error: &toml::de::Error) -> anyhow::Error {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    anyhow::anyhow!("line {}: {}", before.matches('\n').count() + 1, error.message())
}

fn lost_after(text: &str) -> anyhow::Result<Duration> {
    let span = duration(text).with_context(|| {
        format!("machine_lost_after = {text:?} is no time span; write \"6s\" or \"500ms\"")
    })?;
    ensure!(
        span >= Duration::from_secs(2),
        "machine_lost_after = {text:?} is too short: machines are heard each second; use 2s or more"
    );
    Ok(span)
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().into()
}

/// `6s`, `500ms`, `1.5s`, `2min`; a bare number is seconds, as systemd has it.
fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..split].parse().ok()?;
    let unit = match text[split..].trim() {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number * unit).ok()
}

#[cfg(test)]
mod tests;
