//! Every kind of record that this crate reads from a disk or from a peer, each read and written again: for
//! whoever tries what strange bytes do to the reading. The store itself does not come by here.

use std::io;

use cluster::ClusterState;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec;
use crate::disk::Identity;
use crate::message::{Asked, Envelope, Hello, Refusal, Response};
use crate::snapshot_file;
use crate::types::{Entry, SnapshotMeta, Vote};
use crate::witness::{Mark, Slot};

/// A kind of record.
pub struct Kind {
    pub name: &'static str,
    /// Puts what the writer of such a record puts around its content, so that only the content can be wrong.
    pub sealed: fn(&[u8]) -> Vec<u8>,
    /// Reads a record, and writes what was read.
    pub again: fn(&[u8]) -> io::Result<Vec<u8>>,
}

pub const KINDS: [Kind; 11] = [
    record::<Envelope>("envelope"),
    record::<Result<Response, Refusal>>("response"),
    record::<Asked>("asked"),
    record::<Entry>("entry"),
    record::<Vote>("vote"),
    record::<Option<Mark>>("mark"),
    record::<SnapshotMeta>("snapshot-meta"),
    record::<ClusterState>("state"),
    record::<Slot>("witness"),
    Kind { name: "snapshot-file", sealed: snapshot_file::sealed, again: snapshot_again },
    Kind { name: "json", sealed: <[u8]>::to_vec, again: json_again },
];

const fn record<T: Serialize + DeserializeOwned>(name: &'static str) -> Kind {
    let again = |bytes: &[u8]| codec::encode(&codec::decode::<T>(bytes)?);
    Kind { name, sealed: codec::sealed, again }
}

fn snapshot_again(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let snapshot = snapshot_file::from_bytes(bytes)?;
    snapshot_file::to_bytes(&snapshot.meta, &snapshot.snapshot)
}

/// What a stranger says first, and what the disk says of this node.
fn json_again(bytes: &[u8]) -> io::Result<Vec<u8>> {
    match serde_json::from_slice::<Hello>(bytes) {
        Ok(hello) => Ok(serde_json::to_vec(&hello)?),
        Err(_) => Ok(serde_json::to_vec(&serde_json::from_slice::<Identity>(bytes)?)?),
    }
}
