//! A daemon of another machine through ssh: `ssh -N -L` carries a socket of ours to the daemon's. It needs
//! nothing over there but ssh's own server.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use api::Endpoint;
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::time::{Instant, sleep};

use crate::ssh::SshOptions;

/// ssh says nothing when a tunnel stands, so its socket is tried so often.
const TRY_INTERVAL: Duration = Duration::from_millis(20);
/// Without `--ssh-timeout`. Whoever has to type a password may take this long.
const STANDS_WITHIN: Duration = Duration::from_secs(60);

/// It stands for as long as this is kept.
pub struct Tunnel {
    ssh: Child,
    folder: PathBuf,
}

impl Tunnel {
    pub async fn open(
        options: &SshOptions,
        host: &str,
        endpoint: &Endpoint,
        limit: Option<Duration>,
    ) -> anyhow::Result<Tunnel> {
        let folder = private_folder()?;
        let socket = folder.join("api.sock");
        let there = match endpoint {
            Endpoint::Unix(path) => path.display().to_string(),
            Endpoint::Tcp(authority) => authority.clone(),
            Endpoint::Remote(_) => bail!("a context needs no tunnel: leave --tunnel or --context"),
        };
        let mut command = tokio::process::Command::new("ssh");
        command.args(["-N", "-T", "-o", "ExitOnForwardFailure=yes", "-o", "StreamLocalBindMask=0177"]);
        command.arg("-L").arg(format!("{}:{there}", socket.display()));
        command.args(options.to(host)).stdin(Stdio::inherit()).stdout(Stdio::null()).kill_on_drop(true);
        let ssh = command.spawn().context("cannot run ssh")?;
        let mut tunnel = Tunnel { ssh, folder };
        let end = Instant::now() + limit.unwrap_or(STANDS_WITHIN);
        loop {
            if let Some(status) = tunnel.ssh.try_wait()? {
                bail!("there is no tunnel through {host}: ssh ended with {status}");
            }
            if UnixStream::connect(&socket).await.is_ok() {
                return Ok(tunnel);
            }
            if end <= Instant::now() {
                bail!("there is no tunnel through {host}: ssh took too long");
            }
            sleep(TRY_INTERVAL).await;
        }
    }

    pub fn endpoint(&self) -> Endpoint {
        Endpoint::Unix(self.folder.join("api.sock"))
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        let _ = self.ssh.start_kill();
        // What is left in a folder of our own under the temporary one is the system's to clean.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A folder that nobody else can look into, so nobody else can use the tunnel. Its name is new: a name that
/// exists is an error, and the next is tried.
fn private_folder() -> anyhow::Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt;
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_dir());
    let parent = own.unwrap_or_else(std::env::temp_dir);
    let mut last = None;
    for attempt in 0..100 {
        let path = parent.join(format!("corectl-{}-{attempt}", std::process::id()));
        match std::fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => return Ok(path),
            Err(error) => last = Some(error),
        }
    }
    let error = last.unwrap_or_else(|| std::io::ErrorKind::AlreadyExists.into());
    Err(error).with_context(|| format!("cannot make a folder in {}", Path::display(&parent)))
}
