//! Who gets in from afar, over real TLS: people with certificates, and nobody else.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::v1::{Batch, ClusterInit, Event, Invite, Operation, State};
use api::{Client, ClientError, Context, Endpoint};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cluster::{Command, DesiredState, PersonName, PersonRole};
use coreinitd::http::{self, Access, Door, Inviting, IssuePerson};
use identity::{Authority, Keyring, PeopleTls, Secret, Tls};
use raft::Transport;
use store::MemoryStore;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::bench::{machine, parts, propose, register, set};

const LIMIT: Duration = Duration::from_secs(20);

/// A daemon's API on each kind of door.
struct Served {
    store: Arc<MemoryStore>,
    keyring: Arc<Keyring>,
    /// Of the door for people.
    address: String,
    tcp: String,
    socket: PathBuf,
    _dir: tempfile::TempDir,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

fn authority(secret: u8) -> Authority {
    Authority::of(&Secret::new(&[secret; 32]).unwrap()).unwrap()
}

fn name(text: &str) -> PersonName {
    PersonName::new(text).unwrap()
}

impl Served {
    async fn begin() -> Served {
        let store = Arc::new(MemoryStore::new(machine("m1")));
        propose(&*store, Command::InitCluster { id: "c1".into(), name: "test".into() }).await;
        propose(&*store, register("m1", "127.0.0.1", &[])).await;
        Served::over(store).await
    }

    /// Another daemon of the same cluster.
    async fn over(store: Arc<MemoryStore>) -> Served {
        let keyring = Keyring::new(authority(1), machine("m1")).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("coreinit.sock");
        let people = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (at, tcp_at) = (people.local_addr().unwrap(), tcp.local_addr().unwrap());
        let doors: Vec<Door> = vec![
            http::bind(&socket).await.unwrap().into(),
            tcp.into(),
            Door::Tls(people, Arc::new(PeopleTls::new(&keyring))),
        ];
        let issuer = keyring.clone();
        let issue: IssuePerson = Arc::new(move |name, role, lifetime| {
            let lifetime = lifetime.try_into().map_err(|_| "too long".to_string())?;
            let issued = issuer.authority().issue_person(name, role, lifetime);
            Ok((issued.map_err(|error| error.to_string())?, issuer.authority().certificate_pem()))
        });
        let invite = Ok(Inviting { issue, port: Some(at.port()) });
        let mut parts = parts(&store);
        parts.access = Access { invite, ..Access::default() };
        let (stop, stopping) = watch::channel(false);
        let task = tokio::spawn(async move { http::run(parts, doors, stopping).await.unwrap() });
        Served {
            store,
            keyring,
            address: at.to_string(),
            tcp: format!("http://{tcp_at}"),
            socket,
            _dir: dir,
            stop,
            task,
        }
    }

    async fn end(self) {
        self.stop.send_replace(true);
        timeout(LIMIT, self.task).await.unwrap().unwrap();
    }

    fn here(&self) -> Client {
        Client::new(Endpoint::Unix(self.socket.clone()))
    }

    async fn invite(&self, who: &str, role: PersonRole) -> Context {
        self.here().invite(&ask(who, role)).await.unwrap()
    }

    /// What somebody has who was given this certificate, and is in the cluster's books with it.
    async fn holding(&self, authority: &Authority, lifetime: time::Duration) -> Context {
        let again = Invite { replace: true, ..ask("mallory", PersonRole::Admin) };
        let mut context = self.here().invite(&again).await.unwrap();
        let issued = authority.issue_person(&name("mallory"), PersonRole::Admin, lifetime).unwrap();
        let person = cluster::Person {
            role: PersonRole::Admin,
            fingerprint: issued.fingerprint,
            expires: u64::MAX,
            invited_by: String::new(),
        };
        propose(&*self.store, Command::InvitePerson { name: name("mallory"), person, replace: true }).await;
        (context.certificate, context.key) = (issued.certificate_pem, issued.key_pem);
        context
    }
}

fn ask(who: &str, role: PersonRole) -> Invite {
    Invite { name: name(who), role, ttl: 3600, addresses: Vec::new(), replace: false }
}

fn client(context: &Context) -> Client {
    Client::new(Endpoint::remote(context).unwrap()).with_limit(Some(LIMIT))
}

fn batch() -> Batch {
    let text = Some("[Service]\nExecStart=/bin/true\n".to_string());
    let operation = Operation::Set { name: "a.service".into(), text, desired_state: Some(State::Inactive) };
    Batch { operations: vec![operation] }
}

#[track_caller]
fn told<T: std::fmt::Debug>(answer: Result<T, ClientError>, expected: &str) {
    let error = answer.unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

#[tokio::test]
async fn people_come_in_and_may_do_what_their_roles_may() {
    let served = Served::begin().await;
    let viewer = client(&served.invite("vera", PersonRole::Viewer).await);
    let operator = client(&served.invite("otto", PersonRole::Operator).await);
    let admin = client(&served.invite("ada", PersonRole::Admin).await);
    for client in [&viewer, &operator, &admin] {
        assert_eq!(client.status().await.unwrap().machine, machine("m1"));
        assert_eq!(client.people().await.unwrap().people.len(), 3);
    }
    told(viewer.batch(&batch()).await, "this needs the role operator, and vera has the role viewer");
    told(viewer.set_schedulable(&machine("m1"), false).await, "needs the role operator");
    operator.batch(&batch()).await.unwrap();
    operator.set_schedulable(&machine("m1"), false).await.unwrap();
    let no = "this needs the role admin, and otto has the role operator";
    told(operator.cluster_init(&ClusterInit::default()).await, no);
    told(operator.invite(&ask("eve", PersonRole::Admin)).await, no);
    told(operator.uninvite(&name("ada")).await, no);
    let guest = admin.invite(&ask("gustav", PersonRole::Viewer)).await.unwrap();
    client(&guest).units(&[], false).await.unwrap();
    // Over TCP without TLS, as an operator.
    let tcp = Client::new(Endpoint::parse(&served.tcp).unwrap());
    tcp.batch(&batch()).await.unwrap();
    told(tcp.invite(&ask("eve", PersonRole::Admin)).await, "needs the role admin, and anonymous has");
    served.end().await;
}

#[tokio::test]
async fn who_is_shut_out_is_out_at_once() {
    let served = Served::begin().await;
    let alice = served.invite("alice", PersonRole::Viewer).await;
    let remote = client(&alice);
    let mut events = remote.events(None, &[]).with_patience(None);
    while !matches!(events.next().await.unwrap().1, Event::Synced { .. }) {}
    served.here().uninvite(&name("alice")).await.unwrap();
    let no = "alice is not invited, or no longer";
    told(remote.status().await, no);
    // The open stream breaks off, and is not opened again.
    told(timeout(LIMIT, events.next()).await.unwrap(), no);
    told(served.here().uninvite(&name("alice")).await, "nobody called alice is invited");

    // A new certificate of the same name does not bring the old one back.
    let second = served.invite("alice", PersonRole::Viewer).await;
    told(remote.status().await, "was replaced by a newer one");
    client(&second).status().await.unwrap();
    told(served.here().invite(&ask("alice", PersonRole::Admin)).await, "alice is invited already");
    let replace = Invite { replace: true, ..ask("alice", PersonRole::Operator) };
    let third = served.here().invite(&replace).await.unwrap();
    told(client(&second).status().await, "was replaced");
    client(&third).batch(&batch()).await.unwrap();
    served.end().await;
}

#[tokio::test]
async fn certificates_that_are_not_the_clusters_are_refused() {
    let served = Served::begin().await;
    let hour = time::Duration::HOUR;
    // The way that these go in is open to a good one.
    client(&served.holding(&authority(1), hour).await).status().await.unwrap();
    let expired = served.holding(&authority(1), -5 * time::Duration::SECOND).await;
    told(client(&expired).status().await, "the certificate has expired");
    let foreign = served.holding(&authority(2), hour).await;
    told(client(&foreign).status().await, "the cluster does not know this certificate");
    // Who trusts another authority does not talk to this cluster.
    let mut lost = served.holding(&authority(1), hour).await;
    lost.authority = authority(2).certificate_pem();
    told(client(&lost).status().await, "is not of the context's cluster");
    let mut mixed = served.holding(&authority(1), hour).await;
    mixed.key = served.holding(&authority(1), hour).await.key;
    assert!(Endpoint::remote(&mixed).is_err(), "a key of another certificate");
    // Nothing but an alert for whoever shows nothing.
    let mut plain = TcpStream::connect(&served.address).await.unwrap();
    plain.write_all(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(LIMIT, plain.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.len() <= 7, "{answer:?}");
    served.end().await;
}

/// As PEM, for a context that nobody should have.
fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

#[tokio::test]
async fn a_machine_is_no_person_and_a_person_no_machine() {
    let served = Served::begin().await;
    let mut machines = served.invite("mallory", PersonRole::Admin).await;
    let issued = authority(1).issue(&machine("m2"), time::Duration::HOUR).unwrap();
    machines.certificate = pem("CERTIFICATE", &issued.certificate);
    machines.key = pem("PRIVATE KEY", issued.key.secret_der());
    told(client(&machines).status().await, "the certificate is machine m2's, and the API is for people");
    told(client(&machines).batch(&batch()).await, "the API is for people");

    // The port between machines lets an administrator in as little as anybody else.
    let mut peers = Tls::new(served.keyring.clone()).listen("127.0.0.1:0").await.unwrap();
    let mut admin = served.invite("ada", PersonRole::Admin).await;
    client(&admin).status().await.unwrap();
    admin.addresses = vec![peers.address().unwrap()];
    let remote = client(&admin);
    tokio::select! {
        came = peers.accept() => panic!("{:?} came in", came.map(|(_, caller)| caller)),
        answer = remote.status() => assert!(answer.is_err(), "{answer:?}"),
    }
    served.end().await;
}

#[tokio::test]
async fn another_machine_is_asked_when_one_is_gone() {
    let first = Served::begin().await;
    let second = Served::over(first.store.clone()).await;
    let mut context = first.invite("alice", PersonRole::Operator).await;
    assert_eq!(context.addresses, std::slice::from_ref(&first.address));
    context.addresses.push(second.address.clone());
    let alice = client(&context);
    alice.batch(&batch()).await.unwrap();
    first.end().await;
    alice.status().await.unwrap();
    second.end().await;
    let gone = alice.status().await.unwrap_err();
    assert!(gone.is_unreachable() && gone.to_string().contains(&context.addresses[1]), "{gone}");
}

#[tokio::test]
async fn nobody_is_invited_where_that_cannot_be() {
    let served = Served::begin().await;
    let here = served.here();
    told(here.invite(&Invite { ttl: 1, ..ask("a", PersonRole::Viewer) }).await, "a minute at least");
    let strange = Invite { addresses: vec!["h1".into()], ..ask("a", PersonRole::Viewer) };
    told(here.invite(&strange).await, "write HOST:PORT");
    let named = Invite { addresses: vec!["gate.example:1".into()], ..ask("a", PersonRole::Viewer) };
    assert_eq!(here.invite(&named).await.unwrap().addresses, ["gate.example:1"]);
    assert_eq!(served.store_people(), ["a"]);
    served.end().await;

    let store = Arc::new(MemoryStore::new(machine("m1")));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("coreinit.sock");
    let (stop, stopping) = watch::channel(false);
    let door = http::bind(&path).await.unwrap();
    let task = tokio::spawn(http::run(parts(&store), vec![door], stopping));
    let without = Client::new(Endpoint::Unix(path));
    told(without.invite(&ask("a", PersonRole::Viewer)).await, "has no cluster_secret_file");
    stop.send_replace(true);
    task.await.unwrap().unwrap();
}

impl Served {
    fn store_people(&self) -> Vec<String> {
        crate::bench::state(&*self.store).people.keys().map(|name| name.to_string()).collect()
    }
}

/// What was logged, a line each.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

/// The audit's lines alone: the whole test is one thread, so all of its log comes here.
fn listen() -> (Log, tracing::subscriber::DefaultGuard) {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .with_max_level(tracing::Level::TRACE)
        .finish();
    (log, tracing::subscriber::set_default(subscriber))
}

#[tokio::test]
async fn every_change_is_written_down_with_who_asked() {
    let (log, _guard) = listen();
    let served = Served::begin().await;
    let context = served.invite("vera", PersonRole::Viewer).await;
    let mut said = log.take();
    let audited = |said: &str| -> Vec<String> {
        said.lines().filter(|line| line.contains(" audit: ")).map(str::to_string).collect()
    };
    let check = |said: &str, expected: &[&str]| {
        let lines = audited(said);
        assert_eq!(lines.len(), 1, "{said}");
        for part in expected {
            assert!(lines[0].contains(part), "{part} in {}", lines[0]);
        }
    };
    let uid = format!("caller=\"uid {} (", std::fs::metadata("/proc/self").map(|m| uid_of(&m)).unwrap());
    let pid = format!("pid {}", std::process::id());
    let socket = format!("address=\"{}\"", served.socket.display());
    let what = "what=\"invite vera as viewer for 3600 s\"";
    check(&said, &[&uid, &pid, &socket, "role=\"admin\"", "/v1/cluster/invite", what, "outcome=\"done\""]);
    let secret: Vec<&str> = context.key.lines().collect();
    assert!(!said.contains(secret[1]) && !said.contains("PRIVATE KEY"), "{said}");

    served.here().batch(&batch()).await.unwrap();
    check(
        &log.take(),
        &[&uid, "what=\"set a.service inactive\"", "count=1", "status=200", "outcome=\"done\""],
    );

    // Looking is not written down, whoever looks.
    let vera = client(&context);
    vera.units(&[], false).await.unwrap();
    served.here().machines(false).await.unwrap();
    said = log.take();
    assert_eq!(audited(&said), Vec::<String>::new(), "{said}");

    assert!(vera.batch(&batch()).await.is_err());
    let refused =
        ["caller=\"vera\"", "address=\"127.0.0.1:", "role=\"viewer\"", "status=403", "outcome=\"refused\""];
    check(&log.take(), &refused);

    let tcp = Client::new(Endpoint::parse(&served.tcp).unwrap());
    tcp.batch(&batch()).await.unwrap();
    check(
        &log.take(),
        &["caller=\"anonymous\"", "address=\"127.0.0.1:", "role=\"operator\"", "outcome=\"done\""],
    );

    served.here().uninvite(&name("vera")).await.unwrap();
    check(&log.take(), &["what=\"uninvite vera\"", "outcome=\"done\""]);
    assert!(vera.batch(&batch()).await.is_err());
    check(&log.take(), &["caller=\"vera\"", "role=\"no role\"", "outcome=\"refused\""]);

    let destroy = |name: &str| Operation::Destroy { name: name.into() };
    let several = Batch { operations: vec![destroy("a.service"), destroy("none.service")] };
    served.here().batch(&several).await.unwrap();
    let parts = ["what=\"destroy a.service, destroy none.service\"", "count=2", "done, but 1 refused"];
    check(&log.take(), &parts);
    served.end().await;
}

fn uid_of(metadata: &std::fs::Metadata) -> u32 {
    std::os::unix::fs::MetadataExt::uid(metadata)
}

/// fleet's API is behind the same table, and its unit is in the path.
#[tokio::test]
async fn fleets_changes_are_written_down_too() {
    let (log, _guard) = listen();
    let served = Served::begin().await;
    propose(&*served.store, set("a.service", "/bin/true", DesiredState::Inactive)).await;
    let mut stream = tokio::net::UnixStream::connect(&served.socket).await.unwrap();
    let request = "DELETE /v1-alpha/units/a.service HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    let said = log.take();
    let lines: Vec<&str> = said.lines().filter(|line| line.contains(" audit: ")).collect();
    assert!(lines.len() == 1 && lines[0].contains("path=\"/v1-alpha/units/a.service\""), "{said}");
    assert!(
        lines[0].contains("route=\"/v1-alpha/units/{name}\"") && lines[0].contains("\"DELETE\""),
        "{said}"
    );
    served.end().await;
}
