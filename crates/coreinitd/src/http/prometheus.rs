//! Prometheus' text form (version 0.0.4): families of samples, written one after the other. It knows nothing
//! of what is measured.

use std::fmt::Write;
use std::time::Duration;

use store::{Histogram, STEPS_MICROS};

/// One value with its labels.
pub(super) type Sample = (Vec<(&'static str, String)>, u64);

pub(super) fn one(value: u64) -> [Sample; 1] {
    [(Vec::new(), value)]
}

pub(super) fn family(
    text: &mut String,
    name: &str,
    kind: &str,
    help: &str,
    samples: impl IntoIterator<Item = Sample>,
) {
    head(text, name, kind, help);
    for (labels, value) in samples {
        let labels: Vec<String> =
            labels.into_iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(&value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name}{labels} {value}");
    }
}

/// Durations in seconds; each step counts what is shorter too, as Prometheus wants it.
pub(super) fn histogram(text: &mut String, name: &str, help: &str, durations: &Histogram) {
    head(text, name, "histogram", help);
    let counts = durations.counts();
    let mut sum = 0;
    for (end, count) in STEPS_MICROS.iter().zip(counts) {
        sum += count;
        let _ = writeln!(text, "{name}_bucket{{le=\"{}\"}} {sum}", seconds(Duration::from_micros(*end)));
    }
    let all: u64 = counts.iter().sum();
    let _ = writeln!(text, "{name}_bucket{{le=\"+Inf\"}} {all}");
    let _ = writeln!(text, "{name}_sum {}\n{name}_count {all}", seconds(durations.sum()));
}

/// A single value in seconds.
pub(super) fn in_seconds(text: &mut String, name: &str, help: &str, value: Duration) {
    head(text, name, "gauge", help);
    let _ = writeln!(text, "{name} {}", seconds(value));
}

/// A value in seconds for each machine.
pub(super) fn of_machines<'a>(
    text: &mut String,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (&'a cluster::MachineId, &'a Duration)>,
) {
    head(text, name, "gauge", help);
    for (machine, value) in values {
        let _ = writeln!(text, "{name}{{machine=\"{}\"}} {}", escaped(machine.as_str()), seconds(*value));
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    text.extend(["# HELP ", name, " ", help, "\n# TYPE ", name, " ", kind, "\n"]);
}

fn seconds(duration: Duration) -> String {
    let text = format!("{}.{:06}", duration.as_secs(), duration.subsec_micros());
    text.trim_end_matches('0').trim_end_matches('.').into()
}

/// As label values are written in Prometheus' text form.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut text = String::new();
        family(&mut text, "a", "gauge", "A.", [(vec![("b", "x\"y\\z\n".into()), ("c", "d".into())], 7)]);
        assert_eq!(text, "# HELP a A.\n# TYPE a gauge\na{b=\"x\\\"y\\\\z\\n\",c=\"d\"} 7\n");
    }

    #[test]
    fn a_histogram_adds_up() {
        let (mut text, durations) = (String::new(), Histogram::default());
        for micros in [50, 100, 700_000, 20_000_000] {
            durations.add(Duration::from_micros(micros));
        }
        histogram(&mut text, "a", "A.", &durations);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..4],
            ["# HELP a A.", "# TYPE a histogram", "a_bucket{le=\"0.0001\"} 2", "a_bucket{le=\"0.00025\"} 2"]
        );
        assert_eq!(
            lines[14..],
            [
                "a_bucket{le=\"1\"} 3",
                "a_bucket{le=\"2.5\"} 3",
                "a_bucket{le=\"10\"} 3",
                "a_bucket{le=\"+Inf\"} 4",
                "a_sum 20.70015",
                "a_count 4",
            ]
        );
    }
}
