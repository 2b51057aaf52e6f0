//! Every block of commands in the README is run: blocks of `console` on bare hosts, line by line, by the
//! rack's `the_readme_is_true`; blocks of `sh` on this machine, by its `the_readmes_demo_runs`. Whatever is
//! written otherwise would be run by nobody.

use tests::document::{Block, document};
use tests::transcript::{DEMO, commands};

fn is_run(block: &Block) -> Result<(), String> {
    let said = |why: &str| Err(format!("README.md:{}: {why}", block.line));
    match block.language.as_str() {
        "console" if commands(block).is_empty() => said("there is no line such as `h1# corectl list-units`"),
        "console" => Ok(()),
        "sh" if block.lines.iter().all(|line| line.starts_with(DEMO)) => Ok(()),
        "sh" => said("only the demo is run so; commands for hosts belong into a block of `console`"),
        // Pictures and files: no line of them is a command.
        "text" | "toml" | "ini" => {
            let first = |line: &String| line.split_whitespace().next().unwrap_or_default().to_owned();
            let typed = ["$", "#", "corectl", "systemctl", "apt", "apt-get", "cargo", "sudo", "dpkg"];
            let typed =
                block.lines.iter().map(first).find(|word| typed.contains(&&**word) || word.ends_with('#'));
            typed.map_or(Ok(()), |word| said(&format!("nobody runs {word}")))
        }
        language => said(&format!("nobody runs a block of {language:?}; name its language")),
    }
}

#[test]
fn every_block_of_the_readme_is_run() {
    let blocks = document("README.md").blocks();
    let faults: Vec<String> = blocks.iter().filter_map(|block| is_run(block).err()).collect();
    crate::none(faults);
    let run = |language: &str| blocks.iter().filter(|block| block.language == language).count();
    assert!(run("console") >= 4 && run("sh") >= 1, "the blocks are found");
}

#[test]
fn a_block_that_nobody_runs_is_found() {
    let check = |language: &str, line: &str, is_good: bool| {
        let block = Block { line: 1, language: language.into(), lines: vec![line.into()] };
        assert_eq!(is_run(&block).is_ok(), is_good, "{language} {line}");
    };
    check("console", "h1# corectl list-units", true);
    check("console", "corectl list-units", false);
    check("sh", "tests/demo down", true);
    check("sh", "rm -rf /tmp/x", false);
    check("text", "h1 --- h2", true);
    check("text", "corectl list-units", false);
    check("", "corectl list-units", false);
    check("bash", "corectl list-units", false);
}
