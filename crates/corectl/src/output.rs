//! Everything that is printed. A reader that goes away early (`| head`) ends the program quietly.

use std::io::{self, ErrorKind, IsTerminal, Write};

use serde::Serialize;

/// A line on standard output.
pub fn line(text: &str) {
    write(&mut io::stdout().lock(), text, "\n");
}

/// Text on standard output, as it is.
pub fn text(text: &str) {
    write(&mut io::stdout().lock(), text, "");
}

/// A line for the person who typed, on standard error.
pub fn note(text: &str) {
    write(&mut io::stderr().lock(), text, "\n");
}

/// Why the command failed: the whole chain of causes, once.
pub fn error(error: &anyhow::Error) {
    note(&format!("corectl: {error:#}"));
}

pub fn json<T: Serialize>(value: &T) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(value)?);
    Ok(())
}

fn write(to: &mut impl Write, text: &str, end: &str) {
    let written = write!(to, "{text}{end}").and_then(|()| to.flush());
    if let Err(error) = written {
        let code = if error.kind() == ErrorKind::BrokenPipe { 0 } else { 1 };
        std::process::exit(code);
    }
}

/// A line that changes while one waits; it is there on a terminal only.
pub struct Progress {
    terminal: bool,
    shown: String,
}

impl Progress {
    pub fn new() -> Progress {
        Progress { terminal: io::stderr().is_terminal(), shown: String::new() }
    }

    pub fn show(&mut self, text: &str) {
        if self.terminal && self.shown != text {
            let cut: String = text.chars().take(100).collect();
            write(&mut io::stderr().lock(), &format!("\r\x1b[K{cut}"), "");
            self.shown = text.into();
        }
    }

    /// Makes room for lines that stay.
    pub fn clear(&mut self) {
        if !self.shown.is_empty() {
            write(&mut io::stderr().lock(), "\r\x1b[K", "");
            self.shown.clear();
        }
    }
}

impl Default for Progress {
    fn default() -> Progress {
        Progress::new()
    }
}

/// Columns as wide as their widest cell, two blanks between them, none at the end of a line.
pub fn table(header: Option<&[&str]>, rows: &[Vec<String>]) -> String {
    let header: Option<Vec<String>> = header.map(|names| names.iter().map(|name| name.to_string()).collect());
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

/// What an empty cell shows.
pub fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".into() } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a.service".into(), "x".into()], vec!["b".into(), String::new()]];
        assert_eq!(table(Some(&["UNIT", "LOAD"]), &rows), "UNIT       LOAD\na.service  x\nb\n");
        assert_eq!(table(None, &rows), "a.service  x\nb\n");
        assert_eq!(table(None, &[]), "");
    }
}
