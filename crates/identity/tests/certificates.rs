//! Certificates that are not the cluster's, shown to a machine by whoever calls it, and by whomever it calls:
//! none gets it to say a word.

use std::sync::Arc;
use std::time::Duration;

use cluster::MachineId;
use identity::{Authority, Keyring, Secret, Tls};
use raft::{Caller, Transport};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, PKCS_ED25519, SanType};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

const LIMIT: Duration = Duration::from_secs(20);
/// What the certificates of all machines are valid for.
const SERVER_NAME: &str = "machine.coreinit.internal";
const HOUR: time::Duration = time::Duration::HOUR;

type Certified = (CertificateDer<'static>, PrivateKeyDer<'static>);

fn authority(secret: u8) -> Authority {
    Authority::of(&Secret::new(&[secret; 32]).unwrap()).unwrap()
}

fn id(machine: &str) -> MachineId {
    MachineId::new(machine).unwrap()
}

fn issued(secret: u8, lifetime: time::Duration) -> Certified {
    let issued = authority(secret).issue(&id("m2"), lifetime).unwrap();
    (issued.certificate, issued.key)
}

/// Says all that a machine's certificate says, and nobody has signed it.
fn self_signed() -> Certified {
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let mut params = CertificateParams::new(vec![SERVER_NAME.into()]).unwrap();
    params.subject_alt_names.push(SanType::URI("coreinit://machine/m2".to_string().try_into().unwrap()));
    params.distinguished_name.push(DnType::CommonName, "coreinit cluster");
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.self_signed(&key).unwrap().der().clone();
    (certificate, PrivateKeyDer::Pkcs8(key.serialize_der().into()))
}

/// In turn: a good one, and all that are not.
fn all() -> [(&'static str, Certified); 4] {
    [
        ("good", issued(1, HOUR)),
        ("expired", issued(1, -5 * time::Duration::SECOND)),
        ("self-signed", self_signed()),
        ("another authority's", issued(2, HOUR)),
    ]
}

fn machine() -> Tls {
    Tls::new(Keyring::new(authority(1), id("m1")).unwrap())
}

/// Calls a machine with that certificate, and says a word. What it hears, to the byte.
async fn heard_by_caller(shown: Certified) -> (Vec<u8>, Option<Caller>) {
    let mut listener = machine().listen("127.0.0.1:0").await.unwrap();
    let address = listener.address().unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(authority(1).certificate().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![shown.0, authority(1).certificate().clone()], shown.1)
        .unwrap();
    let call = async {
        let stream = TcpStream::connect(&address).await.unwrap();
        let name = ServerName::try_from(SERVER_NAME).unwrap();
        let mut heard = Vec::new();
        if let Ok(mut stream) = TlsConnector::from(Arc::new(config)).connect(name, stream).await {
            // In TLS 1.3 who is not wanted hears so after the first word.
            let _ = stream.write_all(b"ping").await;
            let _ = stream.read_to_end(&mut heard).await;
        }
        heard
    };
    let (sender, mut callers) = mpsc::channel(1);
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let (mut stream, caller) = listener.accept().await.unwrap();
        // It was let in before it could hear anything.
        sender.send(caller).await.unwrap();
        stream.write_all(b"pong").await.unwrap();
        stream.shutdown().await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let heard = timeout(LIMIT, call).await.unwrap();
    (heard, callers.try_recv().ok())
}

/// Is called by a machine, and shows it that certificate. What the machine says.
async fn heard_by_called(shown: Certified) -> Result<Vec<u8>, String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![shown.0, authority(1).certificate().clone()], shown.1)
        .unwrap();
    let answer = async {
        let stream = listener.accept().await.unwrap().0;
        let mut heard = Vec::new();
        let mut stream =
            TlsAcceptor::from(Arc::new(config)).accept(stream).await.map_err(|e| e.to_string())?;
        stream.read_to_end(&mut heard).await.map_err(|e| e.to_string())?;
        Ok(heard)
    };
    let call = async {
        let mut stream = machine().connect(&address).await.map_err(|error| error.to_string())?;
        stream.write_all(b"ping").await.unwrap();
        stream.shutdown().await.unwrap();
        Ok::<_, String>(())
    };
    let (heard, called) = timeout(LIMIT, async { tokio::join!(answer, call) }).await.unwrap();
    called.and(heard)
}

#[tokio::test]
async fn who_calls_with_a_bad_certificate_hears_nothing() {
    for (what, certified) in all() {
        let (heard, caller) = heard_by_caller(certified).await;
        match what {
            "good" => assert_eq!((&heard[..], caller), (&b"pong"[..], Some(Caller::Machine(id("m2"))))),
            _ => assert!(heard.is_empty() && caller.is_none(), "{what}: {heard:?} for {caller:?}"),
        }
    }
}

#[tokio::test]
async fn who_is_called_and_shows_a_bad_certificate_hears_nothing() {
    for (what, certified) in all() {
        match (what, heard_by_called(certified).await) {
            ("good", heard) => assert_eq!(heard.as_deref(), Ok(&b"ping"[..])),
            (_, heard) => assert!(heard.is_err(), "{what}: {heard:?}"),
        }
    }
}
