//! Looks how full the disk under the store is, so that it can be told before it is full. It changes nothing:
//! a write that fails ends the daemon, and nothing here prevents that.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::fs::StatVfsMountFlags;
use tokio::sync::watch;

use crate::signs::Signs;

/// A disk does not fill in less, as a rule, and a look is a handful of system calls.
const INTERVAL: Duration = Duration::from_secs(10);
/// Files of a store that are counted: it has a dozen.
const FILES_MAX: usize = 10_000;

/// Runs until `stop`.
pub async fn run(dir: PathBuf, signs: Arc<Signs>, mut stop: watch::Receiver<bool>) {
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // Cancel-safe: both only wait.
            _ = tick.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let (dir, signs) = (dir.clone(), signs.clone());
        // A disk that hangs is not to hold up the runtime. It is looked at by one thread at a time.
        let look = tokio::task::spawn_blocking(move || look(&dir, &signs));
        tokio::select! {
            // Not resumed when cancelled: the thread ends by itself.
            looked = look => if let Err(error) = looked {
                tracing::warn!(%error, "the disk was not looked at");
            },
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

fn look(dir: &Path, signs: &Signs) {
    // A folder that is not there yet is as full as the one that it will be in.
    let there = dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    match rustix::fs::statvfs(there) {
        Ok(disk) => {
            let set = |to: &std::sync::atomic::AtomicU64, blocks: u64| {
                to.store(blocks.saturating_mul(disk.f_frsize), Ordering::Relaxed);
            };
            set(&signs.disk.free_bytes, disk.f_bavail);
            set(&signs.disk.total_bytes, disk.f_blocks);
            let read_only = disk.f_flag.contains(StatVfsMountFlags::RDONLY);
            signs.disk.read_only.store(read_only, Ordering::Relaxed);
        }
        Err(error) => tracing::debug!(%error, "the disk was not looked at"),
    }
    signs.disk.store_bytes.store(bytes_below(dir), Ordering::Relaxed);
}

/// What the files below a folder take of the disk.
fn bytes_below(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let (mut open, mut bytes, mut files) = (vec![dir.to_path_buf()], 0, 0);
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            files += 1;
            if files > FILES_MAX {
                return bytes;
            }
            // Files come and go while they are counted.
            let Ok(metadata) = entry.metadata() else { continue };
            match metadata.is_dir() {
                true => open.push(entry.path()),
                false => bytes += metadata.blocks() * 512,
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        let signs = Signs::default();
        look(&store, &signs);
        assert_eq!(signs.disk.store_bytes.load(Ordering::Relaxed), 0);
        std::fs::create_dir_all(store.join("db")).unwrap();
        std::fs::write(store.join("db/log"), vec![1; 100_000]).unwrap();
        look(&store, &signs);
        assert!(100_000 <= signs.disk.store_bytes.load(Ordering::Relaxed));
        let (free, total) = (&signs.disk.free_bytes, &signs.disk.total_bytes);
        assert!(free.load(Ordering::Relaxed) <= total.load(Ordering::Relaxed));
        assert!(0 < total.load(Ordering::Relaxed) && !signs.disk.read_only.load(Ordering::Relaxed));
    }
}
