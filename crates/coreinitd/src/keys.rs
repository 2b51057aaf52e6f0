//! What this machine, the others and people know each other by: the cluster's secret, and all that follows
//! from it. It changes while the daemon runs when the cluster's authority is replaced.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use cluster::{Cluster, MachineId, RotationPhase, RotationStep};
use identity::{Authority, Kept, KeptPhase, Keyring, Move, Secret, Secrets, Tls, hex, next_move};
use raft::{Tcp, Transport};
use tokio::sync::watch;

use crate::config::Config;
use crate::signs::Signs;
use crate::trust::Trust;
use crate::{http, private_file};

/// In the data folder: how far this machine is with a change of the secret.
pub const KEPT_FILE: &str = "rotation.json";

const OUTDATED: &str = "cluster_secret_file has a secret that the cluster has replaced; put the new one \
                        there, on every machine: a machine without it in its file cannot join";

/// This machine's share of the cluster's trust.
pub struct Keys {
    pub keyring: Arc<Keyring>,
    dir: PathBuf,
    by_hand: bool,
    held: Mutex<Held>,
}

struct Held {
    /// Of the configuration, or as it was told by hand.
    base: Secret,
    kept: Option<Kept>,
}

/// What was kept of a change of the secret, if there was one.
pub fn kept(dir: &Path) -> anyhow::Result<Option<Kept>> {
    private_file::read(dir, KEPT_FILE)
}

fn base(config: &Config) -> anyhow::Result<Option<Secret>> {
    match (&config.cluster_secret_file, &config.trust) {
        (Some(path), _) => Secret::read(path).context("cannot use cluster_secret_file").map(Some),
        (None, Some(trust)) => {
            let bytes = trust.secret_bytes().context("the secret that was kept is damaged")?;
            Secret::new(&bytes).context("cannot use the secret that was kept").map(Some)
        }
        (None, None) => Ok(None),
    }
}

fn keyring(secrets: &Secrets, machine: &MachineId) -> anyhow::Result<Arc<Keyring>> {
    let keyring = Keyring::new(Authority::of(&secrets.issuing)?, machine.clone())?;
    apply(secrets, &keyring)?;
    Ok(keyring)
}

fn apply(secrets: &Secrets, keyring: &Keyring) -> anyhow::Result<()> {
    let also = secrets.also.as_ref().map(Authority::of).transpose()?;
    Ok(keyring.change(Authority::of(&secrets.issuing)?, also)?)
}

impl Keys {
    /// `None` for a machine that has no secret: it belongs to no cluster, or to one without encryption.
    pub fn open(
        config: &Config,
        signs: &Signs,
        stopping: &watch::Receiver<bool>,
    ) -> anyhow::Result<Option<Arc<Keys>>> {
        let Some(base) = base(config)? else { return Ok(None) };
        let secrets = Secrets::of(&base, config.kept.as_ref())?;
        if secrets.is_outdated {
            tracing::warn!("{OUTDATED}");
        }
        let keyring = keyring(&secrets, &config.machine)?;
        let shown = keyring.clone();
        signs.certificate(Box::new(move || shown.ends()));
        let (fresh, mut stopping) = (keyring.clone(), stopping.clone());
        tokio::spawn(async move {
            tokio::select! {
                // Cancel-safe: it only waits, or has renewed.
                () = fresh.keep_fresh() => {}
                _ = stopping.wait_for(|stop| *stop) => {}
            }
        });
        let held = Mutex::new(Held { base, kept: config.kept.clone() });
        let (dir, by_hand) = (config.data_dir.clone(), config.by_hand);
        Ok(Some(Arc::new(Keys { keyring, dir, by_hand, held })))
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a machine that joins has to know: the secret, and how far its change is.
    pub fn admitted(&self) -> anyhow::Result<(String, Option<Kept>)> {
        let held = self.held();
        if let Some(kept) = held.kept.as_ref().filter(|kept| kept.phase < KeptPhase::Done) {
            return Ok((kept.old.clone(), Some(Kept { former: Vec::new(), ..kept.clone() })));
        }
        let secrets = Secrets::of(&held.base, held.kept.as_ref())?;
        Ok((hex(secrets.issuing.expose()), None))
    }

    /// The beginning of a change to that secret, or to one that is made here.
    pub fn rotation(&self, new: Option<&[u8]>) -> anyhow::Result<RotationStep> {
        let new = match new {
            Some(bytes) => Secret::new(bytes)?,
            None if self.by_hand => Secret::random()?,
            None => anyhow::bail!(
                "the machines of this cluster have their secret from cluster_secret_file: make a new one, \
                 such as by `head -c 32 /dev/urandom | base64 >FILE`, give it with --secret-file FILE, and \
                 put it into cluster_secret_file on every machine afterwards"
            ),
        };
        let held = self.held();
        let now = Secrets::of(&held.base, held.kept.as_ref())?.issuing;
        anyhow::ensure!(new != now, "this is the secret that the cluster has already");
        let authority = Authority::of(&new)?.digest();
        let sealed = now.seal(&new, &authority)?;
        Ok(RotationStep::Begin { authority, sealed })
    }

    /// Goes as far with a change as the cluster's record says, and gives what is to be confirmed then.
    pub fn follow(
        &self,
        cluster: &Cluster,
        machine: &MachineId,
    ) -> anyhow::Result<Option<(u64, RotationPhase)>> {
        let mut held = self.held();
        loop {
            let Held { base, kept } = &mut *held;
            // Written down before it is acted on: what others rely on outlives a crash.
            match next_move(base, kept.as_ref(), cluster, machine)? {
                Move::Nothing => return Ok(None),
                Move::Confirm { number, phase } => return Ok(Some((number, phase))),
                Move::Take(next) => {
                    private_file::write(&self.dir, KEPT_FILE, &next)?;
                    let (number, phase) = (next.number, next.phase);
                    tracing::info!(number, ?phase, "the cluster's authority changes");
                    *kept = Some(next);
                }
                Move::End => {
                    // Kept until it is settled: where that fails, it is tried again.
                    let done = kept.clone().context("there is a change to end")?;
                    tracing::warn!(number = done.number, "the cluster's authority was replaced");
                    *kept = self.settle(base, done)?;
                }
                Move::GiveUp => {
                    let left = kept.clone().context("there is a change to give up")?;
                    tracing::warn!(
                        number = left.number,
                        "the change of the cluster's authority was given up"
                    );
                    *kept = self.settle(base, Kept { new: left.old.clone(), ..left })?;
                }
            }
            apply(&Secrets::of(base, kept.as_ref())?, &self.keyring)?;
        }
    }

    /// From here on only the kept new secret counts; what of it has to be kept.
    fn settle(&self, base: &mut Secret, kept: Kept) -> anyhow::Result<Option<Kept>> {
        let secret = kept.new_secret()?;
        if self.by_hand {
            Trust::alter(&self.dir, |trust| trust.secret = kept.new.clone())?;
            *base = secret.clone();
        }
        if *base == secret {
            private_file::remove(&self.dir, KEPT_FILE)?;
            return Ok(None);
        }
        tracing::warn!("{OUTDATED}");
        let done = Kept { phase: KeptPhase::Done, ..kept };
        private_file::write(&self.dir, KEPT_FILE, &done)?;
        Ok(Some(done))
    }
}

/// What callers may do, and how people are invited.
pub fn access(config: &Config, keyring: Option<&Arc<Keyring>>) -> http::Access {
    let (socket_role, tcp_role) = (config.socket_role, config.api_listen_role);
    let Some(keyring) = keyring.cloned() else {
        return http::Access { socket_role, tcp_role, ..http::Access::default() };
    };
    let port_of = |address: &String| address.rsplit_once(':')?.1.parse().ok();
    let issue: http::IssuePerson = Arc::new(move |name, role, lifetime| {
        let lifetime = lifetime.try_into().map_err(|error| format!("cannot count so far: {error}"))?;
        let authority = keyring.authority();
        let issued = authority.issue_person(name, role, lifetime);
        let issued = issued.map_err(|error| format!("{:#}", anyhow::Error::new(error)))?;
        Ok((issued, authority.certificate_pem()))
    });
    // On their own port, if they have one, else on the machines'.
    let port = match &config.api_tls_listen {
        Some(address) => port_of(address),
        None if crate::config::is_loopback(&config.listen) => None,
        None => port_of(config.advertise.as_ref().unwrap_or(&config.listen)),
    };
    http::Access { socket_role, tcp_role, invite: Ok(http::Inviting { issue, port }) }
}

/// For a question to other machines while no daemon runs here.
pub fn offline_transport(config: &Config) -> anyhow::Result<Arc<dyn Transport>> {
    let Some(base) = base(config)? else { return Ok(Arc::new(Tcp)) };
    let secrets = Secrets::of(&base, config.kept.as_ref())?;
    Ok(Arc::new(Tls::new(keyring(&secrets, &config.machine)?)))
}

#[cfg(test)]
mod tests;
