//! The port between daemons where no Raft runs, because the state is kept elsewhere: questions and their
//! answers, over the same transport and in the same words as beside Raft. Nothing else is answered there.

use std::future::Future;
use std::io;
use std::sync::Arc;

use cluster::MachineId;
use tokio::sync::watch;

use crate::message::{self, Asked, Envelope, Hello, Refusal};
use crate::peers::Peers;
use crate::question::{self, Answerer, AskError, Pieces, Questions};
use crate::server::{Handler, serve};
use crate::transport::{Caller, Transport};

/// The id of the cluster that this machine belongs to by now.
pub type ClusterId = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// Asks other daemons, and answers them. Cheap to clone.
#[derive(Clone)]
pub struct Port(Arc<Shared>);

struct Shared {
    machine: MachineId,
    version: String,
    address: String,
    cluster: ClusterId,
    peers: Arc<Peers>,
    questions: Questions,
}

impl Port {
    /// Opens the port. The future that comes with it does its work, until `stop`. `advertise`: where other
    /// daemons reach it, unless that is where it listens.
    pub async fn open(
        (machine, version): (MachineId, String),
        (listen, advertise): (&str, Option<&str>),
        transport: Arc<dyn Transport>,
        cluster: ClusterId,
        answerer: Answerer,
        stop: watch::Receiver<bool>,
    ) -> io::Result<(Port, impl Future<Output = ()> + Send + use<>)> {
        let listener = transport.listen(listen).await?;
        let address = match advertise {
            Some(address) => address.into(),
            None => listener.address()?,
        };
        let questions = Questions::default();
        questions.answer_with(answerer);
        let peers = Peers::new(transport);
        let shared = Arc::new(Shared { machine, version, address, cluster, peers, questions });
        Ok((Port(shared.clone()), serve(listener, shared, stop)))
    }

    /// Where other daemons reach it.
    pub fn address(&self) -> &str {
        &self.0.address
    }

    /// Asks the daemon that is there. The stream ends when either side ends it.
    pub async fn ask(&self, address: &str, question: Vec<u8>) -> Result<Pieces, AskError> {
        let cluster = (self.0.cluster)().ok_or(AskError::NotMember)?;
        question::ask(&self.0.peers, address, &Asked { cluster, question }).await
    }
}

impl Handler for Shared {
    /// Such a daemon forms no cluster with anybody.
    fn hello(&self, _asker: Option<Hello>) -> Hello {
        Hello {
            machine: self.machine.to_string(),
            address: self.address.clone(),
            nonce: String::new(),
            version: self.version.clone(),
            expects: 0,
            formed: None,
        }
    }

    async fn handle(&self, _caller: &Caller, _envelope: Envelope) -> Result<message::Response, Refusal> {
        Err(Refusal::Stranger)
    }

    async fn answer(&self, asked: Asked) -> Result<Pieces, String> {
        match (self.cluster)() {
            Some(cluster) if cluster == asked.cluster => self.questions.answer(asked.question).await,
            _ => Err("this daemon is not a member of that cluster".into()),
        }
    }
}
