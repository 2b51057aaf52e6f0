//! What a unit takes of its machine's memory and processors, as far as it says so.

use std::fmt;

use crate::UnitFile;

/// What has to be free on a machine for a unit. A unit that says nothing needs nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Need {
    pub(crate) memory: Memory,
    /// Thousandths of one processor's time.
    pub(crate) cpu_millis: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Memory {
    Bytes(u64),
    /// Of what the machine has.
    Percent(u64),
}

impl Default for Memory {
    fn default() -> Memory {
        Memory::Bytes(0)
    }
}

/// Sections whose units have processes of their own, and so limits (systemd.resource-control(5)).
const LIMITED: [&str; 6] = ["Service", "Socket", "Mount", "Swap", "Slice", "Scope"];

impl Need {
    /// What the limits of the unit file say: `MemoryMax=`, or else `MemoryHigh=`; `CPUQuota=`. A value that
    /// systemd would not understand says nothing here either.
    pub(crate) fn of_limits(file: &UnitFile) -> Need {
        if !file.has_limits() {
            return Need::default();
        }
        let (mut max, mut high, mut cpu_millis) = (None, None, 0);
        for option in file.options_of(&LIMITED) {
            match &*option.name {
                "MemoryMax" => max = memory(&option.joined()),
                "MemoryHigh" => high = memory(&option.joined()),
                "CPUQuota" => cpu_millis = percent_millis(&option.joined()).unwrap_or(0),
                _ => {}
            }
        }
        Need { memory: max.or(high).unwrap_or_default(), cpu_millis }
    }

    /// In bytes, on a machine with so much memory.
    pub(crate) fn memory_bytes(&self, capacity: u64) -> u64 {
        match self.memory {
            Memory::Bytes(bytes) => bytes,
            Memory::Percent(percent) => (u128::from(capacity) * u128::from(percent) / 100) as u64,
        }
    }
}

/// Whether that option is one of the limits that [`Need::of_limits`] reads.
pub(crate) fn is_limit(option: &str) -> bool {
    matches!(option, "MemoryMax" | "MemoryHigh" | "CPUQuota")
}

/// `512M`, `1.5G`, `10%`; not `infinity`.
pub(crate) fn memory(text: &str) -> Option<Memory> {
    match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse().ok().filter(|p| *p <= 100).map(Memory::Percent),
        None => bytes(text).map(Memory::Bytes),
    }
}

/// A size as systemd writes it: digits, perhaps a fraction, and K, M, G or T for powers of 1024.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let shift = match text[number.len()..].trim() {
        "" | "B" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        "P" => 50,
        _ => return None,
    };
    let (thousandths, unit) = (thousandths(number)?, 1_u128 << shift);
    u64::try_from(u128::from(thousandths) * unit / 1000).ok()
}

/// `50%` is 500: thousandths of one processor.
pub(crate) fn percent_millis(text: &str) -> Option<u64> {
    Some(thousandths(text.strip_suffix('%')?.trim())? / 100)
}

/// `1.5` and `150%` are 1500: thousandths of one processor.
pub(crate) fn cpu_millis(text: &str) -> Option<u64> {
    if text.ends_with('%') { percent_millis(text) } else { thousandths(text) }
}

/// A decimal number, as thousandths.
fn thousandths(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    if !digits(whole) || text.contains('.') && !digits(fraction) {
        return None;
    }
    let fraction: u64 = format!("{fraction:0<3}")[..3].parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(fraction)
}

/// A number of bytes as people say it.
pub(crate) struct Size(pub(crate) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("T", 40), ("G", 30), ("M", 20), ("K", 10)];
        let Some((unit, shift)) = units.into_iter().find(|(_, shift)| self.0 >> shift > 0) else {
            return write!(f, "{}B", self.0);
        };
        let tenths = (u128::from(self.0) * 10) >> shift;
        match tenths % 10 {
            0 => write!(f, "{}{unit}", tenths / 10),
            tenth => write!(f, "{}.{tenth}{unit}", tenths / 10),
        }
    }
}

/// Thousandths of a processor as people say it.
pub(crate) struct Cpus(pub(crate) u64);

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:03}", self.0 / 1000, self.0 % 1000);
        write!(f, "{} CPU", text.trim_end_matches('0').trim_end_matches('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sizes() {
        let check = |text: &str, expected: Option<Memory>| assert_eq!(memory(text), expected, "{text}");
        check("1024", Some(Memory::Bytes(1024)));
        check("512M", Some(Memory::Bytes(512 << 20)));
        check("1.5G", Some(Memory::Bytes(3 << 29)));
        check("2 K", Some(Memory::Bytes(2048)));
        check("0", Some(Memory::Bytes(0)));
        check("10%", Some(Memory::Percent(10)));
        for text in ["infinity", "", "M", "1.M", "-1", "101%", "1X", "99999999999999999999", "16384P", "%"] {
            check(text, None);
        }
        let check = |text: &str, expected: Option<u64>| assert_eq!(cpu_millis(text), expected, "{text}");
        check("50%", Some(500));
        check("250%", Some(2500));
        check("12.5%", Some(125));
        check("1.5", Some(1500));
        check("2", Some(2000));
        check("0.0625", Some(62));
        check("", None);
        check("1.5.1", None);
    }

    #[test]
    fn says_sizes() {
        let check = |bytes: u64, expected: &str| assert_eq!(Size(bytes).to_string(), expected);
        check(0, "0B");
        check(1023, "1023B");
        check(1 << 30, "1G");
        check(3 << 29, "1.5G");
        check((1 << 30) - 1, "1023.9M");
        check(u64::MAX, "16777215.9T");
        let check = |millis: u64, expected: &str| assert_eq!(Cpus(millis).to_string(), expected);
        check(0, "0 CPU");
        check(1500, "1.5 CPU");
        check(20, "0.02 CPU");
        check(10_000, "10 CPU");
    }

    #[test]
    fn reads_limits() {
        let check = |lines: &str, memory: Memory, cpu_millis: u64| {
            let file = UnitFile::parse(&format!("[Service]\n{lines}\n")).expect("a unit file");
            assert_eq!(Need::of_limits(&file), Need { memory, cpu_millis }, "{lines}");
        };
        check("", Memory::Bytes(0), 0);
        check("MemoryMax=1K\nMemoryHigh=2K\nCPUQuota=20%", Memory::Bytes(1024), 200);
        check("MemoryHigh=2K", Memory::Bytes(2048), 0);
        check("MemoryMax=1K\nMemoryMax=infinity", Memory::Bytes(0), 0);
        check("MemoryMax=1K\nMemoryMax=", Memory::Bytes(0), 0);
        check("CPUQuota=nonsense", Memory::Bytes(0), 0);
        let file = UnitFile::parse("[Unit]\nMemoryMax=1K\n").expect("a unit file");
        assert_eq!(Need::of_limits(&file), Need::default());
        assert_eq!(Need { memory: Memory::Percent(25), cpu_millis: 0 }.memory_bytes(4000), 1000);
    }
}
