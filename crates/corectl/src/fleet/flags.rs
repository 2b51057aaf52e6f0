//! Flags as Go's programs take them: one dash or two, `=VALUE` or the next word, before and after the
//! command; `--` ends them. What is not given is taken from the environment, then from the default.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Name;
use super::help;
use super::spec::{COMMANDS, Command, Flag, GLOBAL, Kind};

/// What was typed.
#[derive(Debug)]
pub enum Parsed {
    Line(Line),
    /// Of a command, or of the whole.
    Help(Option<&'static Command>),
    Version,
    /// A usage error: what goes to stdout, and what to stderr.
    Wrong {
        usage: String,
        why: String,
    },
}

#[derive(Debug)]
pub struct Line {
    pub command: &'static str,
    pub words: Vec<String>,
    pub flags: Flags,
}

#[derive(Clone, Debug)]
pub struct Flags {
    values: BTreeMap<&'static str, String>,
    given: Vec<&'static str>,
}

impl Flags {
    /// Every flag that the command has is there; others are empty.
    pub fn text(&self, name: &str) -> &str {
        self.values.get(name).map_or("", String::as_str)
    }

    pub fn is_on(&self, name: &str) -> bool {
        truth(self.text(name)) == Some(true)
    }

    pub fn number(&self, name: &str) -> i64 {
        self.text(name).parse().unwrap_or(0)
    }

    /// `None` for what is no time, or none at all.
    pub fn seconds(&self, name: &str) -> Option<Duration> {
        let seconds: f64 = self.text(name).parse().ok()?;
        Duration::try_from_secs_f64(seconds).ok().filter(|time| !time.is_zero())
    }

    /// It was typed, or is in the environment.
    pub fn is_given(&self, name: &str) -> bool {
        self.given.contains(&name)
    }
}

/// Go's `strconv.ParseBool`.
fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

pub fn parse(name: Name, words: &[String], environment: &dyn Fn(&str) -> Option<String>) -> Parsed {
    let Some(at) = command_at(words) else {
        let mut flags = Flags { values: BTreeMap::new(), given: Vec::new() };
        let parsed = take(words, &[], &mut flags);
        return match parsed {
            Err(why) => wrong(name, None, &why),
            Ok(_) if flags.is_on("version") => Parsed::Version,
            Ok(_) => Parsed::Help(None),
        };
    };
    let command = match known(&words[at]) {
        Ok(command) => command,
        Err(like) => return unknown(name, &words[at], &like),
    };
    let mut flags = defaults(name, command, environment);
    let mut rest = match take(&words[..at], command.flags, &mut flags) {
        Ok(rest) => rest,
        Err(why) => return wrong(name, Some(command), &why),
    };
    // What follows the target of `ssh` belongs to the command that is run there, unless it is ours.
    match take_until(&words[at + 1..], command, &mut flags) {
        Ok(more) => rest.extend(more),
        Err(why) => return wrong(name, Some(command), &why),
    }
    if flags.is_on("help") {
        return Parsed::Help(Some(command));
    }
    match command.name {
        "version" => Parsed::Version,
        "help" => match rest.first().map(|word| (word, known(word))) {
            None => Parsed::Help(None),
            Some((_, Ok(command))) => Parsed::Help(Some(command)),
            Some((word, Err(like))) => unknown(name, word, &like),
        },
        _ if flags.is_on("version") => Parsed::Version,
        _ => Parsed::Line(Line { command: command.name, words: rest, flags }),
    }
}

/// Where the command stands: the first word that is no flag and no flag's value.
fn command_at(words: &[String]) -> Option<usize> {
    let mut at = 0;
    while at < words.len() {
        let word = words[at].as_str();
        if word == "--" {
            return (at + 1 < words.len()).then_some(at + 1);
        }
        if !is_flag(word) {
            return Some(at);
        }
        let (flag, has_value) = split(word);
        let takes_value = |spec: &Flag| spec.kind != Kind::Bool && is_called(spec, flag);
        let all = GLOBAL.iter().chain(COMMANDS.iter().flat_map(|command| command.flags));
        at += if has_value.is_none() && all.into_iter().any(takes_value) { 2 } else { 1 };
    }
    None
}

fn is_flag(word: &str) -> bool {
    word.starts_with('-') && word.len() > 1
}

/// The name without its dashes, and the value after `=`.
fn split(word: &str) -> (&str, Option<&str>) {
    let bare = word.strip_prefix("--").or_else(|| word.strip_prefix('-')).unwrap_or(word);
    match bare.split_once('=') {
        Some((flag, value)) => (flag, Some(value)),
        None => (bare, None),
    }
}

fn is_called(spec: &Flag, flag: &str) -> bool {
    spec.name == flag || spec.short == Some(flag)
}

/// The command of that name, or the only one that begins like that; else those that might be meant.
fn known(word: &str) -> Result<&'static Command, Vec<&'static str>> {
    if let Some(command) = COMMANDS.iter().find(|command| command.name == word) {
        return Ok(command);
    }
    let begun: Vec<&'static Command> =
        COMMANDS.iter().filter(|command| command.name.starts_with(word)).collect();
    match begun[..] {
        [command] => Ok(command),
        _ => Err(begun.iter().map(|command| command.name).collect()),
    }
}

fn defaults(name: Name, command: &Command, environment: &dyn Fn(&str) -> Option<String>) -> Flags {
    let mut flags = Flags { values: BTreeMap::new(), given: Vec::new() };
    for flag in GLOBAL.iter().chain(command.flags) {
        let default = match flag.name {
            "endpoint" => format!("unix://{}", name.socket()),
            _ => flag.default.into(),
        };
        flags.values.insert(flag.name, default);
    }
    for flag in GLOBAL {
        if let Some(value) = environment(&name.variable(flag.name)).filter(|value| !value.is_empty()) {
            flags.values.insert(flag.name, value);
            flags.given.push(flag.name);
        }
    }
    flags
}

fn take_until(words: &[String], command: &Command, flags: &mut Flags) -> Result<Vec<String>, String> {
    if command.name != "ssh" {
        return take(words, command.flags, flags);
    }
    let mut rest = Vec::new();
    let mut at = 0;
    while at < words.len() {
        if words[at] == "--" {
            rest.extend_from_slice(&words[at + 1..]);
            break;
        }
        if !is_flag(&words[at]) {
            rest.push(words[at].clone());
            at += 1;
            continue;
        }
        match one(words, at, command.flags, flags) {
            Ok(taken) => at += taken,
            Err(why) if rest.is_empty() => return Err(why),
            Err(_) => {
                rest.extend_from_slice(&words[at..]);
                break;
            }
        }
    }
    Ok(rest)
}

/// Takes the flags; what is left are words.
fn take(words: &[String], own: &'static [Flag], flags: &mut Flags) -> Result<Vec<String>, String> {
    let (mut rest, mut at) = (Vec::new(), 0);
    while at < words.len() {
        if words[at] == "--" {
            rest.extend_from_slice(&words[at + 1..]);
            break;
        }
        if is_flag(&words[at]) {
            at += one(words, at, own, flags)?;
        } else {
            rest.push(words[at].clone());
            at += 1;
        }
    }
    Ok(rest)
}

/// Takes one flag; gives how many words it was.
fn one(words: &[String], at: usize, own: &'static [Flag], flags: &mut Flags) -> Result<usize, String> {
    let word = &words[at];
    let (name, value) = split(word);
    let spec = GLOBAL.iter().chain(own).find(|spec| is_called(spec, name));
    let Some(spec) = spec else {
        return Err(match (word.starts_with("--"), name.chars().next()) {
            (false, Some(letter)) if name.chars().count() == 1 => {
                format!("unknown shorthand flag: '{letter}' in {word}")
            }
            _ => format!("unknown flag: --{name}"),
        });
    };
    let (value, taken) = match (value, spec.kind) {
        (Some(value), _) => (value.to_string(), 1),
        (None, Kind::Bool) => ("true".to_string(), 1),
        (None, _) => match words.get(at + 1) {
            Some(value) => (value.clone(), 2),
            None => return Err(format!("flag needs an argument: {word}")),
        },
    };
    let is_good = match spec.kind {
        Kind::Text => true,
        Kind::Bool => truth(&value).is_some(),
        Kind::Int => value.parse::<i64>().is_ok(),
        Kind::Float => value.parse::<f64>().is_ok_and(f64::is_finite),
    };
    if !is_good {
        return Err(format!("invalid argument {value:?} for --{}: invalid syntax", spec.name));
    }
    flags.values.insert(spec.name, value);
    flags.given.push(spec.name);
    Ok(taken)
}

fn wrong(name: Name, command: Option<&'static Command>, why: &str) -> Parsed {
    Parsed::Wrong {
        usage: help::of(name, command),
        why: format!("Error: {why}\n\ncannot execute cmdFleet: {why}"),
    }
}

fn unknown(name: Name, word: &str, like: &[&str]) -> Parsed {
    let name = name.as_str();
    let why = format!("unknown command {word:?} for {name:?}");
    let meant: String = like.iter().map(|like| format!("\t{like}\n")).collect();
    let (before, after) = match like {
        [] => (String::new(), String::new()),
        _ => (format!("\n\nDid you mean this?\n{meant}"), format!("\n\nDid you mean this?\n{meant}")),
    };
    let before = if before.is_empty() { "\n".into() } else { format!("{before}\n") };
    let why =
        format!("Error: {why}{before}Run '{name} --help' for usage.\ncannot execute cmdFleet: {why}{after}");
    Parsed::Wrong { usage: String::new(), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Parsed {
        let words: Vec<String> = line.split_whitespace().map(str::to_string).collect();
        let environment = |variable: &str| match variable {
            "FLEETCTL_TUNNEL" => Some("from-env".to_string()),
            "FLEETCTL_LINES" => Some("99".to_string()),
            _ => None,
        };
        parse(Name::Fleetctl, &words, &environment)
    }

    #[track_caller]
    fn check(line: &str, command: &str, words: &[&str], flags: &[(&str, &str)]) {
        let Parsed::Line(got) = parsed(line) else { panic!("{line}: {:?}", parsed(line)) };
        assert_eq!(
            (got.command, &got.words[..]),
            (command, &words.iter().map(|w| w.to_string()).collect::<Vec<_>>()[..])
        );
        for (name, value) in flags {
            assert_eq!(got.flags.text(name), *value, "{line}: {name}");
        }
    }

    #[track_caller]
    fn is_wrong(line: &str, expected: &str) {
        match parsed(line) {
            Parsed::Wrong { why, .. } => assert!(why.contains(expected), "{line}: {why}"),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn flags_stand_anywhere_and_are_spelled_in_any_way() {
        check("start a.service", "start", &["a.service"], &[("block-attempts", "0"), ("tunnel", "from-env")]);
        check(
            "-tunnel=h --debug start -block-attempts 3 a b",
            "start",
            &["a", "b"],
            &[("tunnel", "h"), ("block-attempts", "3"), ("debug", "true")],
        );
        check("--no-block stop a", "stop", &["a"], &[("no-block", "true")]);
        check("--lines 5 journal a", "journal", &["a"], &[("lines", "5")]);
        check(
            "journal -n 5 -f a --output=cat",
            "journal",
            &["a"],
            &[("lines", "5"), ("follow", "true"), ("output", "cat")],
        );
        check("list-m -l", "list-machines", &[], &[("full", "true")]);
        check("list-machines --l=false", "list-machines", &[], &[("full", "false")]);
        check("journal a", "journal", &["a"], &[("lines", "10")]);
        check("start -- -a.service", "start", &["-a.service"], &[]);
    }

    #[test]
    fn what_follows_a_machine_is_a_command_for_it() {
        check("ssh -A m hostname -f", "ssh", &["m", "hostname", "-f"], &[("forward-agent", "true")]);
        check("ssh m --ssh-port=23 ls", "ssh", &["m", "ls"], &[("ssh-port", "23")]);
        check(
            "ssh --machine=m -- ls -A",
            "ssh",
            &["ls", "-A"],
            &[("machine", "m"), ("forward-agent", "false")],
        );
    }

    #[test]
    fn wrong_usage_is_told_in_cobras_words() {
        is_wrong("bogus", "unknown command \"bogus\" for \"fleetctl\"");
        is_wrong("list-u", "Did you mean this?\n\tlist-unit-files\n\tlist-units\n");
        is_wrong("list-machines --bogus", "unknown flag: --bogus");
        is_wrong("list-machines -x", "unknown shorthand flag: 'x' in -x");
        is_wrong("journal --lines", "flag needs an argument: --lines");
        is_wrong("journal --lines=x a", "invalid argument \"x\" for --lines");
        assert!(matches!(parsed(""), Parsed::Help(None)));
        assert!(matches!(parsed("help"), Parsed::Help(None)));
        assert!(matches!(parsed("help start"), Parsed::Help(Some(command)) if command.name == "start"));
        assert!(matches!(parsed("start --help"), Parsed::Help(Some(_))));
        assert!(matches!(parsed("-v"), Parsed::Version));
        assert!(matches!(parsed("version"), Parsed::Version));
    }
}
