//! The power is cut at any moment: of a new store's first minutes, and of one that was killed and purged
//! before.

use std::path::{Path, PathBuf};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

use crate::child::{kind, writer};
use crate::cut::{Disk, Unsynced};
use crate::promises::{Crash, Promises};
use crate::trace::{Event, record};

const STEPS: u64 = 60;
/// Before the record of an aged store begins.
const STEPS_BEFORE: u64 = 300;

/// A recorded life of a store.
struct Life {
    root: PathBuf,
    /// What was there before, and what had been promised of it.
    image: Option<TempDir>,
    promised: String,
    events: Vec<Event>,
    _scratch: TempDir,
}

/// In memory where that is possible: the model is what counts, not this machine's disk.
pub fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory).unwrap() } else { TempDir::new().unwrap() }
}

fn live(engine: &str, aged: bool) -> Life {
    let scratch = scratch();
    let root = scratch.path().join("store");
    std::fs::create_dir(&root).unwrap();
    let (mut image, mut promised) = (None, String::new());
    if aged {
        let output = writer(engine, &root, 7, STEPS_BEFORE).output().unwrap();
        assert!(output.status.success());
        promised = String::from_utf8(output.stdout).unwrap();
        let copy = self::scratch();
        copy_folder(&root, copy.path());
        image = Some(copy);
    }
    let events = record(&writer(engine, &root, 8, STEPS), scratch.path());
    Life { root, image, promised, events, _scratch: scratch }
}

pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Cuts the power at `cuts` moments; what was broken at each that broke a promise.
fn cut(engine: &str, life: &Life, cuts: usize, unsynced: Unsynced, deaf: Option<&str>) -> Vec<String> {
    let mut chance = SmallRng::seed_from_u64(cuts as u64);
    // A start is short and has the most to go wrong: every third cut falls into it.
    let is_ack =
        |event: &Event| matches!(event, Event::Write { fd: 1, bytes, .. } if bytes.starts_with(b"@ack"));
    let start = life.events.iter().position(is_ack).unwrap();
    let end = |cut: usize| if cut.is_multiple_of(3) { start } else { life.events.len() };
    let mut moments: Vec<usize> = (0..cuts).map(|cut| chance.random_range(0..=end(cut))).collect();
    moments.sort_unstable();
    let mut disk = Disk::new(&life.root, life.image.as_ref().map(TempDir::path), deaf);
    let mut done = 0;
    let mut broken = Vec::new();
    for moment in moments {
        life.events[done..moment].iter().for_each(|event| disk.apply(event));
        done = moment;
        let found = scratch();
        disk.restore(found.path(), unsynced, &mut chance);
        let promises = Promises::read(&format!("{}{}", life.promised, disk.out));
        if let Err(what) = promises.check(found.path(), kind(engine), Crash::PowerCut) {
            broken.push(format!("after call {moment}, {} entries acknowledged: {what}", promises.entries()));
        }
    }
    let promises = Promises::read(&disk.out);
    assert!(promises.entries() > 100, "hardly anything was written: {promises:?}");
    broken
}

fn check(engine: &str) {
    for aged in [false, true] {
        let life = live(engine, aged);
        for unsynced in [Unsynced::Lost, Unsynced::ByChance] {
            let broken = cut(engine, &life, 50, unsynced, None);
            assert_eq!(
                broken,
                Vec::<String>::new(),
                "{engine}, aged: {aged}, un-synced writes: {unsynced:?}"
            );
        }
    }
}

#[test]
fn sled_without_power() {
    check("sled");
}

#[test]
fn redb_without_power() {
    check("redb");
}

/// sled as it comes, without our own fdatasync of its file, must not pass, or these tests test nothing.
#[test]
fn sled_uncontained_is_caught() {
    let life = live("sled", false);
    let broken = cut("sled", &life, 50, Unsynced::Lost, Some("sled/db"));
    assert!(broken.len() > 25, "only {} cuts of 50 were noticed: {broken:?}", broken.len());
}

#[test]
fn redb_unsynced_is_caught() {
    let life = live("redb", false);
    let broken = cut("redb", &life, 50, Unsynced::Lost, Some("redb/db"));
    assert!(broken.len() > 25, "only {} cuts of 50 were noticed: {broken:?}", broken.len());
}
