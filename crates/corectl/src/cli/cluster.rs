//! What can be typed after `corectl cluster`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use cluster::PersonName;

use super::context::Invite;

#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Make this machine a cluster by itself
    Init {
        /// What the cluster is called
        #[arg(long)]
        name: Option<String>,
    },
    /// Tell who leads, and what this machine is in the cluster
    Status,
    /// Let somebody use the cluster from afar, and print the certificate and all else that they need
    Invite(Invite),
    /// Shut somebody out, at once
    Uninvite {
        #[arg(value_parser = PersonName::new)]
        name: PersonName,
    },
    /// List who may use the cluster from afar
    People,
    /// Move the cluster's state from the daemons into an etcd, or back, while no daemon runs
    Migrate(Migrate),
}

#[derive(Debug, Args)]
pub struct Migrate {
    /// Where the state is; it is left there untouched
    #[arg(long, value_enum)]
    pub from: BackendName,
    /// Where it goes; nothing may be there yet
    #[arg(long, value_enum)]
    pub to: BackendName,
    /// The daemon's configuration, with the data folder and the etcd
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The members of the etcd, if the configuration does not name them
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub etcd: Vec<String>,
    /// The daemon's program
    #[arg(long, value_name = "FILE", default_value = "coreinitd", hide_short_help = true)]
    pub daemon: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BackendName {
    Raft,
    Etcd,
}
