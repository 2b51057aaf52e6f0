//! `start`, `load` and `submit`: units that may have to be created.

use std::collections::BTreeSet;

use anyhow::bail;
use api::Client;
use api::v1::{Operation, State};
use cluster::{DesiredState, launch_states, validate};

use crate::source::{self, Source};
use crate::wait::Goal;
use crate::{Exit, cli, output, wish};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Start,
    Load,
    Submit,
}

/// All arguments are looked at before anything is sent: one bad file, and nothing has changed.
pub async fn run(client: &Client, kind: Kind, wish: &cli::Wish) -> anyhow::Result<Exit> {
    let sources = find_all(client, wish).await?;
    let names: BTreeSet<_> =
        sources.iter().map(|source| source.name.clone()).filter(|name| !name.is_template()).collect();
    let wanted = |source: &Source| match kind {
        _ if source.name.is_template() => DesiredState::Inactive,
        Kind::Submit => DesiredState::Inactive,
        Kind::Load => DesiredState::Loaded,
        Kind::Start => {
            let states = launch_states(&names);
            let found = states.iter().find(|(name, _)| *name == source.name);
            found.map_or(DesiredState::Launched, |(_, state)| *state)
        }
    };
    let (mut operations, mut goals) = (Vec::new(), std::collections::BTreeMap::new());
    for source in &sources {
        let state = wanted(source);
        // Submitting changes nothing of a unit that is there.
        let keeps = kind == Kind::Submit || source.name.is_template();
        let desired_state = if keeps && source.file.is_none() { None } else { Some(State::from(state)) };
        let text = source.file.as_ref().map(|file| file.text().to_string());
        operations.push(Operation::Set { name: source.name.to_string(), text, desired_state });
        if source.name.is_template() && kind != Kind::Submit {
            output::line(&format!("{}: submitted; it is a template, start instances of it", source.name));
        }
        match state {
            DesiredState::Launched => drop(goals.insert(source.name.clone(), Goal::Launched)),
            DesiredState::Loaded => drop(goals.insert(source.name.clone(), Goal::Loaded)),
            DesiredState::Inactive => {}
        }
    }
    let exit = wish::make(client, operations, goals, &wish.wait).await?;
    if kind == Kind::Submit && exit == Exit::Done {
        for source in &sources {
            output::line(&format!("{}: submitted", source.name));
        }
    }
    Ok(exit)
}

async fn find_all(client: &Client, wish: &cli::Wish) -> anyhow::Result<Vec<Source>> {
    let (mut sources, mut bad): (Vec<Source>, usize) = (Vec::new(), 0);
    for argument in &wish.units {
        let found = source::find(client, argument).await.and_then(|source| check(source, wish.replace));
        match found {
            Ok(source) if sources.iter().any(|other| other.name == source.name) => {}
            Ok(source) => sources.push(source),
            Err(error) => {
                output::error(&error);
                bad += 1;
            }
        }
    }
    match bad {
        0 => Ok(sources),
        _ => bail!("nothing was changed, since {bad} of {} arguments cannot be used", wish.units.len()),
    }
}

fn check(source: Source, replace: bool) -> anyhow::Result<Source> {
    let Some(file) = &source.file else { return Ok(source) };
    let path = source.path.as_deref().unwrap_or(std::path::Path::new("-")).display();
    for warning in validate(&source.name, file).map_err(|error| anyhow::anyhow!("{path}: {error}"))? {
        output::note(&format!("corectl: warning: {path}: {warning}"));
    }
    if source.differs && !replace {
        bail!(
            "the cluster has another {} than {path}; add --replace to put this one in its place",
            source.name
        );
    }
    Ok(source)
}
