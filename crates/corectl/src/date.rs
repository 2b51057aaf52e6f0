//! Moments as the API has them, seconds since 1970, in words.

use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;

/// The day, by universal time.
pub fn date(seconds: u64) -> String {
    let at =
        i64::try_from(seconds).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    at.map_or_else(|| "?".into(), |at| at.date().to_string())
}

/// By this machine's clock.
pub fn is_past(seconds: u64) -> bool {
    seconds <= SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(1_800_000_000), "2027-01-15");
        assert_eq!(date(u64::MAX), "?");
        assert!(is_past(1) && !is_past(u64::MAX));
    }
}
