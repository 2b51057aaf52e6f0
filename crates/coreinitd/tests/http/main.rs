//! The HTTP room over a store in memory.

mod answer;
mod bench;
mod callers;
mod doors;
mod events;
mod fleet;
mod happen;
mod health;
mod matrix;
mod metrics;
mod mutations;
mod placing;
mod reboot_lock;
mod recorded;
mod v1;
