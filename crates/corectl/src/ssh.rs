//! `ssh`: a shell or a command on a machine, by the ssh program and its own configuration.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, bail};
use api::Client;
use api::v1::Machine;

use crate::connect::Connection;
use crate::machines::{self, Found};
use crate::names::unit_name;
use crate::{Exit, cli};

/// How the ssh program is called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SshOptions {
    pub user: Option<String>,
    pub port: Option<u16>,
    pub timeout: Option<Duration>,
    pub known_hosts_file: Option<PathBuf>,
    pub strict: Option<bool>,
    pub forward_agent: bool,
    /// A machine to go through.
    pub jump: Option<String>,
}

impl SshOptions {
    /// Arguments that end with the host, so that a command may follow.
    pub fn to(&self, host: &str) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut option = |text: String| arguments.extend(["-o".to_string(), text]);
        if let Some(timeout) = self.timeout {
            // ssh counts whole seconds, and 0 would be no limit.
            option(format!("ConnectTimeout={}", timeout.as_secs_f64().ceil().max(1.0)));
        }
        match (self.strict, &self.known_hosts_file) {
            (Some(false), _) => {
                option("StrictHostKeyChecking=no".into());
                option("UserKnownHostsFile=/dev/null".into());
                option("LogLevel=ERROR".into());
            }
            (_, Some(file)) => option(format!("UserKnownHostsFile={}", file.display())),
            (_, None) => {}
        }
        let (user, host, port) = parts(host);
        if let Some(jump) = &self.jump {
            let (jump_user, jump_host, jump_port) = parts(jump);
            let user = jump_user.or(self.user.as_deref()).map(|user| format!("{user}@")).unwrap_or_default();
            let port = jump_port.map(|port| format!(":{port}")).unwrap_or_default();
            arguments.extend(["-J".into(), format!("{user}{jump_host}{port}")]);
        }
        if let Some(user) = user.or(self.user.as_deref()) {
            arguments.extend(["-l".into(), user.into()]);
        }
        if let Some(port) = port.or(self.port.filter(|port| *port != 22)) {
            arguments.extend(["-p".into(), port.to_string()]);
        }
        if self.forward_agent {
            arguments.push("-A".into());
        }
        // A host that begins with a dash is not an option.
        arguments.extend(["--".into(), host.into()]);
        arguments
    }

    /// Runs a command there, or a shell, with this terminal; gives its exit status.
    pub async fn run(&self, host: &str, command: &[String]) -> anyhow::Result<Exit> {
        let mut ssh = tokio::process::Command::new("ssh");
        ssh.args(self.to(host)).args(command).kill_on_drop(true);
        let status = ssh.status().await.context("cannot run ssh")?;
        Ok(exit_of(status))
    }
}

/// `[USER@]HOST[:PORT]`; an IPv6 address with a port stands in brackets.
fn parts(host: &str) -> (Option<&str>, &str, Option<u16>) {
    let (user, host) = host.rsplit_once('@').map_or((None, host), |(user, host)| (Some(user), host));
    if let Some((address, rest)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (user, address, rest.strip_prefix(':').and_then(|port| port.parse().ok()));
    }
    match host.split_once(':') {
        Some((name, port)) if !port.contains(':') => match port.parse() {
            Ok(port) => (user, name, Some(port)),
            Err(_) => (user, host, None),
        },
        _ => (user, host, None),
    }
}

/// A program's own; 255 when a signal ended it, as ssh says it.
pub fn exit_of(status: ExitStatus) -> Exit {
    Exit::Code(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(255))
}

pub async fn run(client: &Client, connection: &Connection, ssh: &cli::Ssh) -> anyhow::Result<Exit> {
    let mut words = ssh.words.iter().cloned();
    let machine = match (&ssh.machine, &ssh.unit) {
        (Some(machine), _) => by_machine(client, machine).await?,
        (None, Some(unit)) => by_unit(client, unit).await?,
        (None, None) => {
            let Some(target) = words.next() else { bail!("name a machine or a unit") };
            match (by_machine(client, &target).await, by_unit(client, &target).await) {
                (Ok(_), Ok(_)) => {
                    bail!("{target:?} is a machine and a unit; say which with --machine or --unit")
                }
                (Ok(machine), Err(_)) | (Err(_), Ok(machine)) => machine,
                (Err(machine), Err(unit)) => bail!("{machine:#}; {unit:#}"),
            }
        }
    };
    if machine.address.is_empty() {
        bail!("{} has not told its address", machine.name);
    }
    let options = SshOptions {
        port: ssh.ssh_port,
        forward_agent: ssh.forward_agent,
        jump: connection.tunnel.clone().filter(|tunnel| !tunnel.is_empty()),
        ..connection.ssh()
    };
    let mut command: Vec<String> = words.collect();
    // It says where the command begins, which is here anyway.
    if command.first().is_some_and(|word| word == "--") {
        command.remove(0);
    }
    options.run(&machine.address, &command).await
}

async fn by_machine(client: &Client, text: &str) -> anyhow::Result<Machine> {
    let machines = client.machines(true).await?.machines;
    match machines::find(&machines, text) {
        Found::One(machine) => Ok(machine.clone()),
        Found::None => bail!("no machine is called {text:?}"),
        Found::Several => bail!("several machines are called {text:?}; name one by its whole id"),
    }
}

async fn by_unit(client: &Client, text: &str) -> anyhow::Result<Machine> {
    let name = unit_name(text)?;
    let Some(unit) = client.unit(&name, true).await? else { bail!("there is no unit {name}") };
    let Some(home) = &unit.machine else {
        let many = if unit.global { "on many machines; name one" } else { "on no machine" };
        bail!("unit {name} is {many}");
    };
    let machines = client.machines(true).await?.machines;
    let found = machines.into_iter().find(|machine| machine.id == *home);
    found.with_context(|| format!("the machine of {name} is not known"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_options_as_ssh_takes_them() {
        let check = |options: &SshOptions, host: &str, expected: &str| {
            assert_eq!(options.to(host).join(" "), expected);
        };
        let none = SshOptions::default();
        check(&none, "10.0.0.1", "-- 10.0.0.1");
        check(&none, "core@h1:2222", "-l core -p 2222 -- h1");
        check(&none, "[fd00::1]:22", "-p 22 -- fd00::1");
        check(&none, "fd00::1", "-- fd00::1");
        check(&none, "-oProxyCommand=x", "-- -oProxyCommand=x");
        let all = SshOptions {
            user: Some("core".into()),
            port: Some(2222),
            timeout: Some(Duration::from_millis(1500)),
            known_hosts_file: Some("/k".into()),
            strict: Some(true),
            forward_agent: true,
            jump: Some("bastion:7".into()),
        };
        check(
            &all,
            "h1",
            "-o ConnectTimeout=2 -o UserKnownHostsFile=/k -J core@bastion:7 -l core -p 2222 -A -- h1",
        );
        let trusting = SshOptions { strict: Some(false), ..none };
        check(
            &trusting,
            "h1",
            "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -- h1",
        );
    }
}
