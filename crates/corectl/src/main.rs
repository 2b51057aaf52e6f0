//! `corectl`: parses the command line, runs the command, turns what came of it into an exit code.

use clap::Parser;
use corectl::{Cli, output};

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(corectl::run(cli)),
        Err(error) => Err(error.into()),
    };
    match ended {
        Ok(exit) => exit.into(),
        Err(error) => {
            output::error(&error);
            corectl::Exit::Failed.into()
        }
    }
}
