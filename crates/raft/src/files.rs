//! The files beside the engine's: small ones replaced whole, and the witness, written in place. A seam,
//! because a simulated machine has no files.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tokio::sync::watch;

/// What a half-written file is called until it is whole.
const TEMPORARY: &str = ".tmp";

/// The store's own files. Names are relative to its folder.
pub trait Files: Send + Sync + 'static {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;
    /// All of the file or nothing, and durable when it returns.
    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// The names in a folder, sorted; none when there is no such folder.
    fn names(&self, folder: &str) -> io::Result<Vec<String>>;
    /// Overwrites a part of an existing file.
    fn overwrite(&self, name: &str, at: u64, bytes: &[u8], durability: Durability) -> io::Result<()>;
}

/// Whether a write has to outlive a power cut, or only this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    Process,
    PowerCut,
}

/// Files in a folder of a real file system. Nobody else has opened it, in this process or another.
#[derive(Debug)]
pub struct Folder {
    dir: PathBuf,
    // Dropped in this order: who sees that it is closed may open it.
    _lock: File,
    closed: watch::Sender<()>,
}

impl Folder {
    /// Removes what an interrupted [`Files::replace`] left. The error is of the kind `ResourceBusy` while
    /// another has it open.
    pub fn open(dir: &Path) -> io::Result<Folder> {
        let lock = lock(dir)?;
        let folder = Folder { dir: dir.into(), _lock: lock, closed: watch::Sender::new(()) };
        for place in ["", "snapshots"] {
            for name in folder.names(place)? {
                if name.ends_with(TEMPORARY) {
                    fs::remove_file(dir.join(place).join(name))?;
                }
            }
        }
        Ok(folder)
    }

    /// Its sender is gone when the folder is closed.
    pub fn closed(&self) -> watch::Receiver<()> {
        self.closed.subscribe()
    }
}

/// The lock of the store in `dir`, for as long as the file is open.
pub(crate) fn lock(dir: &Path) -> io::Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(dir.join("LOCK"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(io::ErrorKind::ResourceBusy.into()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

impl Files for Folder {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.dir.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.dir.join(name);
        let folder = path.parent().expect("a file lies in a folder");
        if !folder.exists() {
            fs::create_dir_all(folder)?;
            File::open(&self.dir)?.sync_all()?;
        }
        let mut temporary = path.clone().into_os_string();
        temporary.push(TEMPORARY);
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(folder)?.sync_all()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.dir.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn names(&self, folder: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        match fs::read_dir(self.dir.join(folder)) {
            Ok(entries) => {
                for entry in entries {
                    names.push(entry?.file_name().to_string_lossy().into_owned());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        names.sort();
        Ok(names)
    }

    fn overwrite(&self, name: &str, at: u64, bytes: &[u8], durability: Durability) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.dir.join(name))?;
        file.write_all_at(bytes, at)?;
        match durability {
            Durability::Process => Ok(()),
            Durability::PowerCut => file.sync_data(),
        }
    }
}
