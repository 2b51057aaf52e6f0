//! How long the scheduler takes, and how that grows.
//!
//!     cargo run --release -p cluster --example schedule_speed [-- MACHINES UNITS]
//!
//! For a tenth, a third and all of 10,000 machines with 100,000 units, plain ones and then a mixture of all
//! that units can ask: `all` is a first schedule that places every unit; `takeover` is the first one of a new
//! leader, where all are placed; the others are what a leader needs that has kept its scheduler: after one
//! machine of them all is lost (the median of nine), after one unit was added, after nothing has changed.
//! `rebalance` is what `corectl rebalance` asks for, when half as many machines have come, in another zone,
//! and how many moves it finds. Milliseconds.

use std::io::Write;
use std::time::{Duration, Instant};

use cluster::{
    Change, ClusterState, Command, DesiredState, Generation, MachineId, MachineInfo, Observed, Revision,
    Scheduler, Unit, UnitFile, UnitHash, UnitName,
};

fn main() {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse().expect("a number"));
    let machine_count: usize = args.next().unwrap_or(10_000);
    let unit_count: usize = args.next().unwrap_or(100_000);
    say("kind   machines   units       all  takeover  one lost  one more  nothing  rebalance  moves");
    for (kind, is_mixed) in [("plain", false), ("mixed", true)] {
        for part in [10, 3, 1] {
            let line = measure(kind, is_mixed, machine_count / part, unit_count / part);
            say(&line);
        }
    }
}

fn say(line: &str) {
    writeln!(std::io::stdout(), "{line}").expect("the terminal listens");
}

fn measure(kind: &str, is_mixed: bool, machine_count: usize, unit_count: usize) -> String {
    let mut state = ClusterState::default();
    let machines: Vec<MachineId> = (0..machine_count).map(machine).collect();
    tell(&mut state, machines.iter().enumerate().map(|(n, id)| register(n, n % 5, id)).collect());
    let files = files();
    let set = |n: usize| set(n, if is_mixed { n % 20 } else { 0 }, &files);
    fill(&mut state, (0..unit_count).map(set));

    let mut scheduler = Scheduler::default();
    let (all, schedule) = time(|| scheduler.schedule(&state));
    assert!(schedule.unplaced.is_empty(), "{:?}", schedule.unplaced.iter().next());
    assert_eq!(schedule.decisions.len(), unit_count);
    tell(&mut state, schedule.decisions.into_iter().map(|decision| decision.into_command()).collect());
    let reports = state.assignments.iter().map(|(unit, home)| Command::Report {
        machine: home.machine.clone(),
        unit: unit.clone(),
        observed: Some(running()),
    });
    let reports = reports.collect();
    tell(&mut state, reports);
    let (takeover, schedule) = time(|| Scheduler::default().schedule(&state));
    assert!(schedule.decisions.is_empty());
    scheduler.schedule(&state);

    let mut lost = Vec::new();
    for n in 0..9 {
        let machine = machines[n * machine_count / 9].clone();
        tell(&mut state, vec![Command::MarkLost { machine }]);
        let (took, schedule) = time(|| scheduler.schedule(&state));
        assert!(schedule.decisions.len() >= unit_count / machine_count, "{:?}", schedule);
        tell(&mut state, schedule.decisions.into_iter().map(|decision| decision.into_command()).collect());
        scheduler.schedule(&state);
        lost.push(took);
    }
    lost.sort();
    let revision = Revision(state.revision.0 + 1);
    put(&mut state, set(unit_count), revision.0);
    state.revision = revision;
    let (more, schedule) = time(|| scheduler.schedule(&state));
    assert_eq!(schedule.decisions.len(), 1);
    let (nothing, _) = time(|| scheduler.schedule(&state));
    let late: Vec<MachineId> = (machine_count..machine_count * 3 / 2).map(machine).collect();
    let new_zone = late.iter().enumerate().map(|(n, id)| register(n, 5, id)).collect();
    tell(&mut state, new_zone);
    let (evened, moves) = time(|| cluster::rebalance(&state));
    let ms = |took: Duration| took.as_secs_f64() * 1e3;
    format!(
        "{kind:5} {machine_count:9} {unit_count:7} {:9.1} {:9.1} {:9.2} {:9.2} {:8.3} {:10.0} {:6}",
        ms(all),
        ms(takeover),
        ms(lost[lost.len() / 2]),
        ms(more),
        ms(nothing),
        ms(evened),
        moves.len()
    )
}

fn time<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let result = work();
    (start.elapsed(), result)
}

fn tell(state: &mut ClusterState, commands: Vec<Command>) {
    let at = Revision(state.revision.0 + 1);
    for outcome in state.apply_all(at, &commands) {
        outcome.expect("a command that is in order");
    }
}

fn fill(state: &mut ClusterState, units: impl Iterator<Item = Command>) {
    for (n, command) in units.enumerate() {
        put(state, command, n as u64 + 1);
    }
    state.revision = Revision(1 << 32);
}

/// Past the bound of a cluster, which is for snapshots and not for the scheduler.
fn put(state: &mut ClusterState, command: Command, generation: u64) {
    let Command::SetUnit { name, file: Some(file), desired: Some(desired) } = command else {
        panic!("not a new unit: {command:?}");
    };
    state.put(Change::Unit(name, Some(Unit { file, desired, generation: Generation(generation) })));
}

fn machine(n: usize) -> MachineId {
    MachineId::new(&format!("{:032x}", n as u128 * 0x9e37_79b9_7f4a_7c15)).expect("a machine id")
}

fn register(n: usize, zone: usize, id: &MachineId) -> Command {
    let pairs =
        [("zone", format!("z{zone}")), ("disk", if n.is_multiple_of(2) { "ssd" } else { "hdd" }.into())];
    let info = MachineInfo {
        name: format!("host{n}"),
        metadata: pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        memory_bytes: 64 << 30,
        cpu_millis: 16_000,
        ..MachineInfo::default()
    };
    Command::RegisterMachine { id: id.clone(), info }
}

/// What units ask, a twentieth of them each; the first twelve are plain.
fn files() -> Vec<UnitFile> {
    let service = "[Unit]\nDescription=One of many\n\n[Service]\nExecStart=/bin/sleep 1000\nRestart=always\n";
    let asks = |n: usize| match n {
        12 => "[X-Fleet]\nMachineMetadata=zone=z1\n",
        13 => "[X-Fleet]\nMachineMetadata=\"disk=ssd\" \"zone=z2\" \"zone=z3\"\n",
        14 | 15 => "[X-Fleet]\nConflicts=%p@*.service\n",
        16 => "MemoryMax=1G\nCPUQuota=20%\n",
        17 => "[X-Coreinit]\nSpread=zone\nPreferMetadata=disk=ssd\n",
        18 => "",
        19 => "[X-Fleet]\nMachineOf=main@%i.service\n",
        _ => "",
    };
    let files = (0..20).map(|n| UnitFile::parse(&format!("{service}{}", asks(n))).expect("a unit file"));
    files.collect()
}

fn set(n: usize, kind: usize, files: &[UnitFile]) -> Command {
    let name = match kind {
        // A hundred templates whose instances conflict with each other.
        14 | 15 => format!("alone{}@{n}.service", n / 20 % 100),
        17 => format!("web{}@{n}.service", n / 20 % 10),
        18 => format!("main@{}.service", n / 20),
        19 => format!("side@{}.service", n / 20),
        _ => format!("unit{n}.service"),
    };
    Command::SetUnit {
        name: UnitName::new(&name).expect("a unit name"),
        file: Some(files[kind].clone()),
        desired: Some(DesiredState::Launched),
    }
}

fn running() -> Observed {
    Observed {
        load: "loaded".into(),
        active: "active".into(),
        sub: "running".into(),
        hash: UnitHash([0; 20]),
        generation: None,
        failure: None,
    }
}
