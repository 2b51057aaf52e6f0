//! The daemon: it serves the API, keeps its share of the cluster's state, decides when it leads, and drives
//! its machine's systemd. The rooms do not call each other: `run` builds them and hands each what it needs.

pub mod agent;
pub mod asking;
pub mod backup;
mod by_hand;
pub mod capacity;
pub mod clocks;
pub mod cloud_config;
pub mod config;
mod disk_watch;
pub mod http;
mod key_door;
pub mod key_ends;
mod keys;
pub mod leader;
pub mod leave;
mod lookup;
pub mod migrate;
pub mod offline;
mod others;
pub mod presence;
mod private_file;
pub mod reboot;
pub mod recover;
pub mod restore;
mod rotation;
pub mod run;
pub mod signs;
pub mod systemd;
mod trust;
pub mod version;
