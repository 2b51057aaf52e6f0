//! What shells complete: commands and options from the definition, units and machines from the daemon.
//!
//! The shell asks corectl itself, by the variable `COMPLETE`. A daemon that does not answer at once completes
//! nothing, in silence.

use std::ffi::OsStr;
use std::future::Future;
use std::time::Duration;

use anyhow::Context;
use api::{Client, ClientError};
use clap::CommandFactory;
use clap_complete::CompleteEnv;
use clap_complete::engine::CompletionCandidate;
use clap_complete::env::Shells;

use crate::cli::{Cli, CompletionShell};
use crate::connect::Connection;
use crate::{Exit, output};

/// Longer, and people type on.
const PATIENCE: Duration = Duration::from_millis(700);

/// The variable by which a shell asks.
const VARIABLE: &str = "COMPLETE";

/// Answers a shell that asks, and ends the program; returns when none does.
pub fn answer() {
    CompleteEnv::with_factory(Cli::command).var(VARIABLE).bin("corectl").complete();
}

/// What makes a shell ask.
pub fn script(shell: CompletionShell) -> anyhow::Result<Exit> {
    let name = match shell {
        CompletionShell::Bash => "bash",
        CompletionShell::Zsh => "zsh",
        CompletionShell::Fish => "fish",
    };
    let shells = Shells::builtins();
    let completer = shells.completer(name).context("this shell is not known")?;
    let mut script = Vec::new();
    completer.write_registration(VARIABLE, "corectl", "corectl", "corectl", &mut script)?;
    output::bytes(&script);
    Ok(Exit::Done)
}

/// Names of units that the cluster has. Files are completed by the shell's own rules.
pub fn units(typed: &OsStr) -> Vec<CompletionCandidate> {
    let files = typed.to_str().map(files_beginning).unwrap_or_default();
    let names = ask(|client| async move {
        let units = client.units(&[], true).await?.units;
        Ok(units.into_iter().map(|unit| (unit.name.to_string(), unit.description)).collect())
    });
    candidates(typed, names).into_iter().chain(files).collect()
}

/// Names of machines, or their ids when they have none.
pub fn machines(typed: &OsStr) -> Vec<CompletionCandidate> {
    let names = ask(|client| async move {
        let machines = client.machines(true).await?.machines.into_iter();
        Ok(machines
            .map(|machine| match machine.name.is_empty() {
                true => (machine.id.to_string(), machine.address),
                false => (machine.name, machine.address),
            })
            .collect())
    });
    candidates(typed, names)
}

pub fn units_or_machines(typed: &OsStr) -> Vec<CompletionCandidate> {
    machines(typed).into_iter().chain(units(typed)).collect()
}

fn candidates(typed: &OsStr, names: Vec<(String, String)>) -> Vec<CompletionCandidate> {
    let typed = typed.to_str().unwrap_or_default();
    let matching = names.into_iter().filter(|(name, _)| name.starts_with(typed));
    matching
        .map(|(name, told)| {
            let help = (!told.is_empty()).then(|| told.into());
            CompletionCandidate::new(name).help(help)
        })
        .collect()
}

/// Files and folders whose path begins like this.
fn files_beginning(typed: &str) -> Vec<CompletionCandidate> {
    let (folder, base) = typed.rsplit_once('/').map_or(("", typed), |(folder, base)| (folder, base));
    let prefix = &typed[..typed.len() - base.len()];
    let place = match prefix {
        "" => ".",
        "/" => "/",
        _ => folder,
    };
    let Ok(entries) = std::fs::read_dir(place) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let is_hidden = name.starts_with('.') && !base.starts_with('.');
        let is_folder = entry.path().is_dir();
        let is_unit = cluster::UnitName::new(&name).is_ok();
        (name.starts_with(base) && !is_hidden && (is_folder || is_unit))
            .then(|| format!("{prefix}{name}{}", if is_folder { "/" } else { "" }))
    });
    names.map(CompletionCandidate::new).collect()
}

fn ask<F>(question: impl FnOnce(Client) -> F) -> Vec<(String, String)>
where
    F: Future<Output = Result<Vec<(String, String)>, ClientError>>,
{
    let set = |variable| std::env::var(variable).ok();
    let (endpoint, context) = (set("COREINIT_ENDPOINT"), set("COREINIT_CONTEXT"));
    let connection = Connection { endpoint, context, ..Connection::default() };
    let Ok(endpoint) = connection.target() else { return Vec::new() };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return Vec::new();
    };
    let answer = question(Client::new(endpoint).with_limit(Some(PATIENCE)));
    runtime.block_on(answer).unwrap_or_default()
}
