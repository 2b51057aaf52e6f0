//! Every command line of ours in the documents is one that the programs take: `corectl` and `coreinitd` by
//! their own definitions, scripts of the repository by the options that they name.

use clap::error::ErrorKind;
use clap::{Command, CommandFactory};
use tests::document::{Document, documents};
use tests::sources::root;

use crate::none;

/// What stands for something else: `UNIT`, `ADDRESS...`, `[MACHINE]`.
fn is_placeholder(word: &str) -> bool {
    let word = word.trim_end_matches("...").trim_matches(['[', ']']);
    !word.is_empty() && word.chars().all(|c| c.is_ascii_uppercase() || "-:@|".contains(c))
}

/// The words of each simple command of a line, as a shell has them, as far as our documents go.
fn simple_commands(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let mut word = String::new();
    let mut quote = None;
    let mut is_open = false;
    let end = |commands: &mut Vec<Vec<String>>, word: &mut String, is_open: &mut bool| {
        if std::mem::take(is_open) {
            commands.last_mut().expect("one was there from the start").push(std::mem::take(word));
        }
    };
    let mut letters = line.chars().peekable();
    while let Some(c) = letters.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.push(c),
            (None, '\'' | '"') => (quote, is_open) = (Some(c), true),
            // A comment, where a word would begin.
            (None, '#') if !is_open => break,
            (None, '|' | ';' | '&' | '(' | ')') => {
                end(&mut commands, &mut word, &mut is_open);
                commands.push(Vec::new());
            }
            // What is read or written is no word of the command.
            (None, '<' | '>') => {
                end(&mut commands, &mut word, &mut is_open);
                letters.by_ref().skip_while(|c| c.is_whitespace()).find(|c| c.is_whitespace());
            }
            (None, c) if c.is_whitespace() => end(&mut commands, &mut word, &mut is_open),
            (None, c) => {
                word.push(c);
                is_open = true;
            }
        }
    }
    end(&mut commands, &mut word, &mut is_open);
    commands.retain(|command| !command.is_empty());
    commands
}

/// The prompt of a shell, with or without the host before it.
fn is_prompt(word: &str) -> bool {
    word.ends_with(['#', '$']) && word.chars().all(|c| c.is_ascii_alphanumeric() || "-#$".contains(c))
}

/// A prompt before a line is no part of the command; whatever else stands before it must only run it.
fn without_prompt(line: &str) -> &str {
    match line.split_once(' ') {
        Some((prompt, rest)) if is_prompt(prompt) => rest,
        _ => line,
    }
}

/// The command itself, without what only runs it.
fn bare(words: &[String]) -> &[String] {
    let runs = |word: &String| {
        matches!(word.as_str(), "sudo" | "exec" | "tests/demo")
            || word
                .split_once('=')
                .is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
            || (word.len() == 2 && word.starts_with('h') && word.ends_with(|c: char| c.is_ascii_digit()))
    };
    let before = words.iter().take_while(|word| runs(word)).count();
    // `tests/demo kill h2` is the demo's own command.
    let only_runs = words[..before].iter().any(|word| word == "tests/demo")
        && !words[..before].iter().any(|word| word.starts_with('h') && word.len() == 2);
    if only_runs { words } else { &words[before..] }
}

/// What `vagrant ssh MACHINE -c '...'` has typed there; any other command as it is.
fn typed_there(words: Vec<String>) -> Vec<Vec<String>> {
    match &words[..] {
        [vagrant, ssh, _, flag, line] if [vagrant, ssh, flag] == ["vagrant", "ssh", "-c"] => {
            simple_commands(line)
        }
        _ => vec![words],
    }
}

/// Why the program would not take this line.
fn refused(command: Command, words: &[String], is_whole: bool) -> Option<String> {
    let words: Vec<String> = words
        .iter()
        .map(|word| word.trim_start_matches('[').trim_end_matches(']').to_owned())
        .filter(|word| !word.is_empty() && word != "...")
        .collect();
    // `corectl → api` tells who depends on whom.
    if words.iter().any(|word| word == "→") {
        return None;
    }
    let error = command.try_get_matches_from(&words).err()?;
    let has_placeholder = words.iter().any(|word| is_placeholder(word));
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => None,
        // A command or an option that is only named.
        ErrorKind::InvalidValue if !is_whole && error.to_string().contains("a value is required") => None,
        ErrorKind::MissingRequiredArgument
        | ErrorKind::MissingSubcommand
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
            if !is_whole =>
        {
            None
        }
        ErrorKind::ValueValidation | ErrorKind::InvalidValue | ErrorKind::InvalidSubcommand
            if has_placeholder =>
        {
            None
        }
        _ => Some(error.to_string().lines().next().unwrap_or_default().to_owned()),
    }
}

/// Options of a script of ours that the script does not know.
fn script_refused(words: &[String]) -> Option<String> {
    let path = words.first()?.trim_start_matches("./");
    let is_ours = ["tests/", "dist/", "vagrant/"].iter().any(|folder| path.starts_with(folder));
    let text = std::fs::read_to_string(root().join(path)).ok().filter(|_| is_ours)?;
    let unknown = words[1..].iter().find(|word| word.starts_with("--") && !text.contains(word.as_str()))?;
    Some(format!("{path} has no option {unknown}"))
}

fn faults(document: &Document) -> Vec<String> {
    let blocks = document.blocks().into_iter().flat_map(|block| {
        let lines = block.lines.into_iter().zip(block.line..);
        lines.map(|(text, line)| (line, text, true)).collect::<Vec<_>>()
    });
    let codes = document.codes().into_iter().map(|(line, text)| (line, text, false));
    let mut faults = Vec::new();
    for (line, text, is_whole) in blocks.chain(codes) {
        for words in simple_commands(without_prompt(&text)).into_iter().flat_map(typed_there) {
            let words = bare(&words);
            let why = match words.first().map(String::as_str) {
                Some("corectl") => refused(corectl::Cli::command(), words, is_whole),
                Some("coreinitd") => refused(coreinitd::config::Flags::command(), words, is_whole),
                _ => script_refused(words),
            };
            faults.extend(why.map(|why| format!("{}:{line}: {}: {why}", document.path, words.join(" "))));
        }
    }
    faults
}

#[test]
fn every_command_line_is_taken() {
    // What was is not what is.
    let documents = documents().into_iter().filter(|document| document.path != "CHANGELOG.md");
    none(documents.flat_map(|document| faults(&document)).collect());
}

#[test]
fn a_wrong_command_is_found() {
    let check = |text: &str, fault: Option<&str>| {
        let found = faults(&Document { path: "a.md".into(), text: text.into() });
        match fault {
            None => none(found),
            Some(fault) => assert!(found.len() == 1 && found[0].contains(fault), "{found:?}"),
        }
    };
    check(
        "`corectl start`, `corectl cluster`, `corectl cluster invite | uninvite`, `corectl COMMAND --help`",
        None,
    );
    check("    corectl cluster join TOKEN ADDRESS...    # there\n    h1# corectl move db [MACHINE]", None);
    check(
        "```sh\ntests/demo h1 corectl list-units\nsystemctl stop x && corectl start hello >y 2>&1\n```",
        None,
    );
    check("`corectl cluster invite alice --role ROLE --ttl TIME`", None);
    check("`tests/demo --check`, `coreinitd --version`, `coreinitd --data-dir DIR`", None);
    check("`vagrant ssh core-01 -c 'corectl list-machines'`, `vagrant ssh core-01`", None);
    check("`vagrant ssh core-01 -c 'corectl begin'`", Some("a.md:1: corectl begin: error: unrecognized"));
    check("`corectl begin hello`", Some("a.md:1: corectl begin hello: error: unrecognized subcommand"));
    check("\n    $ corectl start --no-such hello\n", Some("a.md:2:"));
    check("    corectl start\n", Some("required arguments"));
    check("    x | corectl stop\n", Some("required arguments"));
    check("    tests/demo h2 corectl drain\n", Some("required arguments"));
    check("`coreinitd --no-such`", Some("unexpected argument"));
    check("`tests/demo --no-such`", Some("has no option"));
}
