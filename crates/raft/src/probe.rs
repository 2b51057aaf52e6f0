//! A look at the store from another process, before this one opens it. Over damaged files sled can panic or
//! overrun its memory; where a panic ends the process, the daemon could then never set such a store aside.
//!
//! The daemon starts its own program with arguments by which that calls [`answer`] and does nothing else.

use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::disk::{Disk, DiskError, EngineKind, FlushMode};

/// The other process's exit codes. Rust's own panics end with 101 or a signal.
const SOUND: u8 = 0;
const DAMAGED: u8 = 30;
/// Anything that the opening process will meet itself.
const OTHER: u8 = 31;
const PANICKED: u8 = 101;

/// What the other process does: opens the store, reads all of it, and says in its exit code how that went.
pub fn answer(dir: &Path, kind: EngineKind) -> u8 {
    let (code, said) = match Disk::open(dir, kind, FlushMode::Inline) {
        Ok(_) => return SOUND,
        Err(DiskError::Damaged { what, .. }) => (DAMAGED, what),
        Err(error) => (OTHER, error.to_string()),
    };
    // Where nobody can hear it, the code says enough.
    let _ = writeln!(io::stderr(), "{said}");
    code
}

/// Runs `command`, which has to call [`answer`] for `dir`. [`DiskError::Damaged`] when the store must not be
/// used; any other trouble with it shows when it is opened.
pub fn probe(dir: &Path, mut command: Command) -> Result<(), DiskError> {
    let path = dir.to_path_buf();
    let output = command.stdin(Stdio::null()).stdout(Stdio::null()).output();
    let output = output.map_err(|source| DiskError::Io { path: path.clone(), source })?;
    match output.status.code().and_then(|code| u8::try_from(code).ok()) {
        Some(SOUND | OTHER) => Ok(()),
        Some(DAMAGED | PANICKED) => Err(DiskError::Damaged { path, what: last_line(&output) }),
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
