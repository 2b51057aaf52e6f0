//! What a real fleet was asked and answered, as `exchanges.txt` has it, and whether an answer of ours is as
//! it should be. Played twice: by the test beside this, in one process, and on the hosts of the rack, which
//! takes this file in by its path.
//!
//! `$` begins an exchange, with the command; `$$` one that is played on hosts alone, `$-` one that is not
//! played there. Then what fleet's client said: `>` on stdout, `!` on stderr, `=` and the exit code; `~` is a
//! text that some line of stdout holds, where the whole cannot be the same twice. `differs:` gives the
//! reason for which ours says something else, and `>>`, `!!`, `~~`, `==` what it says; `hosts:` the same for
//! what it says on hosts, or `hosts: as fleet`. `%` is done on hosts before the next command.

use std::collections::{BTreeMap, BTreeSet};

/// In the place of a reason: there is no difference on hosts.
const AS_FLEET: &str = "as fleet";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    pub code: i32,
    pub out: Vec<String>,
    pub err: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    said: Said,
    /// Texts that stdout holds somewhere; when there are any, that is all that is expected of it.
    holds: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Process,
    Hosts,
}

pub struct Exchange {
    pub command: String,
    /// To be done before, on hosts.
    pub before: Vec<String>,
    only: Option<Place>,
    fleet: Expected,
    /// Why ours is another, and what it is; then the same for hosts alone.
    differs: Option<(String, Expected)>,
    hosts: Option<(String, Expected)>,
}

impl Exchange {
    /// What ours has to answer there.
    pub fn expected(&self, place: Place) -> &Expected {
        let hosts = self.hosts.as_ref().filter(|_| place == Place::Hosts);
        match hosts.or(self.differs.as_ref()) {
            Some((reason, ours)) if reason != AS_FLEET => ours,
            _ => &self.fleet,
        }
    }
}

/// All that are played at that place, in order. Each difference has a reason that the file's head explains,
/// and each reason there has a difference.
pub fn exchanges(text: &str, place: Place) -> Vec<Exchange> {
    let all = read(text);
    let known = reasons(text);
    let mut used = BTreeSet::new();
    for exchange in &all {
        let differences = exchange.differs.iter().chain(&exchange.hosts);
        for (reason, ours) in differences.filter(|(reason, _)| reason != AS_FLEET) {
            used.insert(reason.clone());
            let command = &exchange.command;
            let same = ours.normal(command) == exchange.fleet.normal(command);
            assert!(!same, "{command}: this is what fleet said");
        }
    }
    assert_eq!(
        used,
        known.into_keys().collect(),
        "each difference has a reason, and each reason a difference"
    );
    all.into_iter().filter(|exchange| exchange.only.is_none_or(|only| only == place)).collect()
}

fn read(text: &str) -> Vec<Exchange> {
    let mut all: Vec<Exchange> = Vec::new();
    let mut before = Vec::new();
    for line in text.lines() {
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        let only = match mark {
            "$" => None,
            "$$" => Some(Place::Hosts),
            "$-" => Some(Place::Process),
            "%" => {
                before.push(rest.to_string());
                continue;
            }
            _ => {
                if let Some(last) = all.last_mut() {
                    last.add(mark, rest);
                }
                continue;
            }
        };
        let (command, fleet, before) = (rest.into(), Expected::default(), std::mem::take(&mut before));
        all.push(Exchange { command, before, only, fleet, differs: None, hosts: None });
    }
    all
}

impl Exchange {
    fn add(&mut self, mark: &str, rest: &str) {
        let ours = self.hosts.as_mut().or(self.differs.as_mut()).map(|(_, ours)| ours);
        match (mark, ours) {
            ("differs:", _) => self.differs = Some((rest.into(), Expected::default())),
            ("hosts:", _) => self.hosts = Some((rest.into(), Expected::default())),
            (">" | "!" | "~" | "=", _) => self.fleet.add(mark, rest),
            (">>" | "!!" | "~~" | "==", Some(ours)) if mark != "==" || rest.parse::<i32>().is_ok() => {
                ours.add(&mark[1..], rest);
            }
            _ => {}
        }
    }
}

impl Expected {
    fn add(&mut self, mark: &str, rest: &str) {
        match mark {
            ">" => self.said.out.push(rest.into()),
            "!" => self.said.err.push(rest.into()),
            "~" => self.holds.push(rest.into()),
            _ => self.said.code = rest.split(' ').next().unwrap().parse().unwrap(),
        }
    }

    fn normal(&self, command: &str) -> Expected {
        Expected { said: self.said.clone().normal(command), holds: self.holds.clone() }
    }

    /// What is wrong with an answer, for people; `None` when it is as expected.
    pub fn fault(&self, command: &str, said: Said) -> Option<String> {
        let expected = self.normal(command);
        let said = said.normal(command);
        let out = match expected.holds.is_empty() {
            true => are_like(&said.out, &expected.said.out),
            false => expected.holds.iter().all(|text| said.out.iter().any(|line| line.contains(text))),
        };
        if said.code == expected.said.code && out && are_like(&said.err, &expected.said.err) {
            return None;
        }
        let holds: String = expected.holds.iter().map(|text| format!("~ {text}\n")).collect();
        Some(format!("$ {command}\n{}instead of\n{holds}{}", said.shown(), expected.said.shown()))
    }
}

/// A line that ends in `*` stands for one that begins like it, `*` alone for any number of lines.
fn are_like(said: &[String], expected: &[String]) -> bool {
    let Some((first, others)) = expected.split_first() else { return said.is_empty() };
    if first == "*" {
        return (0..=said.len()).any(|skipped| are_like(&said[skipped..], others));
    }
    let Some((line, rest)) = said.split_first() else { return false };
    let is_like = match first.strip_suffix('*') {
        Some(beginning) => line.starts_with(beginning),
        None => line == first,
    };
    is_like && are_like(rest, others)
}

impl Said {
    /// What every exchange may differ in: the clock, the version, and the order in which several units come
    /// to their goals.
    fn normal(mut self, command: &str) -> Said {
        let line = |line: &String| {
            let bytes = line.as_bytes();
            let is_stamp = bytes.len() > 20 && bytes[4] == b'/' && bytes[7] == b'/' && bytes[13] == b':';
            match line.strip_prefix("fleetctl version ") {
                Some(_) => "fleetctl version *".into(),
                None if is_stamp => format!("T{}", &line[19..]),
                None => line.clone(),
            }
        };
        self.out = self.out.iter().map(line).collect();
        self.err = self.err.iter().map(line).collect();
        // Help is in our own words.
        if self.err.iter().any(|line| line.starts_with("cannot execute cmdFleet: ")) {
            self.out.clear();
        }
        if !command.starts_with("fleetctl list-") && !command.starts_with("fleetctl cat ") {
            self.out.sort();
        }
        self
    }

    fn shown(&self) -> String {
        let lines = |mark: &str, lines: &[String]| {
            lines.iter().map(|line| format!("{mark} {line}\n")).collect::<String>()
        };
        format!("{}{}= {}\n", lines(">", &self.out), lines("!", &self.err), self.code)
    }
}

/// The allowed differences: each has a name, and a reason in the file that lists them.
pub fn reasons(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("reason "));
    lines.filter_map(|line| line.split_once(": ")).map(|(k, v)| (k.to_string(), v.to_string())).collect()
}
