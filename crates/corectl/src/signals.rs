//! The signals that end a command, for one that has something left to do then.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::Exit;

/// While this is there, and afterwards, none of them ends the process by itself.
pub struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub fn catch() -> io::Result<Signals> {
        Ok(Signals {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for one, for ever if there is none; the exit code is what shells make of it. Cancel-safe.
    pub async fn next(&mut self) -> Exit {
        let number = tokio::select! {
            _ = self.hangup.recv() => 1,
            _ = self.interrupt.recv() => 2,
            _ = self.terminate.recv() => 15,
        };
        Exit::Code(128 + number)
    }
}
