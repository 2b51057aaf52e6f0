//! From a machine without a cluster to one that belongs to one: it asks its peers who they are, and founds or
//! joins with them what `forming` decides.

use std::time::Duration;

use store::Role;
use tokio::sync::{mpsc, oneshot};

use super::Shared;
use crate::disk::Identity;
use crate::forming::{self, Heard, Step};
use crate::lookup;
use crate::message::{Envelope, Hello, Refusal, Request, Response};
use crate::node::Node;
use crate::peers::CallError;
use crate::server::Handler;
use crate::twin;

/// How often a machine without a cluster asks its peers.
const FORMING_INTERVAL: Duration = Duration::from_millis(300);
const HELLO_TIMEOUT: Duration = Duration::from_secs(1);
const JOIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a machine that is taken for another asks whether the other has gone. A machine that lost its
/// store while the leader still heard it is let in after such a while, too.
const TWIN_INTERVAL: Duration = Duration::from_secs(1);
/// How often a member that hears no leader asks whether it is a member still.
const PLACE_INTERVAL: Duration = Duration::from_secs(2);

/// Why a machine is not a member yet.
enum NotTaken {
    /// The one at that address has its id.
    Twin(String),
    /// This machine was removed.
    Expelled,
    Later,
}

impl Shared {
    /// Waits until this machine belongs to a cluster as nobody else does.
    pub(super) async fn be_somebody(
        &self,
        inits: mpsc::Receiver<(String, oneshot::Sender<Result<(), String>>)>,
    ) -> Identity {
        let mut identity = self.belong(inits).await;
        self.not_be_succeeded(&identity).await;
        let me = self.hello(None);
        if let Some(former) = identity.address.clone().filter(|former| *former != self.address) {
            while twin::is_copied_from(&self.peers, &former, &me).await {
                self.hint(&format!(
                    "the machine at {former} has the same machine id and the same store; {}",
                    twin::WAY_OUT
                ));
                tokio::time::sleep(TWIN_INTERVAL).await;
            }
        }
        if identity.address.as_ref() != Some(&self.address) {
            identity.address = Some(self.address.clone());
            self.keep(&identity);
        }
        identity
    }

    /// Somebody asked who this is, and said who it is.
    pub(super) fn look_at(&self, asker: &Hello) {
        let is_other = asker.nonce != self.nonce || asker.address != self.address;
        if asker.machine == self.options.machine.as_str() && is_other && self.told.first(&asker.address) {
            let second = &asker.address;
            tracing::warn!(second, "another machine has this machine's id; it is kept out of the cluster");
        }
    }

    /// Waits until this machine belongs to a cluster; at once when it did before.
    pub(super) async fn belong(
        &self,
        mut inits: mpsc::Receiver<(String, oneshot::Sender<Result<(), String>>)>,
    ) -> Identity {
        loop {
            let known = self.disk.identity();
            match known {
                Ok(Some(identity)) => return identity,
                Ok(None) => {}
                Err(error) => tracing::error!(%error, "cannot read who this node is"),
            }
            if self.options.join.is_empty() {
                self.hint(
                    "run `corectl cluster init` or `cluster join` here, or set bootstrap_expect and join",
                );
                let Some((name, answer)) = inits.recv().await else { std::future::pending().await };
                let me = self.hello(None);
                let identity = forming::found(&[&me], &me.machine);
                *self.cluster_name.lock().expect("no holder of this lock panics") = name;
                let kept = self.disk.set_identity(&identity);
                let _ = answer.send(kept.map_err(|error| error.to_string()));
                continue;
            }
            match forming::step(&self.hello(None), &self.ask_all().await) {
                Step::Found(identity) => {
                    tracing::info!(cluster = identity.cluster_id, node = identity.node, "founding a cluster");
                    self.keep(&identity);
                }
                Step::Join { cluster, addresses } => match self.join(&cluster, addresses).await {
                    Ok(identity) => {
                        tracing::info!(cluster, node = identity.node, "joined a cluster");
                        self.keep(&identity);
                    }
                    Err(NotTaken::Twin(address)) => {
                        self.hint(&format!(
                            "the machine at {address} has the same machine id; {}",
                            twin::WAY_OUT
                        ));
                        tokio::time::sleep(TWIN_INTERVAL).await;
                    }
                    Err(NotTaken::Expelled) => {
                        let machine = &self.options.machine;
                        self.hint(&format!(
                            "this machine was removed from the cluster; to take it back, run `corectl \
                             cluster readmit {machine}` on a member"
                        ));
                        tokio::time::sleep(TWIN_INTERVAL).await;
                    }
                    Err(NotTaken::Later) => {
                        self.hint("waiting for the cluster's leader to take this machine in");
                        tokio::time::sleep(FORMING_INTERVAL).await;
                    }
                },
                Step::Wait { why } => {
                    self.hint(&why);
                    tokio::time::sleep(FORMING_INTERVAL).await;
                }
            }
        }
    }

    /// While no leader is known, asks the others whether this machine is a member still: one that was removed
    /// would wait for ever. Only a leader's word counts; others may not know yet that it was taken back.
    pub(super) async fn watch_place(&self, node: &Node) {
        let mut tick = tokio::time::interval(PLACE_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if matches!(*self.role.borrow(), Role::Leader { .. } | Role::Follower { .. }) {
                continue;
            }
            let mut addresses = node.other_addresses();
            addresses.extend(self.join_addresses().await);
            for address in addresses {
                if self.is_removed(node, &address).await {
                    tracing::error!("this machine was removed from the cluster");
                    self.expelled.send_replace(true);
                    return std::future::pending().await;
                }
            }
        }
    }

    /// Whether the leader that the machine at `address` knows says so.
    async fn is_removed(&self, node: &Node, address: &str) -> bool {
        let Ok(hello) = self.peers.hello(address, None, HELLO_TIMEOUT).await else { return false };
        let cluster = node.identity.cluster_id.clone();
        let formed = hello.formed.filter(|formed| formed.cluster == cluster);
        let Some(leader) = formed.and_then(|formed| formed.leader) else { return false };
        let request = self.here(node);
        let answer = self.peers.call(&leader, &Envelope { cluster, to: None, request }, HELLO_TIMEOUT).await;
        matches!(answer, Err(CallError::Refused { source: Refusal::Expelled, .. }))
    }

    fn keep(&self, identity: &Identity) {
        if let Err(error) = self.disk.set_identity(identity) {
            tracing::error!(%error, "cannot write down who this node is");
        }
    }

    pub(super) fn hint(&self, text: &str) {
        self.role.send_if_modified(|role| {
            let new = Role::Unformed { hint: text.into() };
            let changed = *role != new;
            if changed {
                tracing::info!("not part of a cluster: {text}");
                *role = new;
            }
            changed
        });
    }

    async fn ask_all(&self) -> Vec<Heard> {
        let me = &self.hello(None);
        let places = lookup::all(&*self.options.lookup, &self.options.join).await;
        let asked = places.into_iter().map(|place| async move {
            let address = match place {
                Ok(address) => address,
                Err((place, why)) => return Heard { address: place, hello: Err(why) },
            };
            let hello = self.peers.hello(&address, Some(me), HELLO_TIMEOUT).await;
            let hello = hello.map_err(|error| match error {
                CallError::Unreachable { source, .. } | CallError::NoAnswer { source, .. } => {
                    source.to_string()
                }
                refused @ CallError::Refused { .. } => refused.to_string(),
            });
            Heard { address, hello }
        });
        futures::future::join_all(asked).await
    }

    /// Where the machines of `join` are, as far as that is known.
    pub(super) async fn join_addresses(&self) -> Vec<String> {
        let places = lookup::all(&*self.options.lookup, &self.options.join).await;
        places.into_iter().filter_map(Result::ok).collect()
    }

    async fn join(&self, cluster: &str, mut addresses: Vec<String>) -> Result<Identity, NotTaken> {
        let mut next = 0;
        while let Some(address) = addresses.get(next).cloned() {
            next += 1;
            let (machine, nonce) = (self.options.machine.to_string(), self.nonce.clone());
            let request = Request::Join { machine: machine.clone(), address: self.address.clone(), nonce };
            let envelope = Envelope { cluster: cluster.into(), to: None, request };
            match self.peers.call(&address, &envelope, JOIN_TIMEOUT).await {
                Ok(Response::Joined { node }) => {
                    let cluster_id = cluster.to_string();
                    let address = Some(self.address.clone());
                    return Ok(Identity { cluster_id, node, machine, founders: Vec::new(), address });
                }
                Err(CallError::Refused { source: Refusal::Twin { address }, .. }) => {
                    return Err(NotTaken::Twin(address));
                }
                Err(CallError::Refused { source: Refusal::Expelled, .. }) => {
                    return Err(NotTaken::Expelled);
                }
                Err(CallError::Refused { source: Refusal::NotLeader { leader: Some(leader) }, .. })
                    if !addresses.contains(&leader) =>
                {
                    addresses.push(leader);
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "not taken in"),
            }
        }
        Err(NotTaken::Later)
    }
}
