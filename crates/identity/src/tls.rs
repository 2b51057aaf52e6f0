//! TLS 1.3 as the store's transport: both ends show a certificate of the cluster, or there is no connection.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use guests::{Guest, Guests, Limits, Pace};
use raft::{BoxStream, Caller, Listener, Transport};
use rustls::pki_types::ServerName;
use rustls::server::Acceptor;
use rustls::{AlertDescription, CertificateError, Error as TlsError, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::{LazyConfigAcceptor, TlsConnector};

use crate::authority::{SERVER_NAME, machine_of};
use crate::joining::{JOIN_PROTOCOL, Joiner};
use crate::keyring::Keyring;

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
    connector: TlsConnector,
    joiners: Option<mpsc::Sender<Joiner>>,
}

impl Tls {
    pub fn new(keyring: Arc<Keyring>) -> Tls {
        Tls { connector: TlsConnector::from(keyring.client_config()), keyring, joiners: None }
    }

    /// Passes on callers who say that they hold a token, to [`crate::joining::admit`].
    pub fn with_joiners(self, joiners: mpsc::Sender<Joiner>) -> Tls {
        Tls { joiners: Some(joiners), ..self }
    }
}

#[async_trait]
impl Transport for Tls {
    async fn connect(&self, address: &str) -> io::Result<BoxStream> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?;
        let stream = self.connector.connect(name, stream).await.map_err(|error| explained(error, address))?;
        Ok(Box::new(stream))
    }

    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?.to_string();
        let (sender, accepted) = mpsc::channel(1);
        let door = Door {
            members: self.keyring.server_config(),
            joining: self.keyring.join_config(),
            accepted: sender,
            joiners: self.joiners.clone(),
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
                    match door.known_in_time(stream, &guest).await {
                        Ok(Known::Member(stream, caller)) => drop(door.accepted.send((stream, caller)).await),
                        // Whoever finds it full asks again.
                        Ok(Known::Joiner(stream)) => drop(door.joiners.as_ref().map(|j| j.try_send(stream))),
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
}

/// What is behind the port.
struct Door {
    members: Arc<ServerConfig>,
    joining: Arc<ServerConfig>,
    accepted: mpsc::Sender<(BoxStream, Caller)>,
    joiners: Option<mpsc::Sender<Joiner>>,
}

impl Door {
    async fn known_in_time(&self, stream: TcpStream, guest: &Guest) -> io::Result<Known> {
        let known = async {
            tokio::select! {
                // Not resumed when cancelled: the connection ends with it.
                known = self.greet(stream) => known,
                // Cancel-safe: only waits.
                () = guest.asked_to_leave() => Err(io::ErrorKind::ConnectionAborted.into()),
            }
        };
        let known = tokio::time::timeout(HANDSHAKE_TIMEOUT, known).await;
        known.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn greet(&self, stream: TcpStream) -> io::Result<Known> {
        stream.set_nodelay(true)?;
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let wants_in = hello.client_hello().alpn().is_some_and(|mut all| all.any(|one| one == JOIN_PROTOCOL));
        if wants_in && self.joiners.is_some() {
            return Ok(Known::Joiner(Box::new(hello.into_stream(self.joining.clone()).await?)));
        }
        let stream = hello.into_stream(self.members.clone()).await?;
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
mod tests {
    use cluster::MachineId;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::authority::Authority;
    use crate::secret::Secret;
    use crate::{Token, joining, secret_digest};

    const LIMIT: Duration = Duration::from_secs(10);

    fn keyring(secret: u8, machine: &str, lifetime: time::Duration) -> Arc<Keyring> {
        let authority = Authority::of(&Secret::new(&[secret; 32]).unwrap()).unwrap();
        Keyring::with_lifetime(authority, MachineId::new(machine).unwrap(), lifetime).unwrap()
    }

    fn tls(secret: u8, machine: &str) -> Tls {
        Tls::new(keyring(secret, machine, time::Duration::HOUR))
    }

    /// Says a word and hears it again; the error is what keeps it from that. In TLS 1.3 a caller who is not
    /// wanted hears so at the first word only.
    async fn talk(from: &Tls, address: &str) -> Result<(), String> {
        let talk = async {
            let mut stream = from.connect(address).await?;
            stream.write_all(b"ping").await?;
            let mut heard = [0; 4];
            stream.read_exact(&mut heard).await?;
            assert_eq!(&heard, b"ping");
            Ok::<_, io::Error>(())
        };
        tokio::time::timeout(LIMIT, talk).await.unwrap().map_err(|error| error.to_string())
    }

    /// Answers every word with itself, and tells who said it.
    async fn echo(tls: &Tls) -> (String, mpsc::Receiver<Caller>, JoinSet<()>) {
        let mut listener = tls.listen("127.0.0.1:0").await.unwrap();
        let address = listener.address().unwrap();
        let (sender, callers) = mpsc::channel(16);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok((mut stream, caller)) = listener.accept().await {
                sender.send(caller).await.unwrap();
                let mut word = [0; 4];
                if stream.read_exact(&mut word).await.is_ok() {
                    stream.write_all(&word).await.unwrap();
                }
            }
        });
        (address, callers, tasks)
    }

    #[tokio::test]
    async fn machines_of_one_cluster_know_each_other() {
        let (address, mut callers, _serving) = echo(&tls(1, "m1")).await;
        talk(&tls(1, "m2"), &address).await.unwrap();
        assert_eq!(callers.recv().await, Some(Caller::Machine(MachineId::new("m2").unwrap())));
    }

    #[tokio::test]
    async fn strangers_are_not_let_in_and_hear_why() {
        let (address, mut callers, _serving) = echo(&tls(1, "m1")).await;
        let other = talk(&tls(2, "m2"), &address).await.unwrap_err();
        assert!(other.contains("belongs to another cluster"), "{other}");
        let expired = Tls::new(keyring(1, "m2", -2 * time::Duration::SECOND));
        assert!(talk(&expired, &address).await.is_err());
        // Without any certificate, and without TLS.
        let bare =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_root_certificates({
                    let mut roots = rustls::RootCertStore::empty();
                    let authority = Authority::of(&Secret::new(&[1; 32]).unwrap()).unwrap();
                    roots.add(authority.certificate().clone()).unwrap();
                    roots
                })
                .with_no_client_auth();
        let bare = Tls {
            connector: TlsConnector::from(Arc::new(bare)),
            keyring: keyring(1, "m3", time::Duration::HOUR),
            joiners: None,
        };
        assert!(talk(&bare, &address).await.is_err());
        let mut plain = TcpStream::connect(&address).await.unwrap();
        plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(LIMIT, plain.read_to_end(&mut answer)).await.unwrap();
        assert!(answer.len() < 16, "no more than an alert: {answer:?}");
        assert!(callers.try_recv().is_err(), "nobody was let in");
        talk(&tls(1, "m2"), &address).await.unwrap();
    }

    #[tokio::test]
    async fn silent_callers_hold_up_nobody() {
        let (address, _callers, _serving) = echo(&tls(1, "m1")).await;
        let mut silent = Vec::new();
        // From one address more than may be under way, and fewer than may come at once.
        for _ in 0..3 * HANDSHAKES_FROM_ONE_MAX {
            silent.push(TcpStream::connect(&address).await.unwrap());
        }
        let begun = tokio::time::Instant::now();
        talk(&tls(1, "m2"), &address).await.unwrap();
        assert!(begun.elapsed() < HANDSHAKE_TIMEOUT, "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn whoever_calls_too_often_keeps_nobody_else_out() {
        let (address, _callers, _serving) = echo(&tls(1, "m1")).await;
        let mut refused = 0;
        for _ in 0..3 * HANDSHAKES_PACE.burst {
            let mut caller = TcpStream::connect(&address).await.unwrap();
            // Nobody is greeted before saying something; who is refused hears so at once.
            let heard = tokio::time::timeout(Duration::from_millis(1), caller.read(&mut [0; 1])).await;
            refused += u32::from(heard.is_ok_and(|heard| heard.is_err()));
        }
        assert!(0 < refused, "everybody was let in");
        let other = tokio::net::TcpSocket::new_v4().unwrap();
        other.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let stream = other.connect(address.parse().unwrap()).await.unwrap();
        let connector = &tls(1, "m2").connector;
        let name = ServerName::try_from(SERVER_NAME).unwrap();
        let mut stream = tokio::time::timeout(LIMIT, connector.connect(name, stream)).await.unwrap().unwrap();
        stream.write_all(b"ping").await.unwrap();
        stream.read_exact(&mut [0; 4]).await.unwrap();
    }

    #[tokio::test]
    async fn a_daemon_without_tls_is_told_from_one_of_another_cluster() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
        let error = talk(&tls(1, "m1"), &address).await.unwrap_err();
        assert!(error.contains("does not speak TLS"), "{error}");
    }

    /// A member that lets in whoever shows `token`.
    async fn member(token: &Token) -> (String, JoinSet<()>) {
        let (sender, joiners) = mpsc::channel(4);
        let mut listener = tls(1, "m1").with_joiners(sender).listen("127.0.0.1:0").await.unwrap();
        let address = listener.address().unwrap();
        let digest = token.digest();
        let decide: joining::Admit = Arc::new(move |request| {
            let is_right = secret_digest(&request.token_secret) == digest;
            let admitted = joining::Admitted {
                cluster: request.machine.to_string(),
                secret: "01".repeat(32),
                addresses: vec!["a:1".into()],
            };
            let answer = if is_right { Ok(admitted) } else { Err("there is no such token".into()) };
            Box::pin(std::future::ready(answer))
        });
        let mut tasks = JoinSet::new();
        let (stop, stopping) = tokio::sync::watch::channel(false);
        tasks.spawn(async move {
            let _stop = stop;
            joining::admit(joiners, decide, stopping).await;
        });
        tasks.spawn(async move {
            assert!(listener.accept().await.is_err(), "nobody without a certificate is taken for a member");
        });
        (address, tasks)
    }

    fn token(secret: u8) -> Token {
        let authority = Authority::of(&Secret::new(&[secret; 32]).unwrap()).unwrap();
        Token::random(authority.certificate()).unwrap()
    }

    #[tokio::test]
    async fn a_token_is_worth_the_secret_to_its_own_cluster_only() {
        let good = token(1);
        let (address, _serving) = member(&good).await;
        let machine = MachineId::new("m9").unwrap();
        let admitted = joining::ask(&address, &good, &machine, "0").await.unwrap();
        assert_eq!((admitted.cluster.as_str(), admitted.addresses), ("m9", vec!["a:1".to_string()]));
        let unknown = joining::ask(&address, &token(1), &machine, "0").await.err().unwrap().to_string();
        assert!(unknown.contains("no such token"), "{unknown}");
        let foreign = joining::ask(&address, &token(2), &machine, "0").await.err().unwrap().to_string();
        assert!(foreign.contains("another cluster"), "{foreign}");
        // A member that lets nobody in by tokens, and something that speaks no TLS at all.
        let (address, _callers, _serving) = echo(&tls(1, "m1")).await;
        assert!(joining::ask(&address, &good, &machine, "0").await.is_err());
        let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = plain.local_addr().unwrap().to_string();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let (mut stream, _) = plain.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        });
        let error = joining::ask(&address, &good, &machine, "0").await.err().unwrap().to_string();
        assert!(error.contains("does not let machines in"), "{error}");
    }
}
