//! Carries out the steps that are about files: each whole or not at all, and with its owner and mode from the
//! moment that it is there.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::plan::{NewFile, Step};

const NULL: &str = "/dev/null";

/// Below `root`, which is `/` but for tests.
pub fn carry_out(step: &Step, root: &Path) -> anyhow::Result<()> {
    match step {
        Step::Write(file) => write(file, root),
        Step::SetLines { path, lines } => set_lines(path, lines, root),
        Step::Mask { path } => {
            let path = below(root, path);
            make_folder(&path)?;
            remove(&path)?;
            symlink(NULL, &path).context("cannot make the link")
        }
        Step::Unmask { path } => {
            let path = below(root, path);
            match fs::read_link(&path) {
                Ok(to) if to == Path::new(NULL) => remove(&path),
                // An empty file masks as well (systemd.unit(5)).
                Err(_) if fs::metadata(&path).is_ok_and(|file| file.is_file() && file.len() == 0) => {
                    remove(&path)
                }
                Ok(_) | Err(_) => Ok(()),
            }
        }
        Step::Host(_) => bail!("this is for systemd"),
    }
}

pub fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).context("cannot remove what is there")
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn make_folder(path: &Path) -> anyhow::Result<()> {
    let folder = path.parent().context("it is in no folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}

fn write(file: &NewFile, root: &Path) -> anyhow::Result<()> {
    let path = below(root, &file.path);
    let owner = file.owner.as_deref().map(|owner| ids(owner, root)).transpose()?;
    make_folder(&path)?;
    let name = path.file_name().context("it has no name")?.to_string_lossy();
    let new = path.with_file_name(format!(".{name}.{}.new", std::process::id()));
    remove(&new)?;
    let made = put(&new, file, owner).and_then(|()| fs::rename(&new, &path).context("cannot rename"));
    if made.is_err() {
        remove(&new)?;
    }
    made
}

fn put(new: &Path, file: &NewFile, owner: Option<(Option<u32>, Option<u32>)>) -> anyhow::Result<()> {
    let mut options = OpenOptions::new();
    let mut opened = options.write(true).create_new(true).mode(0o600).open(new).context("cannot make it")?;
    opened.write_all(&file.bytes).context("cannot write")?;
    if let Some((user, group)) = owner {
        fchown(&opened, user, group).context("cannot give it to its owner")?;
    }
    // After the owner: a change of owner takes set-uid bits away.
    opened.set_permissions(Permissions::from_mode(file.mode)).context("cannot set its mode")?;
    opened.sync_all().context("cannot write")
}

/// Of `USER`, `USER:GROUP` or `:GROUP`.
fn ids(owner: &str, root: &Path) -> anyhow::Result<(Option<u32>, Option<u32>)> {
    let (user, group) = owner.split_once(':').unwrap_or((owner, ""));
    let id = |name: &str, file: &str| -> anyhow::Result<Option<u32>> {
        if name.is_empty() {
            return Ok(None);
        }
        if let Ok(number) = name.parse() {
            return Ok(Some(number));
        }
        let text = fs::read_to_string(below(root, Path::new(file))).unwrap_or_default();
        let found = text.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
        });
        found.map(Some).with_context(|| format!("owner: {name:?} is not in {file}"))
    };
    Ok((id(user, "/etc/passwd")?, id(group, "/etc/group")?))
}

fn set_lines(path: &Path, lines: &[(String, String)], root: &Path) -> anyhow::Result<()> {
    let old = match fs::read_to_string(below(root, path)) {
        Ok(old) => old,
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).context("cannot read"),
    };
    let is_set = |line: &&str| {
        let key = line.split_once('=').map_or("", |(key, _)| key.trim());
        !lines.iter().any(|(new, _)| new == key)
    };
    let mut text: String = old.lines().filter(is_set).map(|line| format!("{line}\n")).collect();
    lines.iter().for_each(|(key, value)| text.push_str(&format!("{key}={value}\n")));
    write(&NewFile { path: path.into(), bytes: text.into_bytes(), mode: 0o644, owner: None }, root)
}
