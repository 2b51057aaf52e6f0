//! What this machine was asked, for `/v2/stats/store`.

use std::sync::atomic::{AtomicU64, Ordering};

use cluster::KeyChange;
use serde_json::{Map, Value};

/// In etcd's order and spelling; each once for success and once for failure.
const NAMES: [&str; 7] = ["gets", "sets", "delete", "update", "create", "compareAndSwap", "compareAndDelete"];

#[derive(Default)]
pub(super) struct Counts {
    good: [AtomicU64; NAMES.len()],
    bad: [AtomicU64; NAMES.len()],
}

/// Which of the names.
pub(super) fn of(change: &KeyChange) -> usize {
    match change {
        KeyChange::Set { .. } => 1,
        KeyChange::Delete { .. } | KeyChange::Expire => 2,
        KeyChange::Update { .. } => 3,
        KeyChange::Create { .. } | KeyChange::CreateInOrder { .. } => 4,
        KeyChange::CompareAndSwap { .. } => 5,
        KeyChange::CompareAndDelete { .. } => 6,
    }
}

impl Counts {
    pub fn read(&self, is_good: bool) {
        self.wrote(0, is_good);
    }

    pub fn wrote(&self, what: usize, is_good: bool) {
        let counts = if is_good { &self.good } else { &self.bad };
        counts[what].fetch_add(1, Ordering::Relaxed);
    }

    pub fn shown(&self, watches: usize) -> Value {
        let mut shown = Map::new();
        for (i, name) in NAMES.iter().enumerate() {
            let load = |counts: &[AtomicU64]| Value::from(counts[i].load(Ordering::Relaxed));
            shown.insert(format!("{name}Success"), load(&self.good));
            shown.insert(format!("{name}Fail"), load(&self.bad));
        }
        shown.insert("watchers".into(), watches.into());
        Value::Object(shown)
    }
}
