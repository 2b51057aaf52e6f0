//! Whole stores as an earlier version left them, `tests/golden/store-ENGINE.hex`: each later version takes
//! them over. A file holds what is not zero of each of the store's files: `file LENGTH NAME`, then lines of
//! an offset and 32 bytes, all in hex.
//!
//! A missing file is made when this test runs with `COREINIT_ADD_GOLDEN=1`. One that exists is never changed.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use raft::EngineKind;
use raft::offline::{Upto, survey};
use store::Store;
use tokio::time::Instant;

use crate::{LIMIT, Machine, leads, submit};

const LINE_BYTES: usize = 32;
const UNITS: [&str; 3] = ["kept-1.service", "kept-2.service", "kept-3.service"];

fn golden(engine: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/store-{engine}.hex"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn pack(root: &Path, folder: &Path, text: &mut String) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            pack(root, &path, text);
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().display();
        writeln!(text, "file {:x} {name}", bytes.len()).unwrap();
        for (number, line) in bytes.chunks(LINE_BYTES).enumerate() {
            if line.iter().any(|byte| *byte != 0) {
                writeln!(text, "{:x} {}", number * LINE_BYTES, hex(line)).unwrap();
            }
        }
    }
}

fn unpack(text: &str, root: &Path) {
    let mut file: Option<(PathBuf, Vec<u8>)> = None;
    let number = |text: &str| usize::from_str_radix(text, 16).unwrap();
    let write = |(path, bytes): (PathBuf, Vec<u8>)| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    for line in text.lines() {
        match line.strip_prefix("file ").and_then(|rest| rest.split_once(' ')) {
            Some((length, name)) => {
                file.take().into_iter().for_each(write);
                file = Some((root.join(name), vec![0; number(length)]));
            }
            None => {
                let (offset, digits) = line.split_once(' ').unwrap();
                let bytes = &mut file.as_mut().unwrap().1;
                for (place, pair) in digits.as_bytes().chunks(2).enumerate() {
                    bytes[number(offset) + place] = number(str::from_utf8(pair).unwrap()) as u8;
                }
            }
        }
    }
    file.into_iter().for_each(write);
}

/// A store with a founded cluster, a log and a vote.
async fn make(kind: EngineKind, dir: &Path) {
    let machine = Machine::start_on(kind, "127.0.0.1:0", "m1", dir, &[]).await;
    machine.store.init(Some("kept".into())).await.unwrap();
    machine.becomes(leads).await;
    for unit in UNITS {
        machine.store.propose(submit(unit), Instant::now() + LIMIT).await.unwrap();
    }
    machine.stop().await;
}

async fn is_taken_over(kind: EngineKind) {
    let name = kind.name();
    let dir = tempfile::tempdir().unwrap();
    if !golden(name).exists() && std::env::var_os("COREINIT_ADD_GOLDEN").is_some() {
        make(kind.clone(), &dir.path().join("made")).await;
        let mut text = String::new();
        pack(&dir.path().join("made"), &dir.path().join("made"), &mut text);
        fs::write(golden(name), text).unwrap();
    }
    let text = fs::read_to_string(golden(name)).unwrap_or_else(|error| panic!("store-{name}.hex: {error}"));
    let store = dir.path().join("store");
    unpack(&text, &store);
    let seen = survey(&store, kind.clone(), Upto::Written).await.unwrap();
    assert_eq!(seen.identity.unwrap().machine, "m1");
    assert_eq!(seen.state.units.len(), UNITS.len());

    let machine = Machine::start_on(kind, "127.0.0.1:0", "m1", &store, &[]).await;
    machine.becomes(leads).await;
    let state = machine.store.read(Instant::now() + LIMIT).await.unwrap();
    assert!(state.units.keys().map(|unit| unit.as_str()).eq(UNITS), "{:?}", state.units);
    assert_eq!(state.cluster.as_ref().unwrap().name, "kept");
    machine.store.propose(submit("new.service"), Instant::now() + LIMIT).await.unwrap();
    machine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_on_sled_is_taken_over() {
    is_taken_over(EngineKind::Sled).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_on_redb_is_taken_over() {
    is_taken_over(EngineKind::Redb).await;
}
