//! How soon the next round may come. A lone change is answered at once, and so are the few that follow from
//! it; in a storm of changes many are looked at together.

use std::time::Duration;

use tokio::time::Instant;

/// In a storm, rounds are so far apart at least.
const INTERVAL_MIN: Duration = Duration::from_millis(20);
/// And at most, however long one takes.
const INTERVAL_MAX: Duration = Duration::from_millis(100);
/// A fifth of the time is spent on looking, at most, while systemd is busy with something else.
const SHARE: u32 = 5;
/// So many rounds may come at once after a time of rest: a wish, its home, what systemd says of the start on
/// its way, the job's end, and the reports' return.
const BURST: u32 = 10;

/// A leaky bucket: each round fills it by one interval, and it runs out with time.
pub struct Pace {
    full_until: Instant,
    interval: Duration,
}

impl Pace {
    pub fn new() -> Pace {
        Pace { full_until: Instant::now(), interval: INTERVAL_MIN }
    }

    /// A round began then, and has ended now.
    pub fn took(&mut self, begun: Instant) {
        let took = begun.elapsed();
        self.interval = (took * SHARE).clamp(INTERVAL_MIN, INTERVAL_MAX);
        self.full_until = self.full_until.max(begun) + self.interval;
    }

    pub fn next_round(&self) -> Instant {
        self.full_until.checked_sub(self.interval * (BURST - 1)).unwrap_or(self.full_until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_few_rounds_at_once_and_then_one_an_interval() {
        let start = Instant::now();
        let mut pace = Pace::new();
        let mut at = Vec::new();
        for _ in 0..13 {
            tokio::time::sleep_until(pace.next_round()).await;
            at.push(start.elapsed().as_millis());
            pace.took(Instant::now());
        }
        // Timers tick in milliseconds.
        assert_eq!(at[..10], [0; 10]);
        assert_eq!(at[10..], [20, 40, 60]);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(pace.next_round() <= Instant::now());
    }
}
