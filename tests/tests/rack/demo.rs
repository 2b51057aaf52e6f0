//! What the README's blocks of `sh` say, typed on this machine: the demo on a rack of its own.

use std::process::Command;

use tests::deploy::programs_built;
use tests::document::document;
use tests::rack::said;
use tests::sources::root;

pub fn the_readmes_demo_runs() {
    let name = std::env::var("HX_NAME").unwrap_or_else(|_| "coreinit-tests".into());
    let programs = programs_built();
    let run = |line: &str| {
        let mut shell = Command::new("bash");
        shell.arg("-c").arg(line).current_dir(root()).env("HX_NAME", format!("{name}-demo"));
        let output = shell.env("COREINIT_PROGRAMS", &programs).output().expect("bash can be run");
        let words = said(&output);
        println!("$ {line}\n{words}");
        (output.status.success(), words)
    };
    let blocks = document("README.md").blocks().into_iter().filter(|block| block.language == "sh");
    let lines: Vec<String> = blocks.flat_map(|block| block.lines).collect();
    let broken = lines.iter().find_map(|line| match run(line) {
        (true, words) if line.ends_with("list-units") && !words.contains("hello.service") => Some(words),
        (true, _) => None,
        (false, words) => Some(format!("{line}: {words}")),
    });
    if broken.is_some() {
        run("tests/demo down");
    }
    assert_eq!(broken, None);
    assert!(lines.len() >= 3, "the lines are found: {lines:?}");
}
