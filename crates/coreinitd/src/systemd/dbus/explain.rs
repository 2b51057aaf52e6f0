//! Why a unit failed: systemd's result for it, and the last words of its journal.

use std::process::Stdio;
use std::time::Duration;

use cluster::{Failure, UnitName};
use tokio::process::Command;
use tokio::sync::Semaphore;

use super::Shared;
use super::calls::property;

/// What a failure carries of the journal.
const LINES_MAX: usize = 10;
const LINE_BYTES_MAX: usize = 256;
/// An old journal on a slow disk may take longer to search; the reason alone is better than no report.
const JOURNAL_TIMEOUT: Duration = Duration::from_secs(2);
/// journald takes what systemd says before what the unit has written, which is what people look for.
const JOURNAL_DELAY: Duration = Duration::from_millis(100);
/// Each is a process.
const JOURNALS_MAX: usize = 4;
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
    tokio::time::sleep(JOURNAL_DELAY).await;
    let _turn = JOURNALS.acquire().await.ok()?;
    let mut command = Command::new("journalctl");
    command.args(["--quiet", "--no-pager", "--output=cat"]).arg(format!("--lines={LINES_MAX}"));
    if let Some(dir) = shared.files.journal() {
        command.arg("--directory").arg(dir);
    }
    command.arg(format!("_SYSTEMD_INVOCATION_ID={id}")).arg("+").arg(format!("INVOCATION_ID={id}"));
    command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(JOURNAL_TIMEOUT, command.output()).await.ok()?.ok()?;
    Some(last_lines(&String::from_utf8_lossy(&output.stdout)))
}

fn last_lines(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(LINES_MAX)..];
    last.iter().map(|line| line[..line.floor_char_boundary(LINE_BYTES_MAX)].to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_carries_little_of_the_journal() {
        let text: String = (0..30).map(|i| format!("{i}{}\n", "é".repeat(200))).collect();
        let lines = last_lines(&text);
        assert_eq!(lines.len(), 10);
        assert!(lines[0].starts_with("20é") && lines[9].starts_with("29é"));
        assert!(lines.iter().all(|line| line.len() <= 256));
        assert_eq!(last_lines(""), Vec::<String>::new());
    }
}
