//! TLS to etcd: how it is set up, and what keeps it from being set up, in words that name the key of the
//! configuration to look at.

use std::error::Error;
use std::io;
use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{
    AlertDescription, CertificateError, ClientConfig, Error as TlsError, RootCertStore,
};

use crate::options::Tls;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn roots(tls: &Tls) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&tls.ca) {
        let certificate = certificate.map_err(|error| format!("etcd_ca_file: {error}"))?;
        roots.add(certificate).map_err(|error| format!("etcd_ca_file: {error}"))?;
    }
    match roots.is_empty() {
        true => Err("etcd_ca_file holds no certificate".into()),
        false => Ok(roots),
    }
}

fn chain(certificate: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
    chain.map_err(|error| format!("etcd_cert_file: {error}"))
}

pub fn connector(tls: &Tls) -> Result<TlsConnector, String> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots(tls)?);
    let config = match &tls.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let key =
                PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("etcd_key_file: {error}"))?;
            let made = builder.with_client_auth_cert(chain(certificate)?, key);
            made.map_err(|error| format!("etcd_key_file: {error}"))?
        }
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

/// What is wrong, if TLS is among the error's causes.
pub fn explained(error: &(dyn Error + 'static), tls: Option<&Tls>) -> Option<String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(reason) = error.downcast_ref::<TlsError>() {
            return Some(words(reason, tls));
        }
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

fn words(error: &TlsError, tls: Option<&Tls>) -> String {
    match error {
        TlsError::InvalidCertificate(why) => match why {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired".into()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet; compare its clock with this machine's".into()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "its certificate is for other names than the one in etcd_endpoints".into()
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "its certificate was made by nobody in etcd_ca_file".into()
            }
            other => format!("its certificate is refused: {other}"),
        },
        // Which alert it is depends on etcd's age: what is wrong with one's own certificate is seen here.
        TlsError::AlertReceived(
            AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateRequired
            | AlertDescription::AccessDenied,
        ) => own(tls),
        TlsError::InvalidMessage(_) => "it does not speak TLS: write http:// in etcd_endpoints".into(),
        other => format!("TLS: {other}"),
    }
}

/// etcd does not take the certificate that it was shown, or was shown none.
fn own(tls: Option<&Tls>) -> String {
    let Some(tls) = tls else { return "it refuses this machine's certificate (etcd_cert_file)".into() };
    let Some((certificate, _)) = &tls.identity else {
        return "it asks for a certificate: set etcd_cert_file and etcd_key_file".into();
    };
    let verified = chain(certificate).and_then(|chain| -> Result<(), String> {
        let (first, others) = chain.split_first().ok_or("etcd_cert_file holds no certificate")?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(tls)?), provider());
        let verifier: Arc<dyn ClientCertVerifier> = verifier.build().map_err(|error| error.to_string())?;
        // Only how long it is valid can be told from here: etcd may trust others than etcd_ca_file.
        match verifier.verify_client_cert(first, others, UnixTime::now()) {
            Err(TlsError::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            )) => Err("this machine's certificate has expired (etcd_cert_file)".into()),
            Err(TlsError::InvalidCertificate(
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
            )) => Err("this machine's certificate is not valid yet (etcd_cert_file): compare clocks".into()),
            _ => Ok(()),
        }
    });
    verified.err().unwrap_or_else(|| {
        "it refuses this machine's certificate (etcd_cert_file): it trusts whoever made it not, or not for \
         clients"
            .into()
    })
}
