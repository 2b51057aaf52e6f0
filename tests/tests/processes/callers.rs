//! Those who ask: each calls one machine after the other, changes units and reads them, and writes down what
//! was said. Together that is the history that is checked.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use api::v1::{Batch, BatchDone, Operation, OperationOutcome, State, Unit};
use cluster::{DesiredState, Kind};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use tests::linearizable::{Asked, Call, Fault, Heard, Wish, check};
use tests::wait::pause;

use crate::crowd::Crowd;

/// Few enough that callers meet.
pub const UNITS: u32 = 12;
const REST_MS_MAX: u64 = 60;

#[derive(Default)]
pub struct History {
    moments: AtomicU64,
    files: AtomicU32,
    /// Of each unit, by the moment of the call.
    calls: Mutex<BTreeMap<u32, BTreeMap<u64, Call<Heard>>>>,
    /// Units that were acknowledged, and that nobody has touched since.
    kept: Mutex<BTreeSet<String>>,
}

fn unit(number: u32) -> String {
    format!("u{number}.service")
}

fn text(file: u32) -> String {
    format!("[Service]\nExecStart=/bin/{file}\n")
}

fn file_of(text: &str) -> Option<u32> {
    text.lines().find_map(|line| line.strip_prefix("ExecStart=/bin/"))?.parse().ok()
}

impl History {
    fn moment(&self) -> u64 {
        self.moments.fetch_add(1, Ordering::SeqCst)
    }

    fn note(&self, number: u32, called: u64, operation: Heard, returned: Option<u64>) {
        let mut calls = self.calls.lock().expect("no holder of this lock panics");
        calls.entry(number).or_default().insert(called, Call { operation, called, returned });
    }

    fn forget(&self, number: u32, called: u64) {
        let mut calls = self.calls.lock().expect("no holder of this lock panics");
        calls.entry(number).or_default().remove(&called);
    }

    pub fn kept(&self) -> BTreeSet<String> {
        self.kept.lock().expect("no holder of this lock panics").clone()
    }

    /// Acknowledged changes, those of unknown outcome, and reads.
    pub fn counts(&self) -> [usize; 3] {
        let calls = self.calls.lock().expect("no holder of this lock panics");
        let count =
            |is: fn(&Call<Heard>) -> bool| calls.values().flat_map(|c| c.values()).filter(|c| is(c)).count();
        [
            count(|call| call.returned.is_some() && matches!(call.operation, Heard::Changed(..))),
            count(|call| call.returned.is_none()),
            count(|call| matches!(call.operation, Heard::Seen(_))),
        ]
    }

    pub fn judge(&self) -> Result<(), (u32, Fault)> {
        let calls = self.calls.lock().expect("no holder of this lock panics");
        calls.iter().try_for_each(|(number, calls)| {
            let calls: Vec<Call<Heard>> = calls.values().cloned().collect();
            check(&Wish::default(), &calls).map_err(|fault| (*number, fault))
        })
    }

    /// As if the last read of that unit had seen what nobody ever wrote.
    pub fn falsify_last_read(&self, number: u32) {
        let mut calls = self.calls.lock().expect("no holder of this lock panics");
        let mut calls = calls.get_mut(&number).into_iter().flat_map(|calls| calls.values_mut().rev());
        let read = calls.find(|call| matches!(call.operation, Heard::Seen(_))).expect("it was read");
        read.operation = Heard::Seen(Wish(Some((u32::MAX, DesiredState::Inactive))));
    }

    /// As if a change that was acknowledged, and whose file was read before it was changed again, had not
    /// been asked for.
    pub fn lose_a_write(&self, number: u32) {
        let mut calls = self.calls.lock().expect("no holder of this lock panics");
        let calls = calls.get_mut(&number).expect("it was asked for");
        let was_read = |file: u32| {
            let is_of = |call: &Call<Heard>| match call.operation {
                Heard::Seen(Wish(Some((seen, _)))) => seen == file,
                _ => false,
            };
            calls.values().any(is_of)
        };
        let writes = calls.values().filter_map(|call| match (&call.operation, call.returned) {
            (Heard::Changed(Asked::Set { file: Some(file), .. }, _), Some(_)) => Some((call.called, *file)),
            _ => None,
        });
        let called = writes.rev().find(|(_, file)| was_read(*file)).expect("one of them was read").0;
        calls.remove(&called);
    }

    /// Calls until it is over.
    pub fn ask(&self, caller: usize, crowd: &Crowd, seed: u64, is_over: impl Fn() -> bool) {
        let mut chance = SmallRng::seed_from_u64(seed ^ caller as u64);
        for turn in 0.. {
            if is_over() {
                return;
            }
            if let Some(machine) = crowd.there().choose(&mut chance).copied() {
                match chance.random_range(0..10) {
                    0 => self.keep(crowd, machine, format!("kept-{caller}-{turn}.service")),
                    1..5 => drop(self.read(crowd, machine, chance.random_range(0..UNITS))),
                    _ => self.change(crowd, machine, &mut chance),
                }
            }
            pause(Duration::from_millis(chance.random_range(0..REST_MS_MAX)));
        }
    }

    /// A unit that only this caller ever asks for, and only once.
    fn keep(&self, crowd: &Crowd, machine: usize, name: String) {
        let operation =
            Operation::Set { name: name.clone(), text: Some(text(0)), desired_state: Some(State::Inactive) };
        if let Answered::Done(_) = change(crowd, machine, operation) {
            self.kept.lock().expect("no holder of this lock panics").insert(name);
        }
    }

    /// Reads one unit; whether that worked.
    pub fn read(&self, crowd: &Crowd, machine: usize, number: u32) -> Result<(), String> {
        let called = self.moment();
        let answer = crowd.call(machine, "GET", &format!("/v1/units/{}", unit(number)), b"")?;
        let returned = Some(self.moment());
        let seen = match answer.status {
            200 => {
                let unit: Unit = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
                let file =
                    unit.text.as_deref().and_then(file_of).ok_or("another text than ever was written")?;
                Some((
                    file,
                    match unit.desired_state {
                        State::Inactive => DesiredState::Inactive,
                        State::Loaded => DesiredState::Loaded,
                        State::Launched => DesiredState::Launched,
                    },
                ))
            }
            404 => None,
            status => return Err(format!("{status} {}", answer.text())),
        };
        self.note(number, called, Heard::Seen(Wish(seen)), returned);
        Ok(())
    }

    fn change(&self, crowd: &Crowd, machine: usize, chance: &mut SmallRng) {
        let number = chance.random_range(0..UNITS);
        let (desired, state) = match chance.random_range(0..6) {
            0 => (DesiredState::Inactive, State::Inactive),
            1 => (DesiredState::Loaded, State::Loaded),
            _ => (DesiredState::Launched, State::Launched),
        };
        let fresh = 1 + self.files.fetch_add(1, Ordering::SeqCst);
        let asked = match chance.random_range(0..10) {
            0 => Asked::Destroy,
            1..4 => Asked::Set { file: None, desired: Some(desired) },
            4 => Asked::Set { file: Some(fresh), desired: None },
            _ => Asked::Set { file: Some(fresh), desired: Some(desired) },
        };
        let name = unit(number);
        let operation = match asked {
            Asked::Set { file, desired } => {
                Operation::Set { name, text: file.map(text), desired_state: desired.map(|_| state) }
            }
            Asked::Destroy | Asked::Read => Operation::Destroy { name },
        };
        let called = self.moment();
        self.note(number, called, Heard::Changed(asked, None), None);
        match change(crowd, machine, operation) {
            Answered::Done(kind) => {
                let returned = Some(self.moment());
                self.note(number, called, Heard::Changed(asked, Some(kind)), returned);
            }
            Answered::Undone => self.forget(number, called),
            Answered::Unknown => {}
        }
    }
}

/// What the caller knows of a change.
enum Answered {
    /// `None`: it was refused.
    Done(Option<Kind>),
    /// The machine says that nothing was changed, or never took the request.
    Undone,
    Unknown,
}

fn change(crowd: &Crowd, machine: usize, operation: Operation) -> Answered {
    let body = serde_json::to_vec(&Batch { operations: vec![operation] }).expect("it can be JSON");
    let answer = match crowd.try_call(machine, "POST", "/v1/units", &body) {
        Ok(answer) => answer,
        // Nobody listens there at the moment.
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => {
            return Answered::Undone;
        }
        Err(_) => return Answered::Unknown,
    };
    let done: Option<BatchDone> = serde_json::from_slice(&answer.body).ok();
    match (answer.status, done) {
        (200, Some(done)) => Answered::Done(match done.results[0].outcome {
            OperationOutcome::Created => Some(Kind::Created),
            OperationOutcome::Replaced => Some(Kind::Replaced),
            OperationOutcome::Updated => Some(Kind::Updated),
            OperationOutcome::Unchanged => Some(Kind::Unchanged),
            OperationOutcome::Removed => Some(Kind::Removed),
            OperationOutcome::Refused => None,
        }),
        (503, _) if answer.text().contains("the cluster has no leader") => Answered::Undone,
        _ => Answered::Unknown,
    }
}
