//! The workspace's own sources, as the tidy test reads them: where the repository is, its Rust files, and in
//! each what is code, what is comment or text, and what is test.

use std::path::{Path, PathBuf};

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the repository").into()
}

/// Every file below a folder of the repository, sorted; paths are relative to the repository.
pub fn files_below(folder: &str) -> Vec<PathBuf> {
    let root = root();
    let mut found = Vec::new();
    let mut open = vec![root.join(folder)];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if let Ok(path) = path.strip_prefix(&root) {
                found.push(path.into());
            }
        }
    }
    found.sort();
    found
}

/// Every Rust file of the workspace.
pub fn rust() -> Vec<Source> {
    let folders = ["crates", "etcd-compat", "tests"];
    let files = folders.iter().flat_map(|folder| files_below(folder));
    let rust = files.filter(|path| path.extension().is_some_and(|end| end == "rs"));
    rust.map(|path| {
        let text = std::fs::read_to_string(root().join(&path));
        Source::new(&path.to_string_lossy(), &text.unwrap_or_else(|e| panic!("{}: {e}", path.display())))
    })
    .collect()
}

/// One Rust file.
#[derive(Clone, Debug)]
pub struct Source {
    /// From the repository's top, with `/`.
    pub path: String,
    pub text: String,
    /// `text` with comments and the insides of literals replaced by spaces; line for line as long.
    pub code: String,
    /// The first line (counted from 0) that is only for tests; as many as there are lines when there is none.
    pub tests_from: usize,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Source {
        let code = code_of(text);
        let all = ["tests", "benches"].iter().any(|folder| path.split('/').any(|part| part == *folder))
            || path.ends_with("/tests.rs");
        let mark = code.lines().position(|line| line.trim_start().starts_with("#[cfg(test)]"));
        let lines = text.lines().count();
        // `#[cfg(test)] mod tests;` in the middle of a file does not make a test of what follows.
        let block = mark.filter(|line| {
            let next = code.lines().nth(line + 1).unwrap_or_default().trim().to_string();
            next.starts_with("mod ") && next.ends_with('{')
        });
        let tests_from = if all { 0 } else { block.unwrap_or(lines) };
        Source { path: path.into(), text: text.into(), code, tests_from }
    }

    /// The lines (counted from 0) in whose code a word occurs. An end of the word that is a letter must be a
    /// word's end there.
    pub fn lines_with(&self, word: &str) -> Vec<usize> {
        let lines = self.code.lines().enumerate();
        lines.filter(|(_, line)| has_word(line, word)).map(|(number, _)| number).collect()
    }
}

fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = word.starts_with(part) && line[..at].chars().next_back().is_some_and(part);
        let after = word.ends_with(part) && line[at + word.len()..].chars().next().is_some_and(part);
        !before && !after
    })
}

/// Blanks comments and the insides of string and character literals.
fn code_of(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => line_end(bytes, at),
            b'/' if bytes[at..].starts_with(b"/*") => comment_end(bytes, at),
            b'r' if !follows_word(bytes, at) => raw_end(bytes, at).unwrap_or(at),
            b'b' if !follows_word(bytes, at) && bytes.get(at + 1) == Some(&b'r') => {
                raw_end(bytes, at + 1).unwrap_or(at)
            }
            b'"' => text_end(bytes, at),
            b'\'' => char_end(bytes, at).unwrap_or(at),
            _ => at,
        };
        for byte in &mut code[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    String::from_utf8(code).expect("whole literals and comments were blanked")
}

fn follows_word(bytes: &[u8], at: usize) -> bool {
    at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_')
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |length| at + length)
}

fn comment_end(bytes: &[u8], at: usize) -> usize {
    let (mut at, mut depth) = (at, 0);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

/// The end of `r"..."` or `r#"..."#`; `None` when it is neither.
fn raw_end(bytes: &[u8], at: usize) -> Option<usize> {
    let marks = bytes[at + 1..].iter().take_while(|byte| **byte == b'#').count();
    let open = at + 1 + marks;
    (bytes.get(open) == Some(&b'"')).then_some(())?;
    let close = [&b"\""[..], &vec![b'#'; marks]].concat();
    let length = bytes[open + 1..].windows(close.len()).position(|window| window == close);
    Some(length.map_or(bytes.len(), |length| open + 1 + length + close.len()))
}

fn text_end(bytes: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The end of a character; `None` for a lifetime.
fn char_end(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at + 1) == Some(&b'\\') {
        let close = bytes.get(at + 3..)?.iter().position(|byte| *byte == b'\'')?;
        return Some(at + 3 + close + 1);
    }
    let text = std::str::from_utf8(&bytes[at + 1..(at + 5).min(bytes.len())]);
    let length = match text {
        Ok(text) => text.chars().next()?.len_utf8(),
        // Cut in the middle of a later character.
        Err(e) => {
            std::str::from_utf8(&bytes[at + 1..at + 1 + e.valid_up_to()]).ok()?.chars().next()?.len_utf8()
        }
    };
    (bytes.get(at + 1 + length) == Some(&b'\'')).then_some(at + length + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, code: &str) {
        assert_eq!(code_of(text), code, "{text}");
    }

    #[test]
    fn code_without_words() {
        check("a // tokio\nb", "a         \nb");
        check("/* a /* b */ c */d", "                 d");
        check(r#"f("a\"b", 'c')"#, "f(      ,    )");
        check("r#\"a\"b\"# c", "         c");
        check("&'a str; '\\n'; 'ä'; '\"' x", "&'a str;     ;     ;     x");
        check("for b in r", "for b in r");
    }

    #[test]
    fn words_are_whole() {
        let source = Source::new("crates/x/src/y.rs", "use rand::Rng;\nlet brand = 1;\n// rand\nx.await;");
        assert_eq!(source.lines_with("rand"), [0]);
        assert_eq!(source.lines_with(".await"), [3]);
    }

    #[test]
    fn where_tests_begin() {
        let from = |path, text| Source::new(path, text).tests_from;
        assert_eq!(from("crates/x/src/y.rs", "a\n#[cfg(test)]\nmod tests {\n}\n"), 1);
        assert_eq!(from("crates/x/src/y.rs", "a\n#[cfg(test)]\nmod tests;\nb\n"), 4);
        assert_eq!(from("crates/x/src/y/tests.rs", "a\n"), 0);
        assert_eq!(from("crates/x/tests/y.rs", "a\n"), 0);
    }
}
