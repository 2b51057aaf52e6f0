//! The command line: each command is a file, everything that is printed goes through `output`, and every wait
//! is a wait on the daemon's event stream.

mod cat;
mod cli;
mod cluster_command;
mod list_machines;
mod list_unit_files;
mod list_units;
mod lookup;
mod machines;
mod names;
pub mod output;
mod source;
mod start;
mod status;
mod stop;
mod verdict;
mod wait;
mod wish;

pub use cli::Cli;

use api::{Client, Endpoint};
use cli::Command;

/// How a command ended. Usage errors are clap's: 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Done,
    Failed,
    /// `status` of a unit that is not active, as systemctl has it.
    NotActive,
    /// `status` of a unit that does not exist, as systemctl has it.
    Unknown,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> std::process::ExitCode {
        std::process::ExitCode::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::NotActive => 3,
            Exit::Unknown => 4,
        })
    }
}

/// Runs one command.
pub async fn run(cli: Cli) -> anyhow::Result<Exit> {
    let client = Client::new(Endpoint::parse(&cli.endpoint)?);
    let output = cli.output;
    match cli.command {
        Command::Start(wish) => start::run(&client, start::Kind::Start, &wish).await,
        Command::Load(wish) => start::run(&client, start::Kind::Load, &wish).await,
        Command::Submit(wish) => start::run(&client, start::Kind::Submit, &wish).await,
        Command::Stop(change) => stop::run(&client, stop::Kind::Stop, &change).await,
        Command::Unload(change) => stop::run(&client, stop::Kind::Unload, &change).await,
        Command::Destroy(change) => stop::run(&client, stop::Kind::Destroy, &change).await,
        Command::Cat(cat) => cat::run(&client, &cat).await,
        Command::Status(status) => status::run(&client, &status, output).await,
        Command::ListUnits(list) => list_units::run(&client, &list, output).await,
        Command::ListUnitFiles(list) => list_unit_files::run(&client, &list, output).await,
        Command::ListMachines(list) => list_machines::run(&client, &list, output).await,
        Command::Cluster(command) => cluster_command::run(&client, &command, output).await,
    }
}
