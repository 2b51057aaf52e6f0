//! Rules of the house that no compiler holds: who may depend on whom, what the pure core never does, where a
//! library may be named, sizes and names. Each rule is a function from sources to violations, and is tried on
//! a case that breaks it.

use std::collections::{BTreeMap, BTreeSet};

use tests::sources::{Source, files_below, root, rust};

/// No violations, or the test fails with all of them.
#[track_caller]
fn none(violations: Vec<String>) {
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

/// The rule finds fault with line `line` of this file, and nothing else.
#[track_caller]
fn breaks(rule: fn(&Source) -> Vec<String>, path: &str, text: &str, line: usize) {
    let found = rule(&Source::new(path, text));
    assert!(found.len() == 1 && found[0].starts_with(&format!("{path}:{line}: ")), "{found:?}");
}

#[track_caller]
fn passes(rule: fn(&Source) -> Vec<String>, path: &str, text: &str) {
    none(rule(&Source::new(path, text)));
}

fn everywhere(rule: fn(&Source) -> Vec<String>) {
    let sources = rust();
    assert!(sources.len() > 20, "the sources are found");
    none(sources.iter().flat_map(rule).collect());
}

/// A violation for each line of `lines` (counted from 0).
fn at(source: &Source, lines: impl IntoIterator<Item = usize>, why: &str) -> Vec<String> {
    lines.into_iter().map(|line| format!("{}:{}: {why}", source.path, line + 1)).collect()
}

fn words(source: &Source, words: &[&str], why: &str) -> Vec<String> {
    words.iter().flat_map(|word| at(source, source.lines_with(word), &format!("`{word}`: {why}"))).collect()
}

// ---- who depends on whom

/// The workspace's arrows. `tests` may use everything.
const ARROWS: &[(&str, &[&str])] = &[
    ("cluster", &[]),
    ("store", &["cluster"]),
    ("guests", &[]),
    ("etcd-process", &[]),
    ("raft", &["store", "guests", "cluster"]),
    ("identity", &["raft", "guests", "cluster"]),
    ("etcd-compat", &["store", "cluster"]),
    ("api", &["cluster"]),
    ("corectl", &["api", "cluster", "etcd-compat"]),
    ("coreinitd", &["raft", "identity", "etcd-compat", "api", "store", "guests", "cluster"]),
];

/// A library, the crate that may depend on it, and the folders that may name it.
const ROOMS: &[(&str, &str, &[&str])] = &[
    ("zbus", "coreinitd", &["crates/coreinitd/src/systemd"]),
    ("zbus_systemd", "coreinitd", &["crates/coreinitd/src/systemd"]),
    ("serde-saphyr", "coreinitd", &["crates/coreinitd/src/cloud_config", "crates/corectl/src/generate"]),
    ("axum", "coreinitd", &["crates/coreinitd/src/http", "crates/coreinitd/tests/http"]),
    ("openraft", "raft", &["crates/raft"]),
    ("openraft-rt", "raft", &["crates/raft"]),
    ("openraft-rt-tokio", "raft", &["crates/raft"]),
    ("sled", "raft", &["crates/raft"]),
    ("redb", "raft", &["crates/raft"]),
    ("bincode", "raft", &["crates/raft"]),
    ("rustls", "identity", &["crates/identity", "etcd-compat", "crates/api/src/tls"]),
    ("rcgen", "identity", &["crates/identity", "etcd-compat/tests"]),
    ("etcd-client", "etcd-compat", &["etcd-compat"]),
];

type Dependencies = BTreeMap<String, toml::Value>;

/// `[dependencies]`, `[build-dependencies]` and those for one platform. What only tests use is free.
fn dependencies(manifest: &toml::Table) -> Dependencies {
    let mut found = Dependencies::new();
    let platforms = manifest.get("target").and_then(|t| t.as_table()).into_iter().flat_map(|t| t.values());
    let tables = platforms.filter_map(|t| t.as_table()).chain([manifest]);
    for table in tables {
        for kind in ["dependencies", "build-dependencies"] {
            let entries = table.get(kind).and_then(|d| d.as_table()).into_iter().flatten();
            found.extend(entries.map(|(name, value)| (name.clone(), value.clone())));
        }
    }
    found
}

fn manifest_faults(path: &str, text: &str) -> Vec<String> {
    let manifest: toml::Table = toml::from_str(text).unwrap_or_else(|e| panic!("{path}: {e}"));
    let package = manifest["package"]["name"].as_str().expect("a package has a name");
    let folder = path.trim_end_matches("/Cargo.toml").rsplit('/').next().unwrap_or_default();
    let line = |name: &str| text.lines().position(|line| line.starts_with(name)).map_or(1, |line| line + 1);
    let mut faults = Vec::new();
    if folder != package {
        faults.push(format!("{path}:{}: the folder is called {folder}", line("name")));
    }
    let arrows = ARROWS.iter().find(|(from, _)| *from == package).map(|(_, to)| *to);
    let ours: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    for (name, value) in dependencies(&manifest) {
        let mut fault = |why: &str| faults.push(format!("{path}:{}: {name}: {why}", line(&name)));
        if value.get("workspace").and_then(|w| w.as_bool()) != Some(true) {
            fault("the version belongs into the top-level Cargo.toml");
        }
        if ours.contains(name.as_str()) && arrows.is_some_and(|to| !to.contains(&name.as_str())) {
            fault(&format!("{package} must not depend on it"));
        }
        if ROOMS.iter().any(|(library, room, _)| *library == name && *room != package) && package != "tests" {
            fault("the library has a room, and this is not it");
        }
    }
    if arrows.is_none() && package != "tests" {
        faults.push(format!("{path}:{}: {package} has no arrows; add it to the tidy test", line("name")));
    }
    faults
}

#[test]
fn arrows_point_inward() {
    let top = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let top: toml::Table = toml::from_str(&top).unwrap();
    let members = top["workspace"]["members"].as_array().unwrap();
    none(
        members
            .iter()
            .map(|member| format!("{}/Cargo.toml", member.as_str().unwrap()))
            .flat_map(|path| manifest_faults(&path, &std::fs::read_to_string(root().join(&path)).unwrap()))
            .collect(),
    );
}

#[test]
fn a_wrong_arrow_is_found() {
    let check = |path: &str, name: &str, dependency: &str, fault: Option<&str>| {
        let text = format!("[package]\nname = \"{name}\"\n[dependencies]\n{dependency}\n");
        let found = manifest_faults(path, &text);
        match fault {
            None => none(found),
            Some(fault) => assert!(found.len() == 1 && found[0].contains(fault), "{found:?}"),
        }
    };
    check("crates/store/Cargo.toml", "store", "cluster.workspace = true", None);
    check("crates/cluster/Cargo.toml", "cluster", "store.workspace = true", Some("must not depend"));
    check("crates/corectl/Cargo.toml", "corectl", "raft.workspace = true", Some("must not depend"));
    check("crates/store/Cargo.toml", "store", "sled.workspace = true", Some("has a room"));
    check("crates/store/Cargo.toml", "store", "serde = \"1\"", Some("top-level"));
    check("crates/shop/Cargo.toml", "store", "", Some("is called shop"));
    check("crates/new/Cargo.toml", "new", "", Some("no arrows"));
}

// ---- what the core never does

fn impure(source: &Source) -> Vec<String> {
    const NEVER: &[&str] = &[
        "tokio",
        "async fn",
        ".await",
        "std::fs",
        "std::net",
        "std::env",
        "std::thread",
        "std::time",
        "SystemTime",
        "Instant",
        "rand",
        "HashMap",
        "HashSet",
    ];
    if !source.path.starts_with("crates/cluster/src/") {
        return Vec::new();
    }
    words(source, NEVER, "the core has no clock, no chance, no I/O, no hash order")
}

#[test]
fn the_core_only_decides() {
    everywhere(impure);
    breaks(impure, "crates/cluster/src/a.rs", "fn a() {}\nuse std::collections::HashMap;", 2);
    breaks(impure, "crates/cluster/src/a.rs", "pub async fn a() {}", 1);
    passes(impure, "crates/cluster/src/a.rs", "// no tokio here\nfn b() -> &'static str { \"Instant\" }");
    passes(impure, "crates/store/src/a.rs", "use std::collections::HashMap;");
}

fn out_of_room(source: &Source) -> Vec<String> {
    let strange = |folders: &[&str]| {
        let own = |folder: &&str| {
            source.path.strip_prefix(*folder).is_some_and(|rest| rest.starts_with(['/', '.']))
        };
        !folders.iter().any(own)
    };
    let rooms = ROOMS.iter().filter(|(.., folders)| strange(folders));
    rooms.flat_map(|(library, ..)| words(source, &[&library.replace('-', "_")], "out of its room")).collect()
}

#[test]
fn libraries_stay_in_their_rooms() {
    everywhere(out_of_room);
    breaks(out_of_room, "crates/coreinitd/src/run.rs", "use zbus::Connection;", 1);
    breaks(out_of_room, "crates/coreinitd/src/run.rs", "\n\nfn a(b: axum::Router) {}", 3);
    passes(out_of_room, "crates/coreinitd/src/systemd/bus.rs", "use zbus::Connection;");
    passes(out_of_room, "crates/coreinitd/src/systemd.rs", "use zbus::Connection;");
    passes(out_of_room, "crates/raft/src/engine.rs", "let e = sled::open(path)?;");
}

// ---- sizes and names

const LINES_MAX: usize = 800;
const WIDTH_MAX: usize = 110;

fn sizes(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    let wide = source.text.lines().enumerate().filter(|(_, line)| line.chars().count() > WIDTH_MAX);
    let wide: Vec<usize> = wide.map(|(number, _)| number).collect();
    let long = (lines > LINES_MAX).then_some(lines - 1);
    let mut faults = at(source, wide, &format!("wider than {WIDTH_MAX}"));
    faults.extend(at(
        source,
        long,
        &format!("{lines} lines; at most {LINES_MAX}, find the second idea in it"),
    ));
    faults
}

#[test]
fn files_fit_a_mind() {
    everywhere(sizes);
    breaks(sizes, "crates/a/src/b.rs", &format!("a\n{}\n", "ä".repeat(111)), 2);
    breaks(sizes, "crates/a/src/b.rs", &"a\n".repeat(801), 801);
    passes(sizes, "crates/a/src/b.rs", &format!("{}\n", "ä".repeat(110)).repeat(800));
}

fn vague_names(source: &Source) -> Vec<String> {
    const VAGUE: &[&str] = &["util", "utils", "helper", "helpers", "common", "misc"];
    let path = source.path.trim_end_matches(".rs").split('/');
    let vague = path.filter(|part| VAGUE.contains(part)).map(|_| 0);
    let inline = VAGUE.iter().flat_map(|name| source.lines_with(&format!("mod {name} {{")));
    at(source, vague.chain(inline), "name what is in it")
}

#[test]
fn modules_have_names() {
    everywhere(vague_names);
    breaks(vague_names, "crates/a/src/util.rs", "", 1);
    breaks(vague_names, "crates/a/src/misc/mod.rs", "", 1);
    breaks(vague_names, "crates/a/src/b.rs", "\nmod helpers {", 2);
}

fn unopened(source: &Source) -> Vec<String> {
    let opened = source.text.starts_with("//!");
    at(source, (!opened).then_some(0), "a module opens with //!: what it is for, and what it never does")
}

#[test]
fn modules_say_what_they_are_for() {
    everywhere(unopened);
    breaks(unopened, "crates/a/src/b.rs", "use a;\n", 1);
    passes(unopened, "crates/a/src/b.rs", "//! This.\n");
}

// ---- what is not written

fn forbidden(source: &Source) -> Vec<String> {
    let mut faults =
        words(source, &["unbounded_channel", "mpsc::unbounded", "UnboundedSender"], "set a limit");
    let unfinished = ["todo!", "unimplemented!", "#[ignore", "dbg!"];
    faults.extend(words(source, &unfinished, "finish it"));
    let lines = source.text.lines().enumerate();
    let marks = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["X", "XX"].concat()];
    let marked = lines.filter(|(_, line)| {
        line.split_once("//").is_some_and(|(_, comment)| marks.iter().any(|mark| comment.contains(mark)))
    });
    faults.extend(at(source, marked.map(|(number, _)| number), "do it, or say in words why it is not done"));
    faults
}

#[test]
fn nothing_is_left_open() {
    everywhere(forbidden);
    breaks(forbidden, "crates/a/src/b.rs", "let (a, b) = mpsc::unbounded_channel();", 1);
    breaks(forbidden, "crates/a/src/b.rs", "\nfn a() { todo!() }", 2);
    breaks(forbidden, "crates/a/src/b.rs", "#[test]\n#[ignore = \"slow\"]", 2);
    breaks(forbidden, "crates/a/src/b.rs", &["a // TO", "DO: b"].concat(), 1);
}

fn prints(source: &Source) -> Vec<String> {
    let path = &source.path;
    let may = path.starts_with("tests/")
        || path.starts_with("crates/corectl/src/output")
        || path.ends_with("/src/main.rs")
        || path.contains("/src/bin/");
    let lines = ["println!", "print!", "eprintln!", "eprint!"].into_iter().flat_map(|m| source.lines_with(m));
    let lines = lines.filter(|line| *line < source.tests_from && !may);
    at(source, lines, "only corectl's output module and a main print")
}

#[test]
fn only_mains_print() {
    everywhere(prints);
    breaks(prints, "crates/corectl/src/start.rs", "println!(\"a\");", 1);
    passes(prints, "crates/corectl/src/output.rs", "println!(\"a\");");
    passes(prints, "crates/raft/src/a.rs", "#[cfg(test)]\nmod tests {\nprintln!();\n}");
}

fn unwraps(source: &Source) -> Vec<String> {
    let lines = source.lines_with(".unwrap()").into_iter();
    let lines = lines.filter(|line| *line < source.tests_from && !source.path.starts_with("tests/"));
    at(source, lines, "return an error, or `expect` with the reason why it holds")
}

#[test]
fn panics_have_reasons() {
    everywhere(unwraps);
    breaks(unwraps, "crates/a/src/b.rs", "a.unwrap();\n#[cfg(test)]\nmod tests {\nb.unwrap();\n}", 1);
    passes(unwraps, "crates/a/src/b/tests.rs", "a.unwrap();");
}

/// A sleep is too long on a fast machine and too short on a slow one. Under a clock of the test's own it
/// costs nothing.
fn sleeps(source: &Source) -> Vec<String> {
    let own_clock = source.code.contains("start_paused") || source.path.contains("simulation");
    let free = own_clock || source.path == "tests/src/wait.rs" || source.path.contains("/src/bin/");
    let lines = ["thread::sleep", "time::sleep"].into_iter().flat_map(|word| source.lines_with(word));
    let lines = lines.filter(|line| *line >= source.tests_from && !free);
    at(source, lines, "wait for a condition with a deadline (tests/src/wait.rs)")
}

#[test]
fn tests_do_not_sleep() {
    everywhere(sleeps);
    breaks(sleeps, "crates/a/tests/b.rs", "std::thread::sleep(d);", 1);
    breaks(sleeps, "crates/a/src/b.rs", "#[cfg(test)]\nmod tests {\ntokio::time::sleep(d).await;\n}", 3);
    passes(sleeps, "crates/a/src/b.rs", "tokio::time::sleep(d).await;");
}

// ---- tests that must exist

/// The scenarios' runner takes every `.txt` there is, and looks into no folder.
#[test]
fn every_scenario_is_run() {
    let runner = std::fs::read_to_string(root().join("crates/cluster/tests/scenarios.rs"));
    assert!(runner.is_ok_and(|text| text.contains("tests/scenarios")), "the scenarios have a runner");
    let files: Vec<String> =
        files_below("tests/scenarios").iter().map(|path| path.to_string_lossy().into_owned()).collect();
    assert!(!files.is_empty(), "the scenarios are found");
    let run = |path: &str| {
        path.matches('/').count() == 2 && (path.ends_with(".txt") || path.ends_with("/README.md"))
    };
    none(files.iter().filter(|path| !run(path)).map(|path| format!("{path}:1: nobody runs it")).collect());
}

/// `Known Home` and the like: what the file names in quotes, or between asterisks in a comment.
fn invariants(source: &Source) -> BTreeSet<String> {
    let name = |text: &&str| {
        let word = |word: &str| {
            word.starts_with(|c: char| c.is_ascii_uppercase()) && word.chars().all(char::is_alphabetic)
        };
        text.contains(' ') && text.split(' ').all(word)
    };
    let lines = source.text.lines().take(source.tests_from);
    lines.flat_map(|line| line.split(['"', '*'])).filter(name).map(str::to_string).collect()
}

#[test]
fn every_invariant_is_tested() {
    let sources = rust();
    let told = sources.iter().find(|source| source.path == "crates/cluster/src/invariant.rs");
    let told = invariants(told.expect("the invariants are in crates/cluster/src/invariant.rs"));
    assert!(told.len() >= 2, "the invariants are found: {told:?}");
    let tests = |source: &Source| source.text.lines().skip(source.tests_from).collect::<Vec<_>>().join("\n");
    let tested = sources.iter().filter(|source| !source.path.ends_with("tidy.rs")).map(tests);
    let scenarios = files_below("tests/scenarios").into_iter();
    let scenarios = scenarios.map(|path| std::fs::read_to_string(root().join(path)).unwrap_or_default());
    let tested: Vec<String> = tested.chain(scenarios).collect();
    let missing = told.iter().filter(|name| !tested.iter().any(|text| text.contains(name.as_str())));
    none(missing.map(|name| format!("crates/cluster/src/invariant.rs:1: no test names `{name}`")).collect());
}

#[test]
fn invariants_are_found_by_name() {
    let text =
        "//! *Single Home*, a unit: *one* of it.\nBroken { name: \"Past Only\", found: \"The end\" }\n";
    let found = invariants(&Source::new("crates/cluster/src/invariant.rs", text));
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["Past Only", "Single Home"]);
}
