//! What was acknowledged is still there: after the process is killed, after the power is cut, and never wrong
//! after the files were damaged.
//!
//! A child process (this same program, see [`child`]) uses the store as openraft does and prints what was
//! acknowledged. The parent kills it, or replays a record of its system calls up to some moment without the
//! writes that were not synced, or flips bytes in its files, and then looks what a new process finds.

mod child;
mod cut;
mod damage;
mod kill;
mod power;
mod promises;
mod trace;
