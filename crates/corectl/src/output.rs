//! Everything that is printed. A reader that goes away early (`| head`) is no error: what it does not want is
//! not printed, and the command goes on to its end and its exit code.

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::time::Instant;

use serde::Serialize;

/// Longer, and the line would be two on a usual terminal, of which only one could be erased.
const PROGRESS_COLUMNS: usize = 79;

/// A line on standard output.
pub fn line(text: &str) {
    write_out(&format!("{text}\n"));
}

/// Text on standard output, as it is.
pub fn text(text: &str) {
    write_out(text);
}

/// Bytes on standard output, as they are.
pub fn bytes(bytes: &[u8]) {
    write_bytes(bytes);
}

/// A line for the person who typed, on standard error.
pub fn note(text: &str) {
    write_error(&format!("{text}\n"));
}

/// What went wrong, or what is strange.
pub fn problem(text: &str) {
    note(&format!("corectl: {text}"));
}

/// Why the command failed: the whole chain of causes, once.
pub fn error(error: &anyhow::Error) {
    problem(&format!("{error:#}"));
}

pub fn json<T: Serialize>(value: &T) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(value)?);
    Ok(())
}

pub fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// A full disk is an error, at once, since nobody would notice later.
fn write_out(text: &str) {
    write_bytes(text.as_bytes());
}

fn write_bytes(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            problem(&format!("cannot write to standard output: {error}"));
            std::process::exit(1);
        }
        Ok(()) | Err(_) => {}
    }
}

/// Without standard error there is nobody to tell.
fn write_error(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// A line that changes while one waits; only on a terminal.
pub struct Progress {
    on_terminal: bool,
    since: Instant,
    is_there: bool,
}

impl Progress {
    pub fn new() -> Progress {
        Progress { on_terminal: io::stderr().is_terminal(), since: Instant::now(), is_there: false }
    }

    /// Whether anybody would see it.
    pub fn is_shown(&self) -> bool {
        self.on_terminal
    }

    pub fn show(&mut self, text: &str) {
        if self.on_terminal {
            let text = format!("[{} s] {text}", self.since.elapsed().as_secs());
            let cut: String = text.chars().take(PROGRESS_COLUMNS).collect();
            write_error(&format!("\r\x1b[K{cut}"));
            self.is_there = true;
        }
    }

    /// Makes room for lines that stay.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.is_there) {
            write_error("\r\x1b[K");
        }
    }
}

impl Default for Progress {
    fn default() -> Progress {
        Progress::new()
    }
}

/// The columns of a list: those that were asked for, or the usual.
pub fn fields<'a>(asked: &'a [String], usual: &[&'a str]) -> Vec<&'a str> {
    if asked.is_empty() { usual.to_vec() } else { asked.iter().map(String::as_str).collect() }
}

/// What stands above them.
pub fn header(fields: &[&str]) -> Vec<String> {
    fields.iter().map(|field| field.to_uppercase()).collect()
}

/// A hash, or its beginning, as fleet shows it.
pub fn hash(hash: &str, full: bool) -> String {
    or_dash(if full { hash } else { hash.get(..7).unwrap_or(hash) })
}

/// Columns as wide as their widest cell, two blanks between them, none at the end of a line.
pub fn table(header: Option<Vec<String>>, rows: &[Vec<String>]) -> String {
    let lines: Vec<&Vec<String>> = header.iter().chain(rows).collect();
    let columns = lines.iter().map(|line| line.len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|i| {
            lines.iter().filter_map(|line| line.get(i)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for line in lines {
        let mut padded = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            padded.push_str(&format!("{cell:width$}  "));
        }
        text.push_str(padded.trim_end());
        text.push('\n');
    }
    text
}

/// At most so many characters, with an ellipsis for what is cut off.
pub fn shortened(text: &str, columns: usize) -> String {
    match text.char_indices().nth(columns) {
        None => text.into(),
        Some(_) => text.chars().take(columns - 1).chain(['…']).collect(),
    }
}

/// What an empty cell shows.
pub fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".into() } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut() {
        for (text, expected) in [("", ""), ("abcd", "abcd"), ("abcde", "abc…"), ("äöüßä", "äöü…")]
        {
            assert_eq!(shortened(text, 4), expected);
        }
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a.service".into(), "x".into()], vec!["b".into(), String::new()]];
        assert_eq!(table(Some(header(&["unit", "load"])), &rows), "UNIT       LOAD\na.service  x\nb\n");
        assert_eq!(table(None, &rows), "a.service  x\nb\n");
        assert_eq!(table(None, &[]), "");
    }
}
