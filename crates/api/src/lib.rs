//! HTTP on the wire: fleet's entities (`/fleet/v1`), our own (`/v1`), and the one client for both.
//!
//! These types share the newtypes of `cluster` with the log, never its structs: each form is versioned on its
//! own.

pub mod backup;
mod client;
mod context;
mod events;
pub mod fleet;
mod journal;
pub mod membership;
mod people;
mod placing;
pub mod reboot_lock;
mod tls;
pub mod v1;

pub use client::{Client, ClientError, Endpoint, INIT_TIMEOUT, REQUEST_TIMEOUT, SOCKET_PATH};
pub use context::{CONTEXT_BYTES_MAX, Context, ContextError};
pub use events::{Events, SILENCE_MAX};
pub use journal::{JOURNAL_LINES_MAX, JOURNAL_OUTPUTS, Journal, JournalQuery};
pub use tls::Remote;
