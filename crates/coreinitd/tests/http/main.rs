//! The HTTP room over a store in memory.

mod bench;
mod events;
mod fleet;
mod v1;
