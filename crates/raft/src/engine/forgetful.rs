//! The disk of a simulated machine, in memory: the engine and the files beside it. It outlives the daemon
//! that uses it, and when its power is cut it forgets what was not synced. Chance comes from its seed.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::{Batch, Engine, Table, Visit};
use crate::files::{Durability, Files};

type Records = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// Clones are the same disk.
#[derive(Clone, Debug)]
pub struct Forgetful {
    memory: Arc<Mutex<Memory>>,
}

#[derive(Debug)]
struct Memory {
    chance: SmallRng,
    /// Counts the daemons that have used this disk. Only the last one may: the others are dead.
    user: u64,
    synced: Records,
    /// `synced` with `pending` applied.
    now: Records,
    pending: Vec<Batch>,
    files: BTreeMap<String, Vec<u8>>,
    /// The durable content of those files whose last overwrite was not synced.
    overwritten: BTreeMap<String, Vec<u8>>,
    failing: bool,
    /// So many writes and syncs are carried out yet, and then the power goes.
    writes_left: Option<u64>,
}

/// What becomes of un-synced writes when the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsynced {
    Lost,
    /// By chance some survive: of the engine's batches a prefix, of overwritten files each for itself.
    ByChance,
}

impl Forgetful {
    pub fn new(seed: u64) -> Forgetful {
        let memory = Memory {
            chance: SmallRng::seed_from_u64(seed),
            user: 0,
            synced: Records::new(),
            now: Records::new(),
            pending: Vec::new(),
            files: BTreeMap::new(),
            overwritten: BTreeMap::new(),
            failing: false,
            writes_left: None,
        };
        Forgetful { memory: Arc::new(Mutex::new(memory)) }
    }

    /// The machine loses power. Whoever used the disk can do nothing with it any more.
    pub fn power_cut(&self, unsynced: Unsynced) {
        let memory = &mut *self.lock();
        memory.user += 1;
        memory.writes_left = None;
        let pending = std::mem::take(&mut memory.pending);
        let kept = match unsynced {
            Unsynced::Lost => 0,
            Unsynced::ByChance => memory.chance.random_range(0..=pending.len()),
        };
        for batch in &pending[..kept] {
            apply(&mut memory.synced, batch);
        }
        memory.now = memory.synced.clone();
        for (name, before) in std::mem::take(&mut memory.overwritten) {
            if unsynced == Unsynced::Lost || memory.chance.random() {
                memory.files.insert(name, before);
            }
        }
    }

    /// The daemon is killed; what it wrote stays.
    pub fn kill(&self) {
        let memory = &mut *self.lock();
        memory.user += 1;
        memory.writes_left = None;
    }

    /// After so many more writes and syncs the machine loses power: to try out every step of whatever writes.
    /// What has become of the last ones is decided by the [`Forgetful::power_cut`] that has to follow.
    pub fn stop_after(&self, writes: u64) {
        self.lock().writes_left = Some(writes);
    }

    /// Whether [`Forgetful::stop_after`] has come about.
    pub fn has_stopped(&self) -> bool {
        self.lock().writes_left == Some(0)
    }

    /// From now on no sync succeeds.
    pub fn fail_syncs(&self) {
        self.lock().failing = true;
    }

    /// The disk works again; what it failed to sync it has forgotten.
    pub fn heal(&self) {
        let memory = &mut *self.lock();
        memory.failing = false;
        memory.pending.clear();
    }

    /// A new disk in the place of the old one.
    pub fn wipe(&self) {
        let memory = &mut *self.lock();
        memory.user += 1;
        memory.synced.clear();
        memory.now.clear();
        memory.pending.clear();
        memory.files.clear();
        memory.overwritten.clear();
        memory.failing = false;
    }

    /// 128 random bits in hex.
    pub(crate) fn nonce(&self) -> String {
        format!("{:032x}", self.lock().chance.random::<u128>())
    }

    /// Makes the caller the disk's only user.
    pub(crate) fn engine(&self) -> ForgetfulDisk {
        let mut memory = self.lock();
        memory.user += 1;
        ForgetfulDisk { disk: self.clone(), user: memory.user }
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().expect("no holder of this lock panics")
    }
}

fn apply(records: &mut Records, batch: &Batch) {
    for write in &batch.writes {
        let key = (write.table, write.key.clone());
        match &write.value {
            Some(value) => records.insert(key, value.clone()),
            None => records.remove(&key),
        };
    }
}

/// The disk in the hands of one daemon.
#[derive(Clone, Debug)]
pub struct ForgetfulDisk {
    disk: Forgetful,
    user: u64,
}

impl ForgetfulDisk {
    fn memory(&self) -> io::Result<MutexGuard<'_, Memory>> {
        let memory = self.disk.lock();
        match memory.user == self.user && memory.writes_left != Some(0) {
            true => Ok(memory),
            false => Err(io::Error::other("the simulated machine has lost its power since")),
        }
    }

    /// For whatever changes what is on the disk.
    fn changing(&self) -> io::Result<MutexGuard<'_, Memory>> {
        let mut memory = self.memory()?;
        if let Some(left) = &mut memory.writes_left {
            *left -= 1;
        }
        Ok(memory)
    }
}

impl Engine for ForgetfulDisk {
    fn get(&self, table: Table, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Ok(self.memory()?.now.get(&(table, key.to_vec())).cloned())
    }

    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> io::Result<()> {
        let memory = self.memory()?;
        for ((found, key), value) in memory.now.range((table, from.to_vec())..) {
            if *found != table {
                break;
            }
            if let ControlFlow::Break(()) = visit(key, value)? {
                break;
            }
        }
        Ok(())
    }

    fn write(&self, batch: &Batch) -> io::Result<()> {
        let memory = &mut *self.changing()?;
        apply(&mut memory.now, batch);
        memory.pending.push(batch.clone());
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let memory = &mut *self.changing()?;
        if memory.failing {
            return Err(io::Error::other("the simulated disk has failed"));
        }
        for batch in memory.pending.drain(..) {
            apply(&mut memory.synced, &batch);
        }
        Ok(())
    }
}

impl Files for ForgetfulDisk {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.memory()?.files.get(name).cloned())
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut memory = self.changing()?;
        memory.overwritten.remove(name);
        memory.files.insert(name.into(), bytes.into());
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut memory = self.changing()?;
        memory.overwritten.remove(name);
        memory.files.remove(name);
        Ok(())
    }

    fn names(&self, folder: &str) -> io::Result<Vec<String>> {
        let memory = self.memory()?;
        let inside = memory.files.keys().filter_map(|name| name.strip_prefix(folder)?.strip_prefix('/'));
        Ok(inside.map(str::to_string).collect())
    }

    fn overwrite(&self, name: &str, at: u64, bytes: &[u8], durability: Durability) -> io::Result<()> {
        let memory = &mut *self.changing()?;
        let file = memory.files.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
        match durability {
            Durability::Process => {
                memory.overwritten.entry(name.into()).or_insert_with(|| file.clone());
            }
            Durability::PowerCut => {
                memory.overwritten.remove(name);
            }
        }
        let at = usize::try_from(at).map_err(io::Error::other)?;
        let end = at + bytes.len();
        if file.len() < end {
            file.resize(end, 0);
        }
        file[at..end].copy_from_slice(bytes);
        Ok(())
    }
}
