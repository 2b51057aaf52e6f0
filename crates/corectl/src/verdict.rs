//! What the state of a unit means for somebody who waits for a wish to come true. Decided from values alone.

use api::v1::{State, Unit, UnitState};
use cluster::{Condition, DesiredState, MachineId};

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Started on its machine, as was asked.
    Launched,
    /// Known to the systemd of its machine.
    Loaded,
    /// Not running any more.
    Stopped,
    /// On no machine.
    Unloaded,
    /// On no machine, and not in the cluster.
    Gone,
}

/// What is known of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    Unit(Box<Unit>),
    Gone(Vec<UnitState>),
}

/// How far a wish has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Pending(String),
    /// No machine can take the unit as things are. That may change at any time, but most often it does not.
    Unplaced(String),
    Reached(String),
    /// As `Reached` as far as one hears, but other machines may still have something to say.
    Settling(String),
    /// It will not come true by waiting.
    Failed {
        why: String,
        /// The unit's last journal lines.
        journal: Vec<String>,
    },
}

/// What `known` means for `goal`. `label` names a machine for people.
pub fn judge(goal: Goal, known: &Known, label: &dyn Fn(&MachineId) -> String) -> Verdict {
    let unit = match (known, goal) {
        (Known::Gone(states), Goal::Gone) => return held(states, "gone", label),
        (Known::Gone(_), _) => return failed("it was destroyed meanwhile"),
        (Known::Unit(_), Goal::Gone) => return failed("somebody has created it again"),
        (Known::Unit(unit), _) => unit,
    };
    let wanted = match goal {
        Goal::Launched => State::Launched,
        Goal::Loaded | Goal::Stopped => State::Loaded,
        Goal::Unloaded | Goal::Gone => State::Inactive,
    };
    if unit.desired_state != wanted {
        let now = DesiredState::from(unit.desired_state);
        return failed(&format!("somebody else wants it {now} by now"));
    }
    if goal == Goal::Unloaded {
        return held(&unit.states, "inactive", label);
    }
    if unit.global {
        return everywhere(goal, unit, label);
    }
    let home = unit.machine.as_ref();
    let state = unit.states.iter().find(|state| Some(&state.machine) == home && !state.stale);
    let (Some(machine), Some(state)) = (home, state) else { return homeless(goal, unit, label) };
    let condition = format!("{} ({}) on {}", state.active, state.sub, label(machine));
    if state.generation != Some(unit.generation) {
        return Verdict::Pending(condition);
    }
    let is_up = match (Condition::of(&state.active), goal) {
        (Condition::Stopping, _) => return Verdict::Pending(condition),
        // One that has failed and waits to be tried again (`Restart=`) may do so for ever.
        (Condition::Starting, Goal::Launched) if state.failure.is_none() => {
            return Verdict::Pending(condition);
        }
        (Condition::Up | Condition::Starting, _) => true,
        (Condition::Down | Condition::Failed, _) => false,
    };
    let failure = || match &state.failure {
        Some(failure) => Verdict::Failed {
            why: format!("{condition}: {}", failure.reason),
            journal: failure.journal.clone(),
        },
        None => failed(&condition),
    };
    let is_sound = state.load == "loaded" && state.active != "failed" && state.failure.is_none();
    match goal {
        Goal::Launched | Goal::Loaded if state.load != "loaded" && state.failure.is_none() => {
            failed(&format!("{condition}: its file is {}", state.load))
        }
        Goal::Launched if is_sound => Verdict::Reached(condition),
        Goal::Loaded if is_sound => Verdict::Reached(format!("loaded on {}", label(machine))),
        Goal::Launched | Goal::Loaded => failure(),
        Goal::Stopped if is_up && state.failure.is_none() => failed(&format!(
            "still {condition}: its socket, its timer or somebody there started it; unload it instead"
        )),
        Goal::Stopped if is_up => failure(),
        Goal::Stopped | Goal::Unloaded | Goal::Gone => Verdict::Reached(condition),
    }
}

/// A global unit: every machine that holds it has to have done what was asked. Which machines those will be,
/// nobody says.
fn everywhere(goal: Goal, unit: &Unit, label: &dyn Fn(&MachineId) -> String) -> Verdict {
    let living: Vec<&UnitState> = unit.states.iter().filter(|state| !state.stale).collect();
    let told = |state: &UnitState| format!("{} ({}) on {}", state.active, state.sub, label(&state.machine));
    let is_pending = |state: &&&UnitState| {
        let condition = Condition::of(&state.active);
        state.generation != Some(unit.generation)
            || condition == Condition::Stopping
            || (condition == Condition::Starting && goal == Goal::Launched && state.failure.is_none())
    };
    let is_bad = |state: &&&UnitState| match goal {
        Goal::Stopped => matches!(Condition::of(&state.active), Condition::Up | Condition::Starting),
        _ => state.load != "loaded" || state.active == "failed" || state.failure.is_some(),
    };
    if let Some(state) = living.iter().find(is_pending) {
        return Verdict::Pending(told(state));
    }
    if let Some(state) = living.iter().find(is_bad) {
        let failure = state.failure.as_ref();
        let why = failure.map(|failure| format!(": {}", failure.reason)).unwrap_or_default();
        let journal = failure.map(|failure| failure.journal.clone()).unwrap_or_default();
        return Verdict::Failed { why: format!("{}{why}", told(state)), journal };
    }
    match (living.as_slice(), goal) {
        ([], Goal::Stopped) => Verdict::Reached("inactive, on no machine".into()),
        ([], _) => Verdict::Unplaced("no machine has taken it yet".into()),
        (states, _) => {
            Verdict::Settling(states.iter().map(|state| told(state)).collect::<Vec<_>>().join(", "))
        }
    }
}

/// A unit that should have a machine, of which no living machine of its own has said anything yet.
fn homeless(goal: Goal, unit: &Unit, label: &dyn Fn(&MachineId) -> String) -> Verdict {
    if goal == Goal::Stopped && (unit.machine.is_none() || unit.unplaced.is_some()) {
        return held(&unit.states, "inactive, on no machine", label);
    }
    let is_lost =
        |machine: &MachineId| unit.states.iter().any(|state| state.stale && state.machine == *machine);
    match (&unit.unplaced, &unit.machine) {
        (Some(why), _) => Verdict::Unplaced(format!("cannot be placed: {why}")),
        (None, None) => Verdict::Pending("not placed yet".into()),
        (None, Some(machine)) if is_lost(machine) => {
            Verdict::Pending(format!("on {}, which is lost", label(machine)))
        }
        (None, Some(machine)) => Verdict::Pending(format!("on its way to {}", label(machine))),
    }
}

fn failed(why: &str) -> Verdict {
    Verdict::Failed { why: why.into(), journal: Vec::new() }
}

/// A unit that no machine should hold any more. Lost machines are not waited for: they follow when they
/// return.
fn held(states: &[UnitState], reached: &str, label: &dyn Fn(&MachineId) -> String) -> Verdict {
    let hosts = |stale| {
        let on = states.iter().filter(|state| state.stale == stale).map(|state| label(&state.machine));
        on.collect::<Vec<_>>().join(", ")
    };
    let stuck = states.iter().find(|state| !state.stale && state.failure.is_some());
    match (hosts(false), hosts(true)) {
        (live, _) if !live.is_empty() => match stuck.and_then(|state| state.failure.as_ref()) {
            Some(failure) => Verdict::Pending(format!("still on {live} ({})", failure.reason)),
            None => Verdict::Pending(format!("still on {live}")),
        },
        (_, lost) if !lost.is_empty() => {
            Verdict::Reached(format!("{reached}; {lost} is lost, and follows when it returns"))
        }
        _ => Verdict::Reached(reached.into()),
    }
}

#[cfg(test)]
mod tests;
