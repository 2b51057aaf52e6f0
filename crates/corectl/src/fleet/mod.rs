//! fleet's command line, under fleet's names: its flags, columns, messages, streams and exit codes, over our
//! API. `docs/corectl.md` lists what differs, and why.
//!
//! What it shows and what it waits for are corectl's own; here are only fleet's words for it.

mod change;
mod create;
mod flags;
mod help;
mod lists;
mod look;
mod spec;
mod table;
mod words;

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use api::{Client, Endpoint, SOCKET_PATH};

use crate::connect::Connection;
use crate::ssh::SshOptions;
use crate::tunnel::Tunnel;
use crate::{Exit, forward, output};
use flags::{Flags, Line, Parsed};

/// The names that it answers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    Fleetctl,
    Fltctl,
}

impl Name {
    /// From the path that the program was called by.
    pub fn of(called: &OsStr) -> Option<Name> {
        match Path::new(called).file_name()?.to_str()? {
            "fleetctl" => Some(Name::Fleetctl),
            "fltctl" => Some(Name::Fltctl),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Name::Fleetctl => "fleetctl",
            Name::Fltctl => "fltctl",
        }
    }

    /// The variable that stands for a global flag.
    fn variable(self, flag: &str) -> String {
        format!("{}_{}", self.as_str().to_uppercase(), flag.to_uppercase().replace('-', "_"))
    }

    /// Where its daemon listened.
    fn socket(self) -> &'static str {
        match self {
            Name::Fleetctl => "/var/run/fleet.sock",
            Name::Fltctl => "/var/run/flt.sock",
        }
    }
}

/// A command under way.
struct Fleet {
    client: Client,
    flags: Flags,
    ssh: SshOptions,
    _tunnel: Option<Tunnel>,
}

/// Why a command came to nothing, in fleet's words; the exit code is 1.
type Told<T> = Result<T, String>;

pub async fn run(name: Name, words: &[String]) -> anyhow::Result<Exit> {
    let line = match flags::parse(name, words, &|variable| std::env::var(variable).ok()) {
        Parsed::Line(line) => line,
        Parsed::Help(spec) => {
            output::text(&help::of(name, spec));
            return Ok(Exit::Done);
        }
        Parsed::Version => {
            output::line(&format!("{} version {}", name.as_str(), env!("CARGO_PKG_VERSION")));
            return Ok(Exit::Done);
        }
        Parsed::Wrong { usage, why } => {
            output::text(&usage);
            output::note(&why);
            return Ok(Exit::Code(2));
        }
    };
    let done = match line.command {
        "fd-forward" => match &line.words[..] {
            [socket] => match forward::run(Path::new(socket)).await {
                Ok(exit) => Ok(exit),
                Err(error) => Err(format!("Failed dialing remote address: {error:#}")),
            },
            _ => Err("Provide a single argument".into()),
        },
        "verify" => {
            output::note("Command \"verify\" is deprecated, DEPRECATED - No longer works");
            output::note("WARNING: The signed/verified units feature is DEPRECATED and cannot be used.");
            return Ok(Exit::Code(2));
        }
        _ => match connect(name, &line).await {
            Ok(fleet) => command(&fleet, &line).await,
            Err(why) => Err(format!("Unable to initialize client: {why}")),
        },
    };
    Ok(done.unwrap_or_else(|why| {
        output::note(&why);
        Exit::Failed
    }))
}

async fn command(fleet: &Fleet, line: &Line) -> Told<Exit> {
    match line.command {
        "list-machines" => lists::machines(fleet).await,
        "list-units" => lists::units(fleet).await,
        "list-unit-files" => lists::unit_files(fleet).await,
        "submit" => change::submit(fleet, &line.words).await,
        "load" => change::launch(fleet, &line.words, change::Verb::Load).await,
        "start" => change::launch(fleet, &line.words, change::Verb::Start).await,
        "stop" => change::withdraw(fleet, &line.words, change::Verb::Stop).await,
        "unload" => change::withdraw(fleet, &line.words, change::Verb::Unload).await,
        "destroy" => change::destroy(fleet, &line.words).await,
        "restart" => change::restart(fleet, &line.words).await,
        "cat" => look::cat(fleet, &line.words).await,
        "status" => look::status(fleet, &line.words).await,
        "journal" => look::journal(fleet, &line.words).await,
        "ssh" => look::ssh(fleet, &line.words).await,
        other => Err(format!("no such command: {other}")),
    }
}

async fn connect(name: Name, line: &Line) -> Told<Fleet> {
    let flags = line.flags.clone();
    match flags.text("driver") {
        "API" => {}
        "etcd" => return Err("the etcd driver is gone: the daemons keep the state themselves".into()),
        other => return Err(format!("unrecognized driver {other:?}")),
    }
    let endpoint = endpoint(name, &flags)?;
    let timeout = flags.seconds("ssh-timeout");
    let ssh = Connection {
        ssh_username: Some(flags.text("ssh-username").into()).filter(|user: &String| !user.is_empty()),
        ssh_timeout: timeout,
        known_hosts_file: Some(home(flags.text("known-hosts-file"))),
        strict_host_key_checking: Some(flags.is_on("strict-host-key-checking")),
        ..Connection::default()
    }
    .ssh();
    let tunnel = match flags.text("tunnel") {
        "" => None,
        host => match Tunnel::open(&ssh, host, &endpoint, timeout).await {
            Ok(tunnel) => Some(tunnel),
            Err(error) => return Err(format!("failed initializing SSH client: {error:#}")),
        },
    };
    let endpoint = tunnel.as_ref().map_or(endpoint, Tunnel::endpoint);
    let limit = if flags.is_given("request-timeout") { flags.seconds("request-timeout") } else { None };
    let trace: Option<fn(&str)> = if flags.is_on("debug") { Some(debug) } else { None };
    let client = Client::new(endpoint).with_limit(limit).with_trace(trace);
    Ok(Fleet { client, flags, ssh, _tunnel: tunnel })
}

fn debug(text: &str) {
    words::log("DEBUG", text);
}

fn endpoint(name: Name, flags: &Flags) -> Told<Endpoint> {
    let text = flags.text("endpoint");
    let (first, more) = text.split_once(',').map_or((text, false), |(first, _)| (first, true));
    if more {
        words::log("WARN", &format!("multiple endpoints provided but only the first ({first}) is used"));
    }
    let Some((scheme, rest)) = first.split_once("://") else { return Err("URL scheme undefined".into()) };
    match scheme {
        "unix" | "file" => match rest.split_once('/') {
            Some(("", _)) => {
                // A daemon that is not told to listen where fleet's did still listens where ours does.
                let usual = !flags.is_given("endpoint") && !Path::new(name.socket()).exists();
                let path = if usual && Path::new(SOCKET_PATH).exists() { SOCKET_PATH } else { rest };
                Ok(Endpoint::Unix(path.into()))
            }
            _ => {
                let host = rest.split('/').next().unwrap_or_default();
                Err(format!("unable to connect to host {host:?} with scheme {scheme:?}"))
            }
        },
        "http" => Endpoint::parse(first).map_err(|error| error.to_string()),
        "https" => Err("https is not served yet; use --tunnel".into()),
        other => Err(format!("URL scheme {other:?} is not supported")),
    }
}

/// `~/` as shells have it.
fn home(path: &str) -> std::path::PathBuf {
    match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => path.into(),
    }
}

/// One of fleet's attempts at waiting.
const ATTEMPT: Duration = Duration::from_secs(2);

impl Fleet {
    /// How a wait is limited.
    fn wait(&self) -> crate::cli::Wait {
        let attempts = self.flags.number("block-attempts");
        let timeout = u32::try_from(attempts).ok().filter(|n| *n > 0).map(|n| ATTEMPT.saturating_mul(n));
        crate::cli::Wait { no_block: self.flags.is_on("no-block"), timeout, block_attempts: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_fleets_names_are_fleet() {
        let check = |path: &str, expected| assert_eq!(Name::of(OsStr::new(path)), expected, "{path}");
        check("fleetctl", Some(Name::Fleetctl));
        check("/usr/bin/fltctl", Some(Name::Fltctl));
        check("/usr/bin/corectl", None);
        check("fleetctl.bak", None);
        assert_eq!(Name::Fltctl.variable("ssh-username"), "FLTCTL_SSH_USERNAME");
    }
}
