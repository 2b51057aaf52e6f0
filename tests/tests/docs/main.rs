//! The documentation against the code: what can be generated is generated and compared, every link leads
//! somewhere, and every file, command, key and constant that is named exists.
//!
//!     COREINIT_WRITE_DOCS=1 cargo nextest run -p tests -E 'binary(docs)'    # writes what is generated

mod commands;
mod generated;
mod links;
mod manual;
mod names;
mod openapi;
mod readme;

/// No violations, or the test fails with all of them.
#[track_caller]
fn none(violations: Vec<String>) {
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

/// Whether what is generated is to be written instead of compared.
fn writes() -> bool {
    std::env::var_os("COREINIT_WRITE_DOCS").is_some()
}
