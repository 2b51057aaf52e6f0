//! Opens the addresses at which etcd's key API is served, when there are any.

use std::sync::Arc;

use store::Store;
use tokio::sync::watch;

use crate::config::{Config, is_loopback};
use crate::http;
use crate::http::key_api::{self, KeyParts};
use crate::signs::Signs;

/// What serves them until `stopping`; `None` when nobody asked for it.
pub async fn open(
    config: &Config,
    store: &Arc<dyn Store>,
    version: &str,
    signs: &Arc<Signs>,
    stopping: &watch::Receiver<bool>,
) -> anyhow::Result<Option<impl Future<Output = ()> + Send + use<>>> {
    if config.etcd_listen.is_empty() {
        return Ok(None);
    }
    let mut doors = Vec::new();
    for address in &config.etcd_listen {
        doors.push(http::bind_tcp(address).await?);
        tracing::info!(address, "etcd's key API is served (v2); whoever reaches it may read and write");
        if !is_loopback(address) {
            tracing::warn!(address, "insecure_transport: the keys are open to other machines");
        }
    }
    let parts = KeyParts {
        store: store.clone(),
        machine: config.machine.clone(),
        version: version.into(),
        signs: signs.clone(),
    };
    Ok(Some(key_api::run(parts, doors, stopping.clone())))
}
