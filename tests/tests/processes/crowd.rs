//! The processes of all machines: started, killed, started again, asked.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::process::Child;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use api::membership::{Members, Part};
use api::v1::Status;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde::de::DeserializeOwned;
use tests::http::{self, Answer};
use tests::wait::{eventually, pause};

use crate::child::{LEADS, LOG, SOCKET, process};

/// Longer than a daemon's own longest deadline (10 s).
const ANSWER_LIMIT: Duration = Duration::from_secs(12);
/// A removed process still answers who is on the line.
const END_LIMIT: Duration = Duration::from_secs(60);
const PORT: u16 = 7340;

pub struct Crowd {
    folder: tempfile::TempDir,
    /// Loopback addresses that no other run has: one for each machine, all with the same port.
    network: String,
    places: Mutex<BTreeMap<usize, Place>>,
    /// Processes that have ended though nobody killed or removed them.
    crashed: Mutex<Vec<String>>,
}

enum Place {
    Runs(Child),
    /// It was killed, and comes back.
    Down,
    /// It was removed, or is dead for good.
    Gone,
}

pub fn name(machine: usize) -> String {
    format!("m{machine}")
}

impl Crowd {
    pub fn new() -> Crowd {
        let id = std::process::id();
        let network = format!("127.{}.{}", 1 + (id >> 8) % 254, id & 0xff);
        let folder = tempfile::tempdir().expect("a folder");
        Crowd { folder, network, places: Mutex::default(), crashed: Mutex::default() }
    }

    fn places(&self) -> MutexGuard<'_, BTreeMap<usize, Place>> {
        self.places.lock().expect("no holder of this lock panics")
    }

    fn folder(&self, machine: usize) -> PathBuf {
        self.folder.path().join(name(machine))
    }

    fn address(&self, machine: usize) -> String {
        format!("{}.{machine}:{PORT}", self.network)
    }

    /// Starts a machine: the first forms a cluster, the others join what they find.
    pub fn start(&self, machine: usize) {
        let folder = self.folder(machine);
        std::fs::create_dir_all(&folder).expect("a folder for the machine");
        let join: Vec<String> = match machine {
            1 => Vec::new(),
            _ => (1..machine).map(|other| self.address(other)).collect(),
        };
        let mut process = process(&name(machine), &folder, &self.address(machine), &join);
        self.places().insert(machine, Place::Runs(process.spawn().expect("a process")));
    }

    /// SIGKILL; `false` when it did not run.
    pub fn kill(&self, machine: usize) -> bool {
        let mut places = self.places();
        let Some(Place::Runs(child)) = places.get_mut(&machine) else { return false };
        let ended = child.try_wait().expect("a child");
        child.kill().expect("it can be killed");
        child.wait().expect("it has ended");
        let place = match ended {
            // It was removed.
            Some(status) if status.success() => Place::Gone,
            Some(status) => {
                let mut crashed = self.crashed.lock().expect("no holder of this lock panics");
                crashed.push(format!("m{machine}: {status}"));
                Place::Down
            }
            None => Place::Down,
        };
        places.insert(machine, place);
        ended.is_none()
    }

    pub fn revive(&self, machine: usize) {
        if matches!(self.places().get(&machine), Some(Place::Down)) {
            self.start(machine);
        }
    }

    /// Killed, and never seen again.
    pub fn take_away(&self, machine: usize) {
        self.kill(machine);
        self.places().insert(machine, Place::Gone);
    }

    /// Waits until the process of a machine that was removed has ended.
    #[track_caller]
    pub fn is_out(&self, machine: usize) {
        eventually(END_LIMIT, "the removed machine to have heard so", || {
            let status = self.get::<Status>(machine, "/v1/status");
            let mut places = self.places();
            match places.get_mut(&machine) {
                Some(Place::Runs(child)) => match child.try_wait().map_err(|error| error.to_string())? {
                    Some(status) if status.success() => {}
                    Some(status) => return Err(format!("{}: {status}", name(machine))),
                    None => return Err(format!("{} runs: {status:?}", name(machine))),
                },
                Some(Place::Gone) => {}
                Some(Place::Down) | None => return Err(format!("{} is down", name(machine))),
            }
            places.insert(machine, Place::Gone);
            Ok(())
        });
    }

    /// Machines that are there for good: they run, or will again.
    pub fn there(&self) -> Vec<usize> {
        let places = self.places();
        places
            .iter()
            .filter(|(_, place)| !matches!(place, Place::Gone))
            .map(|(machine, _)| *machine)
            .collect()
    }

    pub fn try_call(&self, machine: usize, method: &str, path: &str, body: &[u8]) -> io::Result<Answer> {
        http::call(&self.folder(machine).join(SOCKET), method, path, body, ANSWER_LIMIT)
    }

    pub fn call(&self, machine: usize, method: &str, path: &str, body: &[u8]) -> Result<Answer, String> {
        self.try_call(machine, method, path, body).map_err(|error| format!("m{machine}: {error}"))
    }

    pub fn get<T: DeserializeOwned>(&self, machine: usize, path: &str) -> Result<T, String> {
        let answer = self.call(machine, "GET", path, b"")?;
        match answer.status {
            200 => serde_json::from_slice(&answer.body).map_err(|error| format!("m{machine}: {error}")),
            status => Err(format!("m{machine}: {status} {}", answer.text())),
        }
    }

    /// So many vote, as everybody says who is there; and they are alive, as the leader says.
    pub fn voters(&self, count: usize) -> Result<(), String> {
        for machine in self.there() {
            match self.get::<Status>(machine, "/v1/status")?.voters {
                Some(voters) if voters == count => {}
                voters => return Err(format!("m{machine} knows of {voters:?} voters")),
            }
        }
        let (there, voting) = (self.there(), self.voting()?);
        match voting.iter().filter(|machine| there.contains(machine)).count() {
            alive if alive == count && voting.len() == count => Ok(()),
            _ => Err(format!("{voting:?} vote, and {there:?} are there")),
        }
    }

    /// Who votes, as the leader says.
    pub fn voting(&self) -> Result<Vec<usize>, String> {
        let asked = *self.there().first().ok_or("nobody is there")?;
        let members = self.get::<Members>(asked, "/v1/cluster/members")?.members;
        let voting = members.iter().filter(|member| member.part != Part::Learner);
        Ok(voting.filter_map(|member| member.machine.as_str().strip_prefix('m')?.parse().ok()).collect())
    }

    /// Which machine has led in each term; `Err` names a term with two.
    pub fn leads(&self) -> Result<BTreeMap<u64, usize>, String> {
        let machines: Vec<usize> = self.places().keys().copied().collect();
        let mut leads = BTreeMap::new();
        for machine in machines {
            let text = std::fs::read_to_string(self.folder(machine).join(LEADS)).unwrap_or_default();
            for term in text.lines().filter_map(|line| line.parse::<u64>().ok()) {
                let first = *leads.entry(term).or_insert(machine);
                if first != machine {
                    return Err(format!("One Leader: m{first} and m{machine} lead in term {term}"));
                }
            }
        }
        Ok(leads)
    }

    pub fn crashed(&self) -> Vec<String> {
        self.crashed.lock().expect("no holder of this lock panics").clone()
    }

    /// What every process has said, for a test that failed.
    pub fn last_words(&self) -> String {
        let machines: Vec<usize> = self.places().keys().copied().collect();
        let words = machines.into_iter().map(|machine| {
            let text = std::fs::read_to_string(self.folder(machine).join(LOG)).unwrap_or_default();
            format!("---- m{machine}\n{text}")
        });
        words.collect()
    }

    /// Kills one after the other, at random, and starts it again; says how often, once `is_over`.
    pub fn torment(&self, seed: u64, is_over: impl Fn() -> bool) -> usize {
        let (mut chance, mut kills) = (SmallRng::seed_from_u64(seed), 0);
        while !is_over() {
            pause(Duration::from_millis(chance.random_range(200..1500)));
            let Some(machine) = self.there().choose(&mut chance).copied() else { continue };
            kills += usize::from(self.kill(machine));
            pause(Duration::from_millis(chance.random_range(0..1200)));
            self.revive(machine);
        }
        kills
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for place in self.places().values_mut() {
            if let Place::Runs(child) = place {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}
