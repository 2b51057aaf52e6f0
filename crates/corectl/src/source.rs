//! Where a unit's file comes from: the file of that path, the cluster, or a template in either.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use api::Client;
use cluster::{UNIT_FILE_BYTES_MAX, UnitFile, UnitName};

use crate::names::unit_name;

/// One argument of `start`, `load` or `submit`, with what stands behind it.
#[derive(Debug)]
pub struct Source {
    pub name: UnitName,
    /// The file to hand over; `None`: the cluster has the unit already.
    pub file: Option<UnitFile>,
    /// Where the file was read, for messages.
    pub path: Option<PathBuf>,
    /// The cluster's file, when it has the unit already and it is another.
    pub differs: bool,
}

/// Finds what `argument` stands for. Nothing is changed.
pub async fn find(client: &Client, argument: &str) -> anyhow::Result<Source> {
    let path = Path::new(argument);
    if path.is_dir() {
        bail!("{argument} is a folder; name the unit files in it");
    }
    let name = unit_name(argument)?;
    let known = client.unit(&name, false).await?;
    let found = match read(path)? {
        Some(file) => Some((file, path.to_path_buf())),
        None if known.is_some() => None,
        None => Some(template(client, &name, path).await?),
    };
    let Some((file, path)) = found else {
        return Ok(Source { name, file: None, path: None, differs: false });
    };
    let differs = known.is_some_and(|unit| unit.hash != file.hash().to_string());
    Ok(Source { name, file: Some(file), path: Some(path), differs })
}

/// A unit file from this machine's disk; `None` when there is none.
fn read(path: &Path) -> anyhow::Result<Option<UnitFile>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let mut bytes = Vec::new();
    // One byte more than is allowed: enough to know, however long it is.
    let limit = UNIT_FILE_BYTES_MAX as u64 + 1;
    file.take(limit).read_to_end(&mut bytes).with_context(|| format!("cannot read {}", path.display()))?;
    if bytes.len() > UNIT_FILE_BYTES_MAX {
        let max = UNIT_FILE_BYTES_MAX;
        bail!("{} is larger than the {max} bytes that a unit file may have", path.display());
    }
    let text = String::from_utf8(bytes)
        .map_err(|error| line_of(error.as_bytes(), error.utf8_error().valid_up_to()))
        .map_err(|line| anyhow::anyhow!("{}:{line}: this is not UTF-8 text", path.display()))?;
    let file = UnitFile::parse(&text).with_context(|| format!("{} is no unit file", path.display()))?;
    Ok(Some(file))
}

fn line_of(bytes: &[u8], at: usize) -> usize {
    bytes[..at].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// The template of an instance: beside the given path, else the cluster's.
async fn template(client: &Client, name: &UnitName, path: &Path) -> anyhow::Result<(UnitFile, PathBuf)> {
    let Some(template) = name.template() else {
        bail!("unit {name} is neither in the cluster nor a file here ({})", path.display());
    };
    let beside = path.with_file_name(template.as_str());
    if let Some(file) = read(&beside)? {
        return Ok((file, beside));
    }
    match client.unit(&template, false).await?.and_then(|unit| unit.text) {
        Some(text) => Ok((UnitFile::parse(&text)?, template.as_str().into())),
        None => bail!(
            "unit {name} is neither in the cluster nor a file here, and neither is its template {template} ({})",
            beside.display()
        ),
    }
}
