//! What the documents name in `this way` exists: files of the repository, keys of the configuration, and
//! identifiers of the code.

use std::collections::BTreeSet;

use coreinitd::config::keys::KEYS;
use tests::document::{Block, Document, documents};
use tests::sources::{files_below, root};

use crate::none;

/// Files that a cluster makes, or that belong to its user.
const ELSEWHERE: [&str; 5] =
    ["trust.json", "rotation.json", "compose.json", "alice.context", "schema-cloud-config-v1.json"];
/// What other people call theirs.
const OTHERS: [&str; 2] = ["sch_netem", "ssh_authorized_keys"];
/// Ends of names by which a word is a file's.
const ENDS: [&str; 6] = [".rs", ".md", ".sh", ".toml", ".txt", ".json"];

/// What there is to name.
struct Known {
    /// Every file and folder, from the repository's top.
    paths: BTreeSet<String>,
    /// All that the sources say.
    words: BTreeSet<String>,
}

impl Known {
    fn read() -> Known {
        let folders = [
            ".ci",
            ".config",
            ".cargo",
            "crates",
            "dist",
            "docs",
            "etcd-compat",
            "examples",
            "tests",
            "vagrant",
            "vendor",
        ];
        let mut paths: BTreeSet<String> =
            folders.iter().flat_map(|f| files_below(f)).map(|p| p.to_string_lossy().into_owned()).collect();
        let top = std::fs::read_dir(root()).expect("the repository can be read").flatten();
        paths.extend(top.map(|entry| entry.file_name().to_string_lossy().into_owned()));
        let mut words = BTreeSet::new();
        for path in &paths {
            // What this file takes as examples is called nothing.
            if path.ends_with("docs/names.rs")
                || [".md", ".bin", ".json"].iter().any(|end| path.ends_with(end))
                || path.contains("/corpus/")
            {
                continue;
            }
            let text = std::fs::read(root().join(path)).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let split = text.split(|c: char| !c.is_alphanumeric() && c != '_');
            words.extend(split.map(str::to_owned));
        }
        let folders: Vec<String> = paths.iter().flat_map(|path| above(path)).collect();
        paths.extend(folders);
        Known { paths, words }
    }

    /// A name that the sources have, or a field of the journal, which is one of theirs behind our prefix.
    fn says(&self, name: &str) -> bool {
        let field = name.strip_prefix("COREINIT_").map(str::to_lowercase);
        self.words.contains(name) || field.is_some_and(|field| self.words.contains(&field))
    }

    /// A path from the top, from the document's folder, or the end of one; `*` is any name in it.
    fn has(&self, document: &Document, path: &str) -> bool {
        let path = path.trim_start_matches("./").trim_end_matches('/');
        let from_here = format!("{}/{path}", document.folder());
        let ending = format!("/{path}");
        let fits = |one: &String| {
            like(one, path)
                || like(one, &from_here)
                || one.ends_with(&ending)
                || (path.contains('*') && like_end(one, path))
        };
        self.paths.iter().any(fits)
    }
}

fn above(path: &str) -> Vec<String> {
    path.match_indices('/').map(|(at, _)| path[..at].to_owned()).collect()
}

/// With at most one `*`, which stands for part of a name.
fn like(path: &str, pattern: &str) -> bool {
    match pattern.split_once('*') {
        None => path == pattern,
        Some((head, tail)) => path.strip_prefix(head).and_then(|rest| rest.strip_suffix(tail)).is_some(),
    }
}

fn like_end(path: &str, pattern: &str) -> bool {
    path.match_indices('/').any(|(at, _)| like(&path[at + 1..], pattern))
}

/// `a/{b,c}` is two paths.
fn unfolded(path: &str) -> Vec<String> {
    match path.split_once('{').and_then(|(head, rest)| Some((head, rest.split_once('}')?))) {
        Some((head, (all, tail))) => all.split(',').map(|one| format!("{head}{one}{tail}")).collect(),
        None => vec![path.into()],
    }
}

/// A word that can only be meant as a file of the repository.
fn is_path(document: &Document, word: &str) -> bool {
    let letters = |c: char| c.is_ascii_alphanumeric() || "/._-@*{},".contains(c);
    if !word.chars().all(letters)
        || word.starts_with(['/', '-', '.'])
        || word.contains("..")
        || word.ends_with(',')
    {
        return false;
    }
    if word.starts_with("target/") || word.chars().any(|c| c.is_ascii_uppercase()) && !word.contains('/') {
        return false;
    }
    match word.split_once('/') {
        Some((first, rest)) => {
            !rest.is_empty()
                && (root().join(first).is_dir() || root().join(document.folder()).join(first).is_dir())
        }
        None => ENDS.iter().any(|end| word.ends_with(end) && word.len() > end.len()),
    }
}

fn is_identifier(word: &str) -> bool {
    let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    plain && word.contains('_') && !word.starts_with('_') && !word.ends_with('_')
}

fn faults(known: &Known, document: &Document) -> Vec<String> {
    let mut faults = Vec::new();
    let mut fault = |line: usize, what: &str| faults.push(format!("{}:{line}: {what}", document.path));
    let blocks = document.blocks();
    let in_blocks = blocks.iter().flat_map(|block| block.lines.iter().cloned().zip(block.line..));
    for (line, text, is_block) in (document.codes().into_iter().map(|(line, text)| (line, text, false)))
        .chain(in_blocks.map(|(text, line)| (line, text, true)))
    {
        for word in text.split_whitespace() {
            let word = word.trim_end_matches([':', ';', ',', ')']).trim_start_matches('(');
            // In a block, also others' files have such names.
            let said_as_path = is_path(document, word) && (!is_block || word.contains('/'));
            if said_as_path && !ELSEWHERE.contains(&word) {
                for path in unfolded(word) {
                    if !known.has(document, &path) {
                        fault(line, &format!("there is no file {path}"));
                    }
                }
            }
        }
        if !is_block && is_identifier(&text) && !known.says(&text) && !OTHERS.contains(&&*text) {
            fault(line, &format!("nothing is called {text}"));
        }
        if let (false, Some((key, _))) = (is_block, text.split_once(" = "))
            && is_key(key)
            && !is_known_key(key)
        {
            fault(line, &format!("the configuration has no key {key}"));
        }
    }
    for block in blocks.iter().filter(|block| is_configuration(block)) {
        for (text, line) in block.lines.iter().zip(block.line..) {
            let key = text.split_once('=').map(|(key, _)| key.trim()).filter(|_| !text.starts_with('#'));
            if let Some(key) = key.filter(|key| !is_known_key(key)) {
                fault(line, &format!("the configuration has no key {key}"));
            }
        }
    }
    faults
}

fn is_key(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}

fn is_known_key(key: &str) -> bool {
    KEYS.iter().any(|known| known.name == key)
}

/// Every line is a key and its value, or a comment.
fn is_configuration(block: &Block) -> bool {
    let is_line = |line: &String| {
        line.is_empty() || line.starts_with('#') || line.split_once(" = ").is_some_and(|(key, _)| is_key(key))
    };
    block.language == "toml" || (block.language.is_empty() && block.lines.iter().all(is_line))
}

#[test]
fn what_is_named_exists() {
    let known = Known::read();
    let documents = documents();
    let codes: usize = documents.iter().map(|document| document.codes().len()).sum();
    assert!(
        codes > 500 && known.paths.len() > 300 && known.words.len() > 1000,
        "the names are found: {codes}"
    );
    // What was need not be any more.
    let documents = documents.iter().filter(|document| document.path != "CHANGELOG.md");
    none(documents.flat_map(|document| faults(&known, document)).collect());
}

#[test]
fn what_does_not_exist_is_found() {
    let known = Known::read();
    let check = |text: &str, fault: Option<&str>| {
        let found = faults(&known, &Document { path: "docs/a.md".into(), text: text.into() });
        match fault {
            None => none(found),
            Some(fault) => assert!(found.len() == 1 && found[0].contains(fault), "{found:?}"),
        }
    };
    check(
        "`docs/api.md`, `api.md`, `crates/coreinitd/src/http/`, `http/listen.rs`, `examples/*`, `tests/run`",
        None,
    );
    check(
        "`machine_lost_after = \"6s\"`, `CONNECTIONS_MAX`, `/etc/fleet/fleet.conf`, `crates/{store,raft}`",
        None,
    );
    check("```toml\n# a\nlisten = \"0.0.0.0\"\n```", None);
    check("`docs/no-such.md`", Some("docs/a.md:1: there is no file docs/no-such.md"));
    check("`no_such.rs`", Some("no file no_such.rs"));
    check("`crates/{store,shop}`", Some("no file crates/shop"));
    check("    crates/shop/     what is for sale", Some("no file crates/shop"));
    check("`NO_SUCH_LIMIT`", Some("nothing is called NO_SUCH_LIMIT"));
    check("`no_key = 3`", Some("the configuration has no key no_key"));
    check("```toml\nno_key = 3\n```", Some("docs/a.md:2: the configuration has no key"));
}
