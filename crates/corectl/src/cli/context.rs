//! What can be typed after `corectl context`, and of people after `corectl cluster`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use cluster::{PersonName, PersonRole};

#[derive(Debug, Subcommand)]
pub enum ContextCommand {
    /// Keep what `corectl cluster invite` has made, under a name of your own
    Add {
        name: String,
        /// The file; `-` is standard input
        #[arg(value_name = "FILE|-")]
        file: String,
        /// Put it in the place of the one that has this name
        #[arg(long)]
        replace: bool,
    },
    /// Use this context when none is named; `local` is the daemon of this machine
    Use { name: String },
    /// List the contexts
    List,
    /// Forget a context
    Remove { name: String },
    /// Tell all that is known of a context, but for its key
    Show {
        /// The one in use, unless it is named
        name: Option<String>,
    },
}

#[derive(Debug, Args)]
pub struct Invite {
    /// What the person is called
    #[arg(value_parser = PersonName::new)]
    pub name: PersonName,
    /// What they may do: admin, operator or viewer
    #[arg(long, value_name = "ROLE")]
    pub role: PersonRole,
    /// For how long, such as 90d or 12h
    #[arg(long, value_name = "TIME", default_value = "90d", value_parser = long_time)]
    pub ttl: Duration,
    /// Where they reach the cluster, if not at the machines' own addresses; may be given several times
    #[arg(long = "address", value_name = "HOST:PORT")]
    pub addresses: Vec<String>,
    /// Into this new file, which nobody else can read; without it, on standard output
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Make the person's earlier certificate worthless
    #[arg(long)]
    pub replace: bool,
}

/// As other times, and in days or weeks.
fn long_time(text: &str) -> Result<Duration, String> {
    let days = match (text.strip_suffix('d'), text.strip_suffix('w')) {
        (Some(days), _) => days.parse::<u64>().ok(),
        (_, Some(weeks)) => weeks.parse::<u64>().ok().and_then(|weeks| weeks.checked_mul(7)),
        (None, None) => return super::time(text).map_err(|_| "write a time such as 90d, 2w or 12h".into()),
    };
    let seconds = days.and_then(|days| days.checked_mul(24 * 3600));
    seconds.map(Duration::from_secs).ok_or_else(|| "write a time such as 90d, 2w or 12h".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_times() {
        let hour = 3600;
        for (text, seconds) in
            [("90d", 90 * 24 * hour), ("2w", 14 * 24 * hour), ("12h", 12 * hour), ("90", 90)]
        {
            assert_eq!(long_time(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "d", "-1d", "1.5d", "9999999999999999999w", "soon"] {
            assert!(long_time(text).is_err(), "{text}");
        }
    }
}
