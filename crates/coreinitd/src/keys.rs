//! What this machine, the others and people know each other by: the cluster's secret, and all that follows
//! from it.

use std::sync::Arc;

use anyhow::Context;
use identity::{Authority, Keyring, Secret, Tls};
use raft::{Tcp, Transport};
use tokio::sync::watch;

use crate::config::Config;
use crate::http;
use crate::signs::Signs;

fn secret(config: &Config) -> anyhow::Result<Option<Secret>> {
    match (&config.cluster_secret_file, &config.trust) {
        (Some(path), _) => Secret::read(path).context("cannot use cluster_secret_file").map(Some),
        (None, Some(trust)) => {
            let bytes = trust.secret_bytes().context("the secret that was kept is damaged")?;
            Secret::new(&bytes).context("cannot use the secret that was kept").map(Some)
        }
        (None, None) => Ok(None),
    }
}

/// What this machine and the others know each other by: the cluster's secret, and the keys that follow from
/// it.
pub fn keys(
    config: &Config,
    signs: &Signs,
    stopping: &watch::Receiver<bool>,
) -> anyhow::Result<Option<(Secret, Arc<Keyring>)>> {
    let Some(secret) = secret(config)? else { return Ok(None) };
    let keyring = Keyring::new(Authority::of(&secret)?, config.machine.clone())?;
    let shown = keyring.clone();
    signs.certificate(Box::new(move || shown.ends()));
    let (fresh, mut stopping) = (keyring.clone(), stopping.clone());
    tokio::spawn(async move {
        tokio::select! {
            // Cancel-safe: it only waits, or has renewed.
            () = fresh.keep_fresh() => {}
            _ = stopping.wait_for(|stop| *stop) => {}
        }
    });
    Ok(Some((secret, keyring)))
}

/// What callers may do, and how people are invited.
pub fn access(config: &Config, keyring: Option<&Arc<Keyring>>) -> http::Access {
    let (socket_role, tcp_role) = (config.socket_role, config.api_listen_role);
    let Some(keyring) = keyring.cloned() else {
        return http::Access { socket_role, tcp_role, ..http::Access::default() };
    };
    let authority = keyring.authority().certificate_pem();
    let port = config.api_tls_listen.as_ref().and_then(|at| at.rsplit_once(':')?.1.parse().ok());
    let issue: http::IssuePerson = Arc::new(move |name, role, lifetime| {
        let lifetime = lifetime.try_into().map_err(|error| format!("cannot count so far: {error}"))?;
        let issued = keyring.authority().issue_person(name, role, lifetime);
        issued.map_err(|error| format!("{:#}", anyhow::Error::new(error)))
    });
    http::Access { socket_role, tcp_role, invite: Ok(http::Inviting { issue, authority, port }) }
}

/// For a question to other machines while no daemon runs here.
pub fn offline_transport(config: &Config) -> anyhow::Result<Arc<dyn Transport>> {
    let Some(secret) = secret(config)? else { return Ok(Arc::new(Tcp)) };
    let keyring = Keyring::new(Authority::of(&secret)?, config.machine.clone())?;
    Ok(Arc::new(Tls::new(keyring)))
}
