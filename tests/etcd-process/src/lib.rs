//! Real etcd processes on loopback, with both interfaces, for tests and measurements: Debian's `etcd-server`
//! and `etcd-client`. They end with the value.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

/// Longer than a start takes on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

/// Members of one etcd cluster. Each can be killed and started again over its data.
pub struct Etcd {
    members: Vec<Member>,
    dir: PathBuf,
    /// Goes with the value, where nobody named a folder.
    _dir: Option<tempfile::TempDir>,
    more: Vec<String>,
    tls: Option<Files>,
    user: Option<String>,
}

/// What clients and etcd know each other by, in PEM.
#[derive(Clone)]
pub struct Files {
    pub ca: PathBuf,
    /// Of the server, and of etcdctl.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

struct Member {
    name: String,
    client: u16,
    peer: u16,
    /// Without TLS, for its health.
    metrics: u16,
    process: Option<Child>,
}

/// A port that is free now, and that nobody gets who asks for any: the kernel gives those from 32768 on.
/// Processes that run at the same time look in different places. etcd cannot be told to take any and say
/// which.
pub fn free_port() -> u16 {
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
    /// Starts `count` members, and waits until they serve. `more` are flags.
    pub async fn start(count: usize, more: &[&str]) -> Etcd {
        Etcd::begin(count, more, None, None).await
    }

    /// With their data below `dir`, on whose disk they are measured.
    pub async fn start_in(dir: &Path, count: usize) -> Etcd {
        std::fs::create_dir_all(dir).unwrap();
        Etcd::begin(count, &[], None, Some(dir.into())).await
    }

    /// Its clients have to show a certificate of the authority.
    pub async fn start_with_tls(files: Files) -> Etcd {
        Etcd::begin(1, &["--client-cert-auth"], Some(files), None).await
    }

    async fn begin(count: usize, more: &[&str], tls: Option<Files>, dir: Option<PathBuf>) -> Etcd {
        let (kept, dir) = match dir {
            Some(dir) => (None, dir),
            None => {
                let kept = tempfile::tempdir().unwrap();
                let path = kept.path().into();
                (Some(kept), path)
            }
        };
        let members = (0..count).map(|number| Member {
            name: format!("e{number}"),
            client: free_port(),
            peer: free_port(),
            metrics: free_port(),
            process: None,
        });
        let more = more.iter().map(|flag| flag.to_string()).collect();
        let mut etcd = Etcd { members: members.collect(), dir, _dir: kept, more, tls, user: None };
        for number in 0..count {
            etcd.launch(number);
        }
        for number in 0..count {
            etcd.serves(number).await;
        }
        etcd
    }

    pub fn endpoints(&self) -> Vec<String> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        self.members.iter().map(|member| format!("{scheme}://127.0.0.1:{}", member.client)).collect()
    }

    /// etcdctl is that user from here on, `NAME:PASSWORD`.
    pub fn be(&mut self, user: &str) {
        self.user = Some(user.into());
    }

    /// Starts a member that does not run.
    pub fn launch(&mut self, number: usize) {
        let client_url = self.endpoints()[number].clone();
        let peers = self.members.iter().map(|m| format!("{}=http://127.0.0.1:{}", m.name, m.peer));
        let peers = peers.collect::<Vec<_>>().join(",");
        let member = &mut self.members[number];
        let data = self.dir.join(&member.name);
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let log =
            std::fs::File::options().create(true).append(true).open(data.with_extension("log")).unwrap();
        let process = Command::new("etcd")
            .arg(format!("--name={}", member.name))
            .arg(format!("--data-dir={}", data.display()))
            .arg(format!("--listen-client-urls={client_url}"))
            .arg(format!("--advertise-client-urls={client_url}"))
            .arg(format!("--listen-metrics-urls={}", url(member.metrics)))
            .arg(format!("--listen-peer-urls={}", url(member.peer)))
            .arg(format!("--initial-advertise-peer-urls={}", url(member.peer)))
            .arg(format!("--initial-cluster={peers}"))
            .args(["--enable-v2", "--logger=zap", "--log-level=warn"])
            .args(&self.more)
            .args(self.tls.iter().flat_map(|files| {
                [
                    format!("--trusted-ca-file={}", files.ca.display()),
                    format!("--cert-file={}", files.certificate.display()),
                    format!("--key-file={}", files.key.display()),
                ]
            }))
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn();
        member.process = Some(process.expect("etcd is installed (Debian: etcd-server)"));
    }

    /// Waits until a member answers, with a majority behind it.
    pub async fn serves(&self, number: usize) {
        let port = self.members[number].metrics;
        let begin = Instant::now();
        loop {
            let healthy = timeout(Duration::from_secs(2), healthy(port)).await;
            if healthy.is_ok_and(|answer| answer.is_ok_and(|answer| answer)) {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "etcd {number} does not serve: {}", self.log(number));
            tokio::task::yield_now().await;
        }
    }

    /// As `kill -9`.
    pub async fn kill(&mut self, number: usize) {
        if let Some(mut process) = self.members[number].process.take() {
            process.kill().await.unwrap();
        }
    }

    /// Every member of the cluster is that one, begun anew from a backup (`etcdctl snapshot save`) over what
    /// it had.
    pub async fn restore(&mut self, file: &Path) {
        assert_eq!(self.members.len(), 1, "only an etcd of one member is restored");
        self.kill(0).await;
        let member = &self.members[0];
        let data = self.dir.join(&member.name);
        std::fs::remove_dir_all(&data).unwrap();
        let peer = format!("http://127.0.0.1:{}", member.peer);
        let said = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["snapshot", "restore"])
            .arg(file)
            .arg(format!("--name={}", member.name))
            .arg(format!("--data-dir={}", data.display()))
            .arg(format!("--initial-cluster={}={peer}", member.name))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .output()
            .await
            .expect("etcdctl is installed (Debian: etcd-client)");
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        self.launch(0);
        self.serves(0).await;
    }

    pub fn log(&self, number: usize) -> String {
        let path = self.dir.join(&self.members[number].name).with_extension("log");
        std::fs::read_to_string(path).unwrap_or_default()
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Runs etcdctl, with the v3 interface, against one member.
    pub async fn ctl(&self, arguments: &[&str]) -> String {
        self.ctl_at("3", arguments).await
    }

    pub async fn ctl_at(&self, api: &str, arguments: &[&str]) -> String {
        let said = Command::new("etcdctl")
            .env("ETCDCTL_API", api)
            .arg(format!("--endpoints={}", self.endpoints()[0]))
            // Its own limit is a second, which a busy machine does not always keep.
            .args(if api == "2" { &["--timeout=20s", "--total-timeout=60s"][..] } else { &[] })
            .args(self.tls.iter().flat_map(|files| {
                let names = match api {
                    "2" => ["--ca-file", "--cert-file", "--key-file"],
                    _ => ["--cacert", "--cert", "--key"],
                };
                let paths = [&files.ca, &files.certificate, &files.key];
                names.into_iter().zip(paths).map(|(name, path)| format!("{name}={}", path.display()))
            }))
            .args(self.user.iter().map(|user| match api {
                "2" => format!("--username={user}"),
                _ => format!("--user={user}"),
            }))
            .args(arguments)
            .output()
            .await
            .expect("etcdctl is installed (Debian: etcd-client)");
        let errors = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.status.success(), "etcdctl {arguments:?}: {errors}");
        String::from_utf8_lossy(&said.stdout).into_owned()
    }
}

async fn healthy(port: u16) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(b"GET /health HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.contains("true"))
}
