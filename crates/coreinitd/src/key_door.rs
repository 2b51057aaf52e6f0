//! The rooms behind etcd's key API: what ends keys whose time is over, on every machine that may lead, and
//! what serves them, where that was asked for.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use store::Store;
use tokio::sync::watch;

use crate::config::{Config, is_loopback};
use crate::http;
use crate::http::key_api::{self, KeyParts};
use crate::key_ends;
use crate::signs::Signs;

/// Each runs until `stopping`. None where an etcd has the keys.
pub async fn rooms(
    config: &Config,
    store: &Arc<dyn Store>,
    version: &str,
    signs: &Arc<Signs>,
    stopping: &watch::Receiver<bool>,
) -> anyhow::Result<Vec<BoxFuture<'static, ()>>> {
    if config.etcd.is_some() {
        return Ok(Vec::new());
    }
    let mut rooms = vec![key_ends::run(store.clone(), stopping.clone()).boxed()];
    if config.etcd_listen.is_empty() {
        return Ok(rooms);
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
    rooms.push(key_api::run(parts, doors, stopping.clone()).boxed());
    Ok(rooms)
}
