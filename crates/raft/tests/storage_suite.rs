//! openraft's own tests of a storage, against every engine and both ways of syncing.

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use raft::disk::{Disk, EngineKind, FlushMode};
use raft::engine::Forgetful;
use raft::log_store::LogStore;
use raft::state_machine::StateMachine;
use raft::types::TypeConfig;
use tempfile::TempDir;

struct Builder {
    kind: fn() -> EngineKind,
    mode: FlushMode,
}

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let dir = TempDir::new().unwrap();
        let disk = Disk::open(dir.path(), (self.kind)(), self.mode).unwrap();
        Ok((dir, disk.log_store(), disk.state_machine()))
    }
}

fn check(kind: fn() -> EngineKind, mode: FlushMode) {
    TypeConfig::run(async move { Suite::test_all(Builder { kind, mode }).await.unwrap() });
}

#[test]
fn sled_with_a_thread() {
    check(|| EngineKind::Sled, FlushMode::Thread);
}

#[test]
fn sled_inline() {
    check(|| EngineKind::Sled, FlushMode::Inline);
}

#[test]
fn redb_with_a_thread() {
    check(|| EngineKind::Redb, FlushMode::Thread);
}

#[test]
fn redb_inline() {
    check(|| EngineKind::Redb, FlushMode::Inline);
}

#[test]
fn forgetful_inline() {
    check(|| EngineKind::Forgetful(Forgetful::new(1)), FlushMode::Inline);
}
