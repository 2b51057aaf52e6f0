//! How much memory and how many processors this machine has, as its kernel says. Read once, at the start;
//! what cannot be read is not counted.

use std::path::Path;

/// What the scheduler may give to units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    pub memory_bytes: u64,
    /// Thousandths of one processor.
    pub cpu_millis: u64,
}

/// Reads `meminfo` and `stat` below `proc`, which is `/proc` but in tests.
pub fn read(proc: &Path) -> Capacity {
    let text = |file: &str| {
        std::fs::read_to_string(proc.join(file)).unwrap_or_else(|error| {
            tracing::warn!(%error, file, "what this machine has of memory or processors is not known");
            String::new()
        })
    };
    Capacity { memory_bytes: memory_bytes(&text("meminfo")), cpu_millis: cpu_millis(&text("stat")) }
}

/// `MemTotal:       16384 kB` (proc_meminfo(5)).
fn memory_bytes(meminfo: &str) -> u64 {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes = total.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// One line `cpu0 ...` for each processor that is on (proc_stat(5)).
fn cpu_millis(stat: &str) -> u64 {
    let is_one = |line: &&str| {
        line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    1000 * stat.lines().filter(is_one).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_says() {
        assert_eq!(memory_bytes("MemTotal:       16384 kB\nMemFree: 1 kB\n"), 16 << 20);
        assert_eq!(memory_bytes("MemFree: 1 kB\n"), 0);
        assert_eq!(cpu_millis("cpu  1 2 3\ncpu0 1 2\ncpu11 1\nintr 5\n"), 2000);
        let here = read(Path::new("/proc"));
        assert!(here.memory_bytes > 1 << 20 && here.cpu_millis >= 1000, "{here:?}");
        assert_eq!(read(Path::new("/nowhere")), Capacity::default());
    }
}
