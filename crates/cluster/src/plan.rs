//! What one machine has to do so that its systemd is as the cluster wants it. Level, not edge: called with
//! all that is wanted and all that is there, as often as one likes; once its actions are done, it asks for
//! none.

use std::collections::BTreeMap;

use crate::{Condition, Generation, UnitFile, UnitHash, UnitName, activated_unit};

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

/// One step, with no choice left in it. Steps are carried out in the order given, but a start's or stop's end
/// is not waited for: it is seen in the next round.
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
    /// Stop it, and note the generation, if one is given, as done when the job has ended. Without one, the
    /// unit is on its way out: what was noted as done for it is forgotten before the stop is asked for, since
    /// the unit may come back to this machine in the same generation and has to be started again then.
    Stop { unit: UnitName, generation: Option<Generation> },
    /// Nothing has to be done for this generation: note it as done.
    Settle { unit: UnitName, generation: Generation },
    /// Unlink a stopped unit, forget its failure and what was noted as done for it, delete its file.
    Remove { units: Vec<UnitName> },
}

/// The steps from `current` to `desired`. Within the list: stops, which take longest and free what others
/// need; then texts (written, linked in one call, read again in one reload), and settles and starts;
/// removals, for which nobody waits, last.
///
/// A unit with neither a file of ours nor a link is not ours and is left alone.
pub fn plan(desired: &BTreeMap<UnitName, Desired>, current: &BTreeMap<UnitName, Current>) -> Vec<Action> {
    let mut steps = Steps::default();
    for (name, current) in current.iter().filter(|(name, _)| !desired.contains_key(*name)) {
        steps.leave(name, current);
    }
    for (name, desired_unit) in desired {
        let now = current.get(name).unwrap_or(&NOTHING);
        if steps.put_text(name, desired_unit, now) {
            // A socket that is started before systemd knows its service fails.
            let service = activated_unit(name, &desired_unit.file);
            let service = service.and_then(|service| Some((desired.get(&service)?, current.get(&service)?)));
            let held_up = service.is_some_and(|(desired, now)| Text::of(desired, now) == Text::MustStopFirst);
            steps.wish(name, desired_unit, now, held_up);
        }
    }
    steps.into_actions()
}

/// A unit that the machine holds nothing of.
const NOTHING: Current = Current {
    file: None,
    linked: false,
    condition: Condition::Down,
    needs_reload: false,
    done: None,
    job: None,
};

/// What has to be done about the text that systemd has for a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Text {
    Good,
    /// The file is missing or another, and nothing runs with the old one.
    MustWrite,
    /// Something still runs that was started from another text, and has to be stopped by that text's rules.
    MustStopFirst,
}

impl Text {
    fn of(desired: &Desired, now: &Current) -> Text {
        let runs = match now.condition {
            Condition::Up | Condition::Starting | Condition::Stopping => true,
            Condition::Down | Condition::Failed => false,
        };
        // Whatever was done for this generation was done with its text: then only the file has got lost or
        // been edited.
        let of_this_generation = now.done == Some(desired.generation)
            || now.job.is_some_and(|job| job.generation == Some(desired.generation));
        if now.file == Some(desired.file.hash()) {
            Text::Good
        } else if (runs || now.job.is_some()) && !of_this_generation {
            Text::MustStopFirst
        } else {
            Text::MustWrite
        }
    }
}

/// The actions, by kind, so that those which systemd can do for many at once are asked for once.
#[derive(Default)]
struct Steps {
    stops: Vec<Action>,
    writes: Vec<Action>,
    link: Vec<UnitName>,
    reload: bool,
    settles: Vec<Action>,
    /// Sockets, timers and paths: a socket cannot start any more once its service runs.
    starts_of_activators: Vec<Action>,
    starts: Vec<Action>,
    remove: Vec<UnitName>,
}

impl Steps {
    /// A unit that has no business here any more.
    fn leave(&mut self, name: &UnitName, now: &Current) {
        if now.file.is_none() && !now.linked {
            return;
        }
        if self.stopped(name, now) {
            self.remove.push(name.clone());
        }
    }

    /// Whether the unit has stopped; if not, and nobody stops it yet, it is stopped.
    fn stopped(&mut self, name: &UnitName, now: &Current) -> bool {
        let stop = Action::Stop { unit: name.clone(), generation: None };
        match (now.job.map(|job| job.kind), now.condition) {
            (Some(JobKind::Stop), _) | (None, Condition::Stopping) => false,
            (Some(JobKind::Start), _) | (None, Condition::Up | Condition::Starting) => {
                self.stops.push(stop);
                false
            }
            (None, Condition::Down | Condition::Failed) => true,
        }
    }

    /// Brings the text to systemd; says whether it will be there once the list is carried out.
    fn put_text(&mut self, name: &UnitName, desired: &Desired, now: &Current) -> bool {
        match Text::of(desired, now) {
            Text::MustStopFirst if !self.stopped(name, now) => return false,
            Text::MustStopFirst | Text::MustWrite => {
                self.writes.push(Action::Write { unit: name.clone(), file: desired.file.clone() });
                self.link.push(name.clone());
                // systemd may still hold what was known under this name before, and would start that.
                let fresh = now.file.is_none() && !now.linked && now.condition == Condition::Down;
                self.reload |= !fresh || now.needs_reload;
            }
            Text::Good => {
                if !now.linked {
                    self.link.push(name.clone());
                }
                self.reload |= now.needs_reload;
            }
        }
        true
    }

    /// Does, once for this generation, what is wanted of a unit whose text is there.
    fn wish(&mut self, name: &UnitName, desired: &Desired, now: &Current, held_up: bool) {
        let generation = desired.generation;
        if now.done == Some(generation) {
            return;
        }
        let (unit, under_way) = (name.clone(), |kind| Some(Job { kind, generation: Some(generation) }));
        if desired.launched {
            if now.job != under_way(JobKind::Start) && !held_up {
                let start = Action::Start { unit, generation };
                match name.suffix() {
                    "socket" | "timer" | "path" => self.starts_of_activators.push(start),
                    _ => self.starts.push(start),
                }
            }
            return;
        }
        let runs = match now.condition {
            Condition::Up | Condition::Starting => true,
            Condition::Stopping | Condition::Down | Condition::Failed => false,
        };
        if now.job == under_way(JobKind::Stop) {
        } else if runs || now.job.is_some() {
            self.stops.push(Action::Stop { unit, generation: Some(generation) });
        } else {
            self.settles.push(Action::Settle { unit, generation });
        }
    }

    fn into_actions(self) -> Vec<Action> {
        let mut actions = self.stops;
        actions.extend(self.writes);
        if !self.link.is_empty() {
            actions.push(Action::Link { units: self.link });
        }
        if self.reload {
            actions.push(Action::Reload);
        }
        actions.extend(self.settles);
        actions.extend(self.starts_of_activators);
        actions.extend(self.starts);
        if !self.remove.is_empty() {
            actions.push(Action::Remove { units: self.remove });
        }
        actions
    }
}

#[cfg(test)]
mod tests;
