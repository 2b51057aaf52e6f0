//! What was carried out on this machine since it booted: for each unit the generation whose start or stop has
//! ended. One small file a unit, in `/run`: a daemon that comes back knows what it has done, a machine that
//! comes back has done nothing.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use cluster::{Generation, UnitName};

pub struct Marks {
    dir: PathBuf,
    done: BTreeMap<UnitName, Generation>,
}

impl Marks {
    /// Reads what is there. What cannot be read counts as not done: doing it again is harmless.
    pub fn open(dir: PathBuf) -> Marks {
        let done = read(&dir).unwrap_or_else(|error| {
            tracing::warn!(%error, dir = %dir.display(), "cannot read what was done since the boot");
            BTreeMap::new()
        });
        Marks { dir, done }
    }

    pub fn get(&self, unit: &UnitName) -> Option<Generation> {
        self.done.get(unit).copied()
    }

    /// Notes the generation as carried out.
    pub fn put(&mut self, unit: &UnitName, generation: Generation) {
        if self.done.insert(unit.clone(), generation) == Some(generation) {
            return;
        }
        let new = self.dir.join(".new");
        let written = std::fs::create_dir_all(&self.dir)
            .and_then(|()| std::fs::write(&new, format!("{generation}\n")))
            .and_then(|()| std::fs::rename(&new, self.dir.join(unit.as_str())));
        if let Err(error) = written {
            tracing::warn!(%error, %unit, "cannot note what was done; it may be done again after a restart");
        }
    }

    /// Forgets what was done with that unit.
    pub fn forget(&mut self, unit: &UnitName) {
        self.retain(|other| other != unit);
    }

    /// Forgets the units that are not kept.
    pub fn retain(&mut self, keep: impl Fn(&UnitName) -> bool) {
        let dir = &self.dir;
        self.done.retain(|unit, _| {
            let keep = keep(unit);
            if !keep && let Err(error) = std::fs::remove_file(dir.join(unit.as_str())) {
                tracing::debug!(%error, %unit, "a stale mark stays");
            }
            keep
        });
    }
}

fn read(dir: &PathBuf) -> io::Result<BTreeMap<UnitName, Generation>> {
    std::fs::create_dir_all(dir)?;
    let mut done = BTreeMap::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let unit = entry.file_name().to_str().and_then(|name| UnitName::new(name).ok());
        let Some(unit) = unit else { continue };
        if let Ok(generation) = std::fs::read_to_string(entry.path())?.trim().parse() {
            done.insert(unit, Generation(generation));
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_again_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (UnitName::new("a.service").unwrap(), UnitName::new("b@1.service").unwrap());
        let mut marks = Marks::open(dir.path().join("done"));
        marks.put(&a, Generation(7));
        marks.put(&b, Generation(8));
        marks.put(&a, Generation(9));
        std::fs::write(dir.path().join("done/c.service"), "what?").unwrap();
        let mut again = Marks::open(dir.path().join("done"));
        assert_eq!((again.get(&a), again.get(&b)), (Some(Generation(9)), Some(Generation(8))));
        assert_eq!(again.get(&UnitName::new("c.service").unwrap()), None);
        again.retain(|unit| *unit == b);
        assert_eq!(Marks::open(dir.path().join("done")).get(&a), None);
    }
}
