//! The text: YAML below a first line `#cloud-config`, with the keys of coreos-cloudinit that mean something
//! to this daemon. A slip in those is refused; keys that are other programs' are noted.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::config::own_address;

/// Its first line.
const HEADER: &str = "#cloud-config";
/// Options of ours that are lists; CoreOS's users write `a,b`.
const LISTS: [&str; 3] = ["join", "api_listen", "etcd_endpoints"];

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Document {
    #[serde(alias = "write-files")]
    pub write_files: Vec<FileEntry>,
    pub coreos: CoreOs,
    coreinit: BTreeMap<String, Value>,
    /// What is left to others.
    #[serde(skip)]
    pub notes: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CoreOs {
    pub units: Vec<UnitEntry>,
    pub update: Update,
    fleet: BTreeMap<String, Value>,
    coreinit: BTreeMap<String, Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FileEntry {
    pub path: String,
    pub content: String,
    pub encoding: String,
    /// Octal digits. Without quotes they are a number to YAML, and the same digits to us.
    pub permissions: String,
    pub owner: String,
    pub append: bool,
    /// cloud-init's: after users were made, who are not made here.
    pub defer: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UnitEntry {
    pub name: String,
    pub content: String,
    pub command: String,
    pub enable: bool,
    pub mask: bool,
    pub runtime: bool,
    #[serde(alias = "drop-ins")]
    pub drop_ins: Vec<DropIn>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DropIn {
    pub name: String,
    pub content: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Update {
    #[serde(alias = "reboot-strategy")]
    pub reboot_strategy: Strategy,
    group: Option<String>,
    server: Option<String>,
}

/// `off` is a truth value to older YAML.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    #[default]
    #[serde(skip)]
    Unset,
    BestEffort,
    EtcdLock,
    Reboot,
    #[serde(alias = "false")]
    Off,
}

impl Strategy {
    /// As update.conf has it.
    pub fn as_str(self) -> Option<&'static str> {
        match self {
            Strategy::Unset => None,
            Strategy::BestEffort => Some("best-effort"),
            Strategy::EtcdLock => Some("etcd-lock"),
            Strategy::Reboot => Some("reboot"),
            Strategy::Off => Some("off"),
        }
    }
}

/// Nobody has told it, and it was not found.
#[derive(Debug, thiserror::Error)]
#[error("{name} is not known: set COREOS_{variable} in /etc/environment")]
pub struct NoAddress {
    name: &'static str,
    variable: String,
}

/// What stands for `$private_ipv4` and `$public_ipv4`.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    pub private_ipv4: Option<String>,
    pub public_ipv4: Option<String>,
}

impl Addresses {
    /// As CoreOS's programs are told them: `COREOS_PRIVATE_IPV4` and `COREOS_PUBLIC_IPV4` in the environment
    /// or in `/etc/environment`. The private one is found if nobody says it.
    pub fn of_this_machine() -> Addresses {
        let file = std::fs::read_to_string("/etc/environment").unwrap_or_default();
        let told = |name: &str| {
            let set = file.lines().filter_map(|line| line.trim().split_once('='));
            let mut set =
                set.filter(|(key, _)| *key == name).map(|(_, value)| value.trim_matches('"').to_string());
            let told = std::env::var(name).ok().or_else(|| set.next_back());
            told.filter(|address| !address.is_empty())
        };
        let found = || {
            let address = own_address("0.0.0.0:1", &[]).ok()?;
            address.rsplit_once(':').map(|(host, _)| host.to_string()).filter(|host| !host.contains(':'))
        };
        Addresses {
            private_ipv4: told("COREOS_PRIVATE_IPV4").or_else(found),
            public_ipv4: told("COREOS_PUBLIC_IPV4"),
        }
    }
}

impl Document {
    pub fn parse(text: &str, addresses: &dyn Fn() -> Addresses) -> anyhow::Result<Document> {
        let (head, body) = text.split_once('\n').unwrap_or((text, ""));
        ensure!(head.trim_end() == HEADER, "it does not begin with a line {HEADER}");
        let body = substituted(body, addresses)?;
        if body.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(Document::default());
        }
        let all: Value = parsed(&body).context("it is no YAML that can be read")?;
        ensure!(all.is_object(), "it is no table of keys and values");
        let mut document: Document = parsed(&body).context("it cannot be understood")?;
        document.notes = notes(&all, &document);
        Ok(document)
    }

    /// Of the daemon's configuration file, by its keys.
    pub fn options(&self) -> anyhow::Result<toml::Table> {
        let mut options = toml::Table::new();
        for (key, value) in self.coreos.coreinit.iter().chain(&self.coreinit) {
            let key = key.replace('-', "_");
            let value = match (key.as_str(), value) {
                ("metadata", Value::String(pairs)) => metadata(pairs)?,
                ("metadata", Value::Object(pairs)) => pairs
                    .iter()
                    .map(|(key, value)| Ok((key.clone(), toml::Value::String(scalar(key, value)?))))
                    .collect::<anyhow::Result<toml::Table>>()?
                    .into(),
                (key, Value::String(list)) if LISTS.contains(&key) => {
                    let items = list.split(',').map(|item| item.trim().into());
                    toml::Value::Array(items.collect())
                }
                (key, value) => toml::Value::try_from(value)
                    .with_context(|| format!("coreinit: {key} is nothing that an option can be"))?,
            };
            options.insert(key, value);
        }
        Ok(options)
    }

    /// Of fleet's configuration file, by its keys.
    pub fn fleet(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let pairs = self.coreos.fleet.iter();
        pairs.map(|(key, value)| Ok((key.replace('-', "_").to_lowercase(), scalar(key, value)?))).collect()
    }
}

/// Errors go to the journal, and user data holds tokens: the lines around one are not shown.
fn parsed<T: DeserializeOwned>(text: &str) -> Result<T, serde_saphyr::Error> {
    serde_saphyr::from_str_with_options(text, serde_saphyr::options! { with_snippet: false })
}

/// `k=v,k=v`, as fleet's users write it.
fn metadata(pairs: &str) -> anyhow::Result<toml::Value> {
    let mut table = toml::Table::new();
    for pair in pairs.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => {
                table.insert(key.trim().into(), value.trim().into());
            }
            _ => bail!("coreinit: metadata: {pair:?} is no KEY=VALUE"),
        }
    }
    Ok(table.into())
}

/// One line of text.
fn scalar(key: &str, value: &Value) -> anyhow::Result<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        Value::Null => String::new(),
        Value::Array(_) | Value::Object(_) => bail!("{key} is no single value"),
    };
    ensure!(!text.contains(char::is_control), "{key} is no single line");
    Ok(text)
}

/// The variables of CoreOS's templates, with what stands for them; `\$` before one leaves it as it is.
fn substituted(text: &str, addresses: &dyn Fn() -> Addresses) -> anyhow::Result<String> {
    const NAMES: [&str; 2] = ["$private_ipv4", "$public_ipv4"];
    if !NAMES.iter().any(|name| text.contains(name)) {
        return Ok(text.into());
    }
    let known = addresses();
    let (mut done, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find('$') {
        let (before, after) = rest.split_at(at);
        let Some(name) = NAMES.into_iter().find(|name| after.starts_with(name)) else {
            done.push_str(before);
            done.push('$');
            rest = &after[1..];
            continue;
        };
        match before.strip_suffix('\\') {
            Some(before) => {
                done.push_str(before);
                done.push_str(name);
            }
            None => {
                let address = if name == NAMES[0] { &known.private_ipv4 } else { &known.public_ipv4 };
                let variable = name[1..].to_uppercase();
                let address = address.as_ref().ok_or(NoAddress { name, variable })?;
                done.push_str(before);
                done.push_str(address);
            }
        }
        rest = &after[name.len()..];
    }
    done.push_str(rest);
    Ok(done)
}

/// What is there and is not for this program.
fn notes(all: &Value, document: &Document) -> Vec<String> {
    let keys = |value: &Value| -> Vec<String> {
        value.as_object().map(|table| table.keys().cloned().collect()).unwrap_or_default()
    };
    let others = |keys: Vec<String>, ours: &[&str], prefix: &str| -> Vec<String> {
        let others = keys.into_iter().filter(|key| !ours.contains(&key.replace('-', "_").as_str()));
        others.map(|key| format!("{prefix}{key} is left to other programs")).collect()
    };
    let mut notes = others(keys(all), &["write_files", "coreos", "coreinit"], "");
    notes.extend(others(keys(&all["coreos"]), &["units", "update", "fleet", "coreinit"], "coreos."));
    let update = &document.coreos.update;
    for (key, value) in [("group", &update.group), ("server", &update.server)] {
        if value.is_some() {
            notes.push(format!("coreos.update.{key} is left to other programs"));
        }
    }
    notes
}
