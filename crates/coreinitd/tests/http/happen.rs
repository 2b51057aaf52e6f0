//! What happens in the cluster between two requests, in the words of the files under `tests/fleet_http`.

use std::collections::BTreeMap;

use cluster::{Command, DesiredState};
use store::Role;

use crate::bench::{Bench, assign, machine, name, register, report, set};

/// `README` beside the files has the list of words.
pub async fn happen(bench: &Bench, event: &str) {
    let words: Vec<&str> = event.split_whitespace().collect();
    let state = bench.state();
    let sleeper = |unit: &str| set(unit, "/bin/sleep infinity", DesiredState::Inactive);
    match words[..] {
        ["machine", id, address, ref metadata @ ..] => {
            let metadata: Vec<_> = metadata.iter().map(|pair| pair.split_once('=').unwrap()).collect();
            bench.propose(register(id, address, &metadata)).await;
        }
        ["metadata", id, pair] => {
            let (key, value) = pair.split_once('=').unwrap();
            let set = BTreeMap::from([(key.into(), Some(value.into()))]);
            bench.propose(Command::SetMachineMetadata { id: machine(id), set }).await;
        }
        ["lost", id] => bench.propose(Command::MarkLost { machine: machine(id) }).await,
        ["assign", unit, to] => bench.propose(assign(&state, unit, to)).await,
        ["unassign", unit, from] => {
            bench.propose(Command::Unassign { unit: name(unit), machine: machine(from) }).await;
        }
        ["report", unit, by, active, done] => {
            let generation = (done == "done").then(|| state.units[&name(unit)].generation);
            bench.propose(report(&state, unit, by, active, generation)).await;
        }
        ["gone", unit, from] => {
            let (machine, unit) = (machine(from), name(unit));
            bench.propose(Command::Report { machine, unit, observed: None }).await;
        }
        ["units", count] => {
            for number in 0..count.parse::<usize>().unwrap() {
                let unit = format!("p{number:03}.service");
                bench.propose(set(&unit, "/bin/true", DesiredState::Inactive)).await;
            }
        }
        ["sleeper", unit] => bench.propose(sleeper(unit)).await,
        ["sleepers", count] => {
            for number in 0..count.parse::<usize>().unwrap() {
                bench.propose(sleeper(&format!("p{number:03}.service"))).await;
            }
        }
        ["destroy", unit] => bench.propose(Command::DestroyUnit { name: name(unit) }).await,
        ["role", "leader"] => bench.store.set_role(Role::Leader { term: 2 }),
        ["role", "leaderless"] => bench.store.set_role(Role::Leaderless),
        ["role", "unformed"] => {
            bench.store.set_role(Role::Unformed { hint: "run corectl cluster init".into() })
        }
        _ => panic!("unknown event {event}"),
    }
}
