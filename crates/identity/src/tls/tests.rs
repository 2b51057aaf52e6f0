//! Machines that know each other, and all others.

use cluster::MachineId;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

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
    talk_by(from.connect(address)).await
}

async fn talk_by(
    connecting: impl Future<Output = io::Result<impl AsyncRead + AsyncWrite + Unpin>>,
) -> Result<(), String> {
    let talk = async {
        let mut stream = connecting.await?;
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
    let bare = TlsConnector::from(Arc::new(bare));
    let connecting = async {
        let name = ServerName::try_from(SERVER_NAME).unwrap();
        bare.connect(name, TcpStream::connect(&address).await?).await
    };
    assert!(talk_by(connecting).await.is_err());
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
    let connector = TlsConnector::from(tls(1, "m2").keyring.calling());
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
            kept: None,
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

fn authority(secret: u8) -> Authority {
    Authority::of(&Secret::new(&[secret; 32]).unwrap()).unwrap()
}

/// At each step two machines may be one step apart; nobody is ever cut off, and in the end the old authority
/// counts for nothing.
#[tokio::test]
async fn the_authority_changes_under_machines_that_talk() {
    let steps: [fn(&Keyring); 4] = [
        |_| {},
        |ring| ring.change(authority(1), Some(authority(2))).unwrap(),
        |ring| ring.change(authority(2), Some(authority(1))).unwrap(),
        |ring| ring.change(authority(2), None).unwrap(),
    ];
    let (m1, m2) = (keyring(1, "m1", time::Duration::HOUR), keyring(1, "m2", time::Duration::HOUR));
    let (one, two) = (Tls::new(m1.clone()), Tls::new(m2.clone()));
    let (at_one, _callers, _serving) = echo(&one).await;
    let (at_two, _more_callers, _more_serving) = echo(&two).await;
    let old = Tls::new(keyring(1, "m3", time::Duration::HOUR));
    talk(&old, &at_one).await.unwrap();
    for step in steps {
        step(&m1);
        talk(&one, &at_two).await.unwrap();
        talk(&two, &at_one).await.unwrap();
        // Renewing is no way back.
        m1.renew().unwrap();
        step(&m2);
        talk(&one, &at_two).await.unwrap();
        talk(&two, &at_one).await.unwrap();
    }
    let refused = talk(&old, &at_one).await.unwrap_err();
    assert!(refused.contains("belongs to another cluster"), "{refused}");
    assert_eq!(m1.authority().digest(), authority(2).digest());
}

#[tokio::test]
async fn people_come_in_by_the_same_port() {
    let ring = keyring(1, "m1", time::Duration::HOUR);
    let (people, mut greeted) = mpsc::channel(4);
    let (address, mut callers, _serving) = echo(&Tls::new(ring.clone()).with_people(people)).await;
    let call = async |secret: u8| {
        let mut config = (*keyring(secret, "m2", time::Duration::HOUR).calling()).clone();
        config.alpn_protocols = vec![PEOPLE_PROTOCOL.to_vec()];
        let name = ServerName::try_from(SERVER_NAME).unwrap();
        let stream = TcpStream::connect(&address).await.unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    };
    let _stream = call(1).await.unwrap();
    let (_, shown, from) = tokio::time::timeout(LIMIT, greeted.recv()).await.unwrap().unwrap();
    assert_eq!(shown, people::Shown::Machine(MachineId::new("m2").unwrap()));
    assert!(from.ip().is_loopback());
    assert!(call(2).await.is_err(), "of another cluster");
    assert!(callers.try_recv().is_err(), "it is no machine's connection");
    talk(&Tls::new(keyring(1, "m2", time::Duration::HOUR)), &address).await.unwrap();
}
