//! The parts of the documents that are made of the code's own tables. They stand between two comments:
//!
//!     <!-- generated: NAME -->
//!     ...
//!     <!-- end of what is generated -->

use cluster::{OptionName, option_names};
use coreinitd::config::keys::{KEYS, flags};
use tests::document::{Document, document, documents};
use tests::sources::root;

use crate::{none, writes};

const BEGIN: &str = "<!-- generated: ";
const END: &str = "<!-- end of what is generated -->";
/// Each part, and the document that must have it.
const PARTS: [(&str, &str); 4] = [
    ("options", "docs/unit-options.md"),
    ("older-options", "docs/unit-options.md"),
    ("keys", "docs/configuration.md"),
    ("flags", "docs/configuration.md"),
];

fn part(name: &str) -> Option<String> {
    let (today, older): (Vec<&OptionName>, Vec<&OptionName>) =
        option_names().iter().partition(|option| option.today.is_none());
    match name {
        "options" => {
            let row = |option: &&OptionName| {
                format!("| `{}=` | {} | {} |", option.name, option.value, option.meaning)
            };
            Some(table(["option", "value", "what it does"], today.iter().map(row)))
        }
        "older-options" => {
            let row = |option: &&OptionName| {
                let today = option.today.expect("it is an older one");
                format!("| `{}=` | `{today}=` | {} | {} |", option.name, option.value, option.meaning)
            };
            Some(table(["option", "today", "value", "whose it was"], older.iter().map(row)))
        }
        "keys" => {
            let row = |key: &coreinitd::config::keys::Key| {
                format!("| `{}` | {} | {} |", key.name, key.default, key.meaning)
            };
            Some(table(["key", "default", "meaning"], KEYS.iter().map(row)))
        }
        "flags" => {
            let flags: Vec<String> =
                flags().iter().map(|flag| format!("`{}`", flag.replace('-', "_"))).collect();
            Some(wrapped(&format!("Flags and variables exist for {}.", in_words(&flags))))
        }
        _ => None,
    }
}

fn table<const N: usize>(head: [&str; N], rows: impl Iterator<Item = String>) -> String {
    let rule = "---|".repeat(N);
    let rows: Vec<String> = rows.collect();
    format!("| {} |\n|{rule}\n{}\n", head.join(" | "), rows.join("\n"))
}

/// `a, b and c`.
fn in_words(words: &[String]) -> String {
    let (last, others) = words.split_last().expect("there are some");
    format!("{} and {last}", others.join(", "))
}

/// In lines that are not too long.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("one was there from the start");
        if line.len() + word.len() > 130 {
            lines.push(word.into());
        } else {
            line.push_str(if line.is_empty() { "" } else { " " });
            line.push_str(word);
        }
    }
    lines.join("\n") + "\n"
}

/// The document with its parts as the code has them now.
fn regenerated(document: &Document) -> Result<String, String> {
    let mut pieces = document.text.split(BEGIN);
    let mut text = pieces.next().unwrap_or_default().to_string();
    for piece in pieces {
        let (name, rest) =
            piece.split_once(" -->").ok_or_else(|| format!("{}: a name is missing", document.path))?;
        let (_, after) =
            rest.split_once(END).ok_or_else(|| format!("{}: {name} has no end", document.path))?;
        let made = part(name).ok_or_else(|| format!("{}: nothing makes {name}", document.path))?;
        text += &format!("{BEGIN}{name} -->\n\n{made}\n{END}{after}");
    }
    Ok(text)
}

#[test]
fn what_is_generated_is_up_to_date() {
    let mut faults = Vec::new();
    for document in documents() {
        match regenerated(&document) {
            Err(fault) => faults.push(fault),
            Ok(text) if text == document.text => {}
            Ok(text) if writes() => {
                std::fs::write(root().join(&document.path), text).expect("it can be written")
            }
            Ok(_) => faults.push(format!("{}: run this test with COREINIT_WRITE_DOCS=1", document.path)),
        }
    }
    none(faults);
}

#[test]
fn every_part_is_somewhere() {
    for (name, path) in PARTS {
        assert!(document(path).text.contains(&format!("{BEGIN}{name} -->")), "{path} lacks {name}");
        assert!(part(name).is_some_and(|text| text.lines().count() >= 2), "{name}");
    }
}

#[test]
fn an_old_part_is_found() {
    let of = |text: &str| Document { path: "a.md".into(), text: text.into() };
    let made =
        regenerated(&of("one\n<!-- generated: keys -->\noutdated\n<!-- end of what is generated -->\ntwo\n"));
    let made = made.expect("it can be made");
    assert!(
        made.starts_with("one\n<!-- generated: keys -->\n\n| key |") && made.ends_with("-->\ntwo\n"),
        "{made}"
    );
    assert!(!made.contains("outdated") && made.contains("| `bootstrap_expect` |"), "{made}");
    assert_eq!(regenerated(&of(&made)), Ok(made));
    assert!(regenerated(&of("<!-- generated: keys -->\n")).is_err_and(|why| why.contains("has no end")));
    assert!(regenerated(&of("<!-- generated: cheese -->\n<!-- end of what is generated -->")).is_err());
}
