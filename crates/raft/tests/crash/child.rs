//! The processes that are killed, recorded and asked: this program, started again with one test and a task
//! for it.

use std::collections::VecDeque;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use futures::TryStreamExt;
use openraft::RaftSnapshotBuilder;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage, RaftStateMachine, StorageHelper};
use openraft::type_config::TypeConfigExt;
use raft::disk::{Disk, EngineKind, FlushMode, Identity};
use raft::types::{TypeConfig, Vote};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::promises::{Crash, NODE, Promises, entry, id};

/// `TASK ENGINE DIR ARGUMENT`.
const TASK: &str = "COREINIT_CRASH_TASK";

pub fn kind(name: &str) -> EngineKind {
    match name {
        "sled" => EngineKind::Sled,
        "redb" => EngineKind::Redb,
        other => panic!("no engine {other:?}"),
    }
}

/// A child that uses the store for so many steps.
pub fn writer(engine: &str, dir: &Path, seed: u64, steps: u64) -> Command {
    task(Command::new(std::env::current_exe().unwrap()), "write", engine, dir, &format!("{seed}:{steps}"))
}

/// A child that looks whether the promises in a file are kept; see [`Answer`].
pub fn reader(engine: &str, dir: &Path, promises: &Path) -> Command {
    task(Command::new(std::env::current_exe().unwrap()), "read", engine, dir, promises.to_str().unwrap())
}

/// A child that does nothing but what [`raft::probe`] asks of it.
pub fn prober(task_: &str, engine: &str, dir: &Path) -> Command {
    task(Command::new(std::env::current_exe().unwrap()), task_, engine, dir, "7")
}

fn task(mut command: Command, task: &str, engine: &str, dir: &Path, argument: &str) -> Command {
    command.args(["--exact", "child::child", "--nocapture"]);
    command.env(TASK, format!("{task} {engine} {} {argument}", dir.display()));
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// No test but the child's whole life, when there is a task.
#[test]
fn child() {
    let Ok(given) = std::env::var(TASK) else { return };
    let words: Vec<&str> = given.split(' ').collect();
    let [task, engine, dir, argument] = words[..] else { panic!("the task is {given:?}") };
    let dir = PathBuf::from(dir);
    match task {
        "write" => {
            let (seed, steps) = argument.split_once(':').unwrap();
            let (seed, steps) = (seed.parse().unwrap(), steps.parse().unwrap());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(write(&dir, kind(engine), seed, steps));
        }
        "read" => {
            let promises = Promises::read(&std::fs::read_to_string(argument).unwrap());
            match promises.check(&dir, kind(engine), Crash::PowerCut) {
                Ok(()) => say("right"),
                Err(broken) if broken.starts_with("refused: ") => say(&broken),
                Err(broken) => say(&format!("wrong: {broken}")),
            }
        }
        "probe" => std::process::exit(i32::from(raft::probe::answer(&dir, kind(engine)))),
        "abort" => std::process::abort(),
        "exit" => std::process::exit(argument.parse().unwrap()),
        other => panic!("no task {other:?}"),
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "@{line}").unwrap();
    out.flush().unwrap();
}

async fn write(dir: &Path, kind: EngineKind, seed: u64, steps: u64) {
    let disk = Disk::open(dir, kind, FlushMode::Thread).unwrap();
    say(&format!("nonce {}", disk.nonce().unwrap()));
    if disk.identity().unwrap().is_none() {
        let identity = Identity {
            cluster_id: "c".into(),
            node: NODE,
            machine: "m1".into(),
            founders: Vec::new(),
            address: None,
        };
        disk.set_identity(&identity).unwrap();
        say("identity");
    }
    let (mut log, mut machine) = (disk.log_store(), disk.state_machine());
    // What an earlier child wrote and did not live to see acknowledged is in the log by now.
    for entry in log.try_get_log_entries(..).await.unwrap() {
        let id = entry.log_id;
        say(&format!("ack {} {} {}", id.index, id.index, id.committed_leader_id().term));
    }
    StorageHelper::new(&mut log, &mut machine).with_id(NODE).get_initial_state().await.unwrap();
    let term = log.read_vote().await.unwrap().map_or(0, |vote: Vote| vote.leader_id().term);
    let mut writer = Writer { disk, chance: SmallRng::seed_from_u64(seed), term };
    writer.vote().await;
    for _ in 0..steps {
        match writer.chance.random_range(0..100) {
            0..70 => writer.append().await,
            70..78 => writer.vote().await,
            78..84 => writer.truncate().await,
            84..94 => writer.commit().await,
            _ => writer.snapshot_and_purge().await,
        }
    }
}

struct Writer {
    disk: Disk,
    chance: SmallRng,
    term: u64,
}

impl Writer {
    async fn vote(&mut self) {
        self.term += 1;
        self.disk.log_store().save_vote(&Vote::new(self.term, NODE)).await.unwrap();
        say(&format!("vote {}", self.term));
    }

    /// The index after the last entry.
    async fn next(&self) -> u64 {
        self.disk.log_store().get_log_state().await.unwrap().last_log_id.map_or(0, |id| id.index + 1)
    }

    async fn applied(&self) -> Option<u64> {
        self.disk.state_machine().applied_state().await.unwrap().0.map(|id| id.index)
    }

    /// Up to four appends under way at a time.
    async fn append(&mut self) {
        let mut log = self.disk.log_store();
        let mut under_way = VecDeque::new();
        for _ in 0..self.chance.random_range(1..=4) {
            let first = self.next().await;
            let end = first + self.chance.random_range(1..=12);
            let (sender, receiver) = TypeConfig::oneshot();
            let entries: Vec<_> = (first..end).map(|index| entry(self.term, index)).collect();
            log.append(entries, IOFlushed::signal(sender)).await.unwrap();
            under_way.push_back((first, end - 1, receiver));
        }
        for (first, last, receiver) in under_way {
            receiver.await.unwrap().unwrap();
            say(&format!("ack {first} {last} {}", self.term));
        }
    }

    async fn truncate(&mut self) {
        let (Some(applied), next) = (self.applied().await, self.next().await) else { return };
        if applied + 1 >= next {
            return;
        }
        let last = self.chance.random_range(applied..next);
        let mut log = self.disk.log_store();
        let kept = log.try_get_log_entries(last..=last).await.unwrap();
        let kept =
            kept.first().map(|entry| entry.log_id).or(log.get_log_state().await.unwrap().last_purged_log_id);
        say(&format!("cut {last}"));
        log.truncate_after(kept).await.unwrap();
        self.vote().await;
    }

    async fn commit(&mut self) {
        let (from, next) = (self.applied().await.map_or(0, |applied| applied + 1), self.next().await);
        if from >= next {
            return;
        }
        let upto = self.chance.random_range(from..next);
        let (mut log, mut machine) = (self.disk.log_store(), self.disk.state_machine());
        let last = log.try_get_log_entries(upto..=upto).await.unwrap().remove(0).log_id;
        log.save_committed(Some(last)).await.unwrap();
        say(&format!("committed {upto}"));
        let entries = log.entries_stream(from..=upto).await;
        let entries = std::pin::pin!(entries.map_ok(|entry| (entry, None)));
        machine.apply(entries).await.unwrap();
    }

    async fn snapshot_and_purge(&mut self) {
        let Some(applied) = self.applied().await else { return };
        let (mut log, mut machine) = (self.disk.log_store(), self.disk.state_machine());
        let purged = log.get_log_state().await.unwrap().last_purged_log_id.map_or(0, |id| id.index);
        if applied < purged + 60 {
            return;
        }
        machine.try_create_snapshot_builder(true).await.unwrap().build_snapshot().await.unwrap();
        say(&format!("snapshot {applied}"));
        let upto = self.chance.random_range(purged + 1..=applied);
        let term = log.try_get_log_entries(upto..=upto).await.unwrap()[0].log_id.committed_leader_id().term;
        log.purge(id(term, upto)).await.unwrap();
        say(&format!("purged {upto}"));
    }
}
