//! The sockets that the API is served on: how one comes to be, and the loop that takes its connections.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use guests::{Guest, Guests, Limits};
use identity::{Greeted, PeopleTls};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::caller::Caller;

use super::connection::{self, Stream};
use crate::signs::Signs;

/// Whoever is in it may use the API; without such a group, only root may.
pub const SOCKET_GROUP: &str = "coreinit";

/// Owner and group may connect, which needs the right to write.
const SOCKET_MODE: u32 = 0o660;

/// A daemon that listens takes a connection at once.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Connections of one socket at a time; with more, those make room that have waited the longest without a
/// request. More than the event streams allowed, so that streams alone cannot keep other requests out.
const CONNECTIONS_MAX: usize = 1024;

/// Of them, from one address. Loopback is everybody on this machine.
const CONNECTIONS_FROM_ONE_MAX: usize = 256;

/// Of one socket.
pub(super) const LIMITS: Limits =
    Limits { inside_max: CONNECTIONS_MAX, from_one_max: CONNECTIONS_FROM_ONE_MAX, pace: None };

/// Sockets that are served; with the limit of each, this is the limit of all connections to the API.
pub const DOORS_MAX: usize = 16;

/// When connections cannot be taken (no file descriptors are left, say), the next attempt comes after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("another daemon listens on {} already", .0.display())]
    Taken(PathBuf),
    #[error("{} exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    #[error("cannot look at {}", .0.display())]
    Probe(PathBuf, #[source] io::Error),
    #[error("cannot remove the stale socket {}", .0.display())]
    Remove(PathBuf, #[source] io::Error),
    #[error("cannot listen on {}", .0.display())]
    Bind(PathBuf, #[source] io::Error),
    #[error("cannot listen on {0}")]
    BindTcp(String, #[source] io::Error),
    #[error("cannot take the sockets that systemd has handed over")]
    HandedOver(#[source] io::Error),
    #[error("systemd has handed over a file descriptor, {0}, that is neither a Unix nor a TCP socket")]
    HandedOverStrange(i32),
    #[error("cannot set owner and mode of {}", .0.display())]
    Permissions(PathBuf, #[source] io::Error),
}

/// A socket that the API is served on.
pub enum Door {
    Unix(UnixListener),
    /// Plain HTTP: it is not known who calls.
    Tcp(TcpListener),
    /// TLS, for whoever has a certificate of the cluster.
    Tls(TcpListener, Arc<PeopleTls>),
    /// They came by a port that is not ours, and have shown such a certificate.
    Greeted(Mutex<mpsc::Receiver<Greeted>>),
}

impl Door {
    /// It is this Unix socket, by whichever of its names: `/var/run` is `/run`.
    pub fn is_at(&self, path: &Path) -> bool {
        let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        match self {
            Door::Unix(listener) => {
                let own = listener.local_addr().ok();
                let own = own.as_ref().and_then(|address| address.as_pathname());
                own.is_some_and(|own| real(own) == real(path))
            }
            Door::Tcp(_) | Door::Tls(..) | Door::Greeted(_) => false,
        }
    }

    /// Where it listens on TCP, without TLS.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match self {
            Door::Unix(_) | Door::Tls(..) | Door::Greeted(_) => None,
            Door::Tcp(listener) => listener.local_addr().ok(),
        }
    }
}

impl From<UnixListener> for Door {
    fn from(listener: UnixListener) -> Door {
        Door::Unix(listener)
    }
}

impl From<TcpListener> for Door {
    fn from(listener: TcpListener) -> Door {
        Door::Tcp(listener)
    }
}

/// Listens on that address, `HOST:PORT`.
pub async fn bind_tcp(address: &str) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|error| ListenError::BindTcp(address.into(), error))
}

/// Listens on that path, mode 0660, group `coreinit` where there is one. What a killed daemon left there is
/// replaced.
pub async fn bind(path: &Path) -> Result<UnixListener, ListenError> {
    let at = || path.to_path_buf();
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(ListenError::NotASocket(at())),
        Ok(_) => {
            match timeout(PROBE_TIMEOUT, UnixStream::connect(path)).await {
                // A full queue is a daemon too, if a slow one.
                Ok(Ok(_)) | Err(_) => return Err(ListenError::Taken(at())),
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Ok(Err(error)) => return Err(ListenError::Probe(at(), error)),
            }
            std::fs::remove_file(path).map_err(|error| ListenError::Remove(at(), error))?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(ListenError::Probe(at(), error)),
    }
    let listener = UnixListener::bind(path).map_err(|error| ListenError::Bind(at(), error))?;
    let permitted = || -> io::Result<()> {
        if let Some(group) =
            group_id(&std::fs::read_to_string("/etc/group").unwrap_or_default(), SOCKET_GROUP)
        {
            chown(path, None, Some(group))?;
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))
    };
    permitted().map_err(|error| ListenError::Permissions(at(), error))?;
    Ok(listener)
}

/// From the text of group(5).
fn group_id(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

/// Serves until `shutdown`; then takes no more connections, lets open requests finish for `grace`, and cuts
/// off the rest.
pub(super) async fn serve(
    door: Door,
    router: Router,
    signs: Arc<Signs>,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
    grace: Duration,
) {
    let mut shutdown = pin!(shutdown);
    let (stopping, _) = watch::channel(false);
    let guests = Guests::new(limits);
    let mut connections = JoinSet::new();
    loop {
        // All arms are cancel-safe.
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&door) => accepted,
        };
        match accepted {
            Ok((came, from)) => {
                let evicted = guests.evicted();
                // Whoever finds no place among those that are served is cut off.
                let Some(guest) = guests.admit(from) else { continue };
                signs.doors.evicted.fetch_add(guests.evicted() - evicted, Ordering::Relaxed);
                let (router, stopping, signs) = (router.clone(), stopping.subscribe(), signs.clone());
                signs.doors.open.fetch_add(1, Ordering::Relaxed);
                connections.spawn(async move {
                    if let Some((stream, caller)) = came.known(&guest, stopping.clone()).await {
                        connection::serve(stream, caller, router, guest, stopping).await;
                    }
                    signs.doors.open.fetch_sub(1, Ordering::Relaxed);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot take a connection to the API");
                tokio::select! {
                    () = &mut shutdown => break,
                    () = sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }
    drop(door);
    stopping.send_replace(true);
    let finished = timeout(grace, async { while connections.join_next().await.is_some() {} }).await;
    if finished.is_err() {
        tracing::warn!(connections = connections.len(), "requests to the API are cut off");
        connections.shutdown().await;
    }
}

/// With the address that places are counted by.
async fn accept(door: &Door) -> io::Result<(Came, Option<IpAddr>)> {
    let counted = |from: SocketAddr| Some(from.ip().to_canonical()).filter(|from| !from.is_loopback());
    Ok(match door {
        Door::Unix(listener) => {
            let stream = listener.accept().await?.0;
            let address = listener.local_addr()?;
            let caller = Caller::of_socket(&stream, address.as_pathname());
            (Came::Known(Box::new(stream), caller), None)
        }
        Door::Tcp(listener) => {
            let (stream, from) = listener.accept().await?;
            // An answer is written in one or two pieces, and none of them should wait for the other.
            stream.set_nodelay(true)?;
            (Came::Known(Box::new(stream), Caller::anonymous(from)), counted(from))
        }
        Door::Tls(listener, tls) => {
            let (stream, from) = listener.accept().await?;
            stream.set_nodelay(true)?;
            (Came::Unknown(stream, from, tls.clone()), counted(from))
        }
        Door::Greeted(greeted) => {
            // Cancel-safe: one that was taken out is returned at once.
            let Some((stream, shown, from)) = greeted.lock().await.recv().await else {
                return std::future::pending().await;
            };
            (Came::Known(Box::new(stream), Caller::shown(shown, from)), counted(from))
        }
    })
}

/// A connection, and what is known of the caller so far.
enum Came {
    Known(Box<dyn Stream>, Caller),
    /// They have to show a certificate first.
    Unknown(TcpStream, SocketAddr, Arc<PeopleTls>),
}

impl Came {
    /// `None` for one that shows nothing good, or not before its place is needed.
    async fn known(
        self,
        guest: &Guest,
        mut stopping: watch::Receiver<bool>,
    ) -> Option<(Box<dyn Stream>, Caller)> {
        let (stream, from, tls) = match self {
            Came::Known(stream, caller) => return Some((stream, caller)),
            Came::Unknown(stream, from, tls) => (stream, from, tls),
        };
        let greeted = tokio::select! {
            // Not resumed when cancelled: the connection ends with it.
            greeted = tls.greet(stream) => greeted,
            // Cancel-safe: both only wait.
            () = guest.asked_to_leave() => return None,
            _ = stopping.wait_for(|stop| *stop) => return None,
        };
        match greeted {
            Ok((stream, shown)) => Some((Box::new(stream), Caller::shown(shown, from))),
            Err(error) => {
                // Whoever wants to can make any number of these.
                tracing::debug!(%from, %error, "a caller of the API was not let in");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    #[test]
    fn the_group_is_found_in_group_5() {
        let text = "root:x:0:\ncoreinit2:x:7:\ncoreinit:x:998:alice,bob\n";
        assert_eq!(group_id(text, "coreinit"), Some(998));
        assert_eq!(group_id(text, "fleet"), None);
        assert_eq!(group_id("coreinit:x:many:\n", "coreinit"), None);
    }

    #[tokio::test]
    async fn silent_clients_make_room() {
        let tcp = bind_tcp("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let body = |body: axum::body::Bytes| async move { body };
        let router = Router::new().route("/", axum::routing::post(body).get(|| async { "here" }));
        let limits = Limits { inside_max: 9, ..LIMITS };
        let signs = Arc::new(Signs::default());
        let stopped = async move { drop(stopped.await) };
        let served =
            tokio::spawn(serve(tcp.into(), router, signs.clone(), limits, stopped, Duration::from_secs(5)));
        let mut silent = Vec::new();
        for words in ["", "GET / HTTP/1.1\r\nHost: x\r\nX-", "\r\n"].repeat(10) {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(words.as_bytes()).await.unwrap();
            silent.push(stream);
        }
        let begun = tokio::time::Instant::now();
        let mut asking = TcpStream::connect(address).await.unwrap();
        asking.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        asking.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("here"), "{answer}");
        // They would be let go after 10 s anyway.
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
        assert_eq!(signs.doors.evicted.load(Ordering::Relaxed), 31 - 9);
        // The first is cut off, the last is not.
        let _ = silent[0].read(&mut [0; 1]).await;
        let mut byte = [0; 1];
        let last = silent.last_mut().unwrap().read(&mut byte);
        assert!(timeout(Duration::from_millis(50), last).await.is_err(), "it still has its place");
        drop(silent);
        drop(stop);
        served.await.unwrap();
        assert_eq!(signs.doors.open.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_a_living_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("coreinit.sock");
        let first = bind(&path).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, SOCKET_MODE);
        assert!(matches!(bind(&path).await, Err(ListenError::Taken(_))));
        drop(first);
        bind(&path).await.unwrap();

        let file = dir.path().join("file");
        std::fs::write(&file, "precious").unwrap();
        assert!(matches!(bind(&file).await, Err(ListenError::NotASocket(_))));
        let nowhere = dir.path().join("no/such/dir");
        assert!(matches!(bind(&nowhere).await, Err(ListenError::Bind(..))));
    }
}
