//! Runs the text files under `tests/scenarios`: an operator's words in, assignments and actions out. The
//! language is described in `tests/scenarios/README.md`. `UPDATE=1` writes what came out into the files.

mod model;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use cluster::{
    Action, Command, Decision, DesiredState, Explanation, MachineId, MachineInfo, Opinion, Outcome,
    Relocation, UnitFile, UnitName, explain, is_global, launch_states, move_unit, rebalance, schedule,
    validate,
};
use model::{Round, World, machine, unit};

#[derive(Default)]
struct Scenario {
    world: World,
    files: BTreeMap<UnitName, UnitFile>,
    out: String,
}

impl Scenario {
    fn say(&mut self, line: impl AsRef<str>) {
        writeln!(self.out, "  {}", line.as_ref()).expect("a string can be written to");
    }

    fn run(&mut self, line: &str, text: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (verb, args) = words.split_first().expect("a command has a verb");
        match *verb {
            "machine" => self.register(args),
            "file" => return self.read_file(args[0], text),
            "start" => {
                let names: BTreeSet<UnitName> = args.iter().map(|name| unit(name)).collect();
                for (name, desired) in launch_states(&names) {
                    self.set(name, desired);
                }
            }
            "load" => args.iter().for_each(|name| self.set(unit(name), DesiredState::Loaded)),
            "stop" | "submit" => args.iter().for_each(|name| self.set(unit(name), DesiredState::Inactive)),
            "destroy" => args.iter().for_each(|name| self.propose(Command::DestroyUnit { name: unit(name) })),
            "cut" | "crash" => {
                for id in args.iter().map(|id| machine(id)) {
                    let host = self.world.hosts.get_mut(&id).expect("a machine of this scenario");
                    host.is_cut = true;
                    if *verb == "crash" {
                        host.units.clear();
                    }
                    self.propose(Command::MarkLost { machine: id });
                }
            }
            "return" => {
                for id in args.iter().map(|id| machine(id)) {
                    self.world.hosts.get_mut(&id).expect("a machine of this scenario").is_cut = false;
                    self.propose(Command::MarkReady { machine: id });
                }
            }
            "remove" => args.iter().for_each(|id| self.propose(Command::RemoveMachine { id: machine(id) })),
            "slow" => self.world.slow.extend(args.iter().map(|name| unit(name))),
            "finish" => self.world.slow.retain(|name| !args.contains(&name.as_str())),
            "broken" => self.world.broken.extend(args.iter().map(|name| unit(name))),
            "call" => {
                let name = unit(args[0]);
                let hosts = self.world.hosts.values_mut();
                hosts.filter(|host| host.units.contains_key(&name)).for_each(|host| host.activate(&name));
            }
            "cordon" | "uncordon" => {
                for id in args.iter().map(|id| machine(id)) {
                    self.propose(Command::SetSchedulable { id, schedulable: *verb == "uncordon" });
                }
            }
            "move" => self.ask_to_move(unit(args[0]), args.get(1).map(|id| machine(id))),
            "rebalance" => return self.rebalance(),
            "explain" => return self.explain(&unit(args[0])),
            "show" => return self.show(),
            other => panic!("unknown command {other:?}"),
        }
        self.settle();
    }

    fn register(&mut self, args: &[&str]) {
        let (ids, pairs): (Vec<&str>, Vec<&str>) = args.iter().partition(|arg| !arg.contains('='));
        let pair = |pair: &&str| pair.split_once('=').map(|(key, value)| (key.into(), value.into()));
        let mut metadata: BTreeMap<String, String> = pairs.iter().filter_map(pair).collect();
        let mut number = |key| metadata.remove(key).map_or(0, |text| text.parse().expect("a number"));
        let (megabytes, cpus): (u64, u64) = (number("MEGABYTES"), number("CPUS"));
        for id in ids {
            self.world.hosts.entry(machine(id)).or_default();
            let info = MachineInfo {
                metadata: metadata.clone(),
                memory_bytes: megabytes << 20,
                cpu_millis: cpus * 1000,
                ..MachineInfo::default()
            };
            self.propose(Command::RegisterMachine { id: machine(id), info });
        }
    }

    fn ask_to_move(&mut self, name: UnitName, to: Option<MachineId>) {
        match move_unit(&self.world.state, &name, to.as_ref()) {
            Ok(commands) => commands.into_iter().for_each(|command| self.propose(command)),
            Err(refused) => self.say(format!("refused: {refused}")),
        }
    }

    fn rebalance(&mut self) {
        for relocation in rebalance(&self.world.state) {
            let Relocation { unit, with, from, to, reason } = relocation;
            let with = with.iter().map(|name| format!(" with {name}")).collect::<String>();
            self.say(format!("{unit}{with} from {from} to {to}: {reason}"));
        }
    }

    fn explain(&mut self, name: &UnitName) {
        let Explanation { summary, machines, .. } = explain(&self.world.state, name);
        self.say(summary);
        for Opinion { machine, is_home, reasons, units } in machines {
            let home = if is_home { "its home, " } else { "" };
            let verdict = if reasons.is_empty() { "would do".into() } else { reasons.join("; ") };
            self.say(format!("{machine}: {home}{units} other units: {verdict}"));
        }
    }

    fn read_file(&mut self, name: &str, text: &str) {
        let file = match UnitFile::parse(text) {
            Ok(file) => file,
            Err(error) => return self.say(format!("refused: {error}")),
        };
        match validate(&unit(name), &file) {
            Ok(warnings) => {
                warnings.iter().for_each(|warning| self.say(format!("warning: {warning}")));
                self.files.insert(unit(name), file);
            }
            Err(error) => self.say(format!("refused: {error}")),
        }
    }

    fn set(&mut self, name: UnitName, desired: DesiredState) {
        let file = self.files.get(&name).cloned();
        let file = file.or_else(|| name.template().and_then(|template| self.files.get(&template).cloned()));
        if let Some(Err(error)) = file.as_ref().map(|file| validate(&name, file)) {
            return self.say(format!("refused: {error}"));
        }
        self.propose(Command::SetUnit { name, file, desired: Some(desired) });
    }

    fn propose(&mut self, command: Command) {
        let outcome: Outcome = self.world.propose(command);
        if let Err(rejected) = outcome {
            self.say(format!("refused: {rejected}"));
        }
    }

    fn settle(&mut self) {
        for _ in 0..50 {
            let Round { decisions, actions, is_quiet } = self.world.round();
            for decision in decisions {
                self.say(match decision {
                    Decision::Assign { unit, machine, reason, .. } => {
                        format!("leader: {unit} to {machine}: {reason}")
                    }
                    Decision::Unassign { unit, machine, reason } => {
                        format!("leader: {unit} away from {machine}: {reason}")
                    }
                    Decision::Forget { unit, machine } => format!("leader: forget {unit} on {machine}"),
                });
            }
            for (id, actions) in actions {
                let words: Vec<String> = actions.iter().map(words).collect();
                self.say(format!("{id}: {}", words.join(", ")));
            }
            if is_quiet {
                for (name, unplaced) in schedule(&self.world.state).unplaced {
                    self.say(format!("{name} waits: {}", unplaced.why));
                }
                return;
            }
        }
        panic!("the cluster does not come to rest:\n{}", self.out);
    }

    fn show(&mut self) {
        for (name, record) in &self.world.state.units.clone() {
            let home = self.world.state.assignments.get(name).map_or("-", |a| a.machine.as_str()).to_owned();
            let home = if is_global(name, &record.file) { "global".into() } else { home };
            let runs: Vec<&str> = self.world.runs_on(name).into_iter().map(|id| id.as_str()).collect();
            let runs = if runs.is_empty() { "nowhere".into() } else { format!("on {}", runs.join(" and ")) };
            self.say(format!("{name} {} home {home} runs {runs}", record.desired));
        }
    }
}

fn words(action: &Action) -> String {
    let list = |units: &[UnitName]| units.iter().map(|unit| unit.as_str()).collect::<Vec<_>>().join(" ");
    match action {
        Action::Write { unit, .. } => format!("write {unit}"),
        Action::Link { units } => format!("link {}", list(units)),
        Action::Reload => "reload".into(),
        Action::Start { unit, .. } => format!("start {unit}"),
        Action::Stop { unit, .. } => format!("stop {unit}"),
        Action::Settle { unit, .. } => format!("settle {unit}"),
        Action::Remove { units } => format!("remove {}", list(units)),
    }
}

/// The file as it should be: its own words, with what really came out below each command.
fn play(text: &str) -> String {
    let mut scenario = Scenario::default();
    let mut lines = text.lines().peekable();
    let mut result = String::new();
    while let Some(line) = lines.next() {
        if line.starts_with("  ") {
            continue;
        }
        result.extend([line, "\n"]);
        let Some(command) = line.strip_prefix("> ") else { continue };
        let mut body = String::new();
        while let Some(line) = lines.next_if(|line| line.starts_with('|')) {
            result.extend([line, "\n"]);
            let line = &line[1..];
            body.extend([line.strip_prefix(' ').unwrap_or(line), "\n"]);
        }
        scenario.run(command, &body);
        result.push_str(&std::mem::take(&mut scenario.out));
    }
    result
}

#[test]
fn every_scenario_plays_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/scenarios");
    let entries = std::fs::read_dir(&folder).expect("the folder of scenarios");
    let paths = entries.map(|entry| entry.expect("a folder entry").path());
    let paths: BTreeSet<_> = paths.filter(|path| path.extension().is_some_and(|ext| ext == "txt")).collect();
    assert!(paths.len() >= 38, "scenarios are missing from {}", folder.display());
    let update = std::env::var_os("UPDATE").is_some_and(|value| value == "1");
    let mut different = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("a readable scenario");
        let played = play(&text);
        if played == text {
            continue;
        }
        if update {
            std::fs::write(&path, played).expect("a scenario can be written");
            continue;
        }
        let lines = text.lines().zip(played.lines()).zip(1..);
        let place = lines.into_iter().find(|((is, was), _)| is != was);
        let place = place
            .map_or("at its end".into(), |((is, was), n)| format!("line {n}:\n  says  {is}\n  came  {was}"));
        different.push(format!("{}, {place}", path.display()));
    }
    assert!(different.is_empty(), "UPDATE=1 accepts what came out:\n{}", different.join("\n"));
}
