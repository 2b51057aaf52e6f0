//! The program as a user runs it, against the daemon's API over a store in memory. The leader and the
//! machines are played by the tests.

mod afar;
mod asking;
mod backing_up;
mod importing;
mod placing;
mod play;
mod rebooting;
mod waiting;
mod wishing;
