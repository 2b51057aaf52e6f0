//! One caller on each machine that never rests while there is chaos: it changes units, destroys them, and
//! reads. What it was told is the history that is checked.

use std::time::Duration;

use cluster::{Command, DesiredState, Expelled, Kind, UnitFile, UnitName};
use raft::RaftStore;
use rand::RngExt;
use rand::rngs::SmallRng;
use store::{ProposeError, Store};
use tests::linearizable::{Asked, Call, Heard, Wish};
use tokio::time::Instant;

use crate::machine::{id, name};
use crate::world::{Moment, Shared};

/// Few enough that callers meet.
pub const UNITS: u32 = 6;
const PATIENCE: Duration = Duration::from_millis(1500);

pub fn unit(number: u32) -> UnitName {
    UnitName::new(&format!("u{number}.service")).expect("a good name")
}

fn file(number: u32) -> UnitFile {
    UnitFile::parse(&format!("[Service]\nExecStart=/bin/{number}\n")).expect("a good file")
}

fn number_of(file: &UnitFile) -> u32 {
    let text = file.values("Service", "ExecStart").last().expect("each has one").to_string();
    text.trim_start_matches("/bin/").parse().expect("a number")
}

/// Asks until the calm, then reads once more and rests.
pub async fn ask(machine: usize, store: RaftStore, world: Shared, mut chance: SmallRng) {
    let rest_ms = world.lock().expect("alone").rest_ms;
    loop {
        let calm = world.lock().expect("alone").calm;
        remove(&store, &world).await;
        if calm && read(&store, &world).await {
            break;
        }
        if !calm {
            match chance.random_ratio(3, 10) {
                true => drop(read(&store, &world).await),
                false => change(&store, &world, &mut chance).await,
            }
        }
        tokio::time::sleep(Duration::from_millis(chance.random_range(10..rest_ms))).await;
    }
    world.lock().expect("alone").read_in_calm.insert(machine);
    std::future::pending().await
}

async fn change(store: &RaftStore, world: &Shared, chance: &mut SmallRng) {
    let number = chance.random_range(0..UNITS);
    let name = unit(number);
    let desired = match chance.random_range(0..6) {
        0 => DesiredState::Inactive,
        1 => DesiredState::Loaded,
        _ => DesiredState::Launched,
    };
    let fresh = world.lock().expect("alone").next_file();
    let asked = match chance.random_range(0..10) {
        0 => Asked::Destroy,
        1..4 => Asked::Set { file: None, desired: Some(desired) },
        4 => Asked::Set { file: Some(fresh), desired: None },
        _ => Asked::Set { file: Some(fresh), desired: Some(desired) },
    };
    let command = match asked {
        Asked::Set { file: number, desired } => {
            Command::SetUnit { name: name.clone(), file: number.map(file), desired }
        }
        Asked::Destroy | Asked::Read => Command::DestroyUnit { name: name.clone() },
    };
    let moment = {
        let mut world = world.lock().expect("alone");
        let moment = world.moment();
        let heard = Heard::Changed(asked, None);
        let calls = world.calls.entry(name.clone()).or_default();
        calls.insert(moment.called, Call { operation: heard, called: moment.called, returned: None });
        moment
    };
    let answer = store.propose(vec![command], Instant::now() + PATIENCE).await;
    let mut world = world.lock().expect("alone");
    let returned = world.moment().called;
    let calls = world.calls.get_mut(&name).expect("it was put there above");
    match answer {
        Ok(committed) => {
            let outcome: Option<Kind> = committed.outcomes.first().and_then(|outcome| outcome.clone().ok());
            let call = Call {
                operation: Heard::Changed(asked, Some(outcome)),
                called: moment.called,
                returned: Some(returned),
            };
            calls.insert(moment.called, call);
            world.writes += 1;
            world.acknowledged(&moment, committed.revision, true);
        }
        // What became of it may show later, or never.
        Err(ProposeError::Unknown | ProposeError::Stopped { .. }) => world.unknown += 1,
        // It says that nothing was written: then nobody may ever see it.
        Err(
            ProposeError::Unformed { .. }
            | ProposeError::NoLeader { .. }
            | ProposeError::Unavailable { .. }
            | ProposeError::TooNew(_)
            | ProposeError::TooLarge { .. },
        ) => drop(calls.remove(&moment.called)),
    }
}

/// Takes a machine out of the cluster that is to leave it, as `POST /v1/machines/ID/remove` does. Several may
/// do it at once, from wherever they are, and do it again.
async fn remove(store: &RaftStore, world: &Shared) {
    let Some(machine) = world.lock().expect("alone").next_leaver() else { return };
    let (id, name, deadline) = (id(machine), name(machine), Instant::now() + PATIENCE);
    let cordon = Command::SetSchedulable { id: id.clone(), schedulable: false };
    let (Ok(_), Ok(state)) = (store.propose(vec![cordon], deadline).await, store.read(deadline).await) else {
        return;
    };
    let assigned = state.assignments.iter().filter(|(_, assignment)| assignment.machine == id);
    let mut commands: Vec<Command> =
        assigned.map(|(unit, _)| Command::Unassign { unit: unit.clone(), machine: id.clone() }).collect();
    let expel = commands.len();
    commands.push(Command::Expel { machine: id.clone(), expelled: Expelled { at: 0, name } });
    commands.push(Command::RemoveMachine { id });
    let done = store.propose(commands, deadline).await;
    if done.is_ok_and(|committed| committed.outcomes[expel].is_ok()) {
        world.lock().expect("alone").removed.insert(machine);
    }
}

/// Reads all units; whether that worked.
async fn read(store: &RaftStore, world: &Shared) -> bool {
    let moment = world.lock().expect("alone").moment();
    let Ok(state) = store.read(Instant::now() + PATIENCE).await else { return false };
    let mut world = world.lock().expect("alone");
    let Moment { called: returned, .. } = world.moment();
    for number in 0..UNITS {
        let name = unit(number);
        let seen = Wish(state.units.get(&name).map(|unit| (number_of(&unit.file), unit.desired)));
        let call = Call { operation: Heard::Seen(seen), called: moment.called, returned: Some(returned) };
        world.calls.entry(name).or_default().insert(moment.called, call);
    }
    world.reads += 1;
    world.acknowledged(&moment, state.revision, false);
    true
}
