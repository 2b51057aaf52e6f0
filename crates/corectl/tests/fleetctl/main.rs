//! corectl under fleet's names: what a real fleet of three machines answered is asked of ours.
//!
//! `exchanges.txt` holds the commands and what fleet's client said (`>` on stdout, `!` on stderr, `=` and the
//! exit code). Where ours differs it says why (`differs:`) and what ours says instead (`>>`, `!!`, `==`).

mod names;
mod world;

use std::collections::BTreeSet;

use world::{Said, World, reasons};

const EXCHANGES: &str = include_str!("exchanges.txt");
const UNITS: &str = include_str!("units.txt");

struct Exchange {
    command: String,
    fleet: Said,
    /// Why ours is another, and what it is.
    differs: Option<(String, Said)>,
}

fn exchanges(text: &str) -> Vec<Exchange> {
    let nothing = || Said { code: -1, out: Vec::new(), err: Vec::new() };
    let mut all: Vec<Exchange> = Vec::new();
    for line in text.lines() {
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        if mark == "$" {
            all.push(Exchange { command: rest.into(), fleet: nothing(), differs: None });
            continue;
        }
        let Some(last) = all.last_mut() else { continue };
        match (mark, &mut last.differs) {
            (">", _) => last.fleet.out.push(rest.into()),
            ("!", _) => last.fleet.err.push(rest.into()),
            ("=", _) => last.fleet.code = rest.split(' ').next().unwrap().parse().unwrap(),
            ("differs:", differs) => *differs = Some((rest.into(), nothing())),
            (">>", Some((_, ours))) => ours.out.push(rest.into()),
            ("!!", Some((_, ours))) => ours.err.push(rest.into()),
            ("==", Some((_, ours))) if rest.parse::<i32>().is_ok() => ours.code = rest.parse().unwrap(),
            _ => {}
        }
    }
    all
}

/// What every exchange may differ in: the clock, the version, and the order in which several units come to
/// their goals.
fn normal(mut said: Said, command: &str) -> Said {
    let line = |line: &String| {
        let bytes = line.as_bytes();
        let is_stamp = bytes.len() > 20 && bytes[4] == b'/' && bytes[7] == b'/' && bytes[13] == b':';
        match is_stamp {
            true => format!("T{}", &line[19..]),
            false => line.replace(env!("CARGO_PKG_VERSION"), "1.0.0"),
        }
    };
    said.out = said.out.iter().map(line).collect();
    said.err = said.err.iter().map(line).collect();
    // Help is in our own words.
    if said.err.iter().any(|line| line.starts_with("cannot execute cmdFleet: ")) {
        said.out.clear();
    }
    if !command.starts_with("fleetctl list-") && !command.starts_with("fleetctl cat ") {
        said.out.sort();
    }
    said
}

#[tokio::test]
async fn what_fleet_answered_is_answered() {
    let world = World::begin(UNITS).await;
    let mut used = BTreeSet::new();
    let mut wrong = Vec::new();
    for exchange in exchanges(EXCHANGES) {
        let command = &exchange.command;
        let said = normal(world.run(command).await, command);
        let expected = match &exchange.differs {
            Some((reason, ours)) => {
                used.insert(reason.clone());
                assert_ne!(
                    normal(ours.clone(), command),
                    normal(exchange.fleet.clone(), command),
                    "{command}"
                );
                ours
            }
            None => &exchange.fleet,
        };
        if !is_like(&said, &normal(expected.clone(), command)) {
            wrong.push(format!("$ {command}\n{}instead of\n{}", shown(&said), shown(expected)));
        }
        world.settle().await;
    }
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
    let known: BTreeSet<String> = reasons(EXCHANGES).into_keys().collect();
    assert_eq!(used, known, "each difference has a reason, and each reason a difference");
}

/// A line that ends in `*` stands for all that begin like it.
fn is_like(said: &Said, expected: &Said) -> bool {
    let line = |(said, expected): (&String, &String)| match expected.strip_suffix('*') {
        Some(beginning) => said.starts_with(beginning),
        None => said == expected,
    };
    let lines = |said: &[String], expected: &[String]| {
        said.len() == expected.len() && said.iter().zip(expected).all(line)
    };
    said.code == expected.code && lines(&said.out, &expected.out) && lines(&said.err, &expected.err)
}

fn shown(said: &Said) -> String {
    let lines = |mark: &str, lines: &[String]| {
        lines.iter().map(|line| format!("{mark} {line}\n")).collect::<String>()
    };
    format!("{}{}= {}\n", lines(">", &said.out), lines("!", &said.err), said.code)
}
