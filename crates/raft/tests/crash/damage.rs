//! Files that were damaged while nobody looked: a flipped byte anywhere, a shortened file, a missing one. The
//! store is then refused, or nothing that was acknowledged is missing or wrong. It is never served wrong.

use std::fs;
use std::path::{Path, PathBuf};

use raft::disk::DiskError;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

use crate::child::{prober, reader, writer};
use crate::power::{copy_folder, scratch};

/// Enough for several segments, index snapshots, purges and snapshots of the state.
const STEPS: u64 = 250;
/// Flipped bytes tried in each large file; in a small one every sixteenth byte is.
const FLIPS: usize = 40;

#[derive(Clone, Debug)]
enum Damage {
    Flip { file: PathBuf, at: usize },
    Shorten { file: PathBuf, to: usize },
    Remove { file: PathBuf },
}

fn files(dir: &Path, below: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir.join(below)).unwrap() {
        let entry = entry.unwrap();
        let name = below.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => files(dir, &name, found),
            false => found.push(name),
        }
    }
    found.sort();
}

fn damages(store: &Path, chance: &mut SmallRng) -> Vec<Damage> {
    let mut names = Vec::new();
    files(store, Path::new(""), &mut names);
    let mut damages = Vec::new();
    for file in names {
        let length = fs::metadata(store.join(&file)).unwrap().len() as usize;
        damages.push(Damage::Remove { file: file.clone() });
        for _ in 0..4 {
            damages.push(Damage::Shorten { file: file.clone(), to: chance.random_range(0..=length) });
        }
        let places: Vec<usize> = match length {
            0..1024 => (0..length).step_by(16).collect(),
            _ => (0..FLIPS).map(|_| chance.random_range(0..length)).collect(),
        };
        damages.extend(places.into_iter().map(|at| Damage::Flip { file: file.clone(), at }));
    }
    damages
}

fn do_damage(store: &Path, damage: &Damage) {
    match damage {
        Damage::Flip { file, at } => {
            let mut bytes = fs::read(store.join(file)).unwrap();
            bytes[*at] ^= 0x55;
            fs::write(store.join(file), bytes).unwrap();
        }
        Damage::Shorten { file, to } => {
            let bytes = fs::read(store.join(file)).unwrap();
            fs::write(store.join(file), &bytes[..*to]).unwrap();
        }
        Damage::Remove { file } => fs::remove_file(store.join(file)).unwrap(),
    }
}

fn check(engine: &str) {
    let store: TempDir = scratch();
    let output = writer(engine, store.path(), 5, STEPS).output().unwrap();
    assert!(output.status.success());
    let promises = store.path().with_extension("promises");
    fs::write(&promises, output.stdout).unwrap();

    let (mut right, mut refused, mut wrong) = (0, 0, Vec::new());
    for damage in damages(store.path(), &mut SmallRng::seed_from_u64(3)) {
        let copy = scratch();
        copy_folder(store.path(), copy.path());
        do_damage(copy.path(), &damage);
        let output = reader(engine, copy.path(), &promises).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let line = said.lines().find_map(|line| line.strip_prefix('@')).unwrap_or("died");
        match line.split(':').next() {
            Some("right") => right += 1,
            Some("refused" | "died") => refused += 1,
            _ => wrong.push((damage, line.to_string())),
        }
    }
    fs::remove_file(&promises).unwrap();
    assert!(wrong.is_empty(), "{} right, {refused} refused, wrong: {wrong:#?}", right);
    assert!(right > 0 && refused > 20, "{right} right, {refused} refused: no damage was done");
}

#[test]
fn sled_damaged() {
    check("sled");
}

#[test]
fn redb_damaged() {
    check("redb");
}

/// The daemon's way: another process looks first.
#[test]
fn a_probe_tells_sound_from_damaged() {
    let store = scratch();
    assert!(writer("sled", store.path(), 5, 20).output().unwrap().status.success());
    let probe = |task: &str| raft::probe::probe(store.path(), prober(task, "sled", store.path()));
    probe("probe").unwrap();
    // A panic that ends the process, as in a release.
    assert!(matches!(probe("abort"), Err(DiskError::Damaged { .. })));
    // Something else ended it.
    assert!(matches!(probe("exit"), Err(DiskError::Io { .. })));
    do_damage(store.path(), &Damage::Remove { file: "sled/db".into() });
    let Err(DiskError::Damaged { what, .. }) = probe("probe") else { panic!("the damage was not seen") };
    assert!(what.contains("is gone"), "{what}");
}
