//! What is typed on hosts, as the README shows it: blocks of lines such as `h1# corectl list-units`, with
//! what was said below them. The rack's tests type the same, in the same order.

use crate::document::Block;

/// How the demo on this machine is called.
pub const DEMO: &str = "tests/demo";

/// One line that is typed, and what is shown below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Typed {
    /// Its number in the document, counted from 1.
    pub line: usize,
    pub host: String,
    pub command: String,
    pub shown: Vec<String>,
}

/// The lines of a block that have a host's prompt.
pub fn commands(block: &Block) -> Vec<Typed> {
    let mut typed: Vec<Typed> = Vec::new();
    for (text, line) in block.lines.iter().zip(block.line..) {
        match (text.split_once("# ").filter(|(host, _)| is_host(host)), typed.last_mut()) {
            (Some((host, command)), _) => {
                // What stands far behind it is said to the reader.
                let command = command.split("   # ").next().unwrap_or(command).trim().to_owned();
                typed.push(Typed { line, host: host.into(), command, shown: Vec::new() });
            }
            (None, Some(last)) if !text.is_empty() => last.shown.push(text.clone()),
            (None, _) => {}
        }
    }
    typed
}

fn is_host(text: &str) -> bool {
    text.strip_prefix('h')
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|c| c.is_ascii_digit()))
}

/// The token and the address that a cluster has told.
#[derive(Clone, Debug, Default)]
pub struct Told {
    invitation: Option<(String, String)>,
}

impl Told {
    /// Keeps what a command has said, if a later one needs it.
    pub fn hear(&mut self, said: &str) {
        let line = said.lines().find_map(|line| line.trim().strip_prefix("corectl cluster join "));
        if let Some((token, address)) = line.and_then(|line| line.split_once(' ')) {
            self.invitation = Some((token.into(), address.into()));
        }
    }

    /// The command with what was told in the place of the words that stand for it.
    pub fn fill_in(&self, command: &str) -> String {
        match &self.invitation {
            Some((token, address)) => command.replace("TOKEN", token).replace("ADDRESS", address),
            None => command.into(),
        }
    }
}

/// Whether what is shown looks like what was said: the heads of tables are there, word for word; all else
/// depends on the day.
pub fn looks_like(shown: &[String], said: &str) -> Result<(), String> {
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let is_head = |words: &[String]| {
        words.len() > 1 && words.iter().all(|word| word.chars().all(|c| c.is_ascii_uppercase()))
    };
    let heads = shown.iter().map(|line| words(line)).filter(|words| is_head(words));
    let said_lines: Vec<Vec<String>> = said.lines().map(words).collect();
    for head in heads {
        if !said_lines.contains(&head) {
            return Err(format!("{head:?} is shown, but the command says\n{said}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(text: &str) -> Block {
        Block { line: 7, language: "console".into(), lines: text.lines().map(str::to_owned).collect() }
    }

    #[test]
    fn lines_with_a_prompt_are_typed() {
        let typed =
            commands(&block("h1# corectl list-units    # all\nUNIT LOAD\na    b\n\nh2# true\n# h3\n"));
        let told: Vec<_> = typed.iter().map(|t| (t.line, &*t.host, &*t.command, t.shown.len())).collect();
        assert_eq!(told, [(7, "h1", "corectl list-units", 2), (11, "h2", "true", 1)]);
    }

    #[test]
    fn what_was_told_is_filled_in() {
        let mut told = Told::default();
        assert_eq!(told.fill_in("corectl cluster join TOKEN ADDRESS"), "corectl cluster join TOKEN ADDRESS");
        told.hear("Run there:\n\n    corectl cluster join abc-1 10.0.0.1:7340\n");
        told.hear("nothing of the kind");
        assert_eq!(
            told.fill_in("corectl cluster join TOKEN ADDRESS"),
            "corectl cluster join abc-1 10.0.0.1:7340"
        );
    }

    #[test]
    fn heads_of_tables_are_compared() {
        let shown = ["UNIT  LOAD".to_string(), "x.service  loaded".into()];
        assert_eq!(looks_like(&shown, "UNIT      LOAD\ny.service loaded"), Ok(()));
        assert!(looks_like(&shown, "UNIT ACTIVE\n").is_err());
    }
}
