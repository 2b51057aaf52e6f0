//! A machine's certificate while the daemon runs: renewed before it ends, without a connection noticing.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use cluster::MachineId;
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring::{default_provider, sign::any_supported_type};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SignatureScheme};
use time::OffsetDateTime;

use crate::authority::{Authority, IssueError};
use crate::joining::JOIN_PROTOCOL;

/// Keys live in memory only, so a stolen disk holds none, and a stolen certificate is soon worth nothing.
const LIFETIME: time::Duration = time::Duration::WEEK;
/// The wall clock may be set, and a machine may sleep: it is looked at this often.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// The certificate that this machine shows now.
pub struct Keyring {
    authority: Authority,
    machine: MachineId,
    lifetime: time::Duration,
    now: RwLock<Current>,
}

struct Current {
    certified: Arc<CertifiedKey>,
    ends: OffsetDateTime,
    renew_at: OffsetDateTime,
}

impl Keyring {
    pub fn new(authority: Authority, machine: MachineId) -> Result<Arc<Keyring>, IssueError> {
        Keyring::with_lifetime(authority, machine, LIFETIME)
    }

    pub(crate) fn with_lifetime(
        authority: Authority,
        machine: MachineId,
        lifetime: time::Duration,
    ) -> Result<Arc<Keyring>, IssueError> {
        let now = RwLock::new(current(&authority, &machine, lifetime)?);
        Ok(Arc::new(Keyring { authority, machine, lifetime, now }))
    }

    /// Who issues this machine's certificates, and those of people.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Renews the certificate for as long as the daemon runs.
    pub async fn keep_fresh(&self) {
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            if self.is_due(OffsetDateTime::now_utc())
                && let Err(error) = self.renew()
            {
                tracing::error!(%error, "this machine's certificate was not renewed; it is tried again");
            }
        }
    }

    /// When the certificate of the moment ends.
    pub fn ends(&self) -> SystemTime {
        self.now.read().unwrap_or_else(PoisonError::into_inner).ends.into()
    }

    fn is_due(&self, at: OffsetDateTime) -> bool {
        self.now.read().unwrap_or_else(PoisonError::into_inner).renew_at <= at
    }

    pub(crate) fn renew(&self) -> Result<(), IssueError> {
        let new = current(&self.authority, &self.machine, self.lifetime)?;
        tracing::info!("this machine's certificate was renewed");
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    fn certified(&self) -> Arc<CertifiedKey> {
        self.now.read().unwrap_or_else(PoisonError::into_inner).certified.clone()
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.certificate().clone()).expect("our own certificate can be parsed");
        Arc::new(roots)
    }

    /// For the side that is called: only a certificate of this cluster passes.
    pub(crate) fn server_config(self: &Arc<Keyring>) -> Arc<ServerConfig> {
        let provider = Arc::new(default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots(), provider.clone()).build();
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .expect("ring does TLS 1.3")
            .with_client_cert_verifier(verifier.expect("there is a root"))
            .with_cert_resolver(Arc::new(Shown(self.clone())));
        Arc::new(config)
    }

    /// For a caller that has no certificate yet, and a token instead: it is shown the authority, too.
    pub(crate) fn join_config(self: &Arc<Keyring>) -> Arc<ServerConfig> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&TLS13])
            .expect("ring does TLS 1.3")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Shown(self.clone())));
        config.alpn_protocols = vec![JOIN_PROTOCOL.to_vec()];
        Arc::new(config)
    }

    /// For the calling side.
    pub(crate) fn client_config(self: &Arc<Keyring>) -> Arc<ClientConfig> {
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&TLS13])
            .expect("ring does TLS 1.3")
            .with_root_certificates(self.roots())
            .with_client_cert_resolver(Arc::new(Shown(self.clone())));
        Arc::new(config)
    }
}

fn current(
    authority: &Authority,
    machine: &MachineId,
    lifetime: time::Duration,
) -> Result<Current, IssueError> {
    let issued = authority.issue(machine, lifetime)?;
    let key = any_supported_type(&issued.key).expect("ring signs with the keys that ring made");
    let chain = vec![issued.certificate, authority.certificate().clone()];
    let certified = Arc::new(CertifiedKey::new(chain, key));
    // At a random moment between half and four fifths of its life, so that a cluster that was started at one
    // moment does not renew at one moment.
    let share = 0.5 + 0.3 * chance();
    Ok(Current { certified, ends: issued.not_after, renew_at: issued.not_after - lifetime * (1.0 - share) })
}

/// Between 0 and 1.
fn chance() -> f64 {
    let mut bytes = [0; 2];
    // Without randomness there are no keys either; a fixed moment does as well.
    let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes);
    f64::from(u16::from_le_bytes(bytes)) / f64::from(u16::MAX)
}

/// Shows the certificate of the moment.
struct Shown(Arc<Keyring>);

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the certificate of {}", self.0.machine)
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.certified())
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _roots: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.certified())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[test]
    fn a_certificate_is_renewed_in_the_second_half_of_its_life() {
        let secret = Secret::new(&[b'a'; 40]).unwrap();
        let machine = MachineId::new("m1").unwrap();
        let hour = time::Duration::HOUR;
        for _ in 0..20 {
            let authority = Authority::of(&secret).unwrap();
            let before = OffsetDateTime::now_utc();
            let ring = Keyring::with_lifetime(authority, machine.clone(), hour).unwrap();
            let after = OffsetDateTime::now_utc();
            assert!(!ring.is_due(before + hour * 0.499));
            assert!(ring.is_due(after + hour * 0.801));
            let shown = ring.certified();
            ring.renew().unwrap();
            assert_ne!(shown.cert, ring.certified().cert);
        }
    }
}
