//! What `submit`, `load`, `start` and `restart` do first: units that the cluster does not have are created
//! from a file or a template, one argument after another, and the first error ends it.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use api::ClientError;
use api::v1::{Batch, Operation, OperationOutcome, State, Unit};
use cluster::{UnitFile, UnitName, UnitNameError, validate};

use super::{Fleet, Told, words};
use crate::{output, quadlet};

/// A unit that is there now.
pub struct Made {
    /// As it was before; `None` when it is new.
    pub before: Option<Unit>,
    /// Its file is another than before.
    pub is_changed: bool,
    pub is_global: bool,
}

/// The unit that an argument means: a path's last part, of type `service` unless it says another.
pub fn mangled(argument: &str) -> Result<UnitName, UnitNameError> {
    let base = argument.rsplit('/').next().unwrap_or(argument);
    match UnitName::new(base) {
        Err(UnitNameError::NoDot | UnitNameError::UnknownType(_)) if !base.is_empty() => {
            UnitName::new(&format!("{base}.service"))
        }
        named => named,
    }
}

impl Fleet {
    pub fn error(&self, error: &ClientError, path: &str) -> String {
        words::error(error, self.client.endpoint(), path)
    }

    pub async fn unit(&self, name: &UnitName) -> Result<Option<Unit>, ClientError> {
        self.client.unit(name, false).await
    }

    /// One change. The error is fleet's for what the daemon refuses.
    pub async fn set(&self, name: &UnitName, text: Option<String>, state: Option<State>) -> Told<()> {
        self.change(vec![Operation::Set { name: name.to_string(), text, desired_state: state }]).await
    }

    pub async fn change(&self, operations: Vec<Operation>) -> Told<()> {
        if operations.is_empty() {
            return Ok(());
        }
        let done =
            self.client.batch(&Batch { operations }).await.map_err(|error| self.error(&error, "units"))?;
        match done.results.into_iter().find(|result| result.outcome == OperationOutcome::Refused) {
            Some(refused) => {
                let why = refused.message.unwrap_or_else(|| "refused".into());
                Err(format!("googleapi: Error 409: {why}"))
            }
            None => Ok(()),
        }
    }
}

/// Creates what is missing. `replaceable` are the desired states in which `--replace` may put a new file.
pub async fn create(
    fleet: &Fleet,
    arguments: &[String],
    replaceable: &[State],
) -> Told<BTreeMap<UnitName, Made>> {
    let mut all = BTreeMap::new();
    let mut told = Vec::new();
    for argument in arguments {
        let name = mangled(argument).map_err(|error| error.to_string())?;
        let asked = fleet.unit(&name).await;
        let before = asked.map_err(|error| {
            let error = fleet.error(&error, &format!("units/{name}"));
            format!("error retrieving Unit({name}) from Registry: {error}")
        })?;
        let made = match before {
            Some(unit) => existing(fleet, argument, &name, unit, replaceable).await?,
            None => {
                let file = content(fleet, argument, &name).await?;
                let is_global = put(fleet, &name, &file, Some(State::Inactive)).await?;
                Made { before: None, is_changed: true, is_global }
            }
        };
        if made.is_changed {
            told.push((name.clone(), made.is_global));
        }
        // An argument that comes twice is new only once.
        let earlier = all.remove(&name);
        all.insert(name, earlier.unwrap_or(made));
    }
    for (name, is_global) in told {
        output::line(&format!("Unit {name} {}", if is_global { "" } else { "inactive" }));
    }
    Ok(all)
}

async fn existing(
    fleet: &Fleet,
    argument: &str,
    name: &UnitName,
    unit: Unit,
    replaceable: &[State],
) -> Told<Made> {
    let local = local(argument, name)?;
    let differs = local.as_ref().is_some_and(|local| local.file.hash().to_string() != unit.hash);
    let is_global = unit.global;
    let kept = |unit| Made { before: Some(unit), is_changed: false, is_global };
    if !fleet.flags.is_on("replace") {
        if let Some(local) = local.filter(|_| differs) {
            let kind = if local.is_template { "template " } else { "" };
            output::note(&format!(
                "WARNING: Unit {name} in registry differs from local {kind}unit file {}. \
                 Add --replace to override.",
                local.path
            ));
        }
        return Ok(kept(unit));
    }
    if !replaceable.contains(&unit.desired_state) {
        let state = cluster::DesiredState::from(unit.desired_state);
        output::note(&format!(
            "Warning: can not replace Unit({name}) in state '{state}', use the appropriate command"
        ));
        return Ok(kept(unit));
    }
    match local {
        Some(local) if differs => {
            let is_global = put(fleet, name, &local.file, None).await?;
            Ok(Made { before: Some(unit), is_changed: true, is_global })
        }
        Some(_) => {
            output::line(&format!("Found same Unit({name}) in Registry, nothing to do"));
            Ok(kept(unit))
        }
        None => Ok(kept(unit)),
    }
}

struct Local {
    file: UnitFile,
    path: String,
    is_template: bool,
}

/// The unit's file beside the argument, or its template's.
fn local(argument: &str, name: &UnitName) -> Told<Option<Local>> {
    let beside = |name: &UnitName| Path::new(argument).with_file_name(name.as_str()).display().to_string();
    let own = beside(name);
    if let Some(file) = read(&own, name)? {
        return Ok(Some(Local { file, path: own, is_template: false }));
    }
    let Some(template) = name.template() else { return Ok(None) };
    let path = beside(&template);
    let file = read(&path, &template)?;
    Ok(file.map(|file| Local { file, path, is_template: true }))
}

fn read(path: &str, name: &UnitName) -> Told<Option<UnitFile>> {
    let failed = |why: String| format!("failed getting Unit({name}) from file: {why}");
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) if error.kind() == ErrorKind::IsADirectory => {
            return Err(failed(format!("read {path}: is a directory")));
        }
        Err(error) => return Err(failed(format!("open {path}: {error}"))),
    };
    let text = String::from_utf8(bytes).map_err(|_| failed(format!("{path} is not UTF-8 text")))?;
    let file = UnitFile::parse(&text).map_err(|error| failed(error.to_string()))?;
    match quadlet::refusal(&file) {
        Some(why) => Err(failed(why)),
        None => Ok(Some(file)),
    }
}

/// For a unit that the cluster does not have: its file, or a template of the cluster, or one on disk.
async fn content(fleet: &Fleet, argument: &str, name: &UnitName) -> Told<UnitFile> {
    let own = Path::new(argument).with_file_name(name.as_str()).display().to_string();
    if let Some(file) = read(&own, name)? {
        return Ok(file);
    }
    let Some(template) = name.template() else {
        return Err(format!("unable to find Unit({name}) in Registry or on filesystem"));
    };
    let from_cluster = fleet.unit(&template).await.map_err(|error| {
        format!(
            "error retrieving Unit({template}) from Registry: {}",
            fleet.error(&error, &format!("units/{template}"))
        )
    })?;
    if let Some(text) = from_cluster.and_then(|unit| unit.text) {
        return UnitFile::parse(&text).map_err(|error| error.to_string());
    }
    match local(argument, name)? {
        Some(local) => Ok(local.file),
        None => Err(format!(
            "failed getting Unit({name}) from template: unable to find template Unit({template}) in \
             Registry or on filesystem"
        )),
    }
}

/// Checks the file and gives it to the cluster; says whether it makes a global unit.
async fn put(fleet: &Fleet, name: &UnitName, file: &UnitFile, state: Option<State>) -> Told<bool> {
    if file.options().is_empty() {
        return Err(format!(
            "failed creating unit {name}: googleapi: Error 409: unit does not exist and options field empty"
        ));
    }
    for warning in validate(name, file).map_err(|error| error.to_string())? {
        words::log("WARN", &format!("Unit {name}: {warning}"));
    }
    let set = fleet.set(name, Some(file.text().into()), state).await;
    set.map_err(|error| format!("failed creating unit {name}: {error}"))?;
    let is_global = fleet.unit(name).await.ok().flatten().is_some_and(|unit| unit.global);
    Ok(is_global)
}
