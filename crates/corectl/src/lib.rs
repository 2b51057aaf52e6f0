//! The command line: each command is a file, everything that is printed goes through `output`, and every wait
//! is a wait on the daemon's event stream. Called as `fleetctl` or `fltctl` it is fleet's command (`fleet`).

mod amend;
mod backup;
mod cat;
mod cli;
mod cluster_command;
pub mod completion;
mod connect;
mod context_command;
mod contexts;
mod count;
mod daemon_work;
mod date;
mod drain;
mod environment_file;
mod explain;
pub mod fleet;
mod forward;
mod generate;
mod import;
mod journal;
mod list_machines;
mod list_unit_files;
mod list_units;
mod lookup;
mod machine_command;
mod machines;
mod man;
mod membership;
mod moving;
mod names;
pub mod output;
mod own_reboot;
mod people;
mod quadlet;
mod rebalance;
mod reboot_lock;
mod restart;
mod rotate;
mod signals;
mod source;
mod ssh;
mod start;
mod status;
mod stop;
mod this_machine;
mod token;
mod tunnel;
mod verdict;
mod version;
mod wait;
mod wish;

pub use cli::Cli;

use amend::Amendment;
use cli::{ClusterCommand, Command};

/// How a command ended. Usage errors are clap's: 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Done,
    Failed,
    /// `status` of a unit that is not active, as systemctl has it.
    NotActive,
    /// `status` of a unit that does not exist, as systemctl has it.
    Unknown,
    /// As another program ended that was run for it.
    Code(u8),
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> std::process::ExitCode {
        std::process::ExitCode::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::NotActive => 3,
            Exit::Unknown => 4,
            Exit::Code(code) => code,
        })
    }
}

/// Runs one command.
pub async fn run(cli: Cli) -> anyhow::Result<Exit> {
    let output = cli.output;
    match &cli.command {
        Command::Completion { shell } => return completion::script(*shell),
        Command::Man { folder } => return man::run(folder),
        Command::Context(command) => return context_command::run(command, output),
        Command::Cluster(ClusterCommand::Migrate(migrate)) => return daemon_work::migrate(migrate),
        Command::Cluster(ClusterCommand::Restore(restore)) => return daemon_work::restore(restore),
        Command::Cluster(ClusterCommand::Recover(recover)) => return daemon_work::recover(recover),
        Command::FdForward { socket } => return forward::run(socket).await,
        Command::Verify { .. } => {
            output::problem("units are not signed any more; there is nothing to verify");
            return Ok(Exit::Code(2));
        }
        Command::Version => {
            version::run();
            return Ok(Exit::Done);
        }
        _ => {}
    }
    this_machine::check(&cli.command, &cli.connection)?;
    let connected = cli.connection.open().await?;
    let client = &connected.client;
    let none = Amendment::default();
    match cli.command {
        Command::Start(start) => start::start(client, &start).await,
        Command::Load(wish) => start::run(client, start::Kind::Load, &wish, &wish.units, &none).await,
        Command::Submit(wish) => start::run(client, start::Kind::Submit, &wish, &wish.units, &none).await,
        Command::Stop(change) => stop::run(client, stop::Kind::Stop, &change).await,
        Command::Restart(change) => restart::run(client, &change).await,
        Command::Unload(change) => stop::run(client, stop::Kind::Unload, &change).await,
        Command::Destroy(change) => stop::run(client, stop::Kind::Destroy, &change).await,
        Command::Cat(cat) => cat::run(client, &cat).await,
        Command::Status(status) => status::run(client, &status, output).await,
        Command::Journal(journal) => journal::run(client, &journal, output).await,
        Command::Explain(unit) => explain::run(client, &unit, output).await,
        Command::Move(moved) => moving::run(client, &moved).await,
        Command::Rebalance(rebalance) => rebalance::run(client, &rebalance, output).await,
        Command::Cordon(machines) => machine_command::run(client, &machines.machines, false).await,
        Command::Uncordon(machines) => machine_command::run(client, &machines.machines, true).await,
        Command::Drain(machine) => drain::run(client, &machine).await,
        Command::Ssh(ssh) => ssh::run(client, &cli.connection, &ssh).await,
        Command::ListUnits(list) => list_units::run(client, &list, output).await,
        Command::ListUnitFiles(list) => list_unit_files::run(client, &list, output).await,
        Command::ListMachines(list) => list_machines::run(client, &list, output).await,
        Command::Cluster(command) => cluster_command::run(client, &command, output).await,
        Command::Token(command) => token::run(client, &command, output).await,
        Command::Generate(command) => generate::run(client, &command).await,
        Command::RebootLock(command) => reboot_lock::run(client, &command, output).await,
        Command::Import(command) => import::run(client, &command).await,
        Command::Completion { .. }
        | Command::Context(_)
        | Command::Man { .. }
        | Command::FdForward { .. }
        | Command::Verify { .. }
        | Command::Version => Ok(Exit::Done),
    }
}
