//! The cluster under a hostile sky: machines whose network, clock, disks, systemd and chance are all decided
//! by one seed. First chaos, with safety checked all along; then calm, in which everything must come right.
//! The store and the daemon's loops are those that ship. `tests/README.md` says how to run a seed.

mod client;
mod forming;
mod grow;
mod machine;
mod net;
mod seeds;
mod shrink;
mod sky;
mod working;
mod world;
