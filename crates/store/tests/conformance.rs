//! The store in memory keeps what every store promises.

use std::sync::Arc;

use store::MemoryStore;
use store::conformance::{Member, machine, run};

#[tokio::test]
async fn memory() {
    let machine = machine("m1");
    run(vec![Member { store: Arc::new(MemoryStore::new(machine.clone())), machine }]).await;
}
