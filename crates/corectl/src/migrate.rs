//! `cluster migrate`: the state moves from one backend to the other. The daemon's program does it, since it
//! has both of them; no daemon runs meanwhile.

use std::process::Command;

use anyhow::Context;

use crate::Exit;
use crate::cli::{BackendName, Migrate};

pub fn run(migrate: &Migrate) -> anyhow::Result<Exit> {
    anyhow::ensure!(migrate.from != migrate.to, "--from and --to are the same");
    let name = |backend| match backend {
        BackendName::Raft => "raft",
        BackendName::Etcd => "etcd",
    };
    let mut daemon = Command::new(&migrate.daemon);
    daemon.arg(format!("--migrate-to={}", name(migrate.to)));
    if let Some(config) = &migrate.config {
        daemon.arg("--config").arg(config);
    }
    if !migrate.etcd.is_empty() {
        daemon.arg(format!("--etcd-endpoints={}", migrate.etcd.join(",")));
    }
    let status = daemon.status().with_context(|| format!("cannot run {}", migrate.daemon.display()))?;
    Ok(if status.success() { Exit::Done } else { Exit::Failed })
}
