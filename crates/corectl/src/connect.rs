//! How the daemon is reached: on a socket of this machine, on a TCP port, through ssh, or from afar with a
//! certificate.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use api::{Client, Context, Endpoint};
use clap::Args;

use crate::contexts::{Contexts, LOCAL};
use crate::date::{date, is_past};
use crate::output;
use crate::ssh::SshOptions;
use crate::tunnel::Tunnel;

#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Connection")]
pub struct Connection {
    /// The daemon to talk to: unix:///PATH or http://HOST:PORT [default: unix:///run/coreinit.sock]
    #[arg(long, global = true, env = "COREINIT_ENDPOINT")]
    pub endpoint: Option<String>,
    /// The cluster to talk to from afar, of `corectl context list`; `local` is the daemon of this machine
    #[arg(long, global = true, env = "COREINIT_CONTEXT", value_name = "NAME")]
    pub context: Option<String>,
    /// Talk to the daemon of this machine, through ssh
    #[arg(long, global = true, env = "COREINIT_TUNNEL", value_name = "[USER@]HOST[:PORT]")]
    pub tunnel: Option<String>,
    /// Give up a request after this time
    #[arg(long, global = true, env = "COREINIT_REQUEST_TIMEOUT")]
    #[arg(value_name = "TIME", value_parser = crate::cli::time, hide_short_help = true)]
    pub request_timeout: Option<Duration>,
    /// Print each request and what was answered
    #[arg(long, global = true, env = "COREINIT_DEBUG", hide_short_help = true)]
    pub debug: bool,
    /// Whom to be on other machines; ssh decides without it
    #[arg(long, global = true, env = "COREINIT_SSH_USERNAME", value_name = "USER", hide_short_help = true)]
    pub ssh_username: Option<String>,
    /// How long ssh may take to connect
    #[arg(long, global = true, env = "COREINIT_SSH_TIMEOUT")]
    #[arg(value_name = "TIME", value_parser = crate::cli::time, hide_short_help = true)]
    pub ssh_timeout: Option<Duration>,
    /// Where ssh keeps the keys of machines
    #[arg(
        long,
        global = true,
        env = "COREINIT_KNOWN_HOSTS_FILE",
        value_name = "FILE",
        hide_short_help = true
    )]
    pub known_hosts_file: Option<PathBuf>,
    /// `false`: take any machine for what it says to be
    #[arg(long, global = true, env = "COREINIT_STRICT_HOST_KEY_CHECKING")]
    #[arg(value_name = "true|false", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", hide_short_help = true)]
    pub strict_host_key_checking: Option<bool>,
    #[command(flatten)]
    pub fleets: Fleets,
}

/// Flags of fleet's that mean nothing any more.
#[derive(Clone, Debug, Default, Args)]
pub struct Fleets {
    #[arg(long, global = true, hide = true)]
    driver: Option<String>,
    #[arg(long, global = true, hide = true)]
    etcd_key_prefix: Option<String>,
    #[arg(long, global = true, hide = true, num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true")]
    experimental_api: Option<String>,
    #[arg(long, global = true, hide = true, alias = "etcd-cafile")]
    ca_file: Option<String>,
    #[arg(long, global = true, hide = true, alias = "etcd-certfile")]
    cert_file: Option<String>,
    #[arg(long, global = true, hide = true, alias = "etcd-keyfile")]
    key_file: Option<String>,
}

impl Fleets {
    fn check(&self) -> anyhow::Result<()> {
        if let Some(driver) = self.driver.as_ref().filter(|driver| *driver != "API") {
            bail!("there is no driver {driver:?}: the daemons keep the state themselves, so API is all");
        }
        let given = [
            ("--etcd-key-prefix", &self.etcd_key_prefix),
            ("--experimental-api", &self.experimental_api),
            ("--ca-file", &self.ca_file),
            ("--cert-file", &self.cert_file),
            ("--key-file", &self.key_file),
        ];
        for (flag, _) in given.into_iter().filter(|(_, value)| value.is_some()) {
            output::problem(&format!("{flag} has no effect any more"));
        }
        Ok(())
    }
}

fn is_from(value: &str, variable: &str) -> bool {
    std::env::var(variable).is_ok_and(|set| set == value)
}

fn in_context(name: &str, tunnelled: bool) -> anyhow::Result<Endpoint> {
    if name == LOCAL {
        return Ok(Endpoint::default());
    }
    ensure!(!tunnelled, "a context needs no tunnel: leave --tunnel or --context {name}");
    let kept = Contexts::load()?;
    let context = kept.get(name)?;
    let Context { person, role, expires, .. } = context;
    ensure!(
        !is_past(*expires),
        "{person}'s certificate in the context {name:?} has expired, on {} by this machine's clock; whoever \
         administers the cluster makes another with `corectl cluster invite {person} --role \
         {role} --replace`, for \
         `corectl context add --replace {name} FILE`",
        date(*expires)
    );
    Endpoint::remote(context).with_context(|| format!("cannot use the context {name:?}"))
}

/// A client, and the tunnel that it needs, if any.
pub struct Connected {
    pub client: Client,
    _tunnel: Option<Tunnel>,
}

impl Connection {
    pub async fn open(&self) -> anyhow::Result<Connected> {
        self.fleets.check()?;
        let endpoint = self.target()?;
        let (endpoint, tunnel) = match &self.tunnel {
            Some(host) if !host.is_empty() => {
                let tunnel = Tunnel::open(&self.ssh(), host, &endpoint, self.ssh_timeout).await?;
                (tunnel.endpoint(), Some(tunnel))
            }
            Some(_) | None => (endpoint, None),
        };
        let trace: Option<fn(&str)> = if self.debug { Some(output::note) } else { None };
        let client = Client::new(endpoint).with_limit(self.request_timeout).with_trace(trace);
        Ok(Connected { client, _tunnel: tunnel })
    }

    /// What was named: an endpoint, or a context. Else the context in use, or the daemon of this machine.
    pub fn target(&self) -> anyhow::Result<Endpoint> {
        let (endpoint, context) = (self.endpoint.as_deref(), self.context.as_deref());
        let tunnelled = self.is_tunnelled();
        match (endpoint, context.filter(|name| !name.is_empty())) {
            (Some(endpoint), Some(context)) => {
                // What is typed goes before what is in the environment.
                match (is_from(endpoint, "COREINIT_ENDPOINT"), is_from(context, "COREINIT_CONTEXT")) {
                    (true, false) => in_context(context, tunnelled),
                    (false, true) => Ok(Endpoint::parse(endpoint)?),
                    _ => {
                        bail!("there is an endpoint, {endpoint}, and a context, {context}; name one of them")
                    }
                }
            }
            (Some(endpoint), None) => Ok(Endpoint::parse(endpoint)?),
            (None, Some(context)) => in_context(context, tunnelled),
            (None, None) if tunnelled => Ok(Endpoint::default()),
            (None, None) => match Contexts::load()?.current {
                Some(current) => in_context(&current, false),
                None => Ok(Endpoint::default()),
            },
        }
    }

    pub fn is_tunnelled(&self) -> bool {
        self.tunnel.as_ref().is_some_and(|host| !host.is_empty())
    }

    /// How ssh is to be called.
    pub fn ssh(&self) -> SshOptions {
        SshOptions {
            user: self.ssh_username.clone(),
            timeout: self.ssh_timeout,
            known_hosts_file: self.known_hosts_file.clone(),
            strict: self.strict_host_key_checking,
            ..SshOptions::default()
        }
    }
}
