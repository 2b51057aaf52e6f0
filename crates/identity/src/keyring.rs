//! A machine's certificate while the daemon runs: renewed before it ends, without a connection noticing.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, SystemTime};

use cluster::MachineId;
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring::{default_provider, sign::any_supported_type};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SignatureScheme};
use time::OffsetDateTime;

use crate::authority::{Authority, IssueError};
use crate::joining::JOIN_PROTOCOL;
use crate::people::PEOPLE_PROTOCOL;

/// Keys live in memory only, so a stolen disk holds none, and a stolen certificate is soon worth nothing.
const LIFETIME: time::Duration = time::Duration::WEEK;
/// The wall clock may be set, and a machine may sleep: it is looked at this often.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// The certificate that this machine shows now, and those that it takes.
pub struct Keyring {
    machine: MachineId,
    lifetime: time::Duration,
    now: RwLock<Current>,
}

struct Current {
    /// It issues this machine's certificates, and those of people.
    issuing: Arc<Authority>,
    /// Certificates of these are taken.
    trusted: Vec<Arc<Authority>>,
    ends: OffsetDateTime,
    renew_at: OffsetDateTime,
    /// They follow from the rest.
    members: Arc<ServerConfig>,
    people: Arc<ServerConfig>,
    joining: Arc<ServerConfig>,
    calling: Arc<ClientConfig>,
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
        let issuing = Arc::new(authority);
        let now = RwLock::new(Current::new(issuing.clone(), vec![issuing], &machine, lifetime)?);
        Ok(Arc::new(Keyring { machine, lifetime, now }))
    }

    /// Who issues this machine's certificates, and those of people.
    pub fn authority(&self) -> Arc<Authority> {
        self.read().issuing.clone()
    }

    /// From here on this machine shows a new certificate of `issuing`, and takes those of `issuing` and
    /// `also`. Connections that there are stay.
    pub fn change(&self, issuing: Authority, also: Option<Authority>) -> Result<(), IssueError> {
        let issuing = Arc::new(issuing);
        let trusted = [issuing.clone()].into_iter().chain(also.map(Arc::new)).collect();
        self.write(Current::new(issuing, trusted, &self.machine, self.lifetime)?);
        Ok(())
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
        self.read().ends.into()
    }

    fn is_due(&self, at: OffsetDateTime) -> bool {
        self.read().renew_at <= at
    }

    pub(crate) fn renew(&self) -> Result<(), IssueError> {
        // Held all the while: the authority may be changed meanwhile, and must not be changed back.
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        *now = Current::new(now.issuing.clone(), now.trusted.clone(), &self.machine, self.lifetime)?;
        tracing::info!("this machine's certificate was renewed");
        Ok(())
    }

    fn read(&self) -> RwLockReadGuard<'_, Current> {
        self.now.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, new: Current) {
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = new;
    }

    /// For the side that is called: only a certificate of this cluster passes.
    pub(crate) fn members(&self) -> Arc<ServerConfig> {
        self.read().members.clone()
    }

    /// The same, for callers of the API.
    pub(crate) fn people(&self) -> Arc<ServerConfig> {
        self.read().people.clone()
    }

    /// For a caller that has no certificate yet, and a token instead: it is shown the authority, too.
    pub(crate) fn joining(&self) -> Arc<ServerConfig> {
        self.read().joining.clone()
    }

    /// For the calling side.
    pub(crate) fn calling(&self) -> Arc<ClientConfig> {
        self.read().calling.clone()
    }
}

impl Current {
    fn new(
        issuing: Arc<Authority>,
        trusted: Vec<Arc<Authority>>,
        machine: &MachineId,
        lifetime: time::Duration,
    ) -> Result<Current, IssueError> {
        let issued = issuing.issue(machine, lifetime)?;
        let key = any_supported_type(&issued.key).expect("ring signs with the keys that ring made");
        let chain = vec![issued.certificate, issuing.certificate().clone()];
        let certified = Arc::new(CertifiedKey::new(chain, key));
        // At a random moment between half and four fifths of its life, so that a cluster that was started at
        // one moment does not renew at one moment.
        let share = 0.5 + 0.3 * chance();
        let mut roots = RootCertStore::empty();
        for authority in &trusted {
            roots.add(authority.certificate().clone()).expect("our own certificate can be parsed");
        }
        let (roots, shown) = (Arc::new(roots), Arc::new(Shown(certified, machine.clone())));
        Ok(Current {
            ends: issued.not_after,
            renew_at: issued.not_after - lifetime * (1.0 - share),
            members: server(Some(&roots), &shown, None),
            people: server(Some(&roots), &shown, Some(PEOPLE_PROTOCOL)),
            joining: server(None, &shown, Some(JOIN_PROTOCOL)),
            calling: client(roots, shown),
            issuing,
            trusted,
        })
    }
}

/// With `roots`, only certificates of theirs pass; without, nobody is asked for one.
fn server(
    roots: Option<&Arc<RootCertStore>>,
    shown: &Arc<Shown>,
    protocol: Option<&[u8]>,
) -> Arc<ServerConfig> {
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .expect("ring does TLS 1.3");
    let builder = match roots {
        None => builder.with_no_client_auth(),
        Some(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider).build();
            builder.with_client_cert_verifier(verifier.expect("there is a root"))
        }
    };
    let mut config = builder.with_cert_resolver(shown.clone());
    config.alpn_protocols = protocol.into_iter().map(<[u8]>::to_vec).collect();
    // A session that is taken up again would spare its certificate a second look.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

fn client(roots: Arc<RootCertStore>, shown: Arc<Shown>) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])
        .expect("ring does TLS 1.3")
        .with_root_certificates(roots)
        .with_client_cert_resolver(shown);
    Arc::new(config)
}

/// Between 0 and 1.
fn chance() -> f64 {
    let mut bytes = [0; 2];
    // Without randomness there are no keys either; a fixed moment does as well.
    let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes);
    f64::from(u16::from_le_bytes(bytes)) / f64::from(u16::MAX)
}

/// Shows the certificate of the moment.
struct Shown(Arc<CertifiedKey>, MachineId);

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the certificate of {}", self.1)
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _roots: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
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
            let shown = ring.members();
            ring.renew().unwrap();
            assert!(!Arc::ptr_eq(&shown, &ring.members()));
        }
    }
}
