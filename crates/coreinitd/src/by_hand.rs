//! A machine's way into a cluster and out of it by hand: what `corectl cluster init`, `join` and `leave` make
//! of it is written down, and then the daemon begins anew, as if it had been configured so.

use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::membership::ClusterJoin;
use api::v1::ClusterInit;
use async_trait::async_trait;
use cluster::{ClusterState, Command, MachineId, Rejected, RotationStep};
use identity::joining::{self, Admit, Admitted, JoinRequest};
use identity::{Kept, Secret, Token, hex};
use raft::{BoxStream, Caller, Listener, RaftStore, Transport};
use store::Store;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::config::{Config, PORT, is_loopback};
use crate::http::{InitError, MadeToken, Membership, membership::now};
use crate::keys::{KEPT_FILE, Keys};
use crate::private_file;
use crate::trust::{self, Trust};

/// A machine that shows its token waits so long for the cluster's word.
const ADMIT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the members' addresses are written down anew, when they have changed.
const REMEMBER_INTERVAL: Duration = Duration::from_secs(10);

/// Why the daemon begins anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anew {
    /// It is to be a member of a cluster.
    Member,
    /// It was removed from its cluster.
    Expelled,
}

/// What this machine can do about its membership.
pub struct ByHand {
    config: Config,
    /// Those of the cluster that it belongs to, or is to belong to.
    keys: Option<Arc<Keys>>,
    anew: mpsc::Sender<Anew>,
    version: String,
}

impl ByHand {
    pub fn new(config: &Config, keys: Option<Arc<Keys>>, anew: mpsc::Sender<Anew>, version: &str) -> ByHand {
        ByHand { config: config.clone(), keys, anew, version: version.into() }
    }

    /// Writes down that this machine is to form a cluster by itself.
    pub fn init(&self, wish: ClusterInit) -> Result<(), InitError> {
        let failed = |reason: String| InitError::Failed { reason };
        is_nobodys(&self.config.data_dir).map_err(failed)?;
        self.port_is_free().map_err(failed)?;
        let secret = Secret::random().map_err(|error| failed(error.to_string()))?;
        let name = wish.name.unwrap_or_else(|| self.config.cluster_name.clone());
        let (advertise, secret) = (self.advertised(wish.advertise).map_err(failed)?, hex(secret.expose()));
        let trust = Trust { secret, join: Vec::new(), init: Some(name), advertise };
        self.begin(&trust, None).map_err(failed)
    }

    fn begin(&self, trust: &Trust, kept: Option<&Kept>) -> Result<(), String> {
        let dir = &self.config.data_dir;
        let written = keep(dir, kept).and_then(|()| trust.write(dir));
        written.map_err(|error| format!("cannot write to {}: {error}", dir.display()))?;
        // Whoever is first is enough.
        let _ = self.anew.try_send(Anew::Member);
        Ok(())
    }

    /// Where others reach this machine, if somebody has said it for this cluster.
    fn advertised(&self, told: Option<String>) -> Result<Option<String>, String> {
        let Some(told) = told else { return Ok(None) };
        let told = raft::with_port(told.trim(), PORT);
        match &self.config.advertise_told {
            Some(configured) if *configured != told => Err(format!(
                "the configuration says `advertise` = {configured:?}; take it out, or leave --advertise"
            )),
            _ if is_loopback(&told) => Err(format!("no other machine reaches this one at {told}")),
            _ => Ok(Some(told)),
        }
    }

    /// Known before anything is written down or a token is used.
    fn port_is_free(&self) -> Result<(), String> {
        let listen = &self.config.listen;
        TcpListener::bind(listen).map(drop).map_err(|error| {
            format!(
                "cannot listen for other machines on {listen}: {error}; set `listen` to an address of this \
                 machine"
            )
        })
    }
}

#[async_trait]
impl Membership for ByHand {
    async fn join(&self, wish: ClusterJoin) -> Result<(), String> {
        let ClusterJoin { token, addresses, advertise } = wish;
        if !self.config.by_hand {
            return Err(
                "this machine joins by its configuration (cluster_secret_file, join), not by a token; \
                        take these out of it to join by hand"
                    .into(),
            );
        }
        if self.keys.is_some() {
            return Err(
                "this machine is a member of a cluster already; `corectl cluster leave` takes it out \
                        of that first"
                    .into(),
            );
        }
        let token: Token = token.parse().map_err(|error: identity::TokenError| error.to_string())?;
        is_nobodys(&self.config.data_dir)?;
        self.port_is_free()?;
        let advertise = self.advertised(advertise)?;
        let mut failures = Vec::new();
        for address in &addresses {
            let address = raft::with_port(address.trim(), PORT);
            match joining::ask(&address, &token, &self.config.machine, &self.version).await {
                Ok(admitted) => {
                    let mut join = admitted.addresses;
                    if !join.contains(&address) {
                        join.insert(0, address);
                    }
                    let trust = Trust { secret: admitted.secret, join, init: None, advertise };
                    return self.begin(&trust, admitted.kept.as_ref());
                }
                // Another member would say the same.
                Err(refused @ joining::JoinError::Refused { .. }) => return Err(refused.to_string()),
                Err(error) => failures.push(format!("{:#}", anyhow::Error::new(error))),
            }
        }
        Err(failures.join("; "))
    }

    fn make_token(&self) -> Result<MadeToken, String> {
        let Some(keys) = &self.keys else {
            return Err(
                "machines of this cluster know each other by nothing: without encryption there are no \
                        tokens; set cluster_secret_file, or take `listen` and insecure_transport out of the \
                        configuration before `corectl cluster init`"
                    .into(),
            );
        };
        let token =
            Token::random(keys.keyring.authority().certificate()).map_err(|error| error.to_string())?;
        Ok(MadeToken { text: token.to_string(), name: token.name().into(), digest: token.digest() })
    }

    fn rotation(&self, secret: Option<&[u8]>) -> Result<RotationStep, String> {
        let unencrypted =
            || "machines of this cluster know each other by nothing, so there is nothing to replace";
        let keys = self.keys.as_ref().ok_or_else(unencrypted)?;
        keys.rotation(secret).map_err(|error| format!("{error:#}"))
    }

    fn address(&self) -> String {
        self.config.advertise.clone().unwrap_or_else(|| self.config.listen.clone())
    }
}

/// Lets in who shows a token that the cluster knows: its use is committed before the secret is told.
pub fn admission(store: RaftStore, keys: Arc<Keys>, own_address: String) -> Admit {
    Arc::new(move |request| {
        let (store, keys, own_address) = (store.clone(), keys.clone(), own_address.clone());
        Box::pin(async move {
            let machine = request.machine.clone();
            if !is_known(&store, &request).await? {
                // Anybody can show that, as often as it likes.
                tracing::debug!(%machine, "a token was shown that the cluster does not know");
                return Err(Rejected::TokenUnknown.to_string());
            }
            let admitted = use_token(&store, request).await;
            match &admitted {
                Ok(_) => tracing::info!(%machine, "a machine was let in by a token"),
                Err(reason) => tracing::warn!(%machine, reason, "a machine was not let in by its token"),
            }
            let cluster = admitted?;
            let mut addresses = store.member_addresses();
            addresses.push(own_address);
            let (secret, kept) = keys.admitted().map_err(|error| format!("{error:#}"))?;
            Ok(Admitted { cluster, secret, addresses, kept })
        })
    })
}

/// Whether the cluster knows the token. Nothing is written for one that it does not: it would give strangers
/// a word in the log.
async fn is_known(store: &dyn Store, request: &JoinRequest) -> Result<bool, String> {
    let digest = identity::secret_digest(&request.token_secret);
    let knows = |state: &ClusterState| state.knows_token(&request.token_name, &digest);
    if knows(&store.state().borrow()) {
        return Ok(true);
    }
    // It may have been made a moment ago, elsewhere.
    let newest = store.read(Instant::now() + ADMIT_TIMEOUT).await;
    newest.map(|state| knows(&state)).map_err(|error| error.to_string())
}

async fn use_token(store: &dyn Store, request: JoinRequest) -> Result<String, String> {
    let JoinRequest { token_name, token_secret, machine, .. } = request;
    let digest = identity::secret_digest(&token_secret);
    let using = Command::UseToken { id: token_name, digest, machine: machine.clone(), at: now() };
    made(store, using).await?;
    // With a token it may come back, even if it was removed.
    if store.state().borrow().expelled.contains_key(&machine) {
        made(store, Command::Readmit { machine }).await?;
    }
    let cluster = store.state().borrow().cluster.as_ref().map(|cluster| cluster.id.clone());
    cluster.ok_or_else(|| "the cluster is being formed; try again".into())
}

async fn made(store: &dyn Store, command: Command) -> Result<(), String> {
    let proposed = store.propose(vec![command], Instant::now() + ADMIT_TIMEOUT).await;
    let outcome = proposed.map_err(|error| error.to_string())?.outcomes.into_iter().next();
    outcome.transpose().map(drop).map_err(|rejected: Rejected| rejected.to_string())
}

/// Forms the cluster that this machine was told to be, and keeps in mind where the others are: a machine
/// whose store is damaged asks them for a new one.
pub async fn remember(store: RaftStore, dir: PathBuf, mut trust: Trust, mut stop: watch::Receiver<bool>) {
    if let Some(name) = trust.init.take() {
        match store.init(Some(name)).await {
            Ok(()) | Err(raft::InitError::Exists { .. }) => alter(&dir, |trust| trust.init = None),
            Err(error) => tracing::error!(%error, "the cluster was not formed"),
        }
    }
    let mut tick = tokio::time::interval(REMEMBER_INTERVAL);
    loop {
        tokio::select! {
            // Cancel-safe: both only wait.
            _ = tick.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let now = store.member_addresses();
        if !now.is_empty() && now != trust.join {
            trust.join = now.clone();
            alter(&dir, |trust| trust.join = now);
        }
    }
}

fn alter(dir: &Path, change: impl FnOnce(&mut Trust)) {
    if let Err(error) = Trust::alter(dir, change) {
        tracing::error!("where the other members are was not written down: {error:#}");
    }
}

/// How far a change of the secret is, or that there is none.
fn keep(dir: &Path, kept: Option<&Kept>) -> io::Result<()> {
    match kept {
        Some(kept) => private_file::write(dir, KEPT_FILE, kept),
        None if dir.exists() => private_file::remove(dir, KEPT_FILE),
        None => Ok(()),
    }
}

/// The port of a machine that belongs to no cluster yet: nobody is heard, and nobody is called.
pub struct Closed;

struct Nobody(String);

#[async_trait]
impl Transport for Closed {
    async fn connect(&self, _address: &str) -> io::Result<BoxStream> {
        Err(io::Error::new(io::ErrorKind::NotConnected, "this machine is not part of a cluster"))
    }

    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        Ok(Box::new(Nobody(address.into())))
    }
}

#[async_trait]
impl Listener for Nobody {
    async fn accept(&mut self) -> io::Result<(BoxStream, Caller)> {
        std::future::pending().await
    }

    fn address(&self) -> io::Result<String> {
        Ok(self.0.clone())
    }
}

/// After a store was put in the place of another: a machine that is a member by hand is the first of a
/// cluster again, which has its secret, and nobody to ask for anything.
pub fn keep_secret(config: &Config) -> anyhow::Result<()> {
    keep(&config.data_dir, config.kept.as_ref())?;
    if !config.by_hand {
        return Ok(());
    }
    let secret = match &config.trust {
        Some(trust) => trust.secret.clone(),
        None => hex(Secret::random()?.expose()),
    };
    let advertise = config.trust.as_ref().and_then(|trust| trust.advertise.clone());
    Ok(Trust { secret, join: Vec::new(), init: None, advertise }.write(&config.data_dir)?)
}

/// A store that is a member's would take that member up again, in whatever cluster it was.
fn is_nobodys(dir: &Path) -> Result<(), String> {
    match raft::has_identity(dir) {
        true => Err(format!(
            "the store in {} is a cluster's member's already, whose secret is gone; move it away first",
            dir.display()
        )),
        false => Ok(()),
    }
}

/// What is left of a membership that has ended: nothing but the old store, in a folder of its own. A crash in
/// between leaves a machine that knows its cluster, without a store: it asks to be let in, and hears that it
/// was removed.
pub fn forget(dir: &Path, machine: &MachineId) -> anyhow::Result<()> {
    let aside = raft::set_aside(dir, raft::ASIDE_REMOVED, &[trust::FILE, KEPT_FILE])?;
    private_file::remove(dir, KEPT_FILE)?;
    Trust::remove(dir)?;
    tracing::warn!(%machine, "the store was set aside as {}; nothing needs it any more", aside.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use store::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn a_stranger_has_no_word_in_the_log() {
        let store = MemoryStore::new(MachineId::new("m1").unwrap());
        let propose = async |command| {
            store.propose(vec![command], Instant::now() + ADMIT_TIMEOUT).await.unwrap();
        };
        propose(Command::InitCluster { id: "c".into(), name: "c".into() }).await;
        let digest = identity::secret_digest("good");
        let token = cluster::Token {
            digest,
            created_at: 1,
            expires_at: None,
            uses_left: None,
            used_by: BTreeSet::new(),
        };
        propose(Command::CreateToken { id: "t".into(), token }).await;
        let before = store.state().borrow().revision;
        let request = |name: &str, secret: &str| JoinRequest {
            token_name: name.into(),
            token_secret: secret.into(),
            machine: MachineId::new("m2").unwrap(),
            version: "1".into(),
        };
        for (name, secret, known) in [("t", "good", true), ("t", "bad", false), ("u", "good", false)] {
            assert_eq!(is_known(&store, &request(name, secret)).await, Ok(known), "{name} {secret}");
        }
        assert_eq!(store.state().borrow().revision, before);
        assert_eq!(use_token(&store, request("t", "good")).await.as_deref(), Ok("c"));
    }

    /// Without its secret a store is nobody's to go on with: so the store goes first.
    #[test]
    fn what_is_forgotten_halfway_is_taken_up_by_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let machine = MachineId::new("m1").unwrap();
        fs::write(dir.path().join("identity.json"), "{}").unwrap();
        assert!(is_nobodys(dir.path()).unwrap_err().contains("move it away"));
        // It cannot be removed: whatever comes before has happened then, and what comes after has not.
        fs::create_dir(dir.path().join(trust::FILE)).unwrap();
        forget(dir.path(), &machine).unwrap_err();
        assert_eq!(is_nobodys(dir.path()), Ok(()));
        assert!(dir.path().join("removed-1/identity.json").exists());

        fs::remove_dir(dir.path().join(trust::FILE)).unwrap();
        for name in ["identity.json", trust::FILE, KEPT_FILE] {
            fs::write(dir.path().join(name), "{}").unwrap();
        }
        forget(dir.path(), &machine).unwrap();
        let mut left: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["removed-1", "removed-2"]);
    }
}
