//! Tables of cases for reading unit files.

use proptest::prelude::*;

use super::*;

/// The hash of the file, or the error that it is refused with.
fn hash(text: &str) -> String {
    match UnitFile::parse(text) {
        Ok(file) => {
            assert_eq!(file.text(), text);
            file.hash().to_string()
        }
        Err(error) => error.to_string(),
    }
}

/// Fleet's hashes, as its own code made them.
#[test]
fn hashes_as_fleet_did() {
    let check = |text: &str, expected: &str| assert_eq!(hash(text), expected, "{text:?}");
    check("", "da39a3ee5e6b4b0d3255bfef95601890afd80709");
    check("no section\nat all = here\n", "da39a3ee5e6b4b0d3255bfef95601890afd80709");
    check("[Service]\nExecStart=/bin/sleep 100\n", "1c6fb6f3684bafb0c173d8b8b957ceff031180c1");
    check("[Service]\r\nExecStart=/bin/sleep 100\r\n", "1c6fb6f3684bafb0c173d8b8b957ceff031180c1");
    check("\u{feff}[Service]\nExecStart=/bin/sleep 100", "1c6fb6f3684bafb0c173d8b8b957ceff031180c1");
    check("[Service]\nExecStart=/bin/sleep 3000\n", "7dc08eb00f0c705e84a61e030d98e8cc3c994954");
    check(
        "# c\n[Unit]\n;x\nDescription = Foo\n\n[Service]\nExecStart=/a\n[Unit]\nAfter=b\n",
        "63b1a0c3cef6b4b496872964e4bf40f391ddf795",
    );
    check("[Service]\nExecStart=/bin/sh -c \\\n  \"a b\"\n", "f2ec9b2601f0ef08cde73347b7f7dc4cd8f981ef");
    check("[Service]\nExecStart=\nExecStart=/x\n", "ad3c0b3605b65151f13a0230f9b864572eb0dfed");
    check("[X-Fleet]\nMachineMetadata=\"a=b\" \"c=d\"\n", "0f6123a27ca52820149a3e3535f2e1a1d0665f67");
}

/// What each option means to systemd, as `section.name=value` joined by `|`; or the error.
fn meaning(text: &str) -> String {
    match UnitFile::parse(text) {
        Ok(file) => {
            let show = |o: &UnitOption| format!("{}.{}={}", o.section, o.name, o.joined());
            file.options().iter().map(show).collect::<Vec<_>>().join("|")
        }
        Err(error) => error.to_string(),
    }
}

#[test]
fn reads_as_systemd_does() {
    let check = |text: &str, expected: &str| assert_eq!(meaning(text), expected, "{text:?}");
    check(">>>>\nA=1\n[U]\n<<<<=bar\n", "U.<<<<=bar");
    check("[U]\nA=1\n[S]\nB=2\n[U]\nA=3\n", "U.A=1|S.B=2|U.A=3");
    check("  [U]  \n\t A \t=\t x = y \t\n", "U.A=x = y");
    check("[U]\nA=a # no comment; at all\n", "U.A=a # no comment; at all");
    check("[U]\n  # comment \\\nA=1\n   ;x\nB=2", "U.A=1|U.B=2");
    check("[U]\nA=a \\\n# comment\n  ; another \\\n  b\\\nc\nB=2\n", "U.A=a    b c|U.B=2");
    check("[U]\nA=a\\\\\nB=2\n", "U.A=a\\\\|U.B=2");
    check("[U]\nA=a\\ \nB=2\n", "U.A=a\\|U.B=2");
    check("[U]\nA=a \\\n\nB=2\n", "U.A=a|U.B=2");
    check("[U]\nA=a \\\n[S]\nB=2\n", "U.A=a  [S]|U.B=2");
    check("[U]\nA=a \\", "U.A=a");
    check("[U]\nA=a \\\n# end", "U.A=a");
    check("nothing \\\n[U]\nA=1\n[S]\nB=2\n", "S.B=2");
    check("[U]\rA=1\rB=2\n\rC=3\r\n", "U.A=1|U.B=2|U.C=3");
    check("[U]\nA=\u{a0}x\u{a0}\n", "U.A=\u{a0}x\u{a0}");
    check("[U]\nA=\n", "U.A=");
    check("[X-Späß x]\nA=1\n", "X-Späß x.A=1");
    let long = "x".repeat(100 << 10);
    check(&format!("[U]\nA={long}\n"), &format!("U.A={long}"));
}

#[test]
fn refuses_with_line_and_reason() {
    let check = |text: &str, expected: &str| assert_eq!(meaning(text), expected, "{text:?}");
    check(
        "[U]\n\nnonsense upon stilts\n",
        "line 3: no \"=\" in \"nonsense upon stilts\": expected NAME=VALUE, a [section] or a comment; \
         if it belongs to the line before, end that one with a backslash",
    );
    check(
        "[U]\r\n# c\r\nA=1\\\r\n  2\r\nna\\\r\nme=x\r\n",
        "line 5: no \"=\" in \"na\\\": an option's name cannot be continued; write NAME= \
         and the value's beginning on one line",
    );
    check("[U]\n=x\n", "line 2: no option name before \"=\" in \"=x\"");
    check("[U] # x\n", "line 1: found garbage after section name: \" # x\"; end the line after \"]\"");
    check("[a]b]\n", "line 1: found garbage after section name: \"b]\"; end the line after \"]\"");
    check("\n[U\n", "line 2: section \"[U\" has no closing \"]\"");
    check("[]\n", "line 1: a section without a name; write one between \"[\" and \"]\"");
    check("[a\"b]\n", "line 1: character '\"' cannot be part of a section's name");
    check("[a\tb]\n", "line 1: character '\\t' cannot be part of a section's name");
    check("[U] \\\nA=1\n", "line 1: a section's name cannot be continued: \"[U] \\\"");
    check("[U]\nA=\0\n", "line 2: found a NUL character, which no unit file can hold; remove it");
    check("# \0\n[U]\n", "line 1: found a NUL character, which no unit file can hold; remove it");
    check("[U]\nA=1 \\\n\0\n", "line 3: found a NUL character, which no unit file can hold; remove it");
    check(
        &"x".repeat(UNIT_FILE_BYTES_MAX + 1),
        "unit file is 1048577 bytes long, more than the 1048576 allowed",
    );
}

fn option(section: &str, name: &str, value: &str) -> UnitOption {
    UnitOption { section: section.into(), name: name.into(), value: value.into() }
}

#[test]
fn takes_options_that_can_be_written_down() {
    let check = |options: &[(&str, &str, &str)], expected: &str| {
        let options = options.iter().map(|(s, n, v)| option(s, n, v)).collect();
        let got = UnitFile::from_options(options).map(|file| file.text().to_owned());
        assert_eq!(got.unwrap_or_else(|error| error.to_string()), expected);
    };
    let refused = |section, name, value, reason: &str| {
        let reason = format!(
            "option 2, {name:?} in section {section:?}, cannot be written into a unit file: {reason}"
        );
        check(&[("U", "A", "1"), (section, name, value)], &reason);
    };
    check(&[], "");
    check(&[("U", "A", ""), ("S", "B", "2"), ("U", "C", "3")], "[U]\nA=\nC=3\n\n[S]\nB=2\n");
    check(&[("U", "A", "a \\\n# c\nb"), ("U", "B", "c \\\n")], "[U]\nA=a \\\n# c\nb\nB=c \\\n\n");
    refused("U", "A\nB", "1", "its name must be one line of text without blanks around it");
    refused("U", "", "1", "its name must be one line of text without blanks around it");
    refused("", "A", "1", "its section must be one line of text without blanks around it");
    refused("a]\n[b", "A", "1", "its section must be one line of text without blanks around it");
    refused("a]b", "A", "1", "found garbage after section name: \"b]\"; end the line after \"]\"");
    refused("U", "A=B", "1", "it would not be read back as it is");
    refused("U", "#A", "1", "it would not be read back as it is");
    refused("U", "A", "1\nB=2", "its value holds a line break with no backslash before it");
    refused("U", "A", "1\r", "its value holds a carriage return");
    refused("U", "A", " 1", "its value has blanks at its ends, which systemd would cut off");
    refused("U", "A", "1 \\", "its value ends in a backslash, which would make the next line part of it");
    refused("U", "A", "\0", "found a NUL character, which no unit file can hold; remove it");
}

/// Once accepted, a text is read for ever: a replica that started to refuse it could not follow the log.
#[test]
fn keeps_what_was_stored_even_when_it_is_refused_today() {
    let file = UnitFile::from(String::from("[U]\nwhatever\n"));
    assert_eq!(file.text(), "[U]\nwhatever\n");
    assert_eq!(file.hash().to_string(), "da39a3ee5e6b4b0d3255bfef95601890afd80709");
}

#[test]
fn many_sections_take_no_time_to_speak_of() {
    let text: String = (0..80_000).map(|i| format!("[{i}]\nA=\n")).collect();
    let file = UnitFile::parse(&text).expect("a good file");
    assert!(file.options().len() > 50_000);
}

proptest! {
    #[test]
    fn any_text_is_kept_or_refused(text in "([\\[\\]A-C=#; \\\\\r\n\t\"x]|\n|\\\\\n|\n\\[U\\]\n){0,40}") {
        let Ok(file) = UnitFile::parse(&text) else { return Ok(()) };
        prop_assert_eq!(file.text(), &text);
        // The canonical text is a fixpoint, with the same hash, the same options by section, and the same
        // meaning.
        let again = UnitFile::parse(&file.canonical()).expect("what was written out can be read");
        prop_assert_eq!(again.text(), again.canonical());
        prop_assert_eq!(again.hash(), file.hash());
        let mut by_section: Vec<_> = file.options().iter().collect();
        let mut sections: Vec<&str> = Vec::new();
        for option in file.options() {
            if !sections.contains(&&*option.section) {
                sections.push(&option.section);
            }
        }
        by_section.sort_by_key(|option| sections.iter().position(|section| *section == option.section));
        prop_assert_eq!(by_section, again.options().iter().collect::<Vec<_>>());
        // What the API hands out can be handed in again.
        let back = UnitFile::from_options(file.options().to_vec()).expect("each option can be written down");
        prop_assert_eq!(back.hash(), file.hash());
    }
}
