//! Waiting for wishes to come true, on the daemon's event stream. What an event means for a wish is decided by
//! [`judge`], from values alone; the rest carries events to it and lines from it.

use std::collections::BTreeMap;
use std::time::Duration;

use api::Client;
use api::v1::{Event, State, Unit, UnitState};
use cluster::{MachineId, UnitName};
use tokio::time::{Instant, timeout_at};

use crate::{Exit, output};

/// How long a daemon that went away in the middle of a wait is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

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
    Reached(String),
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
        (Known::Unit(_), Goal::Gone) => return Verdict::Pending("in the cluster still".into()),
        (Known::Unit(unit), _) => unit,
    };
    let wanted = match goal {
        Goal::Launched => State::Launched,
        Goal::Loaded | Goal::Stopped => State::Loaded,
        Goal::Unloaded | Goal::Gone => State::Inactive,
    };
    if unit.desired_state != wanted {
        return failed(&format!(
            "somebody else wants it {} by now",
            cluster::DesiredState::from(unit.desired_state)
        ));
    }
    if goal == Goal::Unloaded {
        return held(&unit.states, "inactive", label);
    }
    let Some(machine) = &unit.machine else {
        return match (&unit.unplaced, goal) {
            (_, Goal::Stopped) => Verdict::Reached("stopped, on no machine".into()),
            (Some(why), _) => failed(&format!("it can be placed nowhere: {why}")),
            (None, _) => Verdict::Pending("not placed yet".into()),
        };
    };
    let host = label(machine);
    let Some(state) = unit.states.iter().find(|state| state.machine == *machine) else {
        return Verdict::Pending(format!("on its way to {host}"));
    };
    if state.stale {
        return Verdict::Pending(format!("on {host}, which is lost"));
    }
    let condition = format!("{} ({}) on {host}", state.active, state.sub);
    if state.generation != Some(unit.generation) {
        return Verdict::Pending(condition);
    }
    if let Some(failure) = &state.failure {
        let journal = failure.journal.clone();
        return Verdict::Failed { why: format!("{condition}: {}", failure.reason), journal };
    }
    match (goal, state.active.as_str()) {
        (Goal::Launched, "failed") => failed(&condition),
        (Goal::Launched, "activating") | (Goal::Stopped, "deactivating") => Verdict::Pending(condition),
        (Goal::Loaded, _) if state.load != "loaded" => {
            failed(&format!("its file is {} on {host}", state.load))
        }
        (Goal::Loaded, _) => Verdict::Reached(format!("loaded, {condition}")),
        _ => Verdict::Reached(condition),
    }
}

fn failed(why: &str) -> Verdict {
    Verdict::Failed { why: why.into(), journal: Vec::new() }
}

/// A unit that no machine should hold any more. Lost machines are not waited for: they follow when they return.
fn held(states: &[UnitState], reached: &str, label: &dyn Fn(&MachineId) -> String) -> Verdict {
    let hosts = |stale| {
        let on = states.iter().filter(|state| state.stale == stale).map(|state| label(&state.machine));
        on.collect::<Vec<_>>().join(", ")
    };
    match (hosts(false), hosts(true)) {
        (live, _) if !live.is_empty() => Verdict::Pending(format!("on {live} still")),
        (_, lost) if !lost.is_empty() => {
            Verdict::Reached(format!("{reached}; {lost} is lost, and will follow when it returns"))
        }
        _ => Verdict::Reached(reached.into()),
    }
}

/// Waits until every goal is reached or has failed, and says so line by line.
pub async fn until_reached(
    client: &Client,
    goals: BTreeMap<UnitName, Goal>,
    limit: Option<Duration>,
) -> anyhow::Result<Exit> {
    let deadline = limit.map(|limit| Instant::now() + limit);
    let names: Vec<UnitName> = goals.keys().cloned().collect();
    // Beyond some names the daemon tells us of all units, which is less than so long a request.
    let filter = if names.len() <= 50 { names.as_slice() } else { &[] };
    let mut events = client.events(None, filter).with_patience(Some(PATIENCE));
    let mut waiting: BTreeMap<UnitName, (Goal, String)> =
        goals.into_iter().map(|(name, goal)| (name, (goal, String::new()))).collect();
    let total = waiting.len();
    let (mut machines, mut progress, mut exit) = (Machines::default(), output::Progress::new(), Exit::Done);
    while !waiting.is_empty() {
        progress.show(&summary(&waiting, total));
        let event = match deadline {
            None => events.next().await,
            Some(deadline) => match timeout_at(deadline, events.next()).await {
                Ok(event) => event,
                Err(_) => {
                    progress.clear();
                    for (name, (_, state)) in &waiting {
                        output::note(&format!("corectl: {name}: not in time: {state}"));
                    }
                    return Ok(Exit::Failed);
                }
            },
        };
        let (_, event) = event?;
        let (name, known) = match event {
            Event::Unit { unit } => (unit.name.clone(), Known::Unit(unit)),
            Event::Gone { name, states } => (name, Known::Gone(states)),
            Event::Reset | Event::Machine { .. } | Event::MachineGone { .. } | Event::Synced { .. } => {
                continue;
            }
        };
        let Some((goal, pending)) = waiting.get_mut(&name) else { continue };
        machines.know(client, &known).await;
        match judge(*goal, &known, &|id| machines.label(id)) {
            Verdict::Pending(state) => *pending = state,
            Verdict::Reached(state) => {
                progress.clear();
                output::line(&format!("{name}: {state}"));
                waiting.remove(&name);
            }
            Verdict::Failed { why, journal } => {
                progress.clear();
                output::note(&format!("corectl: {name}: {why}"));
                journal.iter().for_each(|line| output::note(&format!("    {line}")));
                waiting.remove(&name);
                exit = Exit::Failed;
            }
        }
    }
    progress.clear();
    Ok(exit)
}

fn summary(waiting: &BTreeMap<UnitName, (Goal, String)>, total: usize) -> String {
    let some: Vec<String> =
        waiting.iter().take(3).map(|(name, (_, state))| format!("{name} {state}")).collect();
    format!("waiting for {} of {total} units: {}", waiting.len(), some.join(", "))
}

/// How machines are called: asked for when one is met that is not known.
#[derive(Default)]
pub struct Machines(BTreeMap<MachineId, String>);

impl Machines {
    async fn know(&mut self, client: &Client, known: &Known) {
        let states = match known {
            Known::Unit(unit) => &unit.states,
            Known::Gone(states) => states,
        };
        if states.iter().all(|state| self.0.contains_key(&state.machine)) {
            return;
        }
        self.ask(client).await;
    }

    /// Without an answer, machines are called by their ids.
    pub async fn ask(&mut self, client: &Client) {
        let Ok(answer) = client.machines(true).await else { return };
        for machine in answer.machines {
            let label = match machine.address.as_str() {
                "" => machine.name,
                address => format!("{} ({address})", machine.name),
            };
            self.0.insert(machine.id, label);
        }
    }

    pub fn label(&self, id: &MachineId) -> String {
        self.0.get(id).cloned().unwrap_or_else(|| format!("{}...", id.short()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::v1::Failure;
    use cluster::Generation;

    fn machine() -> MachineId {
        MachineId::new("m1").unwrap()
    }

    fn unit(desired_state: State, alter: impl FnOnce(&mut Unit)) -> Known {
        let mut unit = Unit {
            name: UnitName::new("a.service").unwrap(),
            desired_state,
            current_state: State::Inactive,
            generation: Generation(7),
            hash: String::new(),
            description: String::new(),
            machine: Some(machine()),
            reason: None,
            unplaced: None,
            states: vec![state("active", "running", Some(7))],
            text: None,
        };
        alter(&mut unit);
        Known::Unit(Box::new(unit))
    }

    fn state(active: &str, sub: &str, generation: Option<u64>) -> UnitState {
        UnitState {
            machine: machine(),
            load: "loaded".into(),
            active: active.into(),
            sub: sub.into(),
            hash: String::new(),
            generation: generation.map(Generation),
            failure: None,
            stale: false,
        }
    }

    /// `expected`: `+` reached, `.` pending, `!` failed, then what the text contains.
    fn check(goal: Goal, known: Known, expected: &str) {
        let verdict = judge(goal, &known, &|id| format!("<{id}>"));
        let text = match &verdict {
            Verdict::Pending(text) => format!(".{text}"),
            Verdict::Reached(text) => format!("+{text}"),
            Verdict::Failed { why, .. } => format!("!{why}"),
        };
        assert!(
            text.starts_with(&expected[..1]) && text.contains(&expected[1..]),
            "{text} is not {expected}"
        );
    }

    #[test]
    fn launched() {
        let launched = |alter: fn(&mut Unit)| unit(State::Launched, alter);
        check(Goal::Launched, launched(|_| ()), "+active (running) on <m1>");
        check(Goal::Launched, launched(|u| u.states[0].generation = None), ".active (running)");
        check(
            Goal::Launched,
            launched(|u| u.states[0] = state("activating", "start", Some(7))),
            ".activating",
        );
        check(
            Goal::Launched,
            launched(|u| u.states[0] = state("inactive", "dead", Some(7))),
            "+inactive (dead)",
        );
        check(Goal::Launched, launched(|u| u.states[0] = state("failed", "failed", Some(7))), "!failed");
        check(Goal::Launched, launched(|u| u.states.clear()), ".on its way to <m1>");
        check(Goal::Launched, launched(|u| u.machine = None), ".not placed yet");
        check(
            Goal::Launched,
            launched(|u| (u.machine, u.unplaced) = (None, Some("no machine is ready".into()))),
            "!it can be placed nowhere: no machine is ready",
        );
        check(
            Goal::Launched,
            launched(|u| u.states[0].failure = Some(Failure { reason: "exit-code".into(), journal: vec![] })),
            "!exit-code",
        );
        check(Goal::Launched, unit(State::Loaded, |_| ()), "!somebody else wants it loaded");
        check(Goal::Launched, Known::Gone(vec![]), "!destroyed");
    }

    #[test]
    fn loaded_and_stopped() {
        check(
            Goal::Loaded,
            unit(State::Loaded, |u| u.states[0] = state("inactive", "dead", Some(7))),
            "+loaded",
        );
        check(Goal::Loaded, unit(State::Loaded, |u| u.states[0].load = "bad-setting".into()), "!bad-setting");
        check(
            Goal::Stopped,
            unit(State::Loaded, |u| u.states[0].generation = Some(Generation(6))),
            ".active",
        );
        check(
            Goal::Stopped,
            unit(State::Loaded, |u| u.states[0] = state("inactive", "dead", Some(7))),
            "+inactive",
        );
        check(Goal::Stopped, unit(State::Loaded, |u| u.machine = None), "+stopped, on no machine");
    }

    #[test]
    fn unloaded_and_gone() {
        check(Goal::Unloaded, unit(State::Inactive, |_| ()), ".on <m1> still");
        check(Goal::Unloaded, unit(State::Inactive, |u| u.states.clear()), "+inactive");
        check(Goal::Gone, unit(State::Inactive, |_| ()), ".in the cluster still");
        check(Goal::Gone, Known::Gone(vec![state("active", "running", None)]), ".on <m1> still");
        check(
            Goal::Gone,
            Known::Gone(vec![UnitState { stale: true, ..state("active", "running", None) }]),
            "+<m1> is lost",
        );
        check(Goal::Gone, Known::Gone(vec![]), "+gone");
    }
}
