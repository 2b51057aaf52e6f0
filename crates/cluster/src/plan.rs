//! What one machine has to do so that its systemd is as the cluster wants it. Level, not edge: called with all that is
//! wanted and all that is there, as often as one likes; once its actions are done, it asks for none.

use std::collections::BTreeMap;

use crate::{Condition, Generation, UnitFile, UnitHash, UnitName};

/// What this machine should hold of one unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    pub file: UnitFile,
    pub generation: Generation,
    /// Start it (`launched`), or only make it known to systemd (`loaded`).
    pub launched: bool,
}

/// What this machine holds of one unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Current {
    /// Hash of the file in our directory; `None` when there is none.
    pub file: Option<UnitHash>,
    /// systemd knows the file under the unit's name.
    pub linked: bool,
    pub condition: Condition,
    /// systemd holds an older text than the disk does.
    pub needs_reload: bool,
    /// The generation whose start or stop has been carried out here since the machine booted.
    pub done: Option<Generation>,
    /// A job that has not ended yet.
    pub job: Option<Job>,
}

/// A start or stop under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    pub kind: JobKind,
    pub generation: Option<Generation>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobKind {
    Start,
    Stop,
}

/// One step, with no choice left in it. Steps are carried out in the order given, but a start's or stop's end is not waited
/// for: it is seen in the next round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Put the text into our directory under the unit's name, whole or not at all.
    Write { unit: UnitName, file: UnitFile },
    /// Make systemd know these files, in one call.
    Link { units: Vec<UnitName> },
    /// Make systemd read all files again, once for many.
    Reload,
    /// Start it, and note the generation as done when the job has ended.
    Start { unit: UnitName, generation: Generation },
    /// Stop it, and note the generation, if one is given, as done when the job has ended.
    Stop { unit: UnitName, generation: Option<Generation> },
    /// Nothing has to be done for this generation: note it as done.
    Settle { unit: UnitName, generation: Generation },
    /// Unlink a stopped unit, forget its failure, delete its file.
    Remove { units: Vec<UnitName> },
}

/// The steps from `current` to `desired`.
pub fn plan(desired: &BTreeMap<UnitName, Desired>, current: &BTreeMap<UnitName, Current>) -> Vec<Action> {
    let _ = (desired, current);
    Vec::new()
}
