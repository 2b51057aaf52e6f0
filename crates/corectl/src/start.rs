//! `start`, `load` and `submit`: units that may have to be created. All arguments are looked at before
//! anything is sent: one bad file, and nothing has changed.
//!
//! None of them asks less of a unit than is asked already: submitting or loading a unit that runs does not
//! stop it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::bail;
use api::Client;
use api::v1::{Operation, State, Unit};
use cluster::{Condition, DesiredState, UnitName, launch_states};

use crate::amend::Amendment;
use crate::source::{self, Source};
use crate::verdict::Goal;
use crate::{Exit, cli, count, output, wish};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Start,
    Load,
    Submit,
}

/// `start` with all that it can be given.
pub async fn start(client: &Client, start: &cli::Start) -> anyhow::Result<Exit> {
    let amendment = Amendment { require: start.require.clone(), all_machines: start.all_machines };
    let Some(count) = start.count else {
        return run(client, Kind::Start, &start.wish, &start.wish.units, &amendment).await;
    };
    let instances = count::instances(&start.wish.units, count)?;
    let exit = run(client, Kind::Start, &start.wish, &instances, &amendment).await?;
    count::tell_surplus(client, &start.wish.units, count).await?;
    Ok(exit)
}

pub async fn run(
    client: &Client,
    kind: Kind,
    wish: &cli::Wish,
    units: &[String],
    amendment: &Amendment,
) -> anyhow::Result<Exit> {
    let mut found = source::find(client, units).await?;
    if !amendment.is_empty() {
        found.amend(client, amendment).await?;
    }
    let names = found.sources.iter().map(|source| source.name.clone());
    let instances: BTreeSet<UnitName> = names.filter(|name| !name.is_template()).collect();
    let states: BTreeMap<UnitName, DesiredState> = match kind {
        Kind::Start => launch_states(&instances).into_iter().collect(),
        Kind::Load => instances.into_iter().map(|name| (name, DesiredState::Loaded)).collect(),
        Kind::Submit => BTreeMap::new(),
    };
    let mut steps = Vec::new();
    for source in &found.sources {
        let state = states.get(&source.name).copied().unwrap_or(DesiredState::Inactive);
        match step(source, kind, state, wish.replace) {
            Ok(step) => steps.push((&source.name, step)),
            Err(error) => found.errors.push(error),
        }
    }
    for warning in &found.warnings {
        output::problem(&format!("warning: {warning}"));
    }
    for error in &found.errors {
        output::problem(error);
    }
    if !found.errors.is_empty() {
        bail!("nothing was sent to the cluster");
    }
    let (mut operations, mut goals) = (Vec::new(), BTreeMap::new());
    let mut notes = Vec::new();
    for (name, step) in steps {
        operations.extend(step.operations);
        goals.extend(step.goal.map(|goal| (name.clone(), goal)));
        let hint = if name.is_template() && kind != Kind::Submit { TEMPLATE } else { "" };
        notes.extend(step.note.map(|note| format!("{name}: {note}{hint}")));
    }
    let made = wish::make(client, operations).await?;
    if made.exit == Exit::Done {
        notes.iter().for_each(|note| output::line(note));
    }
    made.wait(goals, &wish.wait).await
}

const TEMPLATE: &str = "; a template is not started, its instances are";

/// What is to be done for one unit.
#[derive(Debug, Default, PartialEq, Eq)]
struct Step {
    operations: Vec<Operation>,
    goal: Option<Goal>,
    /// What there is to say when nothing is waited for.
    note: Option<String>,
}

/// `wanted` is inactive for what is only submitted.
fn step(source: &Source, kind: Kind, wanted: DesiredState, replace: bool) -> Result<Step, String> {
    let name = &source.name;
    let local_text = || source.local.as_ref().map(|local| local.file.text().to_string());
    let set = |text, state: Option<DesiredState>| Operation::Set {
        name: name.to_string(),
        text,
        desired_state: state.map(State::from),
    };
    let goal = match wanted {
        DesiredState::Inactive => None,
        DesiredState::Loaded => Some(Goal::Loaded),
        DesiredState::Launched => Some(Goal::Launched),
    };
    let Some(unit) = &source.existing else {
        let note = goal.is_none().then(|| "submitted".to_string());
        return Ok(Step { operations: vec![set(local_text(), Some(wanted))], goal, note });
    };
    let now = DesiredState::from(unit.desired_state);
    // `start` may want a service only loaded, namely when its socket is started with it and is to start it.
    let has_more = wanted < now && kind != Kind::Start;
    if source.differs() {
        let from = source.local.as_ref().map_or("-", |local| &local.from);
        if !replace {
            return Err(format!(
                "{name} in the cluster differs from {from}; add --replace to put this in its place"
            ));
        }
        if has_more {
            let verb = if now == DesiredState::Launched { "start" } else { "load" };
            return Err(format!(
                "{name} is {now}; replace it with `corectl {verb} --replace`, or unload it first"
            ));
        }
    }
    let text = local_text().filter(|_| replace);
    if has_more {
        let operations = text.map(|text| set(Some(text), None)).into_iter().collect();
        return Ok(Step { operations, goal: None, note: Some(format!("{now} already")) });
    }
    if goal.is_none() {
        let note = if source.differs() { "replaced" } else { "submitted already" };
        let operations = text.map(|text| set(Some(text), None)).into_iter().collect();
        return Ok(Step { operations, goal, note: Some(note.into()) });
    }
    let mut operations = vec![set(text, Some(wanted))];
    if wanted == DesiredState::Launched && now == wanted && !source.differs() && at_rest(unit) {
        // It was started, and has failed or ended by itself. The wish would be an old one, so it is taken
        // back first, in the same batch: no machine ever sees it taken back.
        operations.insert(0, set(None, Some(DesiredState::Loaded)));
    }
    Ok(Step { operations, goal, note: None })
}

/// The unit's machine has carried out the wish, and the unit is not running.
pub fn at_rest(unit: &Unit) -> bool {
    let home = unit.states.iter().find(|state| Some(&state.machine) == unit.machine.as_ref() && !state.stale);
    home.is_some_and(|state| {
        let ended = matches!(Condition::of(&state.active), Condition::Down | Condition::Failed);
        ended && state.generation == Some(unit.generation)
    })
}

/// The unit runs, or is starting, on a machine that is not lost.
pub fn is_up(unit: &Unit) -> bool {
    let mut living = unit.states.iter().filter(|state| !state.stale);
    living.any(|state| matches!(Condition::of(&state.active), Condition::Up | Condition::Starting))
}
