//! `reboot-lock reboot`: this machine reboots in its turn. Whoever forbids it, such as a package manager at
//! work, is waited for before a slot is taken, so that nobody else waits for that; and once more before
//! systemd is asked, since draining takes its time.

use std::io::ErrorKind;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use api::{Client, ClientError};
use cluster::MachineId;
use serde::Deserialize;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::cli::{RebootStrategy, Slot};
use crate::reboot_lock::{RETRY_PAUSE, deadline, late, take};
use crate::{Exit, output};

/// A package manager with a list to go through lets go for a moment between one package and the next.
const QUIET: Duration = Duration::from_secs(20);
/// systemd-logind may be restarting. One that cannot be asked more often than this is not there.
const SILENCES_MAX: usize = 3;

pub async fn run(client: &Client, strategy: RebootStrategy, slot: &Slot) -> anyhow::Result<Exit> {
    if strategy == RebootStrategy::Off {
        output::line("reboots are off (reboot strategy \"off\"); nothing was done");
        return Ok(Exit::Done);
    }
    let deadline = deadline(slot);
    if !allowed(locks, deadline).await {
        return Ok(Exit::Failed);
    }
    let locked = match lock(client, strategy, deadline).await? {
        Lock::Of(machine) => Some(machine),
        Lock::None => None,
        Lock::Unknown => return Ok(Exit::Failed),
    };
    if let Some(machine) = &locked {
        if take(client, machine, &slot.group, deadline).await? != Exit::Done {
            return Ok(Exit::Failed);
        }
        if !allowed(locks, deadline).await {
            output::problem("the machine holds a slot; `corectl reboot-lock done` gives it back");
            return Ok(Exit::Failed);
        }
    }
    let ended = Command::new("systemctl").arg("reboot").status().await.context("cannot run systemctl")?;
    if !ended.success() {
        let hint = if locked.is_some() { "; `corectl reboot-lock done` gives the slot back" } else { "" };
        bail!("`systemctl reboot` failed ({ended}){hint}");
    }
    Ok(Exit::Done)
}

/// Whether a slot is needed.
enum Lock {
    Of(MachineId),
    None,
    /// Time was over before that was known.
    Unknown,
}

/// Without the daemon's socket no daemon has run since the boot, and no cluster counts on this machine. A
/// daemon that is away leaves its socket behind, and one that does not answer may be a member's: both are
/// waited for, as whoever waits for a slot waits for the leader.
async fn lock(client: &Client, strategy: RebootStrategy, deadline: Option<Instant>) -> anyhow::Result<Lock> {
    let must = match strategy {
        RebootStrategy::Off | RebootStrategy::Reboot => return Ok(Lock::None),
        RebootStrategy::BestEffort => false,
        RebootStrategy::EtcdLock => true,
    };
    let mut last = String::new();
    loop {
        match client.status().await {
            Ok(status) if must || status.cluster_id.is_some() => return Ok(Lock::Of(status.machine)),
            Ok(_) => return Ok(Lock::None),
            Err(ClientError::NoSocket { .. }) if !must => return Ok(Lock::None),
            Err(error) if error.is_unreachable() => {
                waiting(&mut last, format!("{:#}", anyhow::Error::new(error)));
            }
            Err(error) => return Err(error.into()),
        }
        if deadline.is_some_and(|deadline| deadline <= Instant::now() + RETRY_PAUSE) {
            late(&last);
            return Ok(Lock::Unknown);
        }
        sleep(RETRY_PAUSE).await;
    }
}

/// Tells what is waited for, once.
fn waiting(last: &mut String, said: String) {
    if said != *last {
        output::note(&format!("waiting: {said}"));
    }
    *last = said;
}

/// Waits until nobody forbids a reboot; false when time is over before.
async fn allowed(
    mut look: impl AsyncFnMut() -> anyhow::Result<Vec<String>>,
    deadline: Option<Instant>,
) -> bool {
    let (mut last, mut silences) = (String::new(), 0);
    let (mut was_held, mut quiet_since) = (false, None);
    loop {
        match look().await {
            Ok(held) if held.is_empty() => {
                let since = *quiet_since.get_or_insert_with(Instant::now);
                if !was_held || QUIET <= since.elapsed() {
                    return true;
                }
            }
            Ok(held) => {
                (was_held, quiet_since, silences) = (true, None, 0);
                waiting(&mut last, held.join(", "));
            }
            Err(error) => {
                silences += 1;
                if SILENCES_MAX <= silences {
                    output::note(&format!("nobody can say whether reboots are forbidden: {error:#}"));
                    return true;
                }
            }
        }
        if deadline.is_some_and(|deadline| deadline <= Instant::now() + RETRY_PAUSE) {
            return late(if last.is_empty() { "systemd-logind does not answer" } else { &last });
        }
        sleep(RETRY_PAUSE).await;
    }
}

/// What is forbidden, by whom, why, how, and the user and the process that do (org.freedesktop.login1(5)).
type Held = (String, String, String, String, u64, u64);

/// What systemd-logind answers.
#[derive(Deserialize)]
struct Locks {
    data: (Vec<Held>,),
}

/// Who forbids that this machine goes down, with the reason; systemd-inhibit(1). root's own `systemctl
/// reboot` goes over it, unless somebody sits at a terminal.
async fn locks() -> anyhow::Result<Vec<String>> {
    const LOGIN: &str = "org.freedesktop.login1";
    let mut busctl = Command::new("busctl");
    busctl.args(["--json=short", "call", LOGIN, "/org/freedesktop/login1"]);
    busctl.args([&format!("{LOGIN}.Manager"), "ListInhibitors"]).stdin(Stdio::null());
    let asked = match busctl.output().await {
        Ok(asked) => asked,
        // It comes with systemd: without it, there is none of that.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).context("cannot run busctl"),
    };
    ensure!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr).trim());
    held(&asked.stdout)
}

fn held(answer: &[u8]) -> anyhow::Result<Vec<String>> {
    let Locks { data: (locks,) } =
        serde_json::from_slice(answer).context("systemd-logind's answer cannot be read")?;
    let forbids = |what: &str, how: &str| how == "block" && what.split(':').any(|what| what == "shutdown");
    let locks = locks.into_iter().filter(|(what, _, _, how, ..)| forbids(what, how));
    Ok(locks.map(|(_, who, why, ..)| format!("{who}: {why}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_blocks_a_shutdown_counts() {
        let answer = br#"{"type":"a(ssssuu)","data":[[
            ["shutdown:sleep","Unattended Upgrades Shutdown","Stop ongoing upgrades","delay",0,7],
            ["handle-power-key","gdm","GNOME handles it","block",1000,8],
            ["shutdown","APT","APT is installing or removing packages","block",0,9]]]}"#;
        assert_eq!(held(answer).unwrap(), ["APT: APT is installing or removing packages"]);
        assert!(held(br#"{"type":"a(ssssuu)","data":[[]]}"#).unwrap().is_empty());
        assert!(held(b"").is_err());
    }

    /// What systemd-logind says, look by look, and the last for ever. Comes to the number of looks and to how
    /// long it took in seconds.
    async fn looked(says: &[Option<&[&str]>], limit: Option<u64>) -> (bool, usize, u64) {
        let begun = Instant::now();
        let mut looks = 0;
        let look = async || {
            let said = says[looks.min(says.len() - 1)];
            looks += 1;
            let said = said.ok_or_else(|| anyhow::anyhow!("no answer"))?;
            Ok(said.iter().map(|who| who.to_string()).collect())
        };
        let deadline = limit.map(|limit| begun + Duration::from_secs(limit));
        let is_allowed = allowed(look, deadline).await;
        (is_allowed, looks, begun.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_package_manager_is_waited_for() {
        let (apt, free): (Option<&[&str]>, Option<&[&str]>) = (Some(&["APT"]), Some(&[]));
        assert_eq!(looked(&[free], None).await, (true, 1, 0));
        assert_eq!(looked(&[apt, apt, free], None).await, (true, 7, 30), "it has been gone for 20 s");
        assert_eq!(looked(&[apt, free, free, apt, free], None).await, (true, 9, 40), "it came back");
        assert_eq!(looked(&[apt], Some(60)).await, (false, 12, 55));
        assert_eq!(looked(&[None], None).await, (true, 3, 10), "there is no systemd-logind");
        assert!(looked(&[None, apt, None, free], None).await.0);
    }
}
