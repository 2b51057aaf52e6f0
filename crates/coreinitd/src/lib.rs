//! The daemon: it serves the API, keeps its share of the cluster's state, decides when it leads, and drives its machine's
//! systemd. The rooms do not call each other: `run` builds them and hands each what it needs.

pub mod run;
pub mod config;
pub mod leader;
pub mod agent;
pub mod presence;
pub mod systemd;
pub mod http;
