//! TLS 1.3 as the store's transport: both ends show a certificate of the cluster, or there is no connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use guests::{Guest, Guests, Limits, Pace};
use raft::{BoxStream, Caller, Listener, Transport};
use rustls::pki_types::ServerName;
use rustls::server::Acceptor;
use rustls::{AlertDescription, CertificateError, Error as TlsError};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::{LazyConfigAcceptor, TlsConnector};

use crate::authority::{SERVER_NAME, machine_of};
use crate::joining::{JOIN_PROTOCOL, Joiner};
use crate::keyring::Keyring;
use crate::people::{self, Greeted, PEOPLE_PROTOCOL};

/// Whoever has not shown a certificate by then is let go.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Handshakes under way at a time; with more, those that have waited the longest are let go.
const HANDSHAKES_MAX: usize = 256;
/// Of them, from one address. A machine has a few connections to each other, and makes them one by one.
const HANDSHAKES_FROM_ONE_MAX: usize = 32;
/// From one address: each costs this machine a millisecond, and a stranger next to nothing. Machines keep
/// their connections; only people who read many journals make more than a few a second.
const HANDSHAKES_PACE: Pace = Pace { burst: 200, per_second: 100 };
/// After an accept that failed, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections between machines of one cluster.
pub struct Tls {
    keyring: Arc<Keyring>,
    joiners: Option<mpsc::Sender<Joiner>>,
    people: Option<mpsc::Sender<Greeted>>,
}

impl Tls {
    pub fn new(keyring: Arc<Keyring>) -> Tls {
        Tls { keyring, joiners: None, people: None }
    }

    /// Passes on callers who say that they hold a token, to [`crate::joining::admit`].
    pub fn with_joiners(self, joiners: mpsc::Sender<Joiner>) -> Tls {
        Tls { joiners: Some(joiners), ..self }
    }

    /// Passes on callers of the API who have shown a certificate.
    pub fn with_people(self, people: mpsc::Sender<Greeted>) -> Tls {
        Tls { people: Some(people), ..self }
    }
}

#[async_trait]
impl Transport for Tls {
    async fn connect(&self, address: &str) -> io::Result<BoxStream> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?;
        let connector = TlsConnector::from(self.keyring.calling());
        let stream = connector.connect(name, stream).await.map_err(|error| explained(error, address))?;
        Ok(Box::new(stream))
    }

    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?.to_string();
        let (sender, accepted) = mpsc::channel(1);
        let door = Door {
            keyring: self.keyring.clone(),
            accepted: sender,
            joiners: self.joiners.clone(),
            people: self.people.clone(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::new(door)));
        Ok(Box::new(TlsListener { accepted, address, _accepting: tasks }))
    }
}

struct TlsListener {
    accepted: mpsc::Receiver<(BoxStream, Caller)>,
    address: String,
    /// Ends with the listener.
    _accepting: JoinSet<()>,
}

#[async_trait]
impl Listener for TlsListener {
    async fn accept(&mut self) -> io::Result<(BoxStream, Caller)> {
        self.accepted.recv().await.ok_or_else(|| io::ErrorKind::ConnectionAborted.into())
    }

    fn address(&self) -> io::Result<String> {
        Ok(self.address.clone())
    }
}

/// Takes connections and shakes hands with all at once, so that one that is slow or silent holds up nobody.
async fn accept(listener: TcpListener, door: Arc<Door>) {
    let guests = Guests::new(Limits {
        inside_max: HANDSHAKES_MAX,
        from_one_max: HANDSHAKES_FROM_ONE_MAX,
        pace: Some(HANDSHAKES_PACE),
    });
    let mut handshakes = JoinSet::new();
    loop {
        let taken = tokio::select! {
            // Cancel-safe: an accept that is cancelled loses no connection.
            taken = listener.accept() => taken,
            // Cancel-safe: only collects what has ended.
            Some(_) = handshakes.join_next() => continue,
        };
        match taken {
            Ok((stream, from)) => {
                let Some(guest) = guests.admit(Some(from.ip())) else {
                    // Without a farewell, which the kernel would have to remember for a minute.
                    let _ = stream.set_zero_linger();
                    continue;
                };
                let door = door.clone();
                handshakes.spawn(async move {
                    match door.known_in_time(stream, from, &guest).await {
                        Ok(Known::Member(stream, caller)) => drop(door.accepted.send((stream, caller)).await),
                        // Whoever finds it full asks again.
                        Ok(Known::Joiner(stream)) => drop(door.joiners.as_ref().map(|j| j.try_send(stream))),
                        Ok(Known::Person(greeted)) => drop(door.people.as_ref().map(|p| p.try_send(greeted))),
                        // Whoever wants to can make any number of these.
                        Err(error) => tracing::debug!(%from, %error, "a caller was not let in"),
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection from a machine");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Who was let in.
enum Known {
    Member(BoxStream, Caller),
    Joiner(Joiner),
    Person(Greeted),
}

/// What is behind the port.
struct Door {
    keyring: Arc<Keyring>,
    accepted: mpsc::Sender<(BoxStream, Caller)>,
    joiners: Option<mpsc::Sender<Joiner>>,
    people: Option<mpsc::Sender<Greeted>>,
}

impl Door {
    async fn known_in_time(&self, stream: TcpStream, from: SocketAddr, guest: &Guest) -> io::Result<Known> {
        let known = async {
            tokio::select! {
                // Not resumed when cancelled: the connection ends with it.
                known = self.greet(stream, from) => known,
                // Cancel-safe: only waits.
                () = guest.asked_to_leave() => Err(io::ErrorKind::ConnectionAborted.into()),
            }
        };
        let known = tokio::time::timeout(HANDSHAKE_TIMEOUT, known).await;
        known.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn greet(&self, stream: TcpStream, from: SocketAddr) -> io::Result<Known> {
        stream.set_nodelay(true)?;
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let speaks =
            |protocol| hello.client_hello().alpn().is_some_and(|mut all| all.any(|one| one == protocol));
        if speaks(JOIN_PROTOCOL) && self.joiners.is_some() {
            return Ok(Known::Joiner(Box::new(hello.into_stream(self.keyring.joining()).await?)));
        }
        if speaks(PEOPLE_PROTOCOL) && self.people.is_some() {
            let (stream, shown) = people::greeted(hello.into_stream(self.keyring.people())).await?;
            return Ok(Known::Person((stream, shown, from)));
        }
        let stream = hello.into_stream(self.keyring.members()).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let machine = shown.and_then(machine_of);
        let machine = machine.ok_or_else(|| io::Error::other("its certificate is no machine's"))?;
        Ok(Known::Member(Box::new(stream), Caller::Machine(machine)))
    }
}

/// Why there is no connection, in words that say what to do.
fn explained(error: io::Error, address: &str) -> io::Error {
    let reason = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
    let text = match reason {
        Some(TlsError::InvalidCertificate(why)) => match why {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => {
                format!(
                    "the certificate of {address} is not valid at this time; compare the machines' clocks"
                )
            }
            _ => format!("{address} belongs to another cluster: its cluster secret is not this machine's"),
        },
        Some(TlsError::AlertReceived(
            AlertDescription::UnknownCA | AlertDescription::DecryptError | AlertDescription::BadCertificate,
        )) => format!("{address} belongs to another cluster: its cluster secret is not this machine's"),
        Some(TlsError::InvalidMessage(_)) => {
            format!("{address} does not speak TLS; set the same cluster_secret_file on all machines")
        }
        _ => return error,
    };
    io::Error::new(error.kind(), text)
}

#[cfg(test)]
mod tests;
