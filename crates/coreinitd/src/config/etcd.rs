//! The part of the configuration that chooses an etcd to keep the state in.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

use super::fleet_etcd::{self, FleetEtcd};
use super::{Config, File, Flags};

/// Where CoreOS has it, and where etcd itself has listened since 2.0.
const ENDPOINTS: [&str; 2] = ["http://127.0.0.1:2379", "http://127.0.0.1:4001"];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    #[default]
    Raft,
    Etcd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EtcdApi {
    V2,
    V3,
}

/// The etcd that keeps the state.
#[derive(Clone, Debug)]
pub struct Etcd {
    pub endpoints: Vec<String>,
    pub api: Option<etcd_compat::Api>,
    pub prefix: String,
    pub user: Option<etcd_compat::User>,
    pub tls: Option<etcd_compat::Tls>,
}

impl Etcd {
    pub fn options(&self, config: &Config) -> etcd_compat::Options {
        etcd_compat::Options {
            machine: config.machine.clone(),
            endpoints: self.endpoints.clone(),
            api: self.api,
            prefix: self.prefix.clone(),
            user: self.user.clone(),
            tls: self.tls.clone(),
            cluster_name: config.cluster_name.clone(),
            peer: None,
            dir: config.data_dir.clone(),
        }
    }
}

/// `None`: the daemons keep the state themselves. What there is to say of fleet's configuration goes to
/// `notes`.
pub(super) fn read(
    flags: &Flags,
    file: &File,
    fleet: &FleetEtcd,
    notes: &mut Vec<String>,
) -> anyhow::Result<Option<Etcd>> {
    let backend = flags.backend.or(file.backend);
    let endpoints = flags.etcd_endpoints.as_ref().or(file.etcd_endpoints.as_ref());
    match backend {
        Some(Backend::Etcd) => {}
        None if endpoints.is_some() => {
            bail!(
                "etcd_endpoints is set, and backend is not; write backend = \"etcd\" to keep the state there"
            )
        }
        Some(Backend::Raft) | None => {
            notes.extend(fleet.unused());
            return Ok(None);
        }
    }
    let fleets = fleet.value("etcd_servers", endpoints.is_some(), notes).map(fleet_etcd::servers);
    let endpoints = endpoints.cloned().or(fleets).unwrap_or_else(|| ENDPOINTS.map(String::from).into());
    ensure!(!endpoints.is_empty(), "etcd_endpoints names no etcd");
    let endpoints = endpoints.iter().map(|url| endpoint(url)).collect::<anyhow::Result<Vec<_>>>()?;
    let fleets = fleet.value("etcd_key_prefix", file.etcd_prefix.is_some(), notes).map(fleet_etcd::prefix);
    let prefix = file.etcd_prefix.clone().or(fleets).unwrap_or_else(|| etcd_compat::PREFIX.into());
    ensure!(
        prefix.len() > 2 && prefix.starts_with('/') && prefix.ends_with('/') && !prefix.contains("//"),
        "etcd_prefix = {prefix:?}: write it as \"/coreinit/\""
    );
    let user = user(file, fleet, notes)?;
    let is_tls = endpoints.iter().any(|url| url.starts_with("https://"));
    let tls = tls(file, fleet, is_tls, notes)?;
    let api = file.etcd_api.map(|api| match api {
        EtcdApi::V2 => etcd_compat::Api::V2,
        EtcdApi::V3 => etcd_compat::Api::V3,
    });
    Ok(Some(Etcd { endpoints, api, prefix, user, tls }))
}

fn user(
    file: &File,
    fleet: &FleetEtcd,
    notes: &mut Vec<String>,
) -> anyhow::Result<Option<etcd_compat::User>> {
    let is_told = file.etcd_user.is_some() || file.etcd_password_file.is_some();
    let name = fleet.value("etcd_username", is_told, notes);
    let password = fleet.value("etcd_password", is_told, notes);
    let user =
        |name: &str, password: &str| etcd_compat::User { name: name.into(), password: password.into() };
    match (&file.etcd_user, &file.etcd_password_file) {
        (Some(name), Some(path)) => {
            let password = String::from_utf8(bytes(path)?).context("etcd_password_file is not text")?;
            Ok(Some(user(name, password.trim_end_matches(['\n', '\r']))))
        }
        (None, None) => Ok(name.map(|name| user(name, password.unwrap_or_default()))),
        _ => bail!("etcd_user and etcd_password_file belong together"),
    }
}

/// Each file of the three may come from either configuration.
fn tls(
    file: &File,
    fleet: &FleetEtcd,
    is_tls: bool,
    notes: &mut Vec<String>,
) -> anyhow::Result<Option<etcd_compat::Tls>> {
    ensure!(
        is_tls || file.etcd_ca_file.is_none(),
        "etcd_ca_file is set, and none of etcd_endpoints has https: nothing would be encrypted"
    );
    let mut path = |ours: &Option<PathBuf>, fleets: &str| {
        let told = fleet.value(fleets, ours.is_some() || !is_tls, notes).map(PathBuf::from);
        ours.clone().or(told)
    };
    let ca = path(&file.etcd_ca_file, "etcd_cafile");
    let certificate = path(&file.etcd_cert_file, "etcd_certfile");
    let key = path(&file.etcd_key_file, "etcd_keyfile");
    let identity = match (&certificate, &key) {
        (Some(certificate), Some(key)) => Some((bytes(certificate)?, bytes(key)?)),
        (None, None) => None,
        _ => bail!("etcd_cert_file and etcd_key_file belong together"),
    };
    match &ca {
        Some(ca) => Ok(Some(etcd_compat::Tls { ca: bytes(ca)?, identity })),
        None if is_tls => bail!("etcd_endpoints has https; name who vouches for it in etcd_ca_file"),
        None if identity.is_some() => bail!("etcd_cert_file without etcd_ca_file: nobody vouches for etcd"),
        None => Ok(None),
    }
}

fn bytes(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// `http://HOST:PORT`, however it was written.
fn endpoint(url: &str) -> anyhow::Result<String> {
    let (scheme, rest) = match url.trim().split_once("://") {
        Some((scheme @ ("http" | "https"), rest)) => (scheme, rest),
        None => ("http", url.trim()),
        Some((scheme, _)) => bail!("etcd_endpoints: {url:?} begins with {scheme}; write http or https"),
    };
    let host = rest.trim_end_matches('/');
    ensure!(!host.is_empty() && !host.contains('/'), "etcd_endpoints: {url:?} is not http://HOST:PORT");
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    Ok(format!("{scheme}://{host}{}", if has_port { "" } else { ":2379" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(file: &str, expected: Result<fn(&Option<Etcd>) -> bool, &str>) {
        let file = toml::from_str::<File>(file).map_err(anyhow::Error::from);
        let fleet = FleetEtcd::default();
        let etcd = file.and_then(|file| read(&Flags::default(), &file, &fleet, &mut Vec::new()));
        match (etcd, expected) {
            (Ok(etcd), Ok(holds)) => assert!(holds(&etcd), "{etcd:?}"),
            (Err(error), Err(text)) => assert!(format!("{error:#}").contains(text), "{error:#}"),
            (got, _) => panic!("unexpected: {got:?}"),
        }
    }

    #[test]
    fn etcd_is_used_when_it_is_asked_for() {
        check("", Ok(|etcd| etcd.is_none()));
        check("backend = 'raft'\netcd_endpoints = ['a']", Ok(|etcd| etcd.is_none()));
        check("backend = 'etcd'", Ok(|etcd| etcd.as_ref().is_some_and(|e| e.endpoints == ENDPOINTS)));
        check(
            "backend = 'etcd'\netcd_endpoints = ['http://a:4001/', 'b']\netcd_api = 'v2'",
            Ok(|etcd| {
                let Some(etcd) = etcd else { return false };
                etcd.endpoints == ["http://a:4001", "http://b:2379"]
                    && etcd.api == Some(etcd_compat::Api::V2)
                    && etcd.prefix == "/coreinit/"
            }),
        );
    }

    #[test]
    fn slips_are_named() {
        check("etcd_endpoints = ['a']", Err("backend = \"etcd\""));
        check("backend = 'consul'", Err("consul"));
        check("backend = 'etcd'\netcd_endpoints = []", Err("names no etcd"));
        check("backend = 'etcd'\netcd_endpoints = ['ftp://a']", Err("ftp"));
        check("backend = 'etcd'\netcd_endpoints = ['http://a/b']", Err("HOST:PORT"));
        check("backend = 'etcd'\netcd_endpoints = ['https://a']", Err("etcd_ca_file"));
        check("backend = 'etcd'\netcd_user = 'a'", Err("belong together"));
        check("backend = 'etcd'\netcd_ca_file = '/dev/null'", Err("nothing would be encrypted"));
        check("backend = 'etcd'\netcd_prefix = 'x'", Err("/coreinit/"));
        check("backend = 'etcd'\netcd_api = 'v4'", Err("v4"));
    }
}
