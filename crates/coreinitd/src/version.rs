//! What `coreinitd --version` tells: the version, the commit that packages are made of, and the formats that
//! this daemon writes, which is what counts when versions work side by side.

use std::sync::LazyLock;

/// Set where packages are made (`dist/build`), and nowhere else: no other build depends on the commit.
const COMMIT: Option<&str> = option_env!("COREINIT_COMMIT");
/// Of the store in `data_dir`: how it is laid out, and how the log's entries and snapshots are written. They
/// are raft's own, and said here.
const LOG_FORMAT: u32 = 1;
const RECORD_FORMAT: u8 = 1;

static LONG: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{}\ncommit {}\nfeature level {}, log format {LOG_FORMAT}, snapshot format {RECORD_FORMAT}, \
         backup format {}",
        env!("CARGO_PKG_VERSION"),
        COMMIT.unwrap_or("unknown"),
        cluster::FEATURE_LEVEL,
        api::backup::FORMAT,
    )
});

/// What `--version` prints after the name.
pub fn long() -> &'static str {
    &LONG
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_formats_are_rafts() {
        let log_store = include_str!("../../raft/src/log_store.rs");
        assert!(log_store.contains(&format!("const FORMAT: u32 = {LOG_FORMAT};")));
        let codec = include_str!("../../raft/src/codec.rs");
        assert!(codec.contains(&format!("const VERSION: u8 = {RECORD_FORMAT};")));
    }

    #[test]
    fn the_formats_are_told() {
        let lines: Vec<&str> = long().lines().collect();
        assert_eq!(lines[0], env!("CARGO_PKG_VERSION"));
        assert!(lines[1].starts_with("commit "), "{lines:?}");
        let told = format!("feature level {}, log format 1, snapshot format 1", cluster::FEATURE_LEVEL);
        assert!(lines[2].starts_with(&told), "{lines:?}");
    }
}
