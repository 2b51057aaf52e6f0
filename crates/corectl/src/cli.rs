//! What can be typed.

mod cluster;
mod context;
mod generate;
mod import;
mod reboot_lock;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::engine::ArgValueCompleter;

use crate::completion::{machines, units, units_or_machines};
use crate::connect::Connection;

pub use cluster::{
    BackendName, Backup, ClusterCommand, Join, Leave, Migrate, Offline, Recover, Remove, Restore, RotateCa,
    TokenCommand, TokenWish,
};
pub use context::{ContextCommand, Invite};
pub use generate::{Dialect, Generate, GenerateCommand, Variant};
pub use import::{FleetSource, ImportCommand};
pub use reboot_lock::{RebootLockCommand, RebootStrategy, Slot};

/// systemd at the level of the cluster: start unit files on one of many machines.
#[derive(Debug, Parser)]
#[command(name = "corectl", version, infer_subcommands = true)]
pub struct Cli {
    #[command(flatten)]
    pub connection: Connection,
    /// How things are printed: tables, status and plans as plain text or as JSON; a journal in any of
    /// journalctl's modes
    #[arg(long, short, global = true, value_enum, default_value_t = Format::Plain)]
    pub output: Format,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Plain,
    /// What the daemon's API answers; of a journal, one object a line
    Json,
    /// Of a journal: as in a log file (plain is this)
    Short,
    /// Of a journal: the messages alone
    Cat,
    #[value(hide = true)]
    ShortFull,
    #[value(hide = true)]
    ShortIso,
    #[value(hide = true)]
    ShortIsoPrecise,
    #[value(hide = true)]
    ShortPrecise,
    #[value(hide = true)]
    ShortMonotonic,
    #[value(hide = true)]
    ShortUnix,
    #[value(hide = true)]
    Verbose,
    #[value(hide = true)]
    Export,
    #[value(hide = true)]
    JsonPretty,
    #[value(hide = true)]
    JsonSse,
    #[value(hide = true)]
    JsonSeq,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Have units placed and started, and wait until they run
    Start(Start),
    /// Stop units; they stay loaded on their machines
    Stop(Change),
    /// Stop units and start them again, one after another
    Restart(Change),
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
    /// Tell all that is known of units, and what the systemd of their machines says
    Status(Status),
    /// Print a unit's journal, from whichever machine it is on
    Journal(Journal),
    /// Open a shell on a machine, or run a command there, by ssh
    Ssh(Ssh),
    /// Tell where a unit is or could be, and what each machine has against it
    Explain(Explain),
    /// Have a unit leave its machine for another, and wait until it runs there
    Move(Move),
    /// Tell which moves would even out the machines; with --yes, make them one after another
    Rebalance(Rebalance),
    /// Give machines no new units; what is on them stays
    Cordon(Machines),
    /// Give machines units again
    Uncordon(Machines),
    /// Cordon a machine and move its units away, one after another
    Drain(Drain),
    /// List units and what their machines say of them
    ListUnits(ListUnits),
    /// List unit files and what is wanted of them
    ListUnitFiles(ListUnitFiles),
    /// List the cluster's machines
    ListMachines(ListMachines),
    /// Form a cluster, and ask about it
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Make, list and revoke what lets machines into the cluster
    #[command(subcommand)]
    Token(TokenCommand),
    /// Have machines reboot in turn, each drained before
    #[command(subcommand)]
    RebootLock(RebootLockCommand),
    /// Write what a new machine needs to join this cluster by itself at its first boot
    #[command(subcommand)]
    Generate(GenerateCommand),
    /// Keep the clusters that you talk to from afar
    #[command(subcommand)]
    Context(ContextCommand),
    /// Take over what another cluster keeps
    #[command(subcommand)]
    Import(ImportCommand),
    /// Print what makes a shell complete corectl's commands, units and machines
    Completion {
        /// Put its output where the shell looks, such as /etc/bash_completion.d/corectl
        shell: CompletionShell,
    },
    /// Print the version, the commit, and the formats that are read and written
    Version,
    /// Carry standard input and output to a Unix socket
    #[command(hide = true)]
    FdForward { socket: PathBuf },
    /// Was for signed units, which fleet gave up; always fails
    #[command(hide = true)]
    Verify { units: Vec<String> },
    /// Write man pages into a folder
    #[command(hide = true)]
    Man { folder: PathBuf },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompletionShell {
    Bash,
    Zsh,
    Fish,
}

/// For units that may have to be created.
#[derive(Debug, Args)]
pub struct Wish {
    /// Unit files, or names of units that the cluster or a template has
    #[arg(required = true, value_name = "UNIT", add = ArgValueCompleter::new(units))]
    pub units: Vec<String>,
    /// Replace units whose files differ from the given ones
    #[arg(long)]
    pub replace: bool,
    /// Was for signed units, which fleet gave up
    #[arg(long, hide = true)]
    pub sign: bool,
    #[command(flatten)]
    pub wait: Wait,
}

#[derive(Debug, Args)]
pub struct Start {
    #[command(flatten)]
    pub wish: Wish,
    /// Start instances 1 to N of each template that is named. With a greater N later, the new ones are added
    #[arg(long, value_name = "N", visible_alias = "worker")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub count: Option<u32>,
    /// Start the units on every machine that suits them, now and later
    #[arg(long, conflicts_with = "count")]
    pub all_machines: bool,
    /// Only machines with this metadata will do; several keys are all required
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', value_parser = key_value)]
    pub require: Vec<(String, String)>,
}

/// For units that exist.
#[derive(Debug, Args)]
pub struct Change {
    /// Names of units, or quoted patterns such as 'web@*.service'
    #[arg(required = true, value_name = "UNIT", add = ArgValueCompleter::new(units))]
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
    /// fleet's way to say it: N times two seconds; 0 is no limit
    #[arg(long, value_name = "N", hide_short_help = true, conflicts_with = "timeout")]
    pub block_attempts: Option<u32>,
}

/// One of fleet's attempts.
const ATTEMPT: Duration = Duration::from_secs(2);

impl Wait {
    pub fn limit(&self) -> Option<Duration> {
        let attempts = self.block_attempts.filter(|attempts| *attempts > 0);
        self.timeout.or_else(|| attempts.map(|attempts| ATTEMPT.saturating_mul(attempts)))
    }
}

#[derive(Debug, Args)]
pub struct Cat {
    #[arg(value_name = "UNIT", add = ArgValueCompleter::new(units))]
    pub unit: String,
    #[command(flatten)]
    pub read: Read,
}

#[derive(Debug, Args)]
pub struct Status {
    /// Names of units, or quoted patterns such as 'web@*.service'
    #[arg(required = true, value_name = "UNIT", add = ArgValueCompleter::new(units))]
    pub units: Vec<String>,
    /// Only what the cluster knows; do not ask the units' machines
    #[arg(long)]
    pub brief: bool,
    #[command(flatten)]
    pub read: Read,
}

#[derive(Debug, Args)]
pub struct Journal {
    #[arg(value_name = "UNIT", add = ArgValueCompleter::new(units))]
    pub unit: String,
    /// How many of its last lines
    #[arg(long, short = 'n', value_name = "N", default_value_t = 10)]
    pub lines: u32,
    /// Go on with what comes
    #[arg(long, short)]
    pub follow: bool,
    /// Of this machine: its name, its id, or the beginning of it. Without it, of the machine that the unit is
    /// on; for a global unit, of all
    #[arg(long, short, value_name = "MACHINE", add = ArgValueCompleter::new(machines))]
    pub machine: Option<String>,
    /// Was for ssh; the daemons need no sudo
    #[arg(long, hide = true)]
    pub sudo: bool,
}

#[derive(Debug, Args)]
pub struct Ssh {
    /// A machine (its name, its id, or the beginning of it) or a unit, and a command for it
    #[arg(value_name = "MACHINE|UNIT", trailing_var_arg = true)]
    #[arg(add = ArgValueCompleter::new(units_or_machines))]
    pub words: Vec<String>,
    /// The machine; all words are the command then
    #[arg(long, short, value_name = "MACHINE", conflicts_with = "unit")]
    #[arg(add = ArgValueCompleter::new(machines))]
    pub machine: Option<String>,
    /// The machine that this unit is on; all words are the command then
    #[arg(long, short, value_name = "UNIT", add = ArgValueCompleter::new(units))]
    pub unit: Option<String>,
    /// Let the machine use this one's ssh agent
    #[arg(long, short = 'A')]
    pub forward_agent: bool,
    /// The port of the machine's ssh
    #[arg(long, value_name = "PORT")]
    pub ssh_port: Option<u16>,
}

#[derive(Debug, Args)]
pub struct Explain {
    #[arg(value_name = "UNIT", add = ArgValueCompleter::new(units))]
    pub unit: String,
}

#[derive(Debug, Args)]
pub struct Move {
    #[arg(value_name = "UNIT", add = ArgValueCompleter::new(units))]
    pub unit: String,
    /// Where to; without it, wherever it fits best
    #[arg(value_name = "MACHINE", add = ArgValueCompleter::new(machines))]
    pub machine: Option<String>,
    #[command(flatten)]
    pub wait: Wait,
}

#[derive(Debug, Args)]
pub struct Rebalance {
    /// Make the moves
    #[arg(long, short)]
    pub yes: bool,
    /// Begin no move after this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub timeout: Option<Duration>,
}

#[derive(Debug, Args)]
pub struct Machines {
    /// Machines by name, by id, or by the beginning of one
    #[arg(required = true, value_name = "MACHINE", add = ArgValueCompleter::new(machines))]
    pub machines: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Drain {
    /// The machine by name, by id, or by the beginning of one
    #[arg(value_name = "MACHINE", add = ArgValueCompleter::new(machines))]
    pub machine: String,
    /// For all of it; what is still there then is named
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub timeout: Option<Duration>,
}

#[derive(Debug, Args)]
pub struct ListUnits {
    /// Only these units: names, or quoted patterns such as 'web@*.service'
    #[arg(value_name = "UNIT", add = ArgValueCompleter::new(units))]
    pub units: Vec<String>,
    /// Which columns
    #[arg(long, value_delimiter = ',')]
    #[arg(value_parser = ["unit", "load", "active", "sub", "desc", "machine", "hash"])]
    pub fields: Vec<String>,
    #[command(flatten)]
    pub list: List,
}

#[derive(Debug, Args)]
pub struct ListUnitFiles {
    /// Only these units: names, or quoted patterns such as 'web@*.service'
    #[arg(value_name = "UNIT", add = ArgValueCompleter::new(units))]
    pub units: Vec<String>,
    /// Which columns
    #[arg(long, value_delimiter = ',')]
    #[arg(value_parser = ["unit", "hash", "dstate", "state", "target", "desc", "global"])]
    pub fields: Vec<String>,
    #[command(flatten)]
    pub list: List,
}

#[derive(Debug, Args)]
pub struct ListMachines {
    /// Which columns
    #[arg(long, value_delimiter = ',')]
    #[arg(value_parser = ["machine", "name", "ip", "state", "units", "metadata"])]
    pub fields: Vec<String>,
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

/// `90s`, `500ms`, `1.5h`; a bare number is seconds.
pub fn time(text: &str) -> Result<Duration, String> {
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

/// As fleet has it in `MachineMetadata=`: exactly one `=`, with something on both sides.
fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() && !value.contains('=') => {
            Ok((key.into(), value.into()))
        }
        _ => Err("write KEY=VALUE, such as disk=ssd".into()),
    }
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

    #[test]
    fn what_is_required_has_a_key_and_a_value() {
        assert_eq!(key_value("disk=ssd"), Ok(("disk".into(), "ssd".into())));
        for text in ["disk", "disk=", "=ssd", "a=b=c", ""] {
            assert!(key_value(text).is_err(), "{text}");
        }
    }
}
