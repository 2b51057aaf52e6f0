//! How the daemons of other machines are asked: by the store that has a port of its own for them, by a port
//! that is opened for nothing else, or not at all. `run` gives one of these to the API.

use std::sync::{Arc, OnceLock};

use anyhow::Context;
use cluster::MachineId;
use etcd_compat::EtcdStore;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use identity::{Greeted, Keyring, Tls};
use raft::{ClusterId, Port, RaftStore};
use store::Store;
use tokio::sync::{mpsc, watch};

use crate::asking;
use crate::config::{Config, is_loopback};
use crate::http::{AskMachine, Words};

/// Asks the daemon of another machine; the text of an error is for people.
pub type AskOther =
    Arc<dyn Fn(MachineId, Vec<u8>) -> BoxFuture<'static, Result<Words, String>> + Send + Sync>;

/// Over the port that the daemons have for Raft.
pub fn by_raft(store: RaftStore) -> AskOther {
    store.answer_with(Arc::new(|question| Box::pin(asking::answer(question))));
    Arc::new(move |machine, question| {
        let store = store.clone();
        Box::pin(async move {
            let asked = store.ask(&machine, question).await;
            asked.map_err(|error| format!("{:#}", anyhow::Error::new(error)))
        })
    })
}

/// Without a port.
pub fn nobody() -> AskOther {
    Arc::new(|machine, _| {
        let why = format!(
            "with backend = \"etcd\" a daemon tells only of its own machine, unless all machines \
            have the same \
             cluster_secret_file; ask the daemon of machine {machine}, such as by `corectl --tunnel` or \
             `corectl ssh`"
        );
        Box::pin(async move { Err(why) })
    })
}

/// A port for questions alone, between machines that keep their state in an etcd and know each other by the
/// cluster's secret. Where each is reached, etcd tells.
pub struct MachinePort {
    port: Port,
    store: Arc<OnceLock<EtcdStore>>,
}

impl MachinePort {
    pub async fn open(
        config: &Config,
        version: &str,
        (keyring, people): (Arc<Keyring>, mpsc::Sender<Greeted>),
        stopping: &watch::Receiver<bool>,
    ) -> anyhow::Result<MachinePort> {
        let store = Arc::new(OnceLock::<EtcdStore>::new());
        let known = store.clone();
        let cluster: ClusterId = Arc::new(move || {
            let state = known.get()?.state().borrow().clone();
            state.cluster.as_ref().map(|cluster| cluster.id.clone())
        });
        let who = (config.machine.clone(), version.to_string());
        let advertise = config.advertise.as_deref().filter(|_| !is_loopback(&config.listen));
        let answerer: raft::Answerer = Arc::new(|question| Box::pin(asking::answer(question)));
        let transport = Arc::new(Tls::new(keyring).with_people(people));
        let at = (config.listen.as_str(), advertise);
        let opened = Port::open(who, at, transport, cluster, answerer, stopping.clone()).await;
        let (port, driver) =
            opened.with_context(|| format!("cannot listen for other machines on {}", config.listen))?;
        tokio::spawn(driver);
        tracing::info!(listen = config.listen, "other machines may ask for journals here");
        Ok(MachinePort { port, store })
    }

    /// Where other machines reach it.
    pub fn address(&self) -> &str {
        self.port.address()
    }

    pub fn asks_for(self, store: EtcdStore) -> AskOther {
        let MachinePort { port, store: known } = self;
        // It is set once: a port belongs to one store.
        let _ = known.set(store.clone());
        Arc::new(move |machine, question| {
            let (port, address) = (port.clone(), store.peer(&machine));
            Box::pin(async move {
                let address = address.ok_or_else(|| {
                    format!(
                        "the daemon of machine {machine} is not there, or has no port for others: that needs \
                         the same cluster_secret_file on all machines"
                    )
                })?;
                let asked = port.ask(&address, question).await;
                asked.map_err(|error| format!("{:#}", anyhow::Error::new(error)))
            })
        })
    }
}

/// What a machine's own programs say of a unit: asked for here, or of the daemon there. Streams end when this
/// daemon stops.
pub fn ask_hook(other: AskOther, own: MachineId, stopping: watch::Receiver<bool>) -> AskMachine {
    Arc::new(move |machine, question| {
        let (other, is_own, mut stopping) = (other.clone(), machine == own, stopping.clone());
        Box::pin(async move {
            let words = match is_own {
                true => asking::here(&question).await?,
                false => other(machine, asking::encode(&question)).await?,
            };
            let stopped = async move { drop(stopping.wait_for(|stop| *stop).await) };
            Ok(words.take_until(stopped.boxed()).boxed())
        })
    })
}
