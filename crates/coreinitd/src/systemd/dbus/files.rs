//! The directory of our unit files, and the links by which systemd finds them. All of it lies in `/run`, in
//! memory: nothing is synced, and nothing waits for a disk.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use cluster::{UnitFile, UnitName};

use crate::systemd::UnitError;

/// Where systemd keeps what was linked for this boot only.
const LINKS_DIR: &str = "/run/systemd/system";

pub struct Files {
    /// As systemd is told.
    told: PathBuf,
    /// As we reach it.
    dir: PathBuf,
    links: PathBuf,
    journal: Option<PathBuf>,
}

impl Files {
    /// Makes the directory when there is none.
    pub fn open(root: &Path, told: PathBuf) -> Result<Files, UnitError> {
        let (dir, links) = (below(root, &told), below(root, Path::new(LINKS_DIR)));
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&dir);
        made.map_err(|error| file_error("make", &dir, error))?;
        let journal = (root != Path::new("/")).then(|| below(root, Path::new("/var/log/journal")));
        Ok(Files { told, dir, links, journal })
    }

    /// Where a container keeps its journal; `None` for this machine's own.
    pub fn journal(&self) -> Option<&Path> {
        self.journal.as_deref()
    }

    pub fn path_told(&self, unit: &UnitName) -> String {
        self.told.join(unit.as_str()).to_string_lossy().into_owned()
    }

    pub fn read(&self) -> Result<BTreeMap<UnitName, UnitFile>, UnitError> {
        let failed = |error| file_error("read", &self.dir, error);
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            // Not a unit's: a text that was being written when the daemon was killed, or somebody else's.
            let Some(unit) = name.to_str().and_then(|name| UnitName::new(name).ok()) else { continue };
            let text = std::fs::read(self.dir.join(&name)).map_err(failed)?;
            files.insert(unit, UnitFile::from(String::from_utf8_lossy(&text).into_owned()));
        }
        Ok(files)
    }

    pub fn write(&self, unit: &UnitName, file: &UnitFile) -> Result<(), UnitError> {
        let path = self.dir.join(unit.as_str());
        // The name of no unit. There is one writer, and what a killed one left behind is written over.
        let new = self.dir.join(".new");
        let written = (|| {
            std::fs::write(&new, file.text())?;
            // Whatever the umask: systemd warns about unit files that others cannot read.
            std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o644))?;
            std::fs::rename(&new, &path)
        })();
        written.map_err(|error| file_error("write", &path, error))
    }

    pub fn remove(&self, unit: &UnitName) -> Result<(), UnitError> {
        let path = self.dir.join(unit.as_str());
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(file_error("delete", &path, error)),
            _ => Ok(()),
        }
    }

    /// Our file of the unit, if it is there and can be read.
    pub fn get(&self, unit: &UnitName) -> Option<UnitFile> {
        let text = std::fs::read(self.dir.join(unit.as_str())).ok()?;
        Some(UnitFile::from(String::from_utf8_lossy(&text).into_owned()))
    }

    pub fn holds(&self, unit: &UnitName) -> bool {
        self.dir.join(unit.as_str()).exists()
    }

    /// Whether systemd finds our file under the unit's name.
    pub fn is_linked(&self, unit: &UnitName) -> bool {
        let target = std::fs::read_link(self.links.join(unit.as_str()));
        // systemd writes some links relative to the directory that they are in.
        target.is_ok_and(|target| {
            target.file_name() == Some(OsStr::new(unit.as_str()))
                && resolve(Path::new(LINKS_DIR), &target).parent() == Some(&self.told)
        })
    }

    /// Whether a link of that path means something for other units than the one that it is named after: it is
    /// in their `.wants` or `.requires`, or it is another name.
    pub fn concerns_another(&self, link: &str) -> bool {
        let link = Path::new(link);
        let name = link.file_name().and_then(OsStr::to_str).and_then(|name| UnitName::new(name).ok());
        link.parent() != Some(Path::new(LINKS_DIR)) || !name.is_some_and(|name| self.holds(&name))
    }

    /// Whether a unit that systemd loaded from this path was ours: our file, or the link to it that is gone.
    pub fn was_ours(&self, unit: &UnitName, fragment: &str) -> bool {
        let link = Path::new(LINKS_DIR).join(unit.as_str());
        let here = self.links.join(unit.as_str());
        Path::new(fragment) == self.told.join(unit.as_str())
            || (Path::new(fragment) == link && std::fs::symlink_metadata(here).is_err())
    }
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// `target` as seen from `dir`, without `..` steps.
fn resolve(dir: &Path, target: &Path) -> PathBuf {
    let mut path = PathBuf::new();
    for part in dir.join(target).components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            Component::CurDir => {}
            Component::Normal(_) | Component::RootDir | Component::Prefix(_) => path.push(part),
        }
    }
    path
}

fn file_error(verb: &'static str, path: &Path, source: std::io::Error) -> UnitError {
    UnitError::File { verb, path: path.display().to_string(), source: Arc::new(source) }
}
