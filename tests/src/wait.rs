//! Waiting for a condition with a deadline: the one place in the tests where time is let pass.

use std::time::{Duration, Instant};

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// Looks until `condition` gives a value, and returns it with the time that took. Panics after `deadline`
/// with what was waited for and what was seen last. `Err` says what was seen instead.
#[track_caller]
pub fn eventually<T>(
    deadline: Duration,
    what: &str,
    mut condition: impl FnMut() -> Result<T, String>,
) -> (T, Duration) {
    let start = Instant::now();
    loop {
        match condition() {
            Ok(value) => return (value, start.elapsed()),
            Err(seen) if start.elapsed() >= deadline => {
                panic!("waited {deadline:?} for {what}; seen last: {seen}")
            }
            Err(_) => pause(LOOK_EVERY),
        }
    }
}

/// Looks at `condition` for the whole of `time`, and panics with what it says as soon as it fails.
#[track_caller]
pub fn always(time: Duration, what: &str, mut condition: impl FnMut() -> Result<(), String>) {
    let start = Instant::now();
    while start.elapsed() < time {
        if let Err(seen) = condition() {
            panic!("{what} held for only {:?}: {seen}", start.elapsed());
        }
        pause(LOOK_EVERY);
    }
}

/// The middle one, or the upper of the two middle ones.
pub fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    *times.get(times.len() / 2).expect("a median needs a measurement")
}

/// For loops of the harness that sample; a test uses [`eventually`] or [`always`].
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_until_it_holds_and_no_longer() {
        let mut looks = 0;
        let (value, took) = eventually(Duration::from_secs(5), "the third look", || {
            looks += 1;
            if looks == 3 { Ok("there") } else { Err(format!("look {looks}")) }
        });
        assert_eq!((value, looks), ("there", 3));
        assert!(took >= 2 * LOOK_EVERY && took < Duration::from_secs(5));
    }

    #[test]
    #[should_panic(expected = "for rain; seen last: sun")]
    fn says_what_it_waited_for() {
        eventually(Duration::from_millis(1), "rain", || Err::<(), _>("sun".into()));
    }

    #[test]
    #[should_panic(expected = "peace held for only")]
    fn says_when_it_stops_holding() {
        always(Duration::from_secs(5), "peace", || Err("war".into()));
    }

    #[test]
    fn middle() {
        let times = [3, 1, 2].map(Duration::from_secs);
        assert_eq!(median(&times), Duration::from_secs(2));
    }
}
