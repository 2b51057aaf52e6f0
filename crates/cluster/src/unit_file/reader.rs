//! Reads a unit file's text into options by systemd's rules (`config_parse` in its `conf-parser.c`;
//! systemd.syntax(7)), and refuses what systemd would skip with nothing but a line in its log.
//!
//! Where fleet's reader and systemd's differ, the options mean what systemd reads, and are spelled as fleet
//! spelled them: a continued value keeps its backslashes and line breaks, so that fleet's hash of the file
//! holds. A comment between two continued lines is no part of the meaning, but stays in the spelling, as with
//! fleet.

use super::{UnitFileError, UnitOption};

/// What systemd trims. Nothing else counts as blank, no-break spaces in particular.
const BLANKS: [char; 4] = [' ', '\t', '\n', '\r'];

pub(super) fn trim(text: &str) -> &str {
    text.trim_matches(BLANKS)
}

pub(super) fn read(text: &str) -> Result<Vec<UnitOption>, UnitFileError> {
    let mut options = Vec::new();
    let mut section: Option<String> = None;
    let mut lines = lines(text.strip_prefix('\u{feff}').unwrap_or(text)).zip(1..);
    while let Some((first, number)) = lines.next() {
        let wrong = |reason: String| UnitFileError::Line { line: number, reason };
        if first.contains('\0') {
            return Err(wrong("found a NUL character, which no unit file can hold; remove it".into()));
        }
        if is_comment(first) {
            continue;
        }
        let mut spelled = first.to_owned();
        if is_continued(first) {
            continue_value(&mut spelled, &mut lines)?;
        }
        let line = trim(first);
        let is_joined = spelled.len() != first.len();
        if line.is_empty() {
            continue;
        }
        if line.starts_with('[') {
            if is_joined {
                return Err(wrong(format!("a section's name cannot be continued: {}", shown(line))));
            }
            section = Some(section_name(line).map_err(wrong)?);
            continue;
        }
        // Both programs skip what stands before the first section.
        let Some(section) = &section else { continue };
        let Some((name, _)) = line.split_once('=') else {
            let what = match is_joined {
                true => {
                    "an option's name cannot be continued; write NAME= and the value's beginning on one line"
                }
                false => {
                    "expected NAME=VALUE, a [section] or a comment; if it belongs to the line before, \
                          end that one with a backslash"
                }
            };
            return Err(wrong(format!("no \"=\" in {}: {what}", shown(line))));
        };
        let name = trim(name);
        if name.is_empty() {
            return Err(wrong(format!("no option name before \"=\" in {}", shown(line))));
        }
        let (_, value) = spelled.split_once('=').expect("its first line has the = that was found above");
        options.push(UnitOption { section: section.clone(), name: name.into(), value: trim_value(value) });
    }
    Ok(options)
}

/// Adds the lines that continue a value, and the comments among them, up to the first that is not continued
/// itself.
fn continue_value<'a>(
    spelled: &mut String,
    lines: &mut impl Iterator<Item = (&'a str, usize)>,
) -> Result<(), UnitFileError> {
    for (line, number) in lines {
        if line.contains('\0') {
            let reason = "found a NUL character, which no unit file can hold; remove it".into();
            return Err(UnitFileError::Line { line: number, reason });
        }
        spelled.push('\n');
        spelled.push_str(line);
        if !is_comment(line) && !is_continued(line) {
            return Ok(());
        }
    }
    // The file ends here. Whatever comes to stand below must not become part of the value.
    spelled.push('\n');
    Ok(())
}

/// Between the brackets; or what is wrong with it.
fn section_name(line: &str) -> Result<String, String> {
    let Some((name, rest)) = line[1..].split_once(']') else {
        return Err(format!("section {} has no closing \"]\"", shown(line)));
    };
    if !rest.is_empty() {
        return Err(format!("found garbage after section name: {}; end the line after \"]\"", shown(rest)));
    }
    if name.is_empty() {
        return Err("a section without a name; write one between \"[\" and \"]\"".into());
    }
    if let Some(bad) = name.chars().find(|c| c.is_ascii_control() || "\"'\\".contains(*c)) {
        return Err(format!("character {bad:?} cannot be part of a section's name"));
    }
    Ok(name.into())
}

/// What an option's value means: the lines of a continued one joined, each backslash with its line break a
/// space, without the comments among them.
pub(super) fn joined(value: &str) -> String {
    let mut joined = String::with_capacity(value.len());
    let mut is_first = true;
    for line in value.split('\n') {
        if !is_first && is_comment(line) {
            continue;
        }
        is_first = false;
        match is_continued(line) {
            true => {
                joined.push_str(&line[..line.len() - 1]);
                joined.push(' ');
            }
            false => joined.push_str(line),
        }
    }
    trim(&joined).into()
}

/// Without the blanks around it; but where the next line would otherwise become part of the value, the blank
/// or the empty line that keeps it away stays.
fn trim_value(value: &str) -> String {
    let trimmed = trim(value);
    let tail = &value.trim_start_matches(BLANKS)[trimmed.len()..];
    let last = trimmed.rsplit('\n').next().unwrap_or(trimmed);
    let ends_in_comment = trimmed.contains('\n') && is_comment(last);
    if !ends_in_comment && !is_continued(last) {
        trimmed.into()
    } else if !ends_in_comment && tail.starts_with([' ', '\t']) {
        format!("{trimmed} ")
    } else {
        format!("{trimmed}\n")
    }
}

fn is_comment(line: &str) -> bool {
    line.trim_start_matches(BLANKS).starts_with(['#', ';'])
}

/// A backslash at the very end that is not itself escaped by one before it.
fn is_continued(line: &str) -> bool {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

/// Lines as systemd counts them: LF, CR, and either followed by the other end one.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(end) = text.find(['\n', '\r']) else {
            rest = None;
            return Some(text);
        };
        let width = match text.as_bytes()[end..] {
            [b'\n', b'\r', ..] | [b'\r', b'\n', ..] => 2,
            _ => 1,
        };
        rest = Some(&text[end + width..]).filter(|rest| !rest.is_empty());
        Some(&text[..end])
    })
}

/// A piece of a line, for an error text.
fn shown(text: &str) -> String {
    let cut: String = text.chars().take(60).collect();
    if cut.len() < text.len() { format!("\"{cut}…\"") } else { format!("\"{cut}\"") }
}
