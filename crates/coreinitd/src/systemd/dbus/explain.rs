//! Why a unit failed: systemd's result for it, and the last words of its journal.

use std::process::Stdio;
use std::time::Duration;

use cluster::{Failure, UnitName};
use serde_json::Value;
use tokio::process::Command;
use tokio::sync::Semaphore;

use super::Shared;
use super::calls::property;

/// What a failure carries of the journal.
const LINES_MAX: usize = 10;
const LINE_BYTES_MAX: usize = 256;
/// An old journal on a slow disk may take longer to search; the reason alone is better than no report.
const JOURNAL_TIMEOUT: Duration = Duration::from_secs(2);
/// journald takes what systemd says before what the unit has written, which is what people look for: it is
/// looked for after so long, and again after so long while there is nothing yet.
const JOURNAL_DELAYS: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(400), Duration::from_millis(700)];
/// Each is a process.
const JOURNALS_MAX: usize = 4;
/// The field that tells what a unit wrote from what systemd says of it. It is missing where journald came to
/// read a line when the unit had failed already; [`OWN_UNIT`] is there.
const OWN_ID: &str = "_SYSTEMD_INVOCATION_ID";
const OWN_UNIT: &str = "_SYSTEMD_UNIT";
/// In microseconds since 1970.
const RECEIVED: &str = "__REALTIME_TIMESTAMP";
static JOURNALS: Semaphore = Semaphore::const_new(JOURNALS_MAX);

/// systemd's word for how the unit ended last, such as `exit-code`; `None` when units of that type have none.
pub async fn result(shared: &Shared, unit: &UnitName) -> Option<String> {
    let link = shared.link().await.ok()?;
    property(&link, unit, &interface(unit)?, "Result", &shared.calls).await.ok()
}

pub async fn failure(shared: &Shared, unit: &UnitName) -> Failure {
    let (reason, journal) = tokio::join!(reason(shared, unit), journal(shared, unit));
    Failure { reason, journal: journal.unwrap_or_default() }
}

/// `exit-code (status 3)`, `signal (killed by signal 9)`, `timeout`; empty when systemd does not say.
async fn reason(shared: &Shared, unit: &UnitName) -> String {
    let Some(result) = result(shared, unit).await else { return String::new() };
    let (Ok(link), Some(interface)) = (shared.link().await, interface(unit)) else { return result };
    if unit.suffix() != "service" {
        return result;
    }
    let code = property::<i32>(&link, unit, &interface, "ExecMainCode", &shared.calls);
    let status = property::<i32>(&link, unit, &interface, "ExecMainStatus", &shared.calls);
    match tokio::join!(code, status) {
        // CLD_EXITED; CLD_KILLED and CLD_DUMPED (sigaction(2)).
        (Ok(1), Ok(status)) if status != 0 => format!("{result} (status {status})"),
        (Ok(2 | 3), Ok(signal)) => format!("{result} (killed by signal {signal})"),
        _ => result,
    }
}

fn interface(unit: &UnitName) -> Option<String> {
    let name = match unit.suffix() {
        "service" => "Service",
        "socket" => "Socket",
        "timer" => "Timer",
        "path" => "Path",
        "mount" => "Mount",
        "automount" => "Automount",
        "swap" => "Swap",
        _ => return None,
    };
    Some(format!("org.freedesktop.systemd1.{name}"))
}

/// The last lines that the unit's last run wrote, or systemd wrote of it.
async fn journal(shared: &Shared, unit: &UnitName) -> Option<Vec<String>> {
    let link = shared.link().await.ok()?;
    let unit_interface = "org.freedesktop.systemd1.Unit";
    let id: Vec<u8> = property(&link, unit, unit_interface, "InvocationID", &shared.calls).await.ok()?;
    let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    if id.is_empty() {
        return None;
    }
    let begun = property(&link, unit, unit_interface, "InactiveExitTimestamp", &shared.calls).await.ok()?;
    let run = Run { unit, id, begun };
    let mut lines = Vec::new();
    for delay in JOURNAL_DELAYS {
        tokio::time::sleep(delay).await;
        let Some(said) = ask_journal(shared, &run).await else { break };
        lines = said.lines;
        if said.unit_spoke {
            break;
        }
    }
    Some(lines)
}

async fn ask_journal(shared: &Shared, run: &Run<'_>) -> Option<Said> {
    let _turn = JOURNALS.acquire().await.ok()?;
    let mut command = Command::new("journalctl");
    command.args(["--quiet", "--no-pager", "--output=json"]).arg(format!("--lines={LINES_MAX}"));
    command.arg(format!("--output-fields=MESSAGE,{OWN_ID},{OWN_UNIT}"));
    // What systemd says of a start may be older than the start by a moment.
    let since = run.begun.saturating_sub(1_000_000);
    command.arg(format!("--since=@{}.{:06}", since / 1_000_000, since % 1_000_000));
    if let Some(dir) = shared.files.journal() {
        command.arg("--directory").arg(dir);
    }
    let Run { unit, id, .. } = run;
    command.arg(format!("{OWN_ID}={id}")).arg("+").arg(format!("INVOCATION_ID={id}"));
    command.arg("+").arg(format!("{OWN_UNIT}={unit}"));
    command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(JOURNAL_TIMEOUT, command.output()).await.ok()?.ok()?;
    Some(read(&String::from_utf8_lossy(&output.stdout), run))
}

/// A unit's last run.
struct Run<'a> {
    unit: &'a UnitName,
    /// In hexadecimal.
    id: String,
    /// In microseconds since 1970.
    begun: u64,
}

impl Run<'_> {
    /// Whether the unit itself wrote that in this run; `None`: it belongs to another run.
    fn wrote(&self, entry: &Value) -> Option<bool> {
        match &entry[OWN_ID] {
            Value::String(id) if *id == self.id => Some(true),
            _ if entry[OWN_UNIT] != *self.unit.as_str() => Some(false),
            Value::Null => {
                let received = entry[RECEIVED].as_str().and_then(|time| time.parse::<u64>().ok());
                received.is_some_and(|at| self.begun <= at).then_some(true)
            }
            _ => None,
        }
    }
}

/// What a journal has of a run of a unit.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    lines: Vec<String>,
    /// Some of it is the unit's own.
    unit_spoke: bool,
}

/// From `journalctl --output=json`, of this run: an object a line, whose texts are strings or,
/// where they are no text, arrays of bytes.
fn read(entries: &str, run: &Run<'_>) -> Said {
    let (mut lines, mut unit_spoke) = (Vec::new(), false);
    for entry in entries.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let Some(own) = run.wrote(&entry) else { continue };
        unit_spoke |= own;
        let message = match &entry["MESSAGE"] {
            Value::String(text) => text.clone(),
            Value::Array(bytes) => {
                let bytes = bytes.iter().filter_map(|byte| u8::try_from(byte.as_u64()?).ok());
                String::from_utf8_lossy(&bytes.collect::<Vec<_>>()).into_owned()
            }
            // It is too long to be shown, or there is none.
            _ => continue,
        };
        lines.extend(message.lines().map(str::to_string));
    }
    lines.drain(..lines.len().saturating_sub(LINES_MAX));
    lines.iter_mut().for_each(|line| line.truncate(line.floor_char_boundary(LINE_BYTES_MAX)));
    Said { lines, unit_spoke }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(unit: &UnitName) -> Run<'_> {
        Run { unit, id: "7".into(), begun: 100 }
    }

    #[test]
    fn a_failure_carries_little_of_the_journal() {
        let unit = UnitName::new("a.service").unwrap();
        let entry = |i| format!("{{\"MESSAGE\":\"{i}{}\"}}\n", "é".repeat(200));
        let Said { lines, unit_spoke } = read(&(0..30).map(entry).collect::<String>(), &run(&unit));
        assert_eq!((lines.len(), unit_spoke), (10, false));
        assert!(lines[0].starts_with("20é") && lines[9].starts_with("29é"));
        assert!(lines.iter().all(|line| line.len() <= 256));
        assert_eq!(read("", &run(&unit)), Said { lines: vec![], unit_spoke: false });
        let bytes = "{\"MESSAGE\":[104,105,255],\"_SYSTEMD_INVOCATION_ID\":\"7\"}\n{\"MESSAGE\":null}";
        assert_eq!(read(bytes, &run(&unit)), Said { lines: vec!["hi\u{fffd}".into()], unit_spoke: true });
    }

    #[test]
    fn a_line_without_its_run_is_known_by_unit_and_time() {
        let unit = UnitName::new("a.service").unwrap();
        let said = |fields: &str| {
            let said =
                read(&format!("{{\"MESSAGE\":\"x\",\"_SYSTEMD_UNIT\":\"a.service\"{fields}}}"), &run(&unit));
            (said.lines.len(), said.unit_spoke)
        };
        assert_eq!(said(",\"__REALTIME_TIMESTAMP\":\"100\""), (1, true));
        assert_eq!(said(",\"__REALTIME_TIMESTAMP\":\"99\""), (0, false), "of an earlier run");
        assert_eq!(said(",\"_SYSTEMD_INVOCATION_ID\":\"6\",\"__REALTIME_TIMESTAMP\":\"101\""), (0, false));
    }
}
