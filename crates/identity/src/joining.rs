//! How a machine gets the cluster's secret for a token: over TLS to a member whose authority the token names,
//! with one question and one answer, each JSON behind its length.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use cluster::MachineId;
use futures::future::BoxFuture;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::authority::SERVER_NAME;
use crate::kept::Kept;
use crate::token::{Token, TokenError, is_plausible};

/// The protocol's name in the TLS handshake: by it a member knows that the caller has no certificate yet.
pub(crate) const JOIN_PROTOCOL: &[u8] = b"coreinit-join/1";
/// What a machine says is a few hundred bytes; anybody can say it.
const REQUEST_BYTES_MAX: u32 = 4 << 10;
/// A cluster with many members.
const ANSWER_BYTES_MAX: u32 = 64 << 10;
/// For the whole exchange, an election included.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Machines that are let in at a time. More are let go, and ask again.
const JOINING_MAX: usize = 16;

/// What a machine says that holds a token.
#[derive(Clone, Serialize, Deserialize)]
pub struct JoinRequest {
    pub token_name: String,
    pub token_secret: String,
    pub machine: MachineId,
    /// Of coreinit.
    pub version: String,
}

/// What it needs to know to be a member.
#[derive(Clone, Serialize, Deserialize)]
pub struct Admitted {
    pub cluster: String,
    /// In hexadecimal: a secret may be any bytes.
    pub secret: String,
    /// Where the members listen.
    pub addresses: Vec<String>,
    /// The secret is being changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Kept>,
}

/// Decides whether a machine may come in; the text of an error goes back to it.
pub type Admit =
    Arc<dyn Fn(JoinRequest) -> BoxFuture<'static, Result<Admitted, String>> + Send + Sync + 'static>;

/// A caller without a certificate that says it holds a token.
pub type Joiner = Box<dyn raft::Stream>;

/// Why a machine was not let in.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("cannot reach {address}")]
    Unreachable { address: String, source: io::Error },
    #[error("{address} belongs to another cluster than the token, which was not shown to it")]
    AnotherCluster { address: String },
    #[error("{address} does not let machines in by tokens")]
    NoDoor { address: String, source: io::Error },
    #[error("the cluster refuses: {reason}")]
    Refused { reason: String },
}

/// Answers machines that hold a token, until `stop`.
pub async fn admit(mut joiners: mpsc::Receiver<Joiner>, admit: Admit, mut stop: watch::Receiver<bool>) {
    let mut tasks = JoinSet::new();
    loop {
        let joiner = tokio::select! {
            // Cancel-safe: a receive that is cancelled loses nothing.
            joiner = joiners.recv(), if tasks.len() < JOINING_MAX => joiner,
            // Cancel-safe: only collects what has ended.
            Some(_) = tasks.join_next() => continue,
            // Cancel-safe: looks at a value.
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let Some(mut stream) = joiner else { return };
        let admit = admit.clone();
        tasks.spawn(async move {
            let exchange = async {
                let request: JoinRequest = read(&mut stream, REQUEST_BYTES_MAX).await?;
                let answer = match is_plausible(&request.token_name, &request.token_secret) {
                    true => admit(request).await,
                    false => Err(TokenError.to_string()),
                };
                write(&mut stream, &answer).await?;
                stream.shutdown().await
            };
            let exchange = tokio::time::timeout(EXCHANGE_TIMEOUT, exchange).await;
            if let Err(error) = exchange.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                tracing::debug!(%error, "a machine that wanted to join was not answered");
            }
        });
    }
}

/// Shows the token to the member at `address`, if that is one of the token's cluster.
pub async fn ask(
    address: &str,
    token: &Token,
    machine: &MachineId,
    version: &str,
) -> Result<Admitted, JoinError> {
    let unreachable = |source| JoinError::Unreachable { address: address.into(), source };
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
    let stream = connecting.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(unreachable)?;
    let name = ServerName::try_from(SERVER_NAME).expect("it is a host name");
    let exchange = async {
        let mut stream = TlsConnector::from(config(token)).connect(name, stream).await?;
        let request = JoinRequest {
            token_name: token.name().into(),
            token_secret: token.secret().into(),
            machine: machine.clone(),
            version: version.into(),
        };
        write(&mut stream, &request).await?;
        read::<Result<Admitted, String>>(&mut stream, ANSWER_BYTES_MAX).await
    };
    let answer = tokio::time::timeout(EXCHANGE_TIMEOUT, exchange).await;
    match answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(Ok(admitted)) => Ok(admitted),
        Ok(Err(reason)) => Err(JoinError::Refused { reason }),
        Err(source) => match source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(_)) => {
                Err(JoinError::AnotherCluster { address: address.into() })
            }
            _ => Err(JoinError::NoDoor { address: address.into(), source }),
        },
    }
}

fn config(token: &Token) -> Arc<ClientConfig> {
    let provider = Arc::new(default_provider());
    let verifier = ByToken { token: token.clone(), provider: provider.clone() };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("ring does TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![JOIN_PROTOCOL.to_vec()];
    Arc::new(config)
}

/// Believes whoever shows the authority that the token names, and a certificate of a machine from it.
#[derive(Debug)]
struct ByToken {
    token: Token,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ByToken {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = intermediates.iter().find(|certificate| self.token.is_of(certificate));
        let authority = authority.ok_or(CertificateError::UnknownIssuer)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone()).build();
        let verifier = verifier.map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only TLS 1.3 is spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

async fn read<T: DeserializeOwned>(stream: &mut (impl AsyncRead + Unpin), max: u32) -> io::Result<T> {
    let length = stream.read_u32().await?;
    if length > max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too long"));
    }
    let mut bytes = vec![0; length as usize];
    stream.read_exact(&mut bytes).await?;
    Ok(serde_json::from_slice(&bytes)?)
}

async fn write<T: Serialize>(stream: &mut (impl AsyncWrite + Unpin), message: &T) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_u32(length).await?;
    stream.write_all(&bytes).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::io::duplex;

    use super::*;

    /// Anybody reaches this door: what cannot be a token goes no further.
    #[tokio::test]
    async fn only_what_can_be_a_token_is_looked_up() {
        let asked = Arc::new(AtomicU32::new(0));
        let counter = asked.clone();
        let admit_none: Admit = Arc::new(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
            Box::pin(async { Err("unknown".into()) })
        });
        let (door, joiners) = mpsc::channel(1);
        let (stop, stopping) = watch::channel(false);
        let admitting = tokio::spawn(admit(joiners, admit_none, stopping));
        let (name, secret) = ("0123456789".to_string(), "0123456789abcdef".repeat(2));
        let check = async |token_name: &str, token_secret: &str, expected: Option<u32>| {
            let (mut ours, theirs) = duplex(1 << 20);
            door.send(Box::new(theirs) as Joiner).await.unwrap();
            let (token_name, token_secret) = (token_name.into(), token_secret.into());
            let machine = MachineId::new("m1").unwrap();
            let request = JoinRequest { token_name, token_secret, machine, version: "1".into() };
            write(&mut ours, &request).await.unwrap();
            let answer = read::<Result<Admitted, String>>(&mut ours, ANSWER_BYTES_MAX).await;
            assert_eq!(
                answer.is_ok(),
                expected.is_some(),
                "an answer to {request_bytes} bytes",
                request_bytes = request.token_name.len()
            );
            if let Some(expected) = expected {
                assert_eq!(asked.load(Ordering::Relaxed), expected);
            }
        };
        check(&name, &secret, Some(1)).await;
        for (name, secret) in [
            ("", secret.as_str()),
            (&name[1..], &secret),
            (&format!("{name}0"), &secret),
            ("012345678G", &secret),
            ("012345678A", &secret),
            (&name, ""),
            (&name, &secret[1..]),
            (&name, &format!("{secret}{secret}")),
        ] {
            check(name, secret, Some(1)).await;
        }
        check(&"0".repeat(60_000), &secret, None).await;
        check(&name, &secret, Some(2)).await;
        stop.send_replace(true);
        admitting.await.unwrap();
    }
}
