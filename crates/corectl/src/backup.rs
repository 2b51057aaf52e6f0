//! `cluster backup`: what the daemon sends is checked, and is a file only once it is whole and on the disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use api::Client;
use api::backup::Head;

use crate::cli::{Backup, Format};
use crate::{Exit, output};

pub async fn run(client: &Client, backup: &Backup, format: Format) -> anyhow::Result<Exit> {
    let to_stdout = backup.file == Path::new("-");
    anyhow::ensure!(
        !to_stdout || !output::is_terminal(),
        "a backup is no text; send it into a file or a pipe"
    );
    let (taken, bytes) = client.backup().await?;
    if to_stdout {
        output::bytes(&bytes);
        output::note(&told(&taken.head, bytes.len()));
        return Ok(Exit::Done);
    }
    let name = backup.file.display().to_string();
    keep(&backup.file, &bytes).with_context(|| format!("cannot write {name}"))?;
    match format {
        Format::Json => output::json(&taken.head)?,
        _ => output::line(&format!("{name}: {}", told(&taken.head, bytes.len()))),
    }
    Ok(Exit::Done)
}

fn told(head: &Head, bytes: usize) -> String {
    let Head { cluster_name, units, machines, revision, .. } = head;
    format!(
        "cluster {cluster_name} at revision {revision}: {units} units, {machines} machines, {bytes} bytes"
    )
}

/// For its owner alone: unit files may hold secrets. A file of that name is replaced when the new one is
/// there.
fn keep(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(format!(".partial-{}", std::process::id()));
    let partial = PathBuf::from(partial);
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial);
    let written = written.and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&partial, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    });
    if written.is_err() {
        // What is left of it is of no use; that it could not be written is what counts.
        let _ = fs::remove_file(&partial);
    }
    written
}
