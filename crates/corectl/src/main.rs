//! `corectl`, also called `fleetctl` and `fltctl`: parses the command line, runs the command, turns what came
//! of it into an exit code.

use std::process::ExitCode;

use clap::Parser;
use corectl::{Cli, Exit, completion, fleet, output};

fn main() -> ExitCode {
    let called = std::env::args_os().next().unwrap_or_default();
    if let Some(name) = fleet::Name::of(&called) {
        let words: Vec<String> =
            std::env::args_os().skip(1).map(|word| word.to_string_lossy().into()).collect();
        return end(fleet::run(name, &words));
    }
    completion::answer();
    end(corectl::run(Cli::parse()))
}

fn end(command: impl Future<Output = anyhow::Result<Exit>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = match runtime {
        Ok(runtime) => {
            let ended = runtime.block_on(command);
            // A read of standard input may never return, and is not waited for.
            runtime.shutdown_background();
            ended
        }
        Err(error) => Err(error.into()),
    };
    match ended {
        Ok(exit) => exit.into(),
        Err(error) => {
            output::error(&error);
            Exit::Failed.into()
        }
    }
}
