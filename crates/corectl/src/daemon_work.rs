//! What the daemon's program does for a command while no daemon runs: it knows the store, and `corectl` does
//! not. What it says goes to the person who typed.

use std::process::Command;

use anyhow::Context;

use crate::Exit;
use crate::cli::{BackendName, Migrate, Offline, Recover, Restore};

/// `cluster restore`.
pub fn restore(restore: &Restore) -> anyhow::Result<Exit> {
    let mut arguments = vec!["--restore".into(), restore.file.clone().into_os_string()];
    if restore.replace {
        arguments.push("--sure".into());
    }
    run(&restore.offline, arguments)
}

/// `cluster recover`.
pub fn recover(recover: &Recover) -> anyhow::Result<Exit> {
    let mut arguments = vec!["--recover".into()];
    if recover.yes {
        arguments.push("--sure".into());
    }
    run(&recover.offline, arguments)
}

/// `cluster migrate`: the state moves from one backend to the other.
pub fn migrate(migrate: &Migrate) -> anyhow::Result<Exit> {
    anyhow::ensure!(migrate.from != migrate.to, "--from and --to are the same");
    let name = match migrate.to {
        BackendName::Raft => "raft",
        BackendName::Etcd => "etcd",
    };
    let mut arguments = vec![format!("--migrate-to={name}").into()];
    if !migrate.etcd.is_empty() {
        arguments.push(format!("--etcd-endpoints={}", migrate.etcd.join(",")).into());
    }
    run(&migrate.offline, arguments)
}

fn run(offline: &Offline, arguments: Vec<std::ffi::OsString>) -> anyhow::Result<Exit> {
    let mut daemon = Command::new(&offline.daemon);
    daemon.args(arguments);
    if let Some(config) = &offline.config {
        daemon.arg("--config").arg(config);
    }
    let status = daemon.status().with_context(|| format!("cannot run {}", offline.daemon.display()))?;
    Ok(if status.success() { Exit::Done } else { Exit::Failed })
}
