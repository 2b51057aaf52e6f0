//! Leaving as fleet did, when asked for (`stop_units_on_exit`): the cluster's units on this machine are
//! stopped and unloaded before the daemon ends. Its agent has ended by then, so nothing starts them again;
//! the machine still says that it is there, so nobody starts them elsewhere while they stop.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use cluster::UnitName;
use futures::future::join_all;
use tokio::time::timeout;

use crate::systemd::{JobEnd, Seen, UnitError, UnitManager};

/// systemd's own patience with a unit that does not stop is 90 s.
pub const LEAVE_TIMEOUT: Duration = Duration::from_secs(100);

/// Stops all of them at once, then forgets those that have stopped, and what was done with them: when the
/// daemon comes back, it begins with them anew. One that does not stop is told of and left.
pub async fn leave(units: &dyn UnitManager, marks_dir: &Path) {
    let (held, ours) = match held(units).await {
        Ok(held) => held,
        Err(error) => {
            tracing::error!(%error, "the cluster's units on this machine cannot be stopped");
            return;
        }
    };
    tracing::info!(count = held.len(), "stopping the cluster's units on this machine");
    let ours = &ours;
    let stops = held.iter().map(|unit| async move {
        if !ours.contains(unit) {
            return Some(unit.clone());
        }
        match timeout(LEAVE_TIMEOUT, units.stop(unit)).await {
            Ok(JobEnd::Done) => Some(unit.clone()),
            Ok(end) => {
                tracing::warn!(%unit, ?end, "{unit} was not stopped");
                None
            }
            Err(_) => {
                tracing::warn!(%unit, "{unit} has not stopped in time");
                None
            }
        }
    });
    let stopped: Vec<UnitName> = join_all(stops).await.into_iter().flatten().collect();
    match units.remove(&stopped).await {
        Ok(refused) => {
            for (unit, error) in refused {
                tracing::warn!(%unit, %error, "{unit} was stopped and not unloaded");
            }
        }
        Err(error) => tracing::error!(%error, "the stopped units were not unloaded"),
    }
    for unit in stopped {
        let mark = marks_dir.join(unit.as_str());
        if let Err(error) = std::fs::remove_file(mark)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%unit, %error, "{unit} may not be started when the daemon comes back");
        }
    }
}

/// All whose files are here, and those of them that are the cluster's in systemd too: where the machine has a
/// unit of its own under that name, ours was never linked, and is nobody's to stop.
async fn held(units: &dyn UnitManager) -> Result<(Vec<UnitName>, BTreeSet<UnitName>), UnitError> {
    let held: BTreeSet<UnitName> = units.held().await?.into_keys().collect();
    let seen = units.observe(&held).await?;
    let is_there = |seen: &Seen| seen.linked || &*seen.load != "not-found" || &*seen.active != "inactive";
    let ours = seen.into_iter().filter(|(_, seen)| is_there(seen)).map(|(unit, _)| unit).collect();
    Ok((held.into_iter().collect(), ours))
}

#[cfg(test)]
mod tests {
    use cluster::UnitFile;

    use super::*;
    use crate::systemd::Memory;

    #[tokio::test(start_paused = true)]
    async fn units_are_stopped_unloaded_and_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let systemd = Memory::default();
        let units: Vec<UnitName> = ["a", "b"].map(|n| UnitName::new(&format!("{n}.service")).unwrap()).into();
        let file = UnitFile::parse("[Service]\nExecStart=/bin/sleep 1\n").unwrap();
        for unit in &units {
            systemd.write(unit, &file).await.unwrap();
            std::fs::write(dir.path().join(unit.as_str()), "7\n").unwrap();
        }
        assert!(systemd.link(&units).await.unwrap().is_empty());
        assert_eq!(systemd.start(&units[0]).await, JobEnd::Done);
        let names: BTreeSet<UnitName> = units.iter().cloned().collect();
        assert_eq!(&*systemd.observe(&names).await.unwrap()[&units[0]].active, "active");

        // The machine's own, whose name somebody has asked for.
        let own = UnitName::new("own.service").unwrap();
        systemd.add_foreign(&own, "/usr/lib/systemd/system/own.service");
        systemd.write(&own, &file).await.unwrap();
        assert_eq!(systemd.link(std::slice::from_ref(&own)).await.unwrap().len(), 1);

        leave(&systemd, dir.path()).await;
        assert_eq!((systemd.stops(&own), systemd.stops(&units[0])), (0, 1));
        assert!(systemd.held().await.unwrap().is_empty());
        assert_eq!(&*systemd.observe(&names).await.unwrap()[&units[0]].load, "not-found");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
