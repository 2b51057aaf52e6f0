//! Real etcd processes on loopback, with both interfaces, for tests and measurements. They end with the
//! value.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::wait::eventually;

/// Longer than a start takes on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

/// Members of one etcd cluster, each with its data in a folder of its own.
pub struct Etcd {
    members: Vec<Child>,
    clients: Vec<u16>,
}

/// A port that nobody gets who asks for any: the kernel gives those from 32768 on. etcd cannot be told to
/// take any and say which.
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

impl Etcd {
    /// Starts `count` members with their data below `dir`, and waits until each serves.
    pub fn start(dir: &Path, count: usize) -> Etcd {
        let ports: Vec<(u16, u16)> = (0..count).map(|_| (free_port(), free_port())).collect();
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let peers = ports.iter().enumerate().map(|(at, (_, peer))| format!("e{at}={}", url(*peer)));
        let peers = peers.collect::<Vec<_>>().join(",");
        let launch = |(at, (client, peer)): (usize, &(u16, u16))| {
            let process = Command::new("etcd")
                .args([
                    format!("--name=e{at}"),
                    format!("--data-dir={}", dir.join(format!("e{at}")).display()),
                ])
                .args([format!("--listen-client-urls={}", url(*client))])
                .args([format!("--advertise-client-urls={}", url(*client))])
                .args([format!("--listen-peer-urls={}", url(*peer))])
                .args([format!("--initial-advertise-peer-urls={}", url(*peer))])
                .args([
                    format!("--initial-cluster={peers}"),
                    "--enable-v2".into(),
                    "--log-level=error".into(),
                ])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            process.expect("etcd is installed (Debian: etcd-server)")
        };
        let members = ports.iter().enumerate().map(launch).collect();
        let etcd = Etcd { members, clients: ports.iter().map(|(client, _)| *client).collect() };
        for port in &etcd.clients {
            eventually(PATIENCE, "etcd to serve", || match healthy(*port) {
                Ok(answer) if answer.contains("true") => Ok(()),
                other => Err(format!("{other:?}")),
            });
        }
        etcd
    }

    pub fn endpoints(&self) -> Vec<String> {
        self.clients.iter().map(|port| format!("http://127.0.0.1:{port}")).collect()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _ = member.kill();
            let _ = member.wait();
        }
    }
}

/// What a member says once a majority stands behind it.
fn healthy(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    stream.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
