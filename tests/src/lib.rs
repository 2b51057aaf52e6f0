//! What the tests share: real hosts (`rack`, `deploy`), the daemon's API (`http`), waiting (`wait`), what
//! is fuzzed (`fuzz`), whether a history can have been (`linearizable`), the sources themselves (`sources`)
//! and the documents (`document`). Nothing that is shipped depends on this.

pub mod deploy;
pub mod document;
pub mod fuzz;
pub mod hands;
pub mod http;
pub mod linearizable;
pub mod rack;
pub mod sources;
pub mod storm;
pub mod transcript;
pub mod wait;
