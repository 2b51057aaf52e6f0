//! A look at the store from another process, before this one opens it. Over damaged files sled can panic or overrun its
//! memory; where a panic ends the process, the daemon could then never set such a store aside.
//!
//! The daemon starts its own program with arguments by which that calls [`answer`] and does nothing else.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitCode, Output, Stdio};

use crate::disk::{Disk, DiskError, EngineKind, FlushMode};

/// The other process's exit codes. Rust's own panics end with 101 or a signal.
const SOUND: i32 = 0;
const DAMAGED: u8 = 30;
/// Anything that the opening process will meet itself.
const OTHER: u8 = 31;
const PANICKED: i32 = 101;

/// What the other process does: opens the store, reads all of it, and says in its exit code how that went.
pub fn answer(dir: &Path, kind: EngineKind) -> ExitCode {
    match Disk::open(dir, kind, FlushMode::Inline) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error @ DiskError::Damaged { .. }) => {
            eprintln!("{error}");
            ExitCode::from(DAMAGED)
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(OTHER)
        }
    }
}

/// Runs `command`, which has to call [`answer`] for `dir`. [`DiskError::Damaged`] when the store must not be used; any
/// other trouble with it shows when it is opened.
pub fn probe(dir: &Path, mut command: Command) -> Result<(), DiskError> {
    let path = dir.to_path_buf();
    let output = command.stdin(Stdio::null()).stdout(Stdio::null()).output();
    let output = output.map_err(|source| DiskError::Io { path: path.clone(), source })?;
    match output.status.code() {
        Some(SOUND) => Ok(()),
        Some(code) if code == i32::from(OTHER) => Ok(()),
        Some(code) if code == i32::from(DAMAGED) || code == PANICKED => {
            Err(DiskError::Damaged { path, what: last_line(&output) })
        }
        None if crashed(&output) => Err(DiskError::Damaged { path, what: last_line(&output) }),
        // Killed from outside, such as at a shutdown: that says nothing about the store.
        _ => {
            let what = format!("the check of the store ended with {}: {}", output.status, last_line(&output));
            Err(DiskError::Io { path, source: io::Error::other(what) })
        }
    }
}

fn crashed(output: &Output) -> bool {
    matches!(
        output.status.signal(),
        Some(libc::SIGABRT | libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGFPE)
    )
}

fn last_line(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().rfind(|line| !line.trim().is_empty() && !line.contains("RUST_BACKTRACE"));
    line.map_or_else(|| output.status.to_string(), |line| line.trim().chars().take(300).collect())
}
