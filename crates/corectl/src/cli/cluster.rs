//! What can be typed after `corectl cluster`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

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
    /// The daemon's configuration, with the data folder and the etcd
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
