//! The daemon's manual pages, `coreinitd(8)` and `coreinitd.toml(5)`, made of its flags and keys, and kept in
//! `dist/man` for packages. corectl writes its own (`corectl man`).

use clap::CommandFactory;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use coreinitd::config::Flags;
use coreinitd::config::keys::KEYS;
use tests::sources::root;

use crate::writes;

const FILES: &[(&str, &str)] = &[
    ("/etc/coreinit/coreinitd.toml", "The configuration; see coreinitd.toml(5)."),
    ("/var/lib/coreinit", "This machine's share of the cluster's state."),
    ("/run/coreinit", "Unit files, and marks of what was done with them; for as long as the machine is up."),
    ("/run/coreinit.sock", "The API, which corectl(1) uses. Root may open it, and the group coreinit."),
];

fn daemon() -> String {
    // A version would make another page of each.
    let command = Flags::command().version(None).long_version(None);
    let man =
        Man::new(command).section("8").title("COREINITD").date(" ").source("coreinit").manual("coreinit");
    let mut page = Vec::new();
    man.render_title(&mut page).expect("memory takes it");
    man.render_name_section(&mut page).expect("memory takes it");
    man.render_synopsis_section(&mut page).expect("memory takes it");
    man.render_options_section(&mut page).expect("memory takes it");
    let mut files = Roff::new();
    files.control("SH", ["FILES"]);
    for (path, what) in FILES {
        files.control("TP", []).text([bold(*path)]).text([roman(*what)]);
    }
    files.control("SH", ["SEE ALSO"]);
    files.text([roman("corectl(1), coreinitd.toml(5), systemd.unit(5)")]);
    String::from_utf8(page).expect("it is text") + &files.render()
}

fn configuration() -> String {
    let mut page = Roff::new();
    page.control("TH", ["COREINITD.TOML", "5", " ", "coreinit", "coreinit"]);
    page.control("SH", ["NAME"]).text([roman("coreinitd.toml - what coreinitd is told")]);
    page.control("SH", ["SYNOPSIS"]).text([bold("/etc/coreinit/coreinitd.toml")]);
    page.control("SH", ["DESCRIPTION"]).text([roman(
        "coreinitd(8) reads this file, then variables called COREINIT_..., then its flags; the later \
         wins. The file is TOML. A key that is not known is refused.",
    )]);
    page.control("SH", ["KEYS"]);
    for key in KEYS {
        let default = plain(key.default);
        let meaning = format!("{}. By default: {default}.", plain(key.meaning).trim_end_matches('.'));
        page.control("TP", []).text([bold(key.name)]).text([roman(capital(&meaning))]);
    }
    page.control("SH", ["SEE ALSO"]).text([roman("coreinitd(8), corectl(1)")]);
    page.render()
}

/// Markdown without its marks; of links, their words.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("](") {
        let (before, words) = before.rsplit_once('[').unwrap_or((before, ""));
        plain.push_str(before);
        plain.push_str(words);
        rest = after.split_once(')').map_or("", |(_, rest)| rest);
    }
    plain.push_str(rest);
    plain.replace(['`', '*'], "")
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(letters).collect()
}

#[test]
fn manual_pages_are_up_to_date() {
    for (name, page) in [("coreinitd.8", daemon()), ("coreinitd.toml.5", configuration())] {
        let path = root().join("dist/man").join(name);
        if writes() {
            std::fs::write(&path, &page).expect("it can be written");
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(kept == page, "dist/man/{name}: run this test with COREINIT_WRITE_DOCS=1");
        for word in [".TH COREINITD", "bootstrap"] {
            assert!(page.contains(word), "{name} lacks {word}");
        }
    }
}

/// The file that packages install has no key that is not read, and sets none.
#[test]
fn the_installed_configuration_is_good() {
    let text = std::fs::read_to_string(root().join("dist/coreinitd.toml")).expect("it is there");
    let set: toml::Table = toml::from_str(&text).expect("it is TOML");
    assert!(set.is_empty(), "it changes nothing: {set:?}");
    let offered =
        text.lines().filter_map(|line| line.strip_prefix('#')).filter(|line| !line.starts_with(' '));
    let offered: toml::Table =
        toml::from_str(&offered.collect::<Vec<_>>().join("\n")).expect("what it offers is TOML");
    assert!(offered.len() > 5, "{offered:?}");
    for key in offered.keys() {
        assert!(KEYS.iter().any(|known| known.name == key), "there is no key {key}");
    }
}
