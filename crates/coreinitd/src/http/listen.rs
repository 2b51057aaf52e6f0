//! The sockets that the API is served on: how one comes to be, and the loop that takes its connections.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use identity::PeopleTls;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower::ServiceExt;

use super::caller::Caller;

/// Whoever is in it may use the API; without such a group, only root may.
pub const SOCKET_GROUP: &str = "coreinit";

/// Owner and group may connect, which needs the right to write.
const SOCKET_MODE: u32 = 0o660;

/// A daemon that listens takes a connection at once.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Connections at a time, beyond which the next ones wait in the kernel's queue. More than the event streams
/// allowed, so that streams alone cannot keep other requests out.
const CONNECTIONS_MAX: usize = 1024;

/// For a client that connects and then says nothing, or does not come to the end of its headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

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
            Door::Tcp(_) | Door::Tls(..) => false,
        }
    }

    /// Where it listens on TCP, without TLS.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match self {
            Door::Unix(_) | Door::Tls(..) => None,
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
pub(super) async fn serve(door: Door, router: Router, shutdown: impl Future<Output = ()>, grace: Duration) {
    let mut shutdown = pin!(shutdown);
    let (stopping, _) = watch::channel(false);
    let limit = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        // All arms are cancel-safe; a permit that was not used is given back.
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&door, &limit) => accepted,
        };
        match accepted {
            Ok((came, permit)) => {
                let connection = connection(came, router.clone(), stopping.subscribe());
                connections.spawn(async move {
                    connection.await;
                    drop(permit);
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

/// A connection, of whichever kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn accept(
    door: &Door,
    limit: &Arc<Semaphore>,
) -> io::Result<(Came, tokio::sync::OwnedSemaphorePermit)> {
    let permit = limit.clone().acquire_owned().await.map_err(io::Error::other)?;
    let came = match door {
        Door::Unix(listener) => {
            let stream = listener.accept().await?.0;
            let address = listener.local_addr()?;
            let caller = Caller::of_socket(&stream, address.as_pathname());
            Came::Known(Box::new(stream), caller)
        }
        Door::Tcp(listener) => {
            let (stream, from) = listener.accept().await?;
            // An answer is written in one or two pieces, and none of them should wait for the other.
            stream.set_nodelay(true)?;
            Came::Known(Box::new(stream), Caller::anonymous(from))
        }
        Door::Tls(listener, tls) => {
            let (stream, from) = listener.accept().await?;
            stream.set_nodelay(true)?;
            Came::Unknown(stream, from, tls.clone())
        }
    };
    Ok((came, permit))
}

/// A connection, and what is known of the caller so far.
enum Came {
    Known(Box<dyn Stream>, Caller),
    /// They have to show a certificate first.
    Unknown(TcpStream, SocketAddr, Arc<PeopleTls>),
}

impl Came {
    async fn known(self) -> Option<(Box<dyn Stream>, Caller)> {
        match self {
            Came::Known(stream, caller) => Some((stream, caller)),
            Came::Unknown(stream, from, tls) => match tls.greet(stream).await {
                Ok((stream, shown)) => Some((Box::new(stream), Caller::shown(shown, from))),
                Err(error) => {
                    // Whoever wants to can make any number of these.
                    tracing::debug!(%from, %error, "a caller of the API was not let in");
                    None
                }
            },
        }
    }
}

async fn connection(came: Came, router: Router, mut stopping: watch::Receiver<bool>) {
    let known = tokio::select! {
        known = came.known() => known,
        _ = stopping.wait_for(|stop| *stop) => None,
    };
    let Some((stream, caller)) = known else { return };
    let router = router.map_request(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(caller.clone());
        request
    });
    let mut connection = pin!(
        http1::Builder::new()
            .title_case_headers(true)
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
    );
    let stopped = async move { drop(stopping.wait_for(|stop| *stop).await) };
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stopped => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // The other side went away, or spoke no HTTP: its own affair.
        tracing::debug!(%error, "a connection to the API ended early");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_found_in_group_5() {
        let text = "root:x:0:\ncoreinit2:x:7:\ncoreinit:x:998:alice,bob\n";
        assert_eq!(group_id(text, "coreinit"), Some(998));
        assert_eq!(group_id(text, "fleet"), None);
        assert_eq!(group_id("coreinit:x:many:\n", "coreinit"), None);
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
