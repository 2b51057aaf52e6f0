//! A cluster that was restored from a backup, or recovered from one survivor, goes on under a new id. A
//! machine that comes back with a store of the cluster before it must not act on that: with a few of its kind
//! it could be a quorum of what is over. It asks around before it begins, and again while it knows no leader.

use std::collections::BTreeSet;
use std::time::Duration;

use openraft::storage::{RaftStateMachine, StorageHelper};
use store::Role;

use super::Shared;
use crate::disk::Identity;
use crate::message::Hello;
use crate::node::Node;
use crate::server::Handler;

/// A machine in reach answers well within this; one that is off holds up the start for no longer.
const HELLO_TIMEOUT: Duration = Duration::from_millis(500);
/// How often a machine without a leader asks.
const INTERVAL: Duration = Duration::from_secs(2);

impl Shared {
    /// Waits for as long as another machine says that the cluster went on without this store.
    pub(super) async fn not_be_succeeded(&self, identity: &Identity) {
        let members = self.kept_members().await.unwrap_or_else(|error| {
            tracing::warn!(error, "cannot read who the other members are");
            Vec::new()
        });
        while let Some(why) = self.successor(identity, &members).await {
            self.hint(&why);
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Where the members listen that the snapshot and the log know of, before the node runs.
    async fn kept_members(&self) -> Result<Vec<String>, String> {
        let (mut log, mut machine) = (self.disk.log_store(), self.disk.state_machine());
        let (applied, stored) = machine.applied_state().await.map_err(|error| error.to_string())?;
        let since = applied.map_or(0, |id| id.index + 1);
        let changes = StorageHelper::new(&mut log, &mut machine).last_membership_in_log(since).await;
        let changes = changes.map_err(|error| error.to_string())?;
        let nodes = changes.iter().chain([&stored]).flat_map(|stored| stored.membership().nodes());
        Ok(nodes.map(|(_, member)| member.address.clone()).collect())
    }

    /// While this node runs: whether it is without a leader because the cluster went on elsewhere.
    pub(super) async fn look_for_successor(&self, node: &Node) {
        let mut roles = self.role.subscribe();
        loop {
            if roles.wait_for(|role| matches!(role, Role::Leaderless)).await.is_err() {
                return;
            }
            let found = self.successor(&node.identity, &node.addresses()).await;
            {
                let mut known = self.succeeded.lock().expect("no holder of this lock panics");
                if let Some(why) = found.as_ref().filter(|_| *known != found) {
                    tracing::error!("{why}");
                }
                *known = found;
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Asks everybody who may know; the text says what to do.
    async fn successor(&self, identity: &Identity, members: &[String]) -> Option<String> {
        let founders = identity.founders.iter().map(|founder| &founder.address);
        let join = self.join_addresses().await;
        let all: BTreeSet<&String> = join.iter().chain(founders).chain(members).collect();
        let others = all.into_iter().filter(|address| **address != self.address);
        let me = &self.hello(None);
        let asked = others.map(|address| async move {
            let hello = self.peers.hello(address, Some(me), HELLO_TIMEOUT).await;
            hello.ok().and_then(|hello| succeeds(&hello, &identity.cluster_id))
        });
        futures::future::join_all(asked).await.into_iter().flatten().next()
    }
}

fn succeeds(hello: &Hello, cluster: &str) -> Option<String> {
    let formed = hello.formed.as_ref().filter(|formed| formed.former.iter().any(|id| id == cluster))?;
    let (address, new) = (&hello.address, &formed.cluster);
    Some(format!(
        "this machine's store is of cluster {cluster}, which goes on as {new}, restored or recovered, at \
         {address}; to join it, move the store away: systemctl stop coreinitd; mv /var/lib/coreinit \
         /var/lib/coreinit.old (or your data_dir); systemctl start coreinitd"
    ))
}
