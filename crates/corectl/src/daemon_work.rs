//! What the daemon's program does for a command while no daemon runs: it knows the store, and `corectl` does
//! not. What it says goes to the person who typed.

use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::cli::{BackendName, Migrate, Offline, Recover, Restore};
use crate::{Exit, environment_file};

/// What `coreinitd.service` gives the daemon.
const ENVIRONMENT: &str = "/etc/default/coreinitd";
/// How its variables begin.
const PREFIX: &str = "COREINIT_";

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
    match &offline.config {
        Some(config) => drop(daemon.arg("--config").arg(config)),
        None => drop(daemon.envs(of_the_service(Path::new(ENVIRONMENT), &is_set)?)),
    }
    let status = daemon.status().with_context(|| format!("cannot run {}", offline.daemon.display()))?;
    Ok(if status.success() { Exit::Done } else { Exit::Failed })
}

fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some()
}

/// The daemon's variables as its service has them, but for those that are set here.
fn of_the_service(
    path: &Path,
    is_set: &dyn Fn(&str) -> bool,
) -> anyhow::Result<impl Iterator<Item = (String, String)>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let all = environment_file::read(&text).into_iter();
    let kept: Vec<_> = all.filter(|(name, _)| name.starts_with(PREFIX) && !is_set(name)).collect();
    Ok(kept.into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_services_variables_count_and_the_shells_before_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("coreinitd");
        let read = || {
            let read = of_the_service(&path, &|name| name == "COREINIT_LISTEN").unwrap();
            read.collect::<Vec<_>>()
        };
        assert_eq!(read(), []);
        let text = "# where\nCOREINIT_DATA_DIR='/srv/core init'\nCOREINIT_LISTEN=a\nPATH=/x\n";
        std::fs::write(&path, text).unwrap();
        assert_eq!(read(), [("COREINIT_DATA_DIR".to_string(), "/srv/core init".to_string())]);
    }
}
