//! libFuzzer on one of the targets in `tests::fuzz`, the one that `COREINIT_FUZZ` names. `tests/fuzz/run`
//! builds and calls it; it is in no other build.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use tests::fuzz::{TARGETS, Target};

fn target() -> &'static Target {
    let name = std::env::var("COREINIT_FUZZ").unwrap_or_default();
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    let found = TARGETS.iter().find(|target| target.name == name);
    found.unwrap_or_else(|| panic!("COREINIT_FUZZ={name:?}; it is one of {}", names.join(", ")))
}

fuzz_target!(|bytes: &[u8]| {
    static CHOSEN: OnceLock<&Target> = OnceLock::new();
    (CHOSEN.get_or_init(target).run)(bytes);
});
