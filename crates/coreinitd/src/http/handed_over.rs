//! Socket activation: the listeners that systemd opened and handed to this process (sd_listen_fds(3)), as
//! fleet took all of its own.

use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};

use super::listen::{Door, ListenError};

/// They can be taken once: a file descriptor has one owner.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Takes every socket that was handed over, Unix and TCP. None is, unless a socket unit starts this process;
/// the second call finds none.
pub fn handed_over() -> Result<Vec<Door>, ListenError> {
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(Vec::new());
    }
    let fds = sd_notify::listen_fds().map_err(ListenError::HandedOver)?;
    fds.map(|fd| {
        // SAFETY: sd_listen_fds(3) gives these descriptors to the process that LISTEN_PID names, which is
        // this one, and TAKEN lets nobody take them twice.
        let owned = unsafe { OwnedFd::from_raw_fd(fd) };
        door(owned).ok_or(ListenError::HandedOverStrange(fd))
    })
    .collect()
}

/// Whether systemd holds sockets of this process, and hands them over again when it starts the next one.
pub fn is_handed_over() -> bool {
    std::env::var_os("LISTEN_FDS").is_some()
}

/// The socket's address tells its kind.
fn door(fd: OwnedFd) -> Option<Door> {
    let unix = UnixListener::from(fd);
    if unix.local_addr().is_ok() {
        unix.set_nonblocking(true).ok()?;
        return tokio::net::UnixListener::from_std(unix).ok().map(Door::Unix);
    }
    let tcp = TcpListener::from(OwnedFd::from(unix));
    tcp.local_addr().ok()?;
    tcp.set_nonblocking(true).ok()?;
    tokio::net::TcpListener::from_std(tcp).ok().map(Door::Tcp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_kinds_of_sockets_are_known_for_what_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fleet.sock");
        let unix = door(UnixListener::bind(&path).unwrap().into()).unwrap();
        assert!(unix.is_at(&path) && unix.tcp_address().is_none());
        std::os::unix::fs::symlink(dir.path(), dir.path().join("run")).unwrap();
        assert!(unix.is_at(&dir.path().join("run/fleet.sock")) && !unix.is_at(&dir.path().join("x")));
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let tcp = door(tcp.into()).unwrap();
        assert!(tcp.tcp_address() == Some(address) && !tcp.is_at(&path));
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(door(file.into()).is_none());
    }
}
