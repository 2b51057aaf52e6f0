//! The store inside the daemons: openraft over sled. Log, vote, snapshots, membership and what the daemons say to each other.
//!
//! Nothing of openraft, sled or bincode leaves this crate; the daemon sees `store::Store`.

pub mod runtime;
pub mod types;
