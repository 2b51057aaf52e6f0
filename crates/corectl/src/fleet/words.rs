//! fleet's words for what went wrong between the command and the daemon, and its log lines.

use std::time::{SystemTime, UNIX_EPOCH};

use api::{ClientError, Endpoint};

use crate::output;

/// As Go's client library says it; `path` is what fleet would have asked for.
pub fn error(error: &ClientError, endpoint: &Endpoint, path: &str) -> String {
    let dialled = |why: &str| match endpoint {
        Endpoint::Unix(socket) => format!(
            "Get \"http://domain-sock/fleet/v1/{path}?alt=json\": dial unix {}: connect: {why}",
            socket.display()
        ),
        Endpoint::Tcp(host) => {
            format!("Get \"http://{host}/fleet/v1/{path}?alt=json\": dial tcp {host}: connect: {why}")
        }
        // fleet knew no such way.
        Endpoint::Remote(_) => format!("dial {endpoint}: {why}"),
    };
    match error {
        ClientError::Answer { status, message } => format!("googleapi: Error {status}: {message}"),
        ClientError::NoSocket { .. } => dialled("no such file or directory"),
        ClientError::NobodyAnswers { .. } => dialled("connection refused"),
        ClientError::Forbidden { .. } => dialled("permission denied"),
        ClientError::Connect { source, .. } => match source.kind() {
            std::io::ErrorKind::ConnectionRefused => dialled("connection refused"),
            _ => dialled(&source.to_string()),
        },
        other => other.to_string(),
    }
}

/// A line of fleet's log, on stderr.
pub fn log(level: &str, text: &str) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    output::note(&format!("{} {level} {text}", stamp(now)));
}

/// Seconds since 1970 as `YYYY/MM/DD HH:MM:SS`, in UTC. The days are Howard Hinnant's `civil_from_days`.
fn stamp(seconds: u64) -> String {
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}/{month:02}/{day:02} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_gos_log_writes_them() {
        for (seconds, expected) in [
            (0, "1970/01/01 00:00:00"),
            (951_782_399, "2000/02/28 23:59:59"),
            (951_782_400, "2000/02/29 00:00:00"),
            (1_795_234_530, "2026/11/21 04:15:30"),
        ] {
            assert_eq!(stamp(seconds), expected);
        }
    }
}
