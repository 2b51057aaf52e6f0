//! How long things take, for those who watch from outside: counted in steps, without a lock and without
//! memory of its own for each.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The upper ends of the steps in microseconds, from a sync of a fast disk to one that holds everything up.
pub const STEPS_MICROS: [u64; 15] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 10_000_000,
];

/// Counts durations by size. What is read while others count may lack their last.
#[derive(Debug, Default)]
pub struct Histogram {
    /// The last is for whatever is longer than all steps.
    counts: [AtomicU64; STEPS_MICROS.len() + 1],
    sum_micros: AtomicU64,
}

impl Histogram {
    pub fn add(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let step = STEPS_MICROS.partition_point(|end| *end < micros);
        self.counts[step].fetch_add(1, Ordering::Relaxed);
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// How many there were in each step, the longest last.
    pub fn counts(&self) -> [u64; STEPS_MICROS.len() + 1] {
        std::array::from_fn(|step| self.counts[step].load(Ordering::Relaxed))
    }

    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_micros.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_duration_is_in_one_step() {
        let check = |micros: u64, step: usize| {
            let histogram = Histogram::default();
            histogram.add(Duration::from_micros(micros));
            let mut expected = [0; STEPS_MICROS.len() + 1];
            expected[step] = 1;
            assert_eq!(histogram.counts(), expected, "{micros}");
            assert_eq!(histogram.sum(), Duration::from_micros(micros));
        };
        check(0, 0);
        check(100, 0);
        check(101, 1);
        check(10_000_000, 14);
        check(10_000_001, 15);
    }
}
