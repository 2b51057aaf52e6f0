//! What can be typed after `corectl cluster`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use clap_complete::engine::ArgValueCompleter;

use crate::completion::machines;
use cluster::PersonName;

use super::context::Invite;

#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Make this machine a cluster by itself
    Init {
        /// What the cluster is called
        #[arg(long)]
        name: Option<String>,
        /// Where the other machines reach this one, HOST or HOST:PORT; for a machine with several networks
        #[arg(long, value_name = "ADDRESS")]
        advertise: Option<String>,
    },
    /// Make this machine a member of a cluster, by a token that one of its members has made
    Join(Join),
    /// Take this machine out of its cluster: its units move away first
    Leave(Leave),
    /// Take a machine out of the cluster for good, such as one that is dead
    Remove(Remove),
    /// Let a machine that was removed come back
    Readmit {
        /// Its whole id
        #[arg(value_name = "ID")]
        machine: String,
    },
    /// List the members: who votes, who lags behind, when each was heard last
    Members,
    /// Tell who leads, and what this machine is in the cluster
    Status,
    /// Replace the authority and the secret that machines know each other by, while they run
    RotateCa(RotateCa),
    /// Let somebody use the cluster from afar, and print the certificate and all else that they need
    Invite(Invite),
    /// Shut somebody out, at once
    Uninvite {
        #[arg(value_parser = PersonName::new)]
        name: PersonName,
    },
    /// List who may use the cluster from afar
    People,
    /// Write all that the cluster keeps into a file, while it runs; any machine will do
    Backup(Backup),
    /// Make this machine the first of a new cluster with the state of a backup, while no daemon runs here
    Restore(Restore),
    /// Make this machine the only one of a new cluster, of what is in its store, when most of the machines
    /// that vote are gone for good; while no daemon runs here
    Recover(Recover),
    /// Move the cluster's state from the daemons into an etcd, or back, while no daemon runs
    Migrate(Migrate),
}

#[derive(Debug, Args)]
pub struct Join {
    /// What `corectl token create` printed on a member; - reads it from standard input, where no list of
    /// processes shows it
    pub token: String,
    /// Members of the cluster, HOST or HOST:PORT; the first that answers is asked
    #[arg(required = true, value_name = "ADDRESS")]
    pub addresses: Vec<String>,
    /// Where the other machines reach this one, HOST or HOST:PORT; without it, it is the address that this
    /// machine reaches the member from
    #[arg(long, value_name = "ADDRESS")]
    pub advertise: Option<String>,
    /// Do nothing if the machine is a member of a cluster already
    #[arg(long)]
    pub unless_member: bool,
}

#[derive(Debug, Args)]
pub struct Leave {
    /// Do not move its units away one after another: they stop here, and are started anew where they can be
    #[arg(long)]
    pub no_drain: bool,
    /// Wait for its units to move no longer than this, such as 90s or 5min
    #[arg(long, value_name = "TIME", value_parser = super::time)]
    pub timeout: Option<Duration>,
}

#[derive(Debug, Args)]
pub struct RotateCa {
    /// The new secret; needed where machines have theirs from cluster_secret_file, else one is made
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// Begin nothing: tell how far it is, until it is over
    #[arg(long, conflicts_with = "secret_file")]
    pub watch: bool,
    /// Keep the old authority, while machines still show certificates of it
    #[arg(long, conflicts_with_all = ["secret_file", "watch"])]
    pub abort: bool,
}

#[derive(Debug, Args)]
pub struct Remove {
    /// Its name, or the beginning of its id
    #[arg(value_name = "MACHINE", add = ArgValueCompleter::new(machines))]
    pub machine: String,
    /// Although it is alive
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token that lets machines in, and print the command that uses it
    Create(TokenWish),
    /// List tokens, without what lets anybody in
    List,
    /// Have tokens let nobody in any more
    Revoke {
        /// As `corectl token list` has them
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Revoke all tokens and make a new one
    Rotate(TokenWish),
}

#[derive(Debug, Args)]
pub struct TokenWish {
    /// How long it lets machines in, such as 30min, 24h or 7d, or `never` for one that does not end
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = ttl)]
    pub ttl: Ttl,
    /// How many machines it lets in [default: any number]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub uses: Option<u32>,
}

/// Of a token; `None`: it does not end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttl(pub Option<Duration>);

fn ttl(text: &str) -> Result<Ttl, String> {
    if text == "never" {
        return Ok(Ttl(None));
    }
    let days = text.strip_suffix('d').and_then(|days| days.parse::<u32>().ok());
    let span = days.map(|days| Duration::from_secs(86_400 * u64::from(days)));
    let span = span.map_or_else(|| super::time(text), Ok)?;
    match span < Duration::from_secs(1) {
        true => Err("write a time such as 30min, 24h or 7d, or never".into()),
        false => Ok(Ttl(Some(span))),
    }
}

#[derive(Debug, Args)]
pub struct Migrate {
    /// Where the state is; it is left there untouched
    #[arg(long, value_enum)]
    pub from: BackendName,
    /// Where it goes; nothing may be there yet
    #[arg(long, value_enum)]
    pub to: BackendName,
    /// The members of the etcd, if the configuration does not name them
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub etcd: Vec<String>,
    #[command(flatten)]
    pub offline: Offline,
}

#[derive(Debug, Args)]
pub struct Backup {
    /// `-`: standard output
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

#[derive(Debug, Args)]
pub struct Restore {
    /// What `corectl cluster backup` wrote; `-`: standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Move a store of a cluster aside that is here already, or a damaged one
    #[arg(long)]
    pub replace: bool,
    #[command(flatten)]
    pub offline: Offline,
}

#[derive(Debug, Args)]
pub struct Recover {
    /// Do it; without it, only tell what would be done
    #[arg(long, short)]
    pub yes: bool,
    #[command(flatten)]
    pub offline: Offline,
}

/// What is done by the daemon's program.
#[derive(Debug, Args)]
pub struct Offline {
    /// The daemon's configuration, with the data folder and the etcd; without it, what coreinitd.service has,
    /// with the variables of /etc/default/coreinitd
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The daemon's program
    #[arg(long, value_name = "FILE", default_value = "coreinitd", hide_short_help = true)]
    pub daemon: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BackendName {
    Raft,
    Etcd,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_lives_for_days_or_for_ever() {
        assert_eq!(ttl("7d"), Ok(Ttl(Some(Duration::from_secs(7 * 86_400)))));
        assert_eq!(ttl("90min"), Ok(Ttl(Some(Duration::from_secs(5400)))));
        assert_eq!(ttl("never"), Ok(Ttl(None)));
        for wrong in ["", "0", "soon", "-1d", "1w"] {
            assert!(ttl(wrong).is_err(), "{wrong}");
        }
    }
}
