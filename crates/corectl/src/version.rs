//! `version`: this program's, the commit that packages are made of, and what it reads and writes. It asks no
//! daemon; `cluster members` tells the daemons' versions.

use crate::output;

/// Set where packages are made (`dist/build`), and nowhere else: no other build depends on the commit.
const COMMIT: Option<&str> = option_env!("COREINIT_COMMIT");

pub fn run() {
    output::line(&format!("corectl {}", env!("CARGO_PKG_VERSION")));
    output::line(&format!("commit {}", COMMIT.unwrap_or("unknown")));
    let (backup, context) = (api::backup::FORMAT, api::Context::version());
    output::line(&format!("API v1, fleet's API v1, backup format {backup}, context format {context}"));
}
