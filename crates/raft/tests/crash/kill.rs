//! SIGKILL at any moment, again and again on the same store.

use std::io::{BufRead, BufReader};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::child::{kind, writer};
use crate::promises::{Crash, Promises};

/// Long enough for a child to start, and to do much or little.
const LIFE_MS_MAX: u64 = 90;

fn check(engine: &str, rounds: u64) {
    let dir = tempfile::tempdir().unwrap();
    let mut chance = SmallRng::seed_from_u64(rounds);
    let mut promises = Promises::default();
    for round in 0..rounds {
        let deadline = Instant::now() + Duration::from_millis(chance.random_range(2..LIFE_MS_MAX));
        let mut child = writer(engine, dir.path(), round, u64::MAX).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = sync_channel(64);
        let reader = std::thread::spawn(move || {
            let mut line = String::new();
            // The last line may have been cut off by the kill.
            while out.read_line(&mut line).unwrap() > 0 && line.ends_with('\n') {
                sender.send(std::mem::take(&mut line)).unwrap();
            }
        });
        loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => promises.note(&line),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => panic!("round {round}: the child ended by itself"),
            }
        }
        child.kill().unwrap();
        lines.iter().for_each(|line| promises.note(&line));
        child.wait().unwrap();
        reader.join().unwrap();
        if let Err(broken) = promises.check(dir.path(), kind(engine), Crash::Kill) {
            panic!("round {round}, {} entries acknowledged: {broken}", promises.entries());
        }
    }
    assert!(promises.entries() as u64 > rounds, "hardly anything was written: {promises:?}");
    if engine == "sled" {
        let blobs = std::fs::read_dir(dir.path().join("sled/blobs")).unwrap().count();
        assert_eq!(blobs, 0, "Small Values: sled keeps values in files that it never syncs");
    }
}

#[test]
fn sled_killed_300_times() {
    check("sled", 300);
}

#[test]
fn redb_killed_100_times() {
    check("redb", 100);
}
