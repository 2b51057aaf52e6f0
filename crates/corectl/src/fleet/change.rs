//! The commands that change what is wanted, with fleet's lines for what comes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::ClientError;
use api::v1::{Batch, Operation, State, Unit};
use cluster::{DesiredState, Revision, UnitName, launch_states};

use super::create::{create, mangled};
use super::{Fleet, Told, words};
use crate::restart;
use crate::signals::Signals;
use crate::start::at_rest;
use crate::verdict::Goal;
use crate::wait::{self, Ended, GivenUp, Voice};
use crate::{Exit, output};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Load,
    Start,
    Stop,
    Unload,
}

impl Verb {
    fn as_str(self) -> &'static str {
        match self {
            Verb::Load => "load",
            Verb::Start => "start",
            Verb::Stop => "stop",
            Verb::Unload => "unload",
        }
    }

    /// `stopping`, and so on.
    fn doing(self) -> &'static str {
        match self {
            Verb::Load => "loading",
            Verb::Start => "starting",
            Verb::Stop => "stopping",
            Verb::Unload => "unloading",
        }
    }

    fn done(self) -> &'static str {
        match self {
            Verb::Load => "loaded",
            Verb::Start => "started",
            Verb::Stop => "stopped",
            Verb::Unload => "unloaded",
        }
    }
}

const NONE_GIVEN: &str = "No units given";
const NONE_FOUND: &str = "Units not found in registry";

/// fleet's client looked at a unit some time after its start, so that scripts learn from the exit code of one
/// that fails at once. It takes a machine some milliseconds to see that, and the cluster some tens to know.
const START_DOUBTED: Duration = Duration::from_millis(500);

/// How far a unit is that a wait was for; fleet's lines go out as it comes.
#[derive(Default)]
struct Words {
    /// Why a unit did not come to be as was wished.
    failures: Vec<String>,
    /// No unit failed: time was over, or no machine took them.
    late: Vec<String>,
}

impl Voice for Words {
    fn reached(&mut self, ended: &Ended<'_>, _text: &str) {
        told(ended);
    }

    fn failed(&mut self, ended: &Ended<'_>, why: &str, journal: &[String]) {
        let unit = ended.unit;
        let why = match ended.goal {
            Goal::Launched => {
                told(ended);
                format!("Failed to find an active unit {unit}, err: {why}")
            }
            Goal::Loaded | Goal::Stopped | Goal::Unloaded | Goal::Gone => format!("unit {unit}: {why}"),
        };
        output::note(&format!("Error waiting for units: {why}"));
        journal.iter().for_each(|line| output::note(&format!("    {line}")));
        self.failures.push(why);
    }

    fn gave_up(&mut self, unit: &UnitName, goal: Goal, text: &str, why: GivenUp) {
        let state = match goal {
            Goal::Launched => "launched",
            Goal::Loaded | Goal::Stopped => "loaded",
            Goal::Unloaded | Goal::Gone => "inactive",
        };
        let why = match why {
            GivenUp::Late => format!("timed out waiting for unit {unit} to report state {state}: {text}"),
            GivenUp::Unplaced => format!("unit {unit} {text}"),
        };
        output::note(&format!("Error waiting for units: {why}"));
        self.late.push(why);
    }

    fn doubts_start(&self) -> Option<Duration> {
        Some(START_DOUBTED)
    }

    fn aside(&mut self, text: &str) {
        words::log("WARN", text);
    }
}

/// `Unit X launched on M`.
fn told(ended: &Ended<'_>) {
    let unit = ended.unit;
    let on = ended.home().map(|home| format!(" on {}", ended.machines.cell(home, false))).unwrap_or_default();
    match ended.goal {
        Goal::Launched => output::line(&format!("Unit {unit} launched{on}")),
        Goal::Loaded | Goal::Stopped => output::line(&format!("Unit {unit} loaded{on}")),
        Goal::Unloaded => output::line(&format!("Unit {unit} inactive")),
        Goal::Gone => output::line(&format!("Destroyed {unit}")),
    }
}

impl Words {
    fn end(self, units: &str) -> Exit {
        match (self.failures.last(), self.late.last()) {
            (None, None) => return Exit::Done,
            (Some(why), _) => output::note(&format!("Error waiting for systemd unit states, err: {why}")),
            (None, Some(why)) => {
                output::note(&format!("Error waiting for {units} states, exit status: {why}"));
            }
        }
        Exit::Failed
    }
}

/// Makes the changes, and waits for them.
async fn carry_out(
    fleet: &Fleet,
    operations: Vec<Operation>,
    goals: BTreeMap<UnitName, Goal>,
) -> Told<Words> {
    carry_out_telling(fleet, operations, goals, Verb::Start, &[]).await
}

async fn ask(fleet: &Fleet, operations: Vec<Operation>) -> Told<Revision> {
    let done = fleet.client.batch(&Batch { operations }).await;
    let done = done.map_err(|error| fleet.error(&error, "units"))?;
    match done.results.iter().find_map(|result| result.message.as_ref().map(|why| (&result.name, why))) {
        Some((_, why)) => Err(format!("googleapi: Error 409: {why}")),
        None => Ok(done.revision),
    }
}

fn set(name: &UnitName, state: State) -> Operation {
    Operation::Set { name: name.to_string(), text: None, desired_state: Some(state) }
}

pub async fn submit(fleet: &Fleet, arguments: &[String]) -> Told<Exit> {
    if arguments.is_empty() {
        output::note(NONE_GIVEN);
        return Ok(Exit::Done);
    }
    create(fleet, arguments, &[State::Inactive])
        .await
        .map_err(|why| format!("Error creating units: {why}"))?;
    Ok(Exit::Done)
}

/// `load` and `start`.
pub async fn launch(fleet: &Fleet, arguments: &[String], verb: Verb) -> Told<Exit> {
    if arguments.is_empty() {
        output::note(NONE_GIVEN);
        return Ok(Exit::Done);
    }
    let replaceable: &[State] = match verb {
        Verb::Start => &[State::Inactive, State::Loaded, State::Launched],
        Verb::Load | Verb::Stop | Verb::Unload => &[State::Inactive, State::Loaded],
    };
    let made = create(fleet, arguments, replaceable).await;
    let made = made.map_err(|why| format!("Error creating units: {why}"))?;
    let failed = |why: String| format!("Error {} units: {why}", verb.doing());
    if let Some(template) = made.keys().find(|name| name.is_template()) {
        return Err(failed(format!("googleapi: Error 400: cannot activate template \"{template}\"")));
    }
    let names: BTreeSet<UnitName> = made.keys().cloned().collect();
    let wanted: BTreeMap<UnitName, DesiredState> = match verb {
        Verb::Start => launch_states(&names).into_iter().collect(),
        _ => names.iter().map(|name| (name.clone(), DesiredState::Loaded)).collect(),
    };
    let (mut operations, mut goals, mut triggered) = (Vec::new(), BTreeMap::new(), Vec::new());
    for (name, made) in &made {
        let state = wanted.get(name).copied().unwrap_or(DesiredState::Launched);
        let goal = if state == DesiredState::Launched { Goal::Launched } else { Goal::Loaded };
        let before = made.before.as_ref().filter(|unit| unit.desired_state == State::from(state));
        match before {
            Some(_) if made.is_changed => operations.push(set(name, state.into())),
            // fleet did nothing for a unit that had failed or ended since it was started.
            Some(unit) if goal == Goal::Launched && !unit.global && at_rest(unit) => {
                operations.extend([set(name, State::Loaded), set(name, State::Launched)]);
            }
            Some(_) => continue,
            None => operations.push(set(name, state.into())),
        }
        triggered.push((name, made.is_global));
        if !made.is_global {
            goals.insert(name.clone(), goal);
        }
    }
    let words = carry_out_telling(fleet, operations, goals, verb, &triggered).await.map_err(failed)?;
    Ok(words.end("unit"))
}

/// Tells of those that are not waited for between the change and the wait.
async fn carry_out_telling(
    fleet: &Fleet,
    operations: Vec<Operation>,
    goals: BTreeMap<UnitName, Goal>,
    verb: Verb,
    triggered: &[(&UnitName, bool)],
) -> Told<Words> {
    let mut words = Words::default();
    if operations.is_empty() {
        return Ok(words);
    }
    let revision = ask(fleet, operations).await?;
    let no_block = fleet.flags.is_on("no-block");
    for (name, is_global) in triggered {
        match (is_global, no_block) {
            (true, _) => output::line(&format!("Triggered global unit {name} {}", verb.as_str())),
            (false, true) => output::line(&format!("Triggered unit {name} {}", verb.as_str())),
            (false, false) => {}
        }
    }
    if goals.is_empty() || no_block {
        return Ok(words);
    }
    let waited = wait::until_reached(&fleet.client, goals, revision, fleet.wait().timeout, &mut words).await;
    waited.map_err(|error| format!("{error:#}"))?;
    Ok(words)
}

/// Those units that there are, in the order in which they were named.
async fn named(fleet: &Fleet, arguments: &[String]) -> Result<Vec<Unit>, String> {
    let mut units: Vec<Unit> = Vec::new();
    for argument in arguments {
        let name = mangled(argument).map_err(|error| error.to_string())?;
        let told = |error: ClientError| fleet.error(&error, "units");
        if let Some(unit) = fleet.unit(&name).await.map_err(told)?
            && !units.iter().any(|known| known.name == unit.name)
        {
            units.push(unit);
        }
    }
    Ok(units)
}

/// `stop` and `unload`.
pub async fn withdraw(fleet: &Fleet, arguments: &[String], verb: Verb) -> Told<Exit> {
    if arguments.is_empty() {
        output::note(NONE_GIVEN);
        return Ok(Exit::Done);
    }
    let units = named(fleet, arguments).await?;
    if units.is_empty() {
        output::note(NONE_FOUND);
        return Ok(Exit::Done);
    }
    let (wanted, goal) = match verb {
        Verb::Stop => (State::Loaded, Goal::Stopped),
        Verb::Load | Verb::Start | Verb::Unload => (State::Inactive, Goal::Unloaded),
    };
    let (mut operations, mut goals) = (Vec::new(), BTreeMap::new());
    let (mut triggered, mut stopped) = (Vec::new(), Vec::new());
    for unit in &units {
        if verb == Verb::Stop && !unit.global && unit.desired_state == State::Inactive {
            return Err(format!("Unable to stop unit {} in state inactive", unit.name));
        }
        if unit.desired_state == wanted {
            continue;
        }
        operations.push(set(&unit.name, wanted));
        triggered.push((&unit.name, unit.global));
        if !unit.global {
            goals.insert(unit.name.clone(), goal);
            stopped.push(unit.name.as_str());
        }
    }
    let words = carry_out_telling(fleet, operations, goals, verb, &triggered).await?;
    match words.failures.first().or(words.late.first()) {
        Some(why) => Err(format!("Failed to {} units [{}]. err: {why}", verb.as_str(), stopped.join(" "))),
        None => {
            output::note(&format!("Successfully {} units [{}].", verb.done(), stopped.join(" ")));
            Ok(Exit::Done)
        }
    }
}

pub async fn destroy(fleet: &Fleet, arguments: &[String]) -> Told<Exit> {
    if arguments.is_empty() {
        output::note(NONE_GIVEN);
        return Ok(Exit::Done);
    }
    let units = named(fleet, arguments).await?;
    if units.is_empty() {
        output::note(NONE_FOUND);
        return Ok(Exit::Done);
    }
    let operations = units.iter().map(|unit| Operation::Destroy { name: unit.name.to_string() }).collect();
    let goals = units.iter().map(|unit| (unit.name.clone(), Goal::Gone)).collect();
    let failed = |why: String| format!("Error destroying units: {why}");
    if fleet.flags.is_on("no-block") {
        carry_out(fleet, operations, BTreeMap::new()).await.map_err(failed)?;
        units.iter().for_each(|unit| output::line(&format!("Destroyed {}", unit.name)));
        return Ok(Exit::Done);
    }
    let words = carry_out(fleet, operations, goals).await.map_err(failed)?;
    Ok(words.end("unit"))
}

pub async fn restart(fleet: &Fleet, arguments: &[String]) -> Told<Exit> {
    if arguments.is_empty() {
        output::note(NONE_GIVEN);
        return Ok(Exit::Done);
    }
    let made = create(fleet, arguments, &[]).await.map_err(|why| format!("Error creating units: {why}"))?;
    let mut signals = Signals::catch().map_err(|error| error.to_string())?;
    for (name, made) in made {
        let was = made.before.as_ref().map_or(State::Inactive, |unit| unit.desired_state);
        if was == State::Inactive && made.before.is_some() {
            output::note(&format!("Unable to restart unit {name} in state inactive"));
            continue;
        }
        let failed = |why: String| format!("Error restarting units: {why}");
        if was == State::Launched {
            let goals = BTreeMap::from([(name.clone(), Goal::Stopped)]);
            let stopped = tokio::select! {
                stopped = carry_out(fleet, vec![set(&name, State::Loaded)], goals) => {
                    stopped.map(|words| words.end("unit")).map_err(failed)
                }
                exit = signals.next() => Ok(exit),
            };
            if stopped != Ok(Exit::Done) {
                not_stopped(fleet, &name, &mut signals).await;
                return stopped;
            }
        }
        let goals = match made.is_global {
            true => BTreeMap::new(),
            false => BTreeMap::from([(name.clone(), Goal::Launched)]),
        };
        let started = tokio::select! {
            started = carry_out(fleet, vec![set(&name, State::Launched)], goals) => {
                started.map_err(failed)?.end("unit")
            }
            exit = signals.next() => exit,
        };
        if started != Exit::Done {
            return Ok(started);
        }
        words::log("INFO", &format!("Unit({name}) was restarted."));
    }
    Ok(Exit::Done)
}

/// The wait for a stop has ended before the stop.
async fn not_stopped(fleet: &Fleet, name: &UnitName, signals: &mut Signals) {
    let wanted = tokio::select! {
        wanted = restart::again(&fleet.client, name) => wanted,
        _ = signals.next() => Err(anyhow::anyhow!("there was no time to ask for it")),
    };
    match wanted {
        Ok(true) => output::note(&format!("Unit {name} starts again as soon as it has stopped")),
        Ok(false) => {}
        Err(error) => output::note(&format!("Unit {name} may stay stopped: {error:#}")),
    }
}
