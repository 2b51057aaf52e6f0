//! What is fuzzed: functions that take any bytes and panic when what they hold to does not hold. A value that
//! is read can be written, and is then read as the same; what is refused is refused with a reason, and has
//! changed nothing.
//!
//! `src/bin/fuzz.rs` lets libFuzzer look for bytes that break one of them; `tests/corpus.rs` runs each over
//! the bytes in `fuzz/corpus`. `fuzz/README.md` says how.

mod record;
mod request;
mod unit_file;

pub struct Target {
    /// Also the name of its folder in the corpus.
    pub name: &'static str,
    pub run: fn(&[u8]),
}

/// Everything that reads what somebody else wrote.
pub const TARGETS: [Target; 10] = [
    Target { name: "unit_file", run: unit_file::text },
    Target { name: "unit_options", run: unit_file::options },
    Target { name: "put_unit", run: request::put_unit },
    Target { name: "patch_machines", run: request::patch_machines },
    Target { name: "batch", run: request::batch },
    Target { name: "cluster_init", run: request::cluster_init },
    Target { name: "move_unit", run: request::move_unit },
    Target { name: "event_filter", run: request::event_filter },
    Target { name: "request_line", run: request::request_line },
    Target { name: "record", run: record::record },
];
