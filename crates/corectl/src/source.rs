//! Where a unit's file comes from: the file of that path, the cluster, or a template in either. Nothing is
//! changed here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use api::Client;
use api::v1::Unit;
use cluster::{UNIT_FILE_BYTES_MAX, UnitFile, UnitFileError, UnitName, validate};

use crate::amend::Amendment;
use crate::names::unit_name;
use crate::{lookup, quadlet};

/// What stands behind the arguments that mean one unit.
#[derive(Debug)]
pub struct Source {
    pub name: UnitName,
    /// The unit as the cluster has it.
    pub existing: Option<Unit>,
    /// The file that is here for it, or its template's. There is one if the cluster has no such unit.
    pub local: Option<Local>,
}

#[derive(Clone, Debug)]
pub struct Local {
    pub file: UnitFile,
    /// Where it was read, for messages.
    pub from: String,
}

impl Source {
    /// The file that is here is another than the cluster's.
    pub fn differs(&self) -> bool {
        match (&self.existing, &self.local) {
            (Some(unit), Some(local)) => unit.hash != local.file.hash().to_string(),
            _ => false,
        }
    }
}

/// What was found, and what was wrong, each with its file and line.
#[derive(Debug, Default)]
pub struct Found {
    pub sources: Vec<Source>,
    pub errors: Vec<String>,
    pub warnings: Vec<String>,
}

impl Found {
    /// Writes what the command line asks for into the files. A unit that only the cluster has gets a new file
    /// from its old one.
    pub async fn amend(&mut self, client: &Client, amendment: &Amendment) -> anyhow::Result<()> {
        for source in &mut self.sources {
            if source.local.is_none() {
                let text = client.unit(&source.name, false).await?.and_then(|unit| unit.text);
                let file = UnitFile::parse(&text.unwrap_or_default())
                    .with_context(|| format!("{} in the cluster", source.name))?;
                source.local = Some(Local { file, from: "the command line".into() });
            }
            let Some(local) = &mut source.local else { continue };
            let checked = amendment.of(&source.name, &local.file).and_then(|file| {
                validate(&source.name, &file)?;
                Ok(file)
            });
            match checked {
                Ok(file) => local.file = file,
                Err(error) => self.errors.push(format!("{}: {error:#}", local.from)),
            }
        }
        Ok(())
    }
}

pub async fn find(client: &Client, arguments: &[String]) -> anyhow::Result<Found> {
    let mut found = Found::default();
    let mut here: BTreeMap<UnitName, Option<Local>> = BTreeMap::new();
    for argument in arguments {
        let looked = look(argument).and_then(|(name, local)| {
            let twice = here.get(&name).cloned().flatten();
            if let (Some(one), Some(other)) = (&twice, &local)
                && one.file != other.file
            {
                bail!("{name} is given twice, and {} and {} are not the same", one.from, other.from);
            }
            Ok((name, local.or(twice)))
        });
        match looked {
            Ok((name, local)) => drop(here.insert(name, local)),
            Err(error) => found.errors.push(format!("{error:#}")),
        }
    }
    let names: BTreeSet<UnitName> = here.keys().cloned().collect();
    let mut existing = lookup::by_name(client, &names, false).await?;
    let given = here.clone();
    for (name, mut local) in here {
        let unit = existing.remove(&name);
        if local.is_none()
            && let Some(template) = name.template()
        {
            local = given.get(&template).cloned().flatten();
        }
        if local.is_none() && unit.is_none() {
            match of_cluster_template(client, &name).await? {
                Some(template) => local = Some(template),
                None => {
                    found
                        .errors
                        .push(format!("unable to find unit {name} in the cluster or on this file system"));
                    continue;
                }
            }
        }
        if let Some(local) = &local {
            match validate(&name, &local.file) {
                Ok(warnings) => {
                    found
                        .warnings
                        .extend(warnings.iter().map(|warning| format!("{}: {warning}", local.from)));
                }
                Err(error) => found.errors.push(format!("{}: {error}", local.from)),
            }
        }
        found.sources.push(Source { name, existing: unit, local });
    }
    Ok(found)
}

/// The unit that an argument means, and the file that is here for it.
fn look(argument: &str) -> anyhow::Result<(UnitName, Option<Local>)> {
    let path = Path::new(argument);
    if path.is_dir() {
        bail!(
            "{argument} is a directory; name the unit files in it, such as {}/*",
            argument.trim_end_matches('/')
        );
    }
    let name = unit_name(argument)?;
    // `hello` may mean the file hello.service; an instance may be made from the template that lies beside.
    let mut places = vec![path.to_path_buf(), path.with_file_name(name.as_str())];
    places.extend(name.template().map(|template| path.with_file_name(template.as_str())));
    places.dedup();
    for place in places {
        if let Some(file) = read(&place)? {
            return Ok((name, Some(Local { file, from: place.display().to_string() })));
        }
    }
    Ok((name, None))
}

/// A unit file of this machine, through links; `None` when there is none.
fn read(path: &Path) -> anyhow::Result<Option<UnitFile>> {
    let shown = path.display();
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return dangling(path).map(|()| None),
        Err(error) if error.kind() == ErrorKind::NotADirectory => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {shown}")),
    };
    let too_long =
        || anyhow!("{shown}: larger than the {UNIT_FILE_BYTES_MAX} bytes that a unit file may have");
    if !metadata.is_file() {
        bail!("{shown}: not a regular file");
    }
    if metadata.len() > UNIT_FILE_BYTES_MAX as u64 {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    // It may grow meanwhile: one byte more than is allowed is enough to know.
    let file = File::open(path).map(|file| file.take(UNIT_FILE_BYTES_MAX as u64 + 1));
    file.and_then(|mut file| file.read_to_end(&mut bytes)).with_context(|| format!("cannot read {shown}"))?;
    if bytes.len() > UNIT_FILE_BYTES_MAX {
        return Err(too_long());
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        anyhow!("{shown}:{line}: this is not UTF-8 text{}", hint(path))
    })?;
    match UnitFile::parse(&text) {
        // systemd passes over lines before the first section, so most prose is a unit file in which nothing
        // is said.
        Ok(file) if file.options().is_empty() && !hint(path).is_empty() => {
            bail!("{shown}: this is no unit file, neither by its name nor by what is in it")
        }
        Ok(file) => match quadlet::refusal(&file) {
            Some(why) => bail!("{shown}: {why}"),
            None => Ok(Some(file)),
        },
        Err(UnitFileError::Line { line, reason }) => bail!("{shown}:{line}: {reason}{}", hint(path)),
        Err(error) => bail!("{shown}: {error}"),
    }
}

/// A link that leads nowhere is a mistake, not a missing file.
fn dangling(path: &Path) -> anyhow::Result<()> {
    match fs::read_link(path) {
        Ok(target) => {
            bail!("{}: the link leads to {}, which does not exist", path.display(), target.display())
        }
        Err(_) => Ok(()),
    }
}

/// For files that were probably never meant to be units, such as a README.
fn hint(path: &Path) -> &'static str {
    let base = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if UnitName::new(base).is_ok() { "" } else { " (by its name, it is no unit file either)" }
}

async fn of_cluster_template(client: &Client, name: &UnitName) -> anyhow::Result<Option<Local>> {
    let Some(template) = name.template() else { return Ok(None) };
    let Some(text) = client.unit(&template, false).await?.and_then(|unit| unit.text) else { return Ok(None) };
    let file = UnitFile::parse(&text).with_context(|| format!("{template} in the cluster"))?;
    Ok(Some(Local { file, from: format!("{template} in the cluster") }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn files_are_found_or_refused_with_their_line() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let put = |name: &str, bytes: &[u8]| fs::write(at(name), bytes).unwrap();
        put("good.service", b"[Service]\nExecStart=/bin/true\n");
        put("bad.service", b"[Service]\nExecStart=/bin/true\nfoo\n");
        put("binary.service", b"[Service]\n\xff\n");
        put("web@.service", b"[Service]\nExecStart=/bin/echo %i\n");
        put("README.md", b"# Examples\n\nTo be started.\n");
        put("redis.container", b"[Container]\nImage=redis:7\n");
        put("noext", b"[Service]\nExecStart=/bin/true\n");
        put("huge.service", &vec![b'#'; UNIT_FILE_BYTES_MAX + 1]);
        fs::create_dir(at("folder")).unwrap();
        symlink("web@.service", at("web@1.service")).unwrap();
        symlink("nowhere", at("lost.service")).unwrap();
        let check = |argument: &str, expected: &str| {
            let said = match look(at(argument).to_str().unwrap()) {
                Ok((name, Some(local))) => format!("{name} from {}", local.from),
                Ok((name, None)) => format!("{name} is not here"),
                Err(error) => format!("{error:#}"),
            };
            let said = said.replace(dir.path().to_str().unwrap(), "/d");
            assert!(said.starts_with(expected), "{argument}: {said}");
        };
        check("good.service", "good.service from /d/good.service");
        check("good", "good.service from /d/good.service");
        check("noext", "noext.service from /d/noext");
        check("web@1.service", "web@1.service from /d/web@1.service");
        check("web@7", "web@7.service from /d/web@.service");
        check("web@.service", "web@.service from /d/web@.service");
        check("missing.service", "missing.service is not here");
        check("good.service/x.service", "x.service is not here");
        check("bad.service", "/d/bad.service:3: no \"=\"");
        check("binary.service", "/d/binary.service:2: this is not UTF-8 text");
        check("README.md", "/d/README.md: this is no unit file, neither by its name nor by what is in it");
        check("redis.container", "/d/redis.container: [Container] is for Podman's Quadlet");
        check("huge.service", "/d/huge.service: larger than the 1048576 bytes");
        check("folder", "/d/folder is a directory; name the unit files in it, such as /d/folder/*");
        check("lost.service", "/d/lost.service: the link leads to nowhere, which does not exist");
        check("a b.service", "\"/d/a b.service\" is no unit: invalid character ' '");
    }
}
