//! What only the store's own parts can show.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use store::{Role, Store};
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Options, RaftStore, Timing};
use crate::disk::{Disk, EngineKind, FlushMode};
use crate::engine::Forgetful;
use crate::transport::Tcp;

const LIMIT: Duration = Duration::from_secs(30);

/// A daemon without its Raft node would go on to say that it is there, and be given units for nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_ends_by_itself_has_failed() {
    let kind = EngineKind::Forgetful(Forgetful::new(1));
    let disk = Disk::open(Path::new("/nowhere"), kind, FlushMode::Inline).unwrap();
    let mut failed = disk.failed();
    let options = Options {
        machine: cluster::MachineId::new("m1").unwrap(),
        version: "test".into(),
        listen: "127.0.0.1:0".into(),
        advertise: None,
        bootstrap_expect: 0,
        join: Vec::new(),
        lookup: Arc::new(crate::lookup::AsWritten),
        cluster_name: "test".into(),
        timing: Timing::default(),
        seed: None,
    };
    let (stop, stopping) = watch::channel(false);
    let (store, driver) = RaftStore::start(options, disk, Arc::new(Tcp), stopping).await.unwrap();
    let driver = tokio::spawn(driver);
    store.init(None).await.unwrap();
    let mut roles = store.role();
    let leads = roles.wait_for(|role| matches!(role, Role::Leader { .. }));
    timeout(LIMIT, leads).await.expect("it leads").unwrap();
    assert_eq!(*failed.borrow(), None);

    // As it ends over an entry that it cannot read.
    store.0.node.get().unwrap().raft.shutdown().await.unwrap();
    let said = timeout(LIMIT, failed.wait_for(Option::is_some)).await.expect("it is said").unwrap().clone();
    assert!(said.as_ref().is_some_and(|said| said.contains("the Raft node has ended")), "{said:?}");
    assert_eq!(*store.role().borrow(), Role::Leaderless);
    stop.send_replace(true);
    driver.await.unwrap();
}
