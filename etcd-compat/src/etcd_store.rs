//! The store that the daemon sees: there from the first moment, on whichever interface etcd turns out to
//! have.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use cluster::{ClusterState, Command, MachineId};
use store::{Committed, ProposeError, ReadError, Role, Store};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::detect::detect;
use crate::options::{Api, Options};
use crate::shared::Shared;
use crate::v2::V2;
use crate::v3::V3;

/// Between two rounds through all endpoints, while none answers.
const ROUND_PAUSE: Duration = Duration::from_millis(500);

/// Cheap to clone.
#[derive(Clone)]
pub struct EtcdStore(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    spoken: OnceLock<Spoken>,
}

/// The interface in use.
enum Spoken {
    V2(Arc<V2>),
    V3(Arc<V3>),
}

impl EtcdStore {
    /// Begins to look for etcd. The future that comes with the store does all its work, until `stop`.
    pub fn start(
        options: Options,
        mut stop: watch::Receiver<bool>,
    ) -> io::Result<(EtcdStore, impl Future<Output = ()> + Send)> {
        let shared = Arc::new(Shared::new(options)?);
        let store = EtcdStore(Arc::new(Inner { shared, spoken: OnceLock::new() }));
        let inner = store.0.clone();
        let run = async move {
            tokio::select! {
                // Not resumed when cancelled: the daemon is stopping.
                () = inner.live() => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
        };
        Ok((store, run))
    }

    /// Where the daemon of another machine of the cluster is reached; `None` for one that is not there, or
    /// has not said.
    pub fn peer(&self, machine: &MachineId) -> Option<String> {
        self.0.shared.presence.peer(machine)
    }

    fn not_yet(&self) -> String {
        self.0.shared.why()
    }
}

impl Inner {
    async fn live(&self) {
        let found = loop {
            match detect(&self.shared.options).await {
                Ok(found) => break found,
                Err(reason) => {
                    let hint = format!("no etcd answers: {reason}");
                    self.shared.set_trouble(Some(reason));
                    self.shared.set_role(Role::Unformed { hint });
                }
            }
            tokio::time::sleep(ROUND_PAUSE).await;
        };
        let endpoint = &self.shared.options.endpoints[found.endpoint];
        let how = if self.shared.options.api.is_some() { "as configured" } else { "as found" };
        self.shared.set_trouble(None);
        match found.api {
            Api::V3 => {
                tracing::info!(endpoint, "etcd {} on its v3 interface, {how}", found.version);
                let v3 = Arc::new(V3::new(self.shared.clone()));
                let _ = self.spoken.set(Spoken::V3(v3.clone()));
                v3.run().await;
            }
            Api::V2 => {
                tracing::info!(endpoint, "etcd {} on its v2 interface, {how}", found.version);
                match V2::new(self.shared.clone(), found.endpoint) {
                    Ok(v2) => {
                        let v2 = Arc::new(v2);
                        let _ = self.spoken.set(Spoken::V2(v2.clone()));
                        v2.run().await;
                    }
                    Err(hint) => self.shared.set_role(Role::Unformed { hint }),
                }
            }
        }
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn propose(&self, commands: Vec<Command>, deadline: Instant) -> Result<Committed, ProposeError> {
        match self.0.spoken.get() {
            Some(Spoken::V2(v2)) => v2.propose(commands, deadline).await,
            Some(Spoken::V3(v3)) => v3.propose(commands, deadline).await,
            None => Err(ProposeError::Unavailable { reason: self.not_yet() }),
        }
    }

    async fn decide(
        &self,
        term: u64,
        commands: Vec<Command>,
        deadline: Instant,
    ) -> Result<Committed, ProposeError> {
        match self.0.spoken.get() {
            Some(Spoken::V2(v2)) => v2.decide(term, commands, deadline).await,
            Some(Spoken::V3(v3)) => v3.decide(term, commands, deadline).await,
            None => Err(ProposeError::Unavailable { reason: self.not_yet() }),
        }
    }

    fn state(&self) -> watch::Receiver<Arc<ClusterState>> {
        self.0.shared.state.subscribe()
    }

    async fn read(&self, deadline: Instant) -> Result<Arc<ClusterState>, ReadError> {
        match self.0.spoken.get() {
            Some(Spoken::V2(v2)) => v2.read(deadline).await,
            Some(Spoken::V3(v3)) => v3.read(deadline).await,
            None => Err(ReadError::Unavailable { reason: self.not_yet() }),
        }
    }

    fn role(&self) -> watch::Receiver<Role> {
        self.0.shared.role.subscribe()
    }

    fn trouble(&self) -> Option<String> {
        self.0.shared.known_trouble()
    }

    /// The lease is renewed by the store itself; this tells how that goes.
    async fn here(&self, _deadline: Instant) -> Result<(), ReadError> {
        match self.0.spoken.get() {
            Some(Spoken::V2(v2)) => v2.here(),
            Some(Spoken::V3(v3)) => v3.here(),
            None => Err(ReadError::Unavailable { reason: self.not_yet() }),
        }
    }

    fn silence(&self) -> BTreeMap<MachineId, Duration> {
        let state = self.0.shared.state.borrow().clone();
        // What cannot say that it is there is not silent.
        if self.0.shared.is_denied() {
            self.0.shared.presence.deaf();
        }
        let machines = state.machines.iter().map(|(id, machine)| (id, machine.liveness));
        self.0.shared.presence.silence(machines, &self.0.shared.options.machine)
    }

    async fn give_up_lead(&self, limit: Duration) {
        match self.0.spoken.get() {
            Some(Spoken::V2(v2)) => v2.give_up_lead(limit).await,
            Some(Spoken::V3(v3)) => v3.give_up_lead(limit).await,
            None => {}
        }
    }
}
