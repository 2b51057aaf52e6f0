//! `generate`: what a new machine of this cluster is given at its first boot, so that it joins by itself.

mod butane;
mod cloud_config;
mod ignition;
mod new_machine;

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, bail};
use api::Client;
use api::membership::TokenWish;

use crate::cli::{Dialect, Generate, GenerateCommand};
use crate::token::span;
use crate::{Exit, output};
use new_machine::{NewMachine, Wishes};

/// Members that are asked to let the machine in, one after another: enough for some of them to be gone.
const ADDRESSES_MAX: usize = 5;

pub async fn run(client: &Client, command: &GenerateCommand) -> anyhow::Result<Exit> {
    let wish = match command {
        GenerateCommand::Ignition(wish) => wish,
        GenerateCommand::CloudConfig { wish, .. } | GenerateCommand::Butane { wish, .. } => wish,
    };
    let (token, mut addresses) = token(client, wish).await?;
    addresses.truncate(ADDRESSES_MAX);
    let wishes = Wishes {
        token: &token,
        addresses: &addresses,
        metadata: &wish.metadata,
        programs: wish.programs.as_deref(),
        reboot_strategy: wish.reboot_strategy.as_deref(),
    };
    let machine = NewMachine::new(&wishes)?;
    let text = match command {
        GenerateCommand::Ignition(_) => ignition::write(&machine),
        GenerateCommand::Butane { variant, .. } => butane::write(&machine, *variant),
        GenerateCommand::CloudConfig { dialect, .. } => match dialect {
            Dialect::CloudInit => cloud_config::for_cloud_init(&machine),
            Dialect::Coreos => cloud_config::for_coreos(&machine)?,
        },
    };
    match &wish.file {
        None => output::text(&text),
        Some(path) => write_secret(path, &text)?,
    }
    if wish.token.is_none() {
        let within = wish.wish.ttl.0.map_or("for ever".into(), |ttl| format!("for {}", span(ttl.as_secs())));
        output::note(&format!(
            "It holds a token that lets machines in {within}: treat it as a secret (`corectl token list`)."
        ));
    }
    Ok(Exit::Done)
}

/// The token, and where members let machines in.
async fn token(client: &Client, wish: &Generate) -> anyhow::Result<(String, Vec<String>)> {
    let mut addresses = wish.addresses.clone();
    if addresses.is_empty() {
        let members = client.members().await?.members.into_iter();
        addresses.extend(members.map(|member| member.address).filter(|address| is_reachable(address)));
    }
    if addresses.is_empty() {
        bail!("it is not known where other machines reach the members of this cluster; name them: --address");
    }
    if let Some(token) = &wish.token {
        return Ok((token.trim().to_string(), addresses));
    }
    let asked = TokenWish { ttl: wish.wish.ttl.0.map(|ttl| ttl.as_secs()), uses: wish.wish.uses };
    Ok((client.create_token(&asked).await?.token, addresses))
}

/// Not `0.0.0.0:7340`, and nothing that is only this machine's.
fn is_reachable(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    !host.is_empty()
        && host != "localhost"
        && !host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_unspecified() || ip.is_loopback())
}

/// For its owner alone, since it lets machines in.
fn write_secret(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.with_context(|| format!("cannot make {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
#[path = "generate/tests.rs"]
mod tests;
