//! A real etcd of one member on loopback, with its v2 interface. It ends with the test.

use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::served::{PATIENCE, ask};

pub struct RealEtcd {
    pub address: SocketAddr,
    dir: tempfile::TempDir,
    _process: Child,
}

/// A port that is free now, and that nobody gets who asks for any: the kernel gives those from 32768 on.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + (std::process::id() * 64 + number) % 20_000;
        let port = u16::try_from(port).expect("it is below 30,000");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl RealEtcd {
    pub async fn start() -> RealEtcd {
        let dir = tempfile::tempdir().unwrap();
        let (client, peer) = (free_port(), free_port());
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let process = Command::new("etcd")
            .arg("--name=e0")
            .arg(format!("--data-dir={}", dir.path().join("data").display()))
            .arg(format!("--listen-client-urls={}", url(client)))
            .arg(format!("--advertise-client-urls={}", url(client)))
            .arg(format!("--listen-peer-urls={}", url(peer)))
            .arg(format!("--initial-advertise-peer-urls={}", url(peer)))
            .arg(format!("--initial-cluster=e0={}", url(peer)))
            .args(["--enable-v2", "--logger=zap", "--log-level=warn"])
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("etcd is installed (Debian: etcd-server)");
        let etcd = RealEtcd { address: ([127, 0, 0, 1], client).into(), dir, _process: process };
        etcd.settled().await;
        etcd
    }

    /// Waits until it serves, and has written all that it writes of itself.
    async fn settled(&self) {
        let begun = Instant::now();
        loop {
            if tokio::net::TcpStream::connect(self.address).await.is_ok() {
                let version = ask(self.address, "GET", "/version", "").await.text();
                let health = ask(self.address, "GET", "/health", "").await.text();
                if version.contains("\"etcdcluster\":\"3.4") && health.contains("true") {
                    return;
                }
            }
            let log = || std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(begun.elapsed() < PATIENCE, "etcd does not serve: {}", log());
            tokio::task::yield_now().await;
        }
    }
}
