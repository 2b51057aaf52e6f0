//! `import fleet`: the units of a fleet cluster, and what is wanted of them, from fleet's own keys in etcd.
//! Nothing there is changed.

use std::path::Path;

use anyhow::{Context, bail};
use api::Client;
use api::v1::{Batch, Operation, State};
use cluster::DesiredState;
use etcd_compat::{FleetUnit, Tls, User, read_fleet};

use crate::cli::{FleetSource, ImportCommand};
use crate::{Exit, output};

/// Units in one request.
const BATCH_MAX: usize = 200;

pub async fn run(client: &Client, command: &ImportCommand) -> anyhow::Result<Exit> {
    let ImportCommand::Fleet(source) = command;
    let (tls, user) = (tls(source)?, user(source)?);
    let found = read_fleet(&source.etcd, &source.prefix, tls.as_ref(), user.as_ref()).await;
    let found = found.map_err(anyhow::Error::msg)?;
    for (name, why) in &found.problems {
        output::problem(&format!("{name} is left out: {why}"));
    }
    let known = client.units(&[], false).await?.units;
    let mut failed = !found.problems.is_empty();
    let mut wanted: Vec<&FleetUnit> = Vec::new();
    for unit in &found.units {
        match known.iter().find(|known| known.name == unit.name) {
            Some(known) if known.hash != unit.file.hash().to_string() && !source.replace => {
                output::problem(&format!("{} is here already, with another file; use --replace", unit.name));
                failed = true;
            }
            _ => wanted.push(unit),
        }
    }
    if source.dry_run {
        for unit in &wanted {
            output::line(&format!("{} would be {}", unit.name, unit.desired));
        }
        return Ok(if failed { Exit::Failed } else { Exit::Done });
    }
    for units in wanted.chunks(BATCH_MAX) {
        let operations = units.iter().map(|unit| operation(unit)).collect();
        let done = client.batch(&Batch { operations }).await?;
        for (unit, result) in units.iter().zip(done.results) {
            match result.message {
                None => output::line(&format!("{} is {}", unit.name, unit.desired)),
                Some(message) => {
                    output::problem(&format!("{}: {message}", unit.name));
                    failed = true;
                }
            }
        }
    }
    Ok(if failed { Exit::Failed } else { Exit::Done })
}

fn operation(unit: &FleetUnit) -> Operation {
    let desired_state = Some(match unit.desired {
        DesiredState::Inactive => State::Inactive,
        DesiredState::Loaded => State::Loaded,
        DesiredState::Launched => State::Launched,
    });
    Operation::Set { name: unit.name.to_string(), text: Some(unit.file.text().into()), desired_state }
}

fn tls(source: &FleetSource) -> anyhow::Result<Option<Tls>> {
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let identity = match (&source.etcd_cert, &source.etcd_key) {
        (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
        (None, None) => None,
        _ => bail!("--etcd-cert and --etcd-key belong together"),
    };
    match &source.etcd_ca {
        Some(ca) => Ok(Some(Tls { ca: read(ca)?, identity })),
        None if identity.is_some() => bail!("--etcd-cert needs --etcd-ca"),
        None => Ok(None),
    }
}

fn user(source: &FleetSource) -> anyhow::Result<Option<User>> {
    match (&source.etcd_user, &source.etcd_password_file) {
        (Some(name), Some(path)) => {
            let password = std::fs::read_to_string(path);
            let password = password.with_context(|| format!("cannot read {}", path.display()))?;
            Ok(Some(User { name: name.clone(), password: password.trim_end().into() }))
        }
        (None, None) => Ok(None),
        _ => bail!("--etcd-user and --etcd-password-file belong together"),
    }
}
