//! What can be typed.

use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// systemd at the level of the cluster: start unit files on one of many machines.
#[derive(Debug, Parser)]
#[command(name = "corectl", version, disable_help_subcommand = true, infer_subcommands = true)]
pub struct Cli {
    /// The daemon to talk to
    #[arg(long, global = true, env = "COREINIT_ENDPOINT", default_value = "unix:///run/coreinit.sock")]
    pub endpoint: String,
    /// How tables and status are printed
    #[arg(long, short, global = true, value_enum, default_value_t = Format::Plain)]
    pub output: Format,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Plain,
    /// What the daemon's API answers
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Have units placed and started, and wait until they run
    Start(Wish),
    /// Stop units; they stay loaded on their machines
    Stop(Change),
    /// Have units placed and made known to a machine's systemd, without starting them
    Load(Wish),
    /// Take units from their machines; the cluster keeps their files
    Unload(Change),
    /// Give unit files to the cluster, without placing them
    Submit(Wish),
    /// Stop units and forget them
    Destroy(Change),
    /// Print a unit's file
    Cat(Cat),
    /// Tell all that is known of units
    Status(Status),
    /// List units and what their machines say of them
    ListUnits(ListOf),
    /// List unit files and what is wanted of them
    ListUnitFiles(ListOf),
    /// List the cluster's machines
    ListMachines(List),
    /// Form a cluster, and ask about it
    #[command(subcommand)]
    Cluster(ClusterCommand),
}

/// For units that may have to be created.
#[derive(Debug, Args)]
pub struct Wish {
    /// Unit files, or names of units that the cluster or a template has
    #[arg(required = true, value_name = "UNIT")]
    pub units: Vec<String>,
    /// Replace units whose files differ from the given ones
    #[arg(long)]
    pub replace: bool,
    #[command(flatten)]
    pub wait: Wait,
}

/// For units that exist.
#[derive(Debug, Args)]
pub struct Change {
    /// Names of units, or quoted patterns such as 'web@*.service'
    #[arg(required = true, value_name = "UNIT")]
    pub units: Vec<String>,
    #[command(flatten)]
    pub wait: Wait,
}

#[derive(Debug, Args)]
pub struct Wait {
    /// Do not wait until the wish has come true on the machines
    #[arg(long)]
    pub no_block: bool,
    /// Wait no longer than this, such as 90s or 5min, and fail; the wish stays. Without it, wait for as long
    /// as it takes
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub timeout: Option<Duration>,
}

#[derive(Debug, Args)]
pub struct Cat {
    #[arg(value_name = "UNIT")]
    pub unit: String,
    #[command(flatten)]
    pub read: Read,
}

#[derive(Debug, Args)]
pub struct Status {
    /// Names of units, or quoted patterns such as 'web@*.service'
    #[arg(required = true, value_name = "UNIT")]
    pub units: Vec<String>,
    #[command(flatten)]
    pub read: Read,
}

#[derive(Debug, Args)]
pub struct ListOf {
    /// Only these units: names, or quoted patterns such as 'web@*.service'
    #[arg(value_name = "UNIT")]
    pub units: Vec<String>,
    #[command(flatten)]
    pub list: List,
}

#[derive(Debug, Args)]
pub struct List {
    /// Print ids, hashes and descriptions whole
    #[arg(long, short = 'l')]
    pub full: bool,
    /// Print no header line
    #[arg(long)]
    pub no_legend: bool,
    #[command(flatten)]
    pub read: Read,
}

#[derive(Debug, Args)]
pub struct Read {
    /// Answer from what this machine knows, which may be old; needs no leader
    #[arg(long)]
    pub stale: bool,
}

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
}

/// `90s`, `500ms`, `1.5h`; a bare number is seconds.
fn time(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let factor = match &text[split..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err("write a time such as 90s, 500ms, 5min or 1h".into()),
    };
    let number: f64 = text[..split].parse().map_err(|_| "write a time such as 90s".to_string())?;
    Duration::try_from_secs_f64(number * factor).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times() {
        for (text, ms) in
            [("90s", 90_000), ("500ms", 500), ("1.5", 1500), ("2min", 120_000), ("1h", 3_600_000)]
        {
            assert_eq!(time(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "soon", "5d", "-1s"] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
