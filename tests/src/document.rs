//! The documentation as its tests read it: Markdown's blocks of code, code within a line, links and headings.
//! Only what our own documents use of it.

use crate::sources::{files_below, root};

/// One Markdown file.
#[derive(Clone, Debug)]
pub struct Document {
    /// From the repository's top, with `/`.
    pub path: String,
    pub text: String,
}

/// A block of code, fenced or indented.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The number of its first line of code, counted from 1.
    pub line: usize,
    /// What stands behind the fence; empty without a fence.
    pub language: String,
    pub lines: Vec<String>,
}

/// A piece of a document, and the line that it begins on, counted from 1.
pub type Piece = (usize, String);

/// Every document of the repository.
pub fn documents() -> Vec<Document> {
    let folders = ["crates", "dist", "docs", "etcd-compat", "tests", "vagrant", "vendor"];
    let top = ["README.md", "CHANGELOG.md"].map(Into::into);
    let below = folders.iter().flat_map(|folder| files_below(folder));
    let ours = top.into_iter().chain(below).filter(|path| path.extension().is_some_and(|end| end == "md"));
    // Copies of other people's crates have documents of their own; ours says why they are there.
    let ours = ours.filter(|path| !path.starts_with("vendor") || path.components().count() == 2);
    let read = |path: std::path::PathBuf| {
        let text = std::fs::read_to_string(root().join(&path)).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        Document { path: path.to_string_lossy().into_owned(), text }
    };
    ours.map(read).collect()
}

/// One of them.
pub fn document(path: &str) -> Document {
    let text = std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    Document { path: path.into(), text }
}

impl Document {
    /// Its folder, from the repository's top; empty at the top.
    pub fn folder(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(folder, _)| folder)
    }

    pub fn blocks(&self) -> Vec<Block> {
        self.split().0
    }

    /// Lines that are no code.
    pub fn prose(&self) -> Vec<Piece> {
        self.split().1
    }

    fn split(&self) -> (Vec<Block>, Vec<Piece>) {
        let (mut blocks, mut prose): (Vec<Block>, Vec<Piece>) = (Vec::new(), Vec::new());
        let mut lines = self.text.lines().zip(1..);
        let mut before_is_blank = true;
        let mut is_indented = false;
        while let Some((line, number)) = lines.next() {
            if let Some(language) = line.strip_prefix("```") {
                let code = lines.by_ref().take_while(|(line, _)| !line.starts_with("```"));
                let code: Vec<String> = code.map(|(line, _)| line.into()).collect();
                blocks.push(Block { line: number + 1, language: language.trim().into(), lines: code });
                (before_is_blank, is_indented) = (true, false);
                continue;
            }
            let indented = line.strip_prefix("    ").filter(|_| before_is_blank || is_indented);
            match (indented, blocks.last_mut()) {
                (Some(code), Some(block)) if is_indented => block.lines.push(code.into()),
                (Some(code), _) => {
                    blocks.push(Block { line: number, language: String::new(), lines: vec![code.into()] });
                    is_indented = true;
                }
                (None, Some(block)) if is_indented && line.trim().is_empty() => {
                    block.lines.push(String::new())
                }
                (None, _) => {
                    is_indented = false;
                    prose.push((number, line.into()));
                }
            }
            before_is_blank = line.trim().is_empty();
        }
        for block in &mut blocks {
            while block.lines.last().is_some_and(String::is_empty) {
                block.lines.pop();
            }
        }
        (blocks, prose)
    }

    /// Code within lines, without its marks. It may go on in the next line.
    pub fn codes(&self) -> Vec<Piece> {
        let mut codes = Vec::new();
        let mut open: Option<Piece> = None;
        for (number, line) in self.prose() {
            // A paragraph's end ends whatever was left open.
            if line.trim().is_empty() {
                open = None;
            }
            let mut pieces = line.split('`');
            let first = pieces.next().unwrap_or_default();
            if let Some((_, text)) = &mut open {
                text.push(' ');
                text.push_str(first.trim_start());
            }
            for piece in pieces {
                match open.take() {
                    Some(code) => codes.push(code),
                    None => open = Some((number, piece.into())),
                }
            }
        }
        codes
    }

    /// What `[...](TARGET)` leads to.
    pub fn links(&self) -> Vec<Piece> {
        let mut links = Vec::new();
        for (number, line) in self.prose() {
            let code = line.split('`').skip(1).step_by(2).collect::<Vec<_>>();
            for (at, _) in line.match_indices("](") {
                let target = line[at + 2..].split(')').next().unwrap_or_default();
                if !code.iter().any(|code| code.contains(&format!("]({target}"))) {
                    links.push((number, target.into()));
                }
            }
        }
        links
    }

    /// What `#...` behind a link may name: the headings as GitHub writes them.
    pub fn anchors(&self) -> Vec<String> {
        let mut anchors: Vec<String> = Vec::new();
        for (_, line) in self.prose() {
            let heading = line.trim_start_matches('#');
            if heading.len() == line.len() || !heading.starts_with(' ') {
                continue;
            }
            let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            let anchor: String = kept.collect::<String>().to_lowercase().replace(' ', "-");
            let before = anchors.iter().filter(|one| **one == anchor).count();
            anchors.push(if before == 0 { anchor } else { format!("{anchor}-{before}") });
        }
        anchors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Document {
        Document { path: "docs/a.md".into(), text: text.into() }
    }

    #[test]
    fn blocks_are_told_from_prose() {
        let text = "# One\nwords\n    of one paragraph\n\n    ls\n\n    ps # more\n\nwords\n```sh\nid\n```\n\
                    * a\n  b\n";
        let blocks = of(text).blocks();
        let told: Vec<_> = blocks.iter().map(|b| (b.line, &*b.language, b.lines.join("|"))).collect();
        assert_eq!(told, [(5, "", "ls||ps # more".to_string()), (11, "sh", "id".to_string())]);
        assert!(of(text).prose().contains(&(9, "words".into())));
    }

    #[test]
    fn code_is_found_within_lines() {
        let codes = of("a `b c` d `e\nf` g\n\n`h\n\n`i`\n").codes();
        assert_eq!(codes, [(1, "b c".to_string()), (1, "e f".into()), (6, "i".into())]);
    }

    #[test]
    fn links_and_what_they_lead_to() {
        let text = "# Who, what?\n## Who what\n# `a_b` is c\nSee [c](d.md#e), [f](#who-what), `[g](h)`\n\
                    ```\n[i](j)\n```\n";
        assert_eq!(of(text).links(), [(4, "d.md#e".to_string()), (4, "#who-what".into())]);
        assert_eq!(of(text).anchors(), ["who-what", "who-what-1", "a_b-is-c"]);
    }
}
