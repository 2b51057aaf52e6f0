//! A model of a disk that loses its power. A file's bytes are safe once a sync that began after they were
//! written has ended; a name, once its folder was synced. The rest is lost, or each page and each folder's
//! last changes by chance.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rand::RngExt;
use rand::rngs::SmallRng;

use crate::trace::Event;

const PAGE: usize = 4096;

/// What happens to writes that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsynced {
    Lost,
    ByChance,
}

#[derive(Clone, Debug)]
enum Change {
    Write { at: u64, bytes: Vec<u8> },
    Truncate { to: u64 },
    Extend { to: u64 },
}

#[derive(Default)]
struct File {
    safe: Vec<u8>,
    unsafe_: Vec<Change>,
    size: u64,
}

enum NameChange {
    Add { name: PathBuf, file: usize },
    Remove { name: PathBuf },
    Move { from: PathBuf, to: PathBuf },
    Folder { name: PathBuf },
}

/// The changes of one folder's names, of which the first `safe` are safe.
#[derive(Default)]
struct Folder {
    changes: Vec<(u64, NameChange)>,
    safe: usize,
}

#[derive(Clone)]
enum Open {
    File { file: usize, at: u64 },
    Folder(PathBuf),
}

/// The disk as the recorded process sees it, and what of it is safe.
pub struct Disk {
    root: PathBuf,
    files: Vec<File>,
    /// By name below the root.
    names: BTreeMap<PathBuf, usize>,
    folders: BTreeMap<PathBuf, Folder>,
    open: BTreeMap<i32, Open>,
    /// What each sync that runs is about: how many changes had been made when it began.
    syncs: BTreeMap<u32, usize>,
    clock: u64,
    /// A file whose syncs do nothing, to see whether that is found.
    unsynced: Option<PathBuf>,
    /// What was written to standard output.
    pub out: String,
}

impl Disk {
    /// What lies under `image`, if anything, is safe, and lay under `root` when the record began.
    pub fn new(root: &Path, image: Option<&Path>, unsynced: Option<&str>) -> Disk {
        let mut disk = Disk {
            root: root.into(),
            files: Vec::new(),
            names: BTreeMap::new(),
            folders: BTreeMap::from([(PathBuf::new(), Folder::default())]),
            open: BTreeMap::new(),
            syncs: BTreeMap::new(),
            clock: 0,
            unsynced: unsynced.map(PathBuf::from),
            out: String::new(),
        };
        if let Some(image) = image {
            disk.load(image, Path::new(""));
        }
        disk
    }

    fn load(&mut self, image: &Path, below: &Path) {
        for entry in fs::read_dir(image.join(below)).unwrap() {
            let entry = entry.unwrap();
            let name = below.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                self.rename(NameChange::Folder { name: name.clone() }, &name);
                self.folders.insert(name.clone(), Folder::default());
                self.load(image, &name);
            } else {
                let safe = fs::read(entry.path()).unwrap();
                self.files.push(File { size: safe.len() as u64, safe, unsafe_: Vec::new() });
                self.names.insert(name.clone(), self.files.len() - 1);
                self.rename(NameChange::Add { name: name.clone(), file: self.files.len() - 1 }, &name);
            }
            let folder = self.folders.get_mut(below).unwrap();
            folder.safe = folder.changes.len();
        }
    }

    /// Takes note of a change in the folder of `name`.
    fn rename(&mut self, change: NameChange, name: &Path) {
        self.clock += 1;
        self.folders.get_mut(name.parent().unwrap()).unwrap().changes.push((self.clock, change));
    }

    fn below(&self, path: &Path) -> Option<PathBuf> {
        path.strip_prefix(&self.root).ok().map(PathBuf::from)
    }

    fn file(&mut self, fd: i32) -> Option<(usize, u64)> {
        match self.open.get(&fd) {
            Some(Open::File { file, at }) => Some((*file, *at)),
            _ => None,
        }
    }

    fn change(&mut self, file: usize, change: Change) {
        let file = &mut self.files[file];
        file.size = match &change {
            Change::Write { at, bytes } => file.size.max(at + bytes.len() as u64),
            Change::Truncate { to } => *to,
            Change::Extend { to } => file.size.max(*to),
        };
        file.unsafe_.push(change);
    }

    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Open { path, fd, truncate, create } => {
                self.open.remove(fd);
                let Some(name) = self.below(path) else { return };
                if self.folders.contains_key(&name) {
                    self.open.insert(*fd, Open::Folder(name));
                    return;
                }
                let file = match self.names.get(&name) {
                    Some(file) => *file,
                    None if *create => {
                        self.files.push(File::default());
                        let file = self.files.len() - 1;
                        self.names.insert(name.clone(), file);
                        self.rename(NameChange::Add { name: name.clone(), file }, &name);
                        file
                    }
                    None => panic!("{name:?} was opened and never made"),
                };
                if *truncate && self.files[file].size > 0 {
                    self.change(file, Change::Truncate { to: 0 });
                }
                self.open.insert(*fd, Open::File { file, at: 0 });
            }
            Event::Close { fd } => drop(self.open.remove(fd)),
            Event::Duplicate { from, to } => match self.open.get(from).cloned() {
                Some(open) => drop(self.open.insert(*to, open)),
                None => drop(self.open.remove(to)),
            },
            Event::Seek { fd, to } => {
                if let Some(Open::File { at, .. }) = self.open.get_mut(fd) {
                    *at = *to;
                }
            }
            Event::Write { fd: 1, bytes, .. } => self.out.push_str(str::from_utf8(bytes).unwrap()),
            Event::Write { fd, at, bytes } => {
                let Some((file, position)) = self.file(*fd) else { return };
                let from = at.unwrap_or(position);
                if let (None, Some(Open::File { at, .. })) = (at, self.open.get_mut(fd)) {
                    *at = position + bytes.len() as u64;
                }
                self.change(file, Change::Write { at: from, bytes: bytes.clone() });
            }
            Event::Truncate { fd, to } => {
                if let Some((file, _)) = self.file(*fd) {
                    self.change(file, Change::Truncate { to: *to });
                }
            }
            Event::Extend { fd, to } => {
                if let Some((file, _)) = self.file(*fd) {
                    self.change(file, Change::Extend { to: *to });
                }
            }
            Event::Rename { from, to } => {
                let (Some(from), Some(to)) = (self.below(from), self.below(to)) else { return };
                let file =
                    self.names.remove(&from).unwrap_or_else(|| panic!("{from:?} was renamed and never made"));
                self.names.insert(to.clone(), file);
                self.rename(NameChange::Move { from: from.clone(), to }, &from);
            }
            Event::Unlink { path } => {
                if let Some(name) = self.below(path) {
                    self.names.remove(&name);
                    self.rename(NameChange::Remove { name: name.clone() }, &name);
                }
            }
            Event::MakeFolder { path } => {
                if let Some(name) = self.below(path).filter(|name| !self.folders.contains_key(name)) {
                    self.folders.insert(name.clone(), Folder::default());
                    self.rename(NameChange::Folder { name: name.clone() }, &name);
                }
            }
            Event::SyncBegins { thread, fd } => {
                let changes = match self.open.get(fd) {
                    Some(Open::File { file, .. }) => self.files[*file].unsafe_.len(),
                    Some(Open::Folder(name)) => self.folders[name].changes.len(),
                    None => return,
                };
                self.syncs.insert(*thread, changes);
            }
            Event::SyncEnds { thread, fd } => {
                let Some(changes) = self.syncs.remove(thread) else { return };
                let deaf = self.unsynced.as_ref().and_then(|name| self.names.get(name));
                match self.open.get(fd) {
                    Some(Open::File { file, .. }) if deaf == Some(file) => {}
                    Some(Open::File { file, .. }) => {
                        let file = &mut self.files[*file];
                        // Another thread's sync may have made them safe meanwhile.
                        let changes = changes.min(file.unsafe_.len());
                        for change in file.unsafe_.drain(..changes) {
                            alter(&mut file.safe, &change);
                        }
                    }
                    Some(Open::Folder(name)) => {
                        let folder = self.folders.get_mut(name).unwrap();
                        folder.safe = folder.safe.max(changes);
                    }
                    None => {}
                }
            }
        }
    }

    /// Writes what is there after the power has come back.
    pub fn restore(&self, to: &Path, unsynced: Unsynced, chance: &mut SmallRng) {
        let mut changes = Vec::new();
        for folder in self.folders.values() {
            let kept = match unsynced {
                Unsynced::Lost => folder.safe,
                Unsynced::ByChance => chance.random_range(folder.safe..=folder.changes.len()),
            };
            changes.extend(&folder.changes[..kept]);
        }
        changes.sort_by_key(|(clock, _)| *clock);
        let mut names = BTreeMap::new();
        for (_, change) in changes {
            match change {
                NameChange::Add { name, file } => drop(names.insert(name.clone(), *file)),
                NameChange::Remove { name } => drop(names.remove(name)),
                NameChange::Move { from, to } => {
                    if let Some(file) = names.remove(from) {
                        names.insert(to.clone(), file);
                    }
                }
                NameChange::Folder { name } => fs::create_dir_all(to.join(name)).unwrap(),
            }
        }
        for (name, file) in names {
            let file = &self.files[file];
            let mut bytes = file.safe.clone();
            if unsynced == Unsynced::ByChance {
                file.unsafe_.iter().for_each(|change| alter_by_chance(&mut bytes, change, chance));
            }
            // A file whose folder is lost is lost with it.
            if to.join(name.parent().unwrap()).is_dir() {
                fs::write(to.join(name), bytes).unwrap();
            }
        }
    }
}

fn alter(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { at, bytes: new } => {
            let (at, end) = (*at as usize, *at as usize + new.len());
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[at..end].copy_from_slice(new);
        }
        Change::Truncate { to } => bytes.resize(*to as usize, 0),
        Change::Extend { to } => bytes.resize(bytes.len().max(*to as usize), 0),
    }
}

/// Each page of it, or not.
fn alter_by_chance(bytes: &mut Vec<u8>, change: &Change, chance: &mut SmallRng) {
    let Change::Write { at, bytes: new } = change else {
        if chance.random() {
            alter(bytes, change);
        }
        return;
    };
    let mut done = 0;
    while done < new.len() {
        let from = *at as usize + done;
        let length = (PAGE - from % PAGE).min(new.len() - done);
        if chance.random() {
            let part = new[done..done + length].to_vec();
            alter(bytes, &Change::Write { at: from as u64, bytes: part });
        }
        done += length;
    }
}
