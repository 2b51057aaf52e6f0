//! The API's end of TLS: whoever has a certificate of the cluster comes in and is told apart, a person from a
//! machine; what each may do is not decided here. Everybody else gets no byte but an alert.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cluster::MachineId;
use raft::BoxStream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{Accept, TlsAcceptor};

use crate::authority::machine_of;
use crate::keyring::Keyring;
use crate::person::{PersonCertificate, person_of};

/// Whoever has not shown a certificate by then is let go.
pub const GREETING_TIMEOUT: Duration = Duration::from_secs(5);

/// How long somebody who was refused may still be talking before the connection is cut. What they have sent
/// is read and thrown away meanwhile: if it were not, the alert that says why might never reach them.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);
const FAREWELL_BYTES_MAX: u64 = 64 << 10;

/// By it, in the TLS handshake, a caller of the API is told from a machine.
pub(crate) const PEOPLE_PROTOCOL: &[u8] = b"http/1.1";

/// Takes callers of the API on a port of its own.
pub struct PeopleTls {
    keyring: Arc<Keyring>,
}

/// A caller who has shown a certificate, and where from.
pub type Greeted = (BoxStream, Shown, SocketAddr);

/// Whose certificate a caller has shown. It is one of the cluster's, and neither expired nor too new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    Person(PersonCertificate),
    Machine(MachineId),
    /// The cluster's authority has made it, but for none that this version knows.
    Nobody,
}

impl PeopleTls {
    pub fn new(keyring: &Arc<Keyring>) -> PeopleTls {
        PeopleTls { keyring: keyring.clone() }
    }

    /// Shakes hands; at most [`GREETING_TIMEOUT`], and a moment more for a farewell.
    pub async fn greet(&self, stream: TcpStream) -> io::Result<(BoxStream, Shown)> {
        greeted(TlsAcceptor::from(self.keyring.people()).accept(stream)).await
    }
}

/// Finishes a handshake that has begun.
pub(crate) async fn greeted(handshake: Accept<TcpStream>) -> io::Result<(BoxStream, Shown)> {
    let handshake = handshake.into_fallible();
    let greeted = timeout(GREETING_TIMEOUT, handshake).await.map_err(|_| io::ErrorKind::TimedOut)?;
    match greeted {
        Ok(stream) => {
            let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let shown = match certificate {
                Some(certificate) => match (person_of(certificate), machine_of(certificate)) {
                    (Some(person), None) => Shown::Person(person),
                    (None, Some(machine)) => Shown::Machine(machine),
                    _ => Shown::Nobody,
                },
                None => Shown::Nobody,
            };
            Ok((Box::new(stream), shown))
        }
        Err((error, stream)) => {
            let _ = timeout(FAREWELL_TIMEOUT, farewell(stream)).await;
            Err(error)
        }
    }
}

async fn farewell(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(FAREWELL_BYTES_MAX), &mut tokio::io::sink()).await.map(drop)
}

#[cfg(test)]
mod tests;
