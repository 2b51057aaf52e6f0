//! Waiting for wishes to come true, on the daemon's event stream. What an event means is for `verdict` to
//! say; here, events are carried to it and lines from it.
//!
//! Without a time limit it waits for ever, as systemctl does: only a unit's own machine knows how long a
//! start may take.

use std::collections::BTreeMap;
use std::time::Duration;

use api::Client;
use api::v1::{Event, UnitState};
use cluster::{MachineId, Revision, UnitName};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::lookup::NAMES_MAX;
use crate::machines::Machines;
use crate::verdict::{Goal, Known, Verdict, judge};
use crate::{Exit, output};

/// How long units that no machine can take are given, once nothing else is waited for: a machine may just be
/// joining, or another unit making room.
const UNPLACED_GRACE: Duration = Duration::from_secs(3);

/// What is told of a unit when its wait ends.
pub struct Ended<'a> {
    pub unit: &'a UnitName,
    pub goal: Goal,
    pub known: &'a Known,
    pub machines: &'a Machines,
}

impl Ended<'_> {
    /// The machine that the cluster has put it on.
    pub fn home(&self) -> Option<&MachineId> {
        match self.known {
            Known::Unit(unit) => unit.machine.as_ref(),
            Known::Gone(_) => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenUp {
    /// No machine can take it.
    Unplaced,
    /// The time that was given is over.
    Late,
}

/// How what comes of a wait is put into words.
pub trait Voice {
    fn reached(&mut self, ended: &Ended<'_>, text: &str);
    fn failed(&mut self, ended: &Ended<'_>, why: &str, journal: &[String]);
    /// `text` is how far it had come.
    fn gave_up(&mut self, unit: &UnitName, goal: Goal, text: &str, why: GivenUp);
    /// For how long a unit must have been started before that is told: one that fails at once has been
    /// active, too.
    fn doubts_start(&self) -> Option<Duration> {
        None
    }

    /// About the wait itself.
    fn aside(&mut self, text: &str) {
        output::problem(text);
    }
}

/// corectl's own.
pub struct Plain;

impl Voice for Plain {
    fn reached(&mut self, ended: &Ended<'_>, text: &str) {
        output::line(&format!("{}: {text}", ended.unit));
    }

    fn failed(&mut self, ended: &Ended<'_>, why: &str, journal: &[String]) {
        output::problem(&format!("{}: {why}", ended.unit));
        journal.iter().for_each(|line| output::note(&format!("    {line}")));
    }

    fn gave_up(&mut self, unit: &UnitName, _goal: Goal, text: &str, why: GivenUp) {
        let why = match why {
            GivenUp::Unplaced => "it stays wanted, for when a machine suits it",
            GivenUp::Late => "not in time; the wish stays",
        };
        output::problem(&format!("{unit}: {text} ({why})"));
    }
}

/// How long all must be quiet around a global unit before it counts as being where it should: how many
/// machines will take it is theirs to say, and they say so within a tick or two of each other.
const SETTLING: Duration = Duration::from_secs(2);

struct Waiting {
    goal: Goal,
    /// From when on it counts as there, unless something more is heard.
    settled: Option<(Instant, Known)>,
    is_known: bool,
    is_unplaced: bool,
    /// How far it has come, for people.
    text: String,
}

struct Wait<'a> {
    client: &'a Client,
    waiting: BTreeMap<UnitName, Waiting>,
    total: usize,
    machines: Machines,
    voice: &'a mut dyn Voice,
    /// Machines were asked for at this revision.
    asked_at: Option<Revision>,
    progress: output::Progress,
    exit: Exit,
}

/// Waits until every goal is reached or has failed, and says so line by line. `since` is when the wishes were
/// made: what was before is not looked at.
pub async fn until_reached(
    client: &Client,
    goals: BTreeMap<UnitName, Goal>,
    since: Revision,
    limit: Option<Duration>,
    voice: &mut dyn Voice,
) -> anyhow::Result<Exit> {
    let names: Vec<UnitName> = goals.keys().filter(|_| goals.len() <= NAMES_MAX).cloned().collect();
    let (mut events, mut is_lost) = (client.events(None, &names), false);
    let begun = |goal| Waiting {
        goal,
        settled: None,
        is_known: false,
        is_unplaced: false,
        text: "not heard of yet".into(),
    };
    let mut wait = Wait {
        client,
        total: goals.len(),
        waiting: goals.into_iter().map(|(name, goal)| (name, begun(goal))).collect(),
        machines: Machines::default(),
        voice,
        asked_at: None,
        progress: output::Progress::new(),
        exit: Exit::Done,
    };
    let deadline = limit.map(|limit| Instant::now() + limit);
    let mut unplaced_until = None;
    let mut second = interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while !wait.waiting.is_empty() {
        match wait.waiting.values().all(|waiting| waiting.is_unplaced) {
            true => drop(unplaced_until.get_or_insert_with(|| Instant::now() + UNPLACED_GRACE)),
            false => unplaced_until = None,
        }
        // All arms are cancel-safe: an event that was not taken comes again.
        tokio::select! {
            heard = events.next() => match heard {
                Ok((at, event)) => {
                    if is_lost {
                        is_lost = false;
                        events = events.with_patience(Some(Duration::ZERO));
                        wait.say("coreinitd is back");
                    }
                    wait.hear(at, event, since).await;
                }
                // The first loss is told, then the daemon is sought for as long as the wait lasts.
                Err(error) if error.is_unreachable() && !is_lost => {
                    is_lost = true;
                    events = events.with_patience(None);
                    let error = anyhow::Error::new(error);
                    wait.say(&format!("{error:#}; the wait goes on when coreinitd is back"));
                }
                Err(error) => return Err(error.into()),
            },
            _ = second.tick(), if wait.progress.is_shown() => wait.show(),
            () = at(wait.settles_at()) => wait.settle(),
            () = at(unplaced_until) => wait.give_up(GivenUp::Unplaced),
            () = at(deadline) => wait.give_up(GivenUp::Late),
        }
    }
    wait.progress.clear();
    Ok(wait.exit)
}

/// Never, without a time.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

impl Wait<'_> {
    async fn hear(&mut self, at: Revision, event: Event, since: Revision) {
        match event {
            // A daemon that has just come back may not know of the wish yet.
            Event::Unit { .. } | Event::Gone { .. } | Event::Synced { .. } if at < since => {}
            Event::Unit { unit } => self.learn(at, &unit.name.clone(), Known::Unit(unit)).await,
            Event::Gone { name, states } => self.learn(at, &name, Known::Gone(states)).await,
            Event::Synced { leader } => {
                // All that stands has been told, but when all units are told of, not what is nowhere any
                // more.
                let unknown = self.waiting.iter().filter(|(_, waiting)| !waiting.is_known);
                let unknown: Vec<UnitName> = unknown.map(|(name, _)| name.clone()).collect();
                for name in unknown {
                    self.learn(at, &name, Known::Gone(Vec::new())).await;
                }
                if leader.is_none() && !self.waiting.is_empty() {
                    self.say("the cluster has no leader now; the wait goes on");
                }
            }
            Event::Reset => self.waiting.values_mut().for_each(|waiting| waiting.is_known = false),
            Event::Machine { .. } | Event::MachineGone { .. } => {}
        }
    }

    async fn learn(&mut self, at: Revision, name: &UnitName, known: Known) {
        let Some(waiting) = self.waiting.get_mut(name) else { return };
        waiting.is_known = true;
        waiting.settled = None;
        let goal = waiting.goal;
        self.know(at, &known).await;
        let doubts = self.voice.doubts_start().filter(|_| goal == Goal::Launched);
        let (verdict, settling) = match (judge(goal, &known, &|id| self.machines.label(id)), doubts) {
            (Verdict::Reached(text), Some(doubts)) => (Verdict::Settling(text), doubts),
            (verdict, _) => (verdict, SETTLING),
        };
        match verdict {
            Verdict::Pending(text) => self.note(name, text, false),
            Verdict::Unplaced(text) => self.note(name, text, true),
            Verdict::Settling(text) => {
                self.note(name, text, false);
                if let Some(waiting) = self.waiting.get_mut(name) {
                    waiting.settled = Some((Instant::now() + settling, known));
                }
            }
            Verdict::Reached(text) => {
                self.progress.clear();
                self.waiting.remove(name);
                let ended = Ended { unit: name, goal, known: &known, machines: &self.machines };
                self.voice.reached(&ended, &text);
            }
            Verdict::Failed { why, journal } => {
                self.progress.clear();
                self.waiting.remove(name);
                let ended = Ended { unit: name, goal, known: &known, machines: &self.machines };
                self.voice.failed(&ended, &why, &journal);
                self.exit = Exit::Failed;
            }
        }
        self.show();
    }

    fn settles_at(&self) -> Option<Instant> {
        self.waiting.values().filter_map(|waiting| waiting.settled.as_ref().map(|(at, _)| *at)).min()
    }

    /// Tells of those about which nothing more was heard.
    fn settle(&mut self) {
        self.progress.clear();
        let now = Instant::now();
        let is_settled =
            |_: &UnitName, waiting: &mut Waiting| waiting.settled.as_ref().is_some_and(|(at, _)| *at <= now);
        for (name, waiting) in self.waiting.extract_if(.., is_settled) {
            let Some((_, known)) = waiting.settled else { continue };
            let ended = Ended { unit: &name, goal: waiting.goal, known: &known, machines: &self.machines };
            self.voice.reached(&ended, &waiting.text);
        }
    }

    fn say(&mut self, text: &str) {
        self.progress.clear();
        self.voice.aside(text);
    }

    fn note(&mut self, name: &UnitName, text: String, is_unplaced: bool) {
        if let Some(waiting) = self.waiting.get_mut(name) {
            (waiting.text, waiting.is_unplaced) = (text, is_unplaced);
        }
    }

    /// Asks what machines are called when one is met that is not known; at most once for each state of the
    /// cluster.
    async fn know(&mut self, at: Revision, known: &Known) {
        let (home, states): (Option<&MachineId>, &[UnitState]) = match known {
            Known::Unit(unit) => (unit.machine.as_ref(), &unit.states),
            Known::Gone(states) => (None, states),
        };
        let mut met = home.into_iter().chain(states.iter().map(|state| &state.machine));
        if met.all(|id| self.machines.knows(id)) || self.asked_at == Some(at) {
            return;
        }
        self.asked_at = Some(at);
        // Without an answer, machines are called by their ids.
        if let Ok(machines) = Machines::ask(self.client).await {
            self.machines = machines;
        }
    }

    fn show(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let some: Vec<&str> = self.waiting.keys().take(3).map(UnitName::as_str).collect();
        let more = if some.len() < self.waiting.len() { ", ..." } else { "" };
        let (count, total) = (self.waiting.len(), self.total);
        self.progress.show(&format!("waiting for {count} of {total} units: {}{more}", some.join(", ")));
    }

    fn give_up(&mut self, why: GivenUp) {
        self.progress.clear();
        for (name, Waiting { text, goal, .. }) in std::mem::take(&mut self.waiting) {
            self.voice.gave_up(&name, goal, &text, why);
        }
        self.exit = Exit::Failed;
    }
}
