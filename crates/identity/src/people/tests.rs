//! Who is let in at the API's end, and as whom; and that the machines' end takes no person.

use cluster::{PersonName, PersonRole};
use raft::Transport;
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519, SanType};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpListener;
use tokio_rustls::TlsConnector;

use super::*;
use crate::authority::{Authority, SERVER_NAME};
use crate::secret::Secret;
use crate::tls::Tls;

const LIMIT: Duration = Duration::from_secs(20);

type Certified = (CertificateDer<'static>, PrivateKeyDer<'static>);

fn authority(secret: u8) -> Authority {
    Authority::of(&Secret::new(&[secret; 32]).unwrap()).unwrap()
}

fn keyring() -> Arc<Keyring> {
    Keyring::new(authority(1), MachineId::new("m1").unwrap()).unwrap()
}

fn alice(authority: &Authority, lifetime: time::Duration) -> Certified {
    let name = PersonName::new("alice").unwrap();
    let issued = authority.issue_person(&name, PersonRole::Admin, lifetime).unwrap();
    let certificate = CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).unwrap();
    (certificate, PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap())
}

/// Says what an administrator's certificate says, and nobody has signed it.
fn self_signed() -> Certified {
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    let uri = "coreinit://person/alice?role=admin".to_string();
    params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
    let certificate = params.self_signed(&key).unwrap().der().clone();
    (certificate, PrivateKeyDer::Pkcs8(key.serialize_der().into()))
}

/// Calls, and says a word; `Err` is what the caller hears in place of an answer.
async fn call(address: &str, shown: Option<Certified>) -> io::Result<()> {
    let mut roots = RootCertStore::empty();
    roots.add(authority(1).certificate().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let config = match shown {
        Some((certificate, key)) => config.with_client_auth_cert(vec![certificate], key).unwrap(),
        None => config.with_no_client_auth(),
    };
    let name = ServerName::try_from(SERVER_NAME).unwrap();
    let talk = async {
        let stream = TcpStream::connect(address).await?;
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        stream.write_all(b"ping").await?;
        stream.read_exact(&mut [0; 4]).await.map(drop)
    };
    timeout(LIMIT, talk).await.unwrap()
}

/// What the door says of a caller, and what the caller hears.
async fn meet(shown: Option<Certified>) -> (io::Result<Shown>, io::Result<()>) {
    let tls = PeopleTls::new(&keyring());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let door = async {
        let (mut stream, shown) = tls.greet(listener.accept().await?.0).await?;
        stream.read_exact(&mut [0; 4]).await?;
        stream.write_all(b"pong").await?;
        stream.flush().await?;
        Ok(shown)
    };
    tokio::join!(door, call(&address, shown))
}

#[tokio::test]
async fn people_and_machines_are_told_apart() {
    let (shown, heard) = meet(Some(alice(&authority(1), time::Duration::HOUR))).await;
    heard.unwrap();
    match shown.unwrap() {
        Shown::Person(person) => {
            assert_eq!((person.name.as_str(), person.role), ("alice", PersonRole::Admin))
        }
        other => panic!("{other:?}"),
    }
    let m2 = MachineId::new("m2").unwrap();
    let issued = authority(1).issue(&m2, time::Duration::HOUR).unwrap();
    let (shown, heard) = meet(Some((issued.certificate, issued.key))).await;
    heard.unwrap();
    assert_eq!(shown.unwrap(), Shown::Machine(m2));
}

#[tokio::test]
async fn who_has_no_good_certificate_hears_why() {
    let check = async |shown, expected: &str| {
        let (door, heard) = meet(shown).await;
        let heard = heard.unwrap_err().to_string();
        assert!(door.is_err() && heard.contains(expected), "{expected}: {door:?}, {heard}");
    };
    check(Some(alice(&authority(1), -2 * time::Duration::SECOND)), "CertificateExpired").await;
    check(Some(alice(&authority(2), time::Duration::HOUR)), "DecryptError").await;
    check(Some(self_signed()), "UnknownCA").await;
    check(None, "CertificateRequired").await;
}

#[tokio::test]
async fn no_person_gets_to_the_machines_port() {
    let mut listener = Tls::new(keyring()).listen("127.0.0.1:0").await.unwrap();
    let address = listener.address().unwrap();
    tokio::select! {
        came = listener.accept() => panic!("{:?} came in", came.map(|(_, caller)| caller)),
        heard = call(&address, Some(alice(&authority(1), time::Duration::HOUR))) => {
            assert!(heard.is_err(), "nothing was answered");
        }
    }
    // And none is taken for a machine that is called.
    let (certificate, key) = alice(&authority(1), time::Duration::HOUR);
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let pretend = async {
        let stream = listener.accept().await.unwrap().0;
        TlsAcceptor::from(Arc::new(config)).accept(stream).await.map(drop)
    };
    let (_, called) = tokio::join!(pretend, async { Tls::new(keyring()).connect(&address).await.map(drop) });
    assert!(called.is_err(), "a person's certificate is for calling only");
}
