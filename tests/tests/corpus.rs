//! Every fuzz target over the bytes that were kept for it: what was found once stays found, without a fuzzer.

use std::collections::BTreeSet;

use tests::fuzz::TARGETS;
use tests::sources::{files_below, root};

/// The whole corpus; it is in every clone.
const BYTES_MAX: u64 = 1 << 20;

#[test]
fn what_was_found_once_stays_found() {
    for target in &TARGETS {
        let files = files_below(&format!("tests/fuzz/corpus/{}", target.name));
        assert!(!files.is_empty(), "{} has a corpus", target.name);
        for path in files {
            let bytes = std::fs::read(root().join(&path)).unwrap();
            // The path of the file at fault is the last one told.
            println!("{}", path.display());
            (target.run)(&bytes);
        }
    }
}

#[test]
fn the_corpus_is_small_and_all_of_it_is_used() {
    let files = files_below("tests/fuzz/corpus");
    let bytes: u64 = files.iter().map(|path| std::fs::metadata(root().join(path)).unwrap().len()).sum();
    assert!(bytes <= BYTES_MAX, "the corpus has {bytes} bytes; drop what a fuzzer finds again in a minute");
    let folder =
        |path: &std::path::PathBuf| path.iter().nth(3).map(|name| name.to_string_lossy().into_owned());
    let folders: BTreeSet<String> = files.iter().filter_map(folder).collect();
    let targets: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_string()).collect();
    assert_eq!(folders, targets);
}
