//! `coreinitd`: reads what it was told, and runs until it is told to stop.

use clap::Parser;
use coreinitd::config::{Config, Flags};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

fn main() -> std::process::ExitCode {
    let flags = Flags::parse();
    if let Some(dir) = &flags.check_store {
        return coreinitd::run::check_store(dir, flags.engine.unwrap_or_default()).into();
    }
    if let Some(done) = coreinitd::offline::act(&flags) {
        return match done {
            Ok(said) => {
                println!("{said}");
                std::process::ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("coreinitd: {error:#}");
                std::process::ExitCode::FAILURE
            }
        };
    }
    match start(&flags) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("coreinitd: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn start(flags: &Flags) -> anyhow::Result<()> {
    let config = Config::load(flags)?;
    log_to(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // Two suffice: one for Raft, one for everything that a burst of units brings.
        .worker_threads(2)
        .max_blocking_threads(8)
        .enable_all()
        .build()?;
    runtime.block_on(coreinitd::run::run(config))
}

/// To the journal with fields when systemd started us, else to standard error.
fn log_to(filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter)?;
    let registry = tracing_subscriber::registry().with(filter);
    let journal = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    match journal {
        Some(journal) => registry.with(journal.with_syslog_identifier("coreinitd".into())).init(),
        None => registry.with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr)).init(),
    }
    Ok(())
}
