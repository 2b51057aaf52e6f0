//! `coreinitd`: reads what it was told, and runs until it is told to stop.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use clap::Parser;
use coreinitd::config::{Config, Flags};
use coreinitd::run::Ended;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// `journalctl COREINIT_UNIT=hello.service` is all that was said of a unit.
const FIELD_PREFIX: &str = "COREINIT";

/// `EX_TEMPFAIL` of sysexits(3): coreinit-cloud-config.service tries again after it, and after no other.
const TRY_AGAIN: u8 = 75;

pub fn main() -> ExitCode {
    let flags = Flags::parse();
    if let Some(dir) = &flags.check_store {
        return coreinitd::run::check_store(dir, flags.engine.unwrap_or_default()).into();
    }
    if let Some(done) = coreinitd::cloud_config::act(&flags).or_else(|| coreinitd::offline::act(&flags)) {
        return match done {
            Ok(said) => {
                println!("{said}");
                ExitCode::SUCCESS
            }
            Err(error) => complain(&error),
        };
    }
    match start(&flags) {
        Ok(Ended::Stopped) => ExitCode::SUCCESS,
        Ok(Ended::Anew) => again(),
        Err(error) => complain(&error),
    }
}

/// Runs this program anew in the place of this process. Where systemd has handed sockets over, it does that
/// (`Restart=always`), since they are closed by now.
fn again() -> std::process::ExitCode {
    if coreinitd::http::is_handed_over() {
        return std::process::ExitCode::SUCCESS;
    }
    let arguments: Vec<_> = std::env::args_os().collect();
    // The name that the kernel knows is of no use once the file was replaced by an upgrade.
    let program = arguments.first().cloned().unwrap_or_else(|| "coreinitd".into());
    let error = std::process::Command::new(program).args(arguments.iter().skip(1)).exec();
    eprintln!("coreinitd: cannot begin anew: {error}");
    std::process::ExitCode::FAILURE
}

fn start(flags: &Flags) -> anyhow::Result<Ended> {
    let mut config = Config::load(flags)?;
    config.notes.extend(coreinitd::cloud_config::left_undone(flags));
    log_to(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // Two suffice: one for Raft, one for everything that a burst of units brings.
        .worker_threads(2)
        .max_blocking_threads(8)
        .enable_all()
        .build()?;
    runtime.block_on(coreinitd::run::run(config))
}

/// systemd.exec(5): `JOURNAL_STREAM` names the journal's end by device and inode. It is inherited, so that a
/// standard error which was sent elsewhere since is told from it by the same numbers.
fn stderr_is_journal() -> bool {
    let named = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let own = std::io::stderr().as_fd().try_clone_to_owned().map(File::from);
    let own = own.and_then(|stderr| stderr.metadata());
    own.is_ok_and(|own| named == format!("{}:{}", own.dev(), own.ino()))
}

/// The last words, which the journal keeps as an error (sd-daemon(3)).
fn complain(error: &anyhow::Error) -> ExitCode {
    let priority = if stderr_is_journal() { "<3>" } else { "" };
    eprintln!("{priority}coreinitd: {error:#}");
    if error.is::<coreinitd::cloud_config::Later>() { ExitCode::from(TRY_AGAIN) } else { ExitCode::FAILURE }
}

/// To the journal with fields when systemd started us, else to standard error.
fn log_to(filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter)?;
    let registry = tracing_subscriber::registry().with(filter);
    let journal = stderr_is_journal().then(tracing_journald::layer).and_then(Result::ok);
    match journal {
        Some(journal) => {
            let journal = journal.with_syslog_identifier("coreinitd".into());
            registry.with(journal.with_field_prefix(Some(FIELD_PREFIX.into()))).init();
        }
        None => registry.with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr)).init(),
    }
    Ok(())
}
