//! A cluster from afar: TLS 1.3 to any of its machines, with a person's certificate. The only place of this
//! crate that names rustls.
//!
//! A machine is known by a certificate of the cluster's authority, never by its address.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};

use crate::client::ClientError;
use crate::context::{Context, ContextError};

/// What every machine's certificate is valid for, whatever the machine's address.
const SERVER_NAME: &str = "machine.coreinit.internal";

/// Of one machine, handshake included. A machine without power does not even refuse.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// When a machine has not answered by then, the next one is asked as well; whoever answers first is taken.
const NEXT_AFTER: Duration = Duration::from_millis(400);

/// The machines of a cluster, and the certificate to show them.
pub struct Remote {
    addresses: Vec<String>,
    config: Arc<ClientConfig>,
    /// The place in `addresses` of the machine that answered last.
    good: AtomicUsize,
}

impl Remote {
    pub fn new(context: &Context) -> Result<Remote, ContextError> {
        let broken = |part| move |why: &dyn Error| ContextError::Broken { part, why: why.to_string() };
        let certificate = |part, text: &str| {
            CertificateDer::from_pem_slice(text.as_bytes()).map_err(|error| broken(part)(&error))
        };
        let mut roots = RootCertStore::empty();
        let authority = certificate("authority", &context.authority)?;
        roots.add(authority).map_err(|error| broken("authority")(&error))?;
        let own = certificate("certificate", &context.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(context.key.as_bytes());
        let key = key.map_err(|error| broken("key")(&error))?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&TLS13])
            .expect("ring does TLS 1.3")
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![own], key)
            .map_err(|error| broken("key")(&error))?;
        // Machines know callers of the API by it on the port that they have for each other.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Remote {
            addresses: context.addresses.clone(),
            config: Arc::new(config),
            good: AtomicUsize::new(0),
        })
    }

    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// To the machine that answered last, and the others if it does not.
    pub(crate) async fn connect(&self) -> Result<TlsStream<TcpStream>, ClientError> {
        let (first, count) = (self.good.load(Ordering::Relaxed), self.addresses.len());
        let attempt = |turn: usize| async move {
            let place = (first + turn) % count;
            sleep(NEXT_AFTER.saturating_mul(turn.try_into().unwrap_or(u32::MAX))).await;
            (place, self.dial(&self.addresses[place]).await)
        };
        let mut attempts: FuturesUnordered<_> = (0..count).map(attempt).collect();
        let mut failed = Vec::new();
        while let Some((place, connected)) = attempts.next().await {
            match connected {
                Ok(stream) => {
                    self.good.store(place, Ordering::Relaxed);
                    return Ok(stream);
                }
                Err(error) => failed.push((place, error)),
            }
        }
        // In the order of the context, not of failing.
        failed.sort_by_key(|(place, _)| *place);
        let distrusted = failed.iter().find_map(|(_, error)| distrust(error));
        let tried: Vec<String> =
            failed.iter().map(|(place, error)| format!("{}: {error}", self.addresses[*place])).collect();
        match distrusted {
            Some(why) => Err(ClientError::Distrust(format!("{why} ({})", tried.join("; ")))),
            None => Err(ClientError::NoMachine { tried: tried.join("; ") }),
        }
    }

    async fn dial(&self, address: &str) -> io::Result<TlsStream<TcpStream>> {
        let connected = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?;
            TlsConnector::from(self.config.clone()).connect(name, stream).await
        };
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer");
        timeout(CONNECT_TIMEOUT, connected).await.map_err(late)?
    }
}

impl PartialEq for Remote {
    fn eq(&self, other: &Remote) -> bool {
        self.addresses == other.addresses && Arc::ptr_eq(&self.config, &other.config)
    }
}

impl Eq for Remote {}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote({})", self.addresses.join(", "))
    }
}

/// Why we do not take what answers for a machine of the cluster.
fn distrust(error: &io::Error) -> Option<String> {
    match error.get_ref()?.downcast_ref::<TlsError>()? {
        TlsError::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => Some("the machine's certificate is not valid at this time; compare its clock with yours".into()),
        TlsError::InvalidCertificate(_) => {
            let why = "what answers there is not of the context's cluster, or the cluster has another \
                       authority now; ask for another invitation";
            Some(why.into())
        }
        TlsError::InvalidMessage(_) => {
            let why = "what answers there does not speak TLS; the address has to be the one of `listen` or \
                       of api_tls_listen";
            Some(why.into())
        }
        TlsError::AlertReceived(alert) => Some(said(*alert).into()),
        _ => None,
    }
}

type TlsError = tokio_rustls::rustls::Error;

/// What the other side has against our certificate, if that is what broke the connection.
pub(crate) fn alert(error: &hyper::Error) -> Option<&'static str> {
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    while let Some(error) = cause {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(TlsError::AlertReceived(alert)) = inner.and_then(|inner| inner.downcast_ref::<TlsError>())
        {
            return Some(said(*alert));
        }
        cause = error.source();
    }
    None
}

fn said(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::CertificateExpired => {
            "the certificate has expired; whoever administers the cluster makes another with \
             `corectl cluster \
             invite NAME --role ROLE --replace`"
        }
        AlertDescription::UnknownCA
        | AlertDescription::DecryptError
        | AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown => {
            "the cluster does not know this certificate: it is another cluster's, or the cluster has another \
             authority now; ask for another invitation"
        }
        _ => "the cluster has ended the connection while the two sides were making themselves known",
    }
}
