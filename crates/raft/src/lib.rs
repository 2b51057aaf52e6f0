//! The store inside the daemons: openraft over sled. Log, vote, snapshots, membership and what the daemons
//! say to each other.
//!
//! Nothing of openraft, sled or bincode leaves this crate; the daemon sees `store::Store`.

mod batch;
pub mod codec;
pub mod disk;
pub mod engine;
mod files;
mod flusher;
mod forming;
pub mod kinds;
mod liveness;
pub mod log_store;
mod lookup;
mod membership;
mod message;
mod network;
mod node;
pub mod offline;
mod peers;
mod port;
pub mod probe;
mod question;
mod raft_store;
pub mod renewal;
pub mod runtime;
mod server;
mod snapshot_file;
pub mod state_machine;
mod transport;
mod twin;
pub mod types;
mod vitals;
mod witness;

pub use disk::{
    ASIDE_DAMAGED, ASIDE_REMOVED, Disk, DiskError, FlushMode, Founder, Identity, has_identity, set_aside,
};
pub use engine::{EngineKind, Forgetful, Unsynced};
pub use forming::{FOUNDERS_MAX, with_port};
pub use lookup::{AsWritten, Lookup};
pub use port::{ClusterId, Port};
pub use question::{Answerer, AskError, Pieces, QUESTION_BYTES_MAX};
pub use raft_store::{InitError, Options, PROPOSAL_BYTES_MAX, RaftStore, Timing};
pub use transport::{BoxStream, Caller, Listener, Stream, Tcp, Transport};
