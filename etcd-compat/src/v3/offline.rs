//! Reading and writing everything at once, while no daemon does.

use std::sync::Arc;
use std::time::Duration;

use cluster::ClusterState;
use etcd_client::{Compare, CompareOp, Txn, TxnOp};
use tokio::time::Instant;

use super::keys::{FORMAT_VERSION, Format, Keys, head_word};
use super::link::{Connection, Link};
use super::mirror::Mirror;
use super::trouble::Trouble;
use crate::offline::Kept;
use crate::record::{Key, encode, records};
use crate::shared::Shared;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Of one transaction; etcd takes 128 writes and 1.5 MiB.
const KEYS_MAX: usize = 100;
const BYTES_MAX: usize = 1 << 20;

async fn connect(shared: &Arc<Shared>) -> Result<(Arc<Link>, Arc<Connection>), String> {
    let link = Arc::new(Link::new(shared.clone()));
    let connected = tokio::select! {
        // Not resumed when cancelled: the connection is there.
        connection = link.connected(Instant::now() + CONNECT_TIMEOUT) => connection,
        () = link.run() => None,
    };
    Ok((link, connected.ok_or_else(|| shared.why())?))
}

pub async fn read(shared: Arc<Shared>) -> Result<Kept, String> {
    let (link, connection) = connect(&shared).await?;
    let mirror = Mirror::new(shared.clone(), link, Keys::new(&shared.options.prefix));
    let (state, alive) = mirror.read_once(&connection).await?;
    Ok(Kept { state, alive })
}

pub async fn write(shared: Arc<Shared>, state: &ClusterState) -> Result<(), String> {
    let (_link, connection) = connect(&shared).await?;
    let keys = Keys::new(&shared.options.prefix);
    // The cluster's own record comes last: without it, nobody takes the rest for a cluster.
    let (mut last, mut operations, mut bytes) = (Vec::new(), Vec::new(), 0);
    for change in records(state) {
        let (key, Some(value)) = encode(&change) else { continue };
        let size = value.len();
        let put = TxnOp::put(keys.record(&key), value, None);
        if key == Key::Cluster {
            last.push(put);
            continue;
        }
        if KEYS_MAX <= operations.len() || BYTES_MAX < bytes + size && !operations.is_empty() {
            commit(&connection, &keys, std::mem::take(&mut operations)).await?;
            bytes = 0;
        }
        operations.push(put);
        bytes += size;
    }
    commit(&connection, &keys, operations).await?;
    let format = Format { version: FORMAT_VERSION, base: state.revision.0 };
    let format = serde_json::to_vec(&format).expect("numbers under string keys");
    last.push(TxnOp::put(keys.format(), format, None));
    last.push(TxnOp::put(keys.head(), head_word(&shared.options.machine), None));
    commit(&connection, &keys, last).await
}

/// Never over a cluster that is there.
async fn commit(connection: &Connection, keys: &Keys, operations: Vec<TxnOp>) -> Result<(), String> {
    if operations.is_empty() {
        return Ok(());
    }
    let nobody = Compare::create_revision(keys.record(&Key::Cluster), CompareOp::Equal, 0);
    let txn = Txn::new().when([nobody]).and_then(operations);
    let answer = connection.kv().txn(txn).await.map_err(|error| Trouble::of(&error).to_string())?;
    match answer.succeeded() {
        true => Ok(()),
        false => Err("a cluster came to be there meanwhile".into()),
    }
}
