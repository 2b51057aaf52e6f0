//! The cluster's certificate authority, which follows from its secret, and the certificates it gives.

use cluster::MachineId;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

use crate::secret::{Secret, hex};

/// What every certificate of a machine is valid for, whatever the machine's address: machines are known by
/// their ids.
pub(crate) const SERVER_NAME: &str = "machine.coreinit.internal";
const MACHINE_URI: &str = "coreinit://machine/";

/// RFC 8410: what stands before an Ed25519 seed in its PKCS #8 form.
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Machines' clocks may differ by so much.
pub(crate) const CLOCK_SKEW: Duration = Duration::days(1);

/// Makes certificates. Two that come from one secret are the same.
pub struct Authority {
    certificate: CertificateDer<'static>,
    pub(crate) issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
pub struct Issued {
    pub certificate: CertificateDer<'static>,
    pub key: PrivateKeyDer<'static>,
    pub not_after: OffsetDateTime,
}

/// Why no certificate was made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a certificate")]
pub struct IssueError(#[from] rcgen::Error);

impl Authority {
    pub fn of(secret: &Secret) -> Result<Authority, IssueError> {
        let mut pkcs8 = PKCS8_PREFIX.to_vec();
        pkcs8.extend(secret.derive("certificate authority key, 1"));
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(pkcs8), &PKCS_ED25519)?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "coreinit cluster");
        // The same on every machine: with nothing of chance or of today in it, so is the certificate.
        params.serial_number = Some(SerialNumber::from(1));
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2120, 1, 1);
        let certificate = params.self_signed(&key)?.der().clone();
        Ok(Authority { certificate, issuer: Issuer::new(params, key) })
    }

    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// SHA-256 of the certificate, in hexadecimal: tells one authority from another, and gives nothing away.
    pub fn digest(&self) -> String {
        hex(ring::digest::digest(&ring::digest::SHA256, &self.certificate).as_ref())
    }

    /// A new key, and the certificate that it is that machine's, from now on for `lifetime`.
    pub fn issue(&self, machine: &MachineId, lifetime: Duration) -> Result<Issued, IssueError> {
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let now = OffsetDateTime::now_utc();
        let mut params = CertificateParams::new(vec![SERVER_NAME.into()])?;
        params.subject_alt_names.push(SanType::URI(format!("{MACHINE_URI}{machine}").try_into()?));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, machine.as_str());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = now - CLOCK_SKEW;
        params.not_after = now + lifetime;
        let not_after = params.not_after;
        let certificate = params.signed_by(&key, &self.issuer)?.der().clone();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        Ok(Issued { certificate, key, not_after })
    }
}

/// Whose certificate it is. Only for one that was verified.
pub(crate) fn machine_of(certificate: &CertificateDer<'_>) -> Option<MachineId> {
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    let names = certificate.valid_uri_names().filter_map(|uri| uri.strip_prefix(MACHINE_URI));
    names.filter_map(|name| MachineId::new(name).ok()).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.repeat(8).as_bytes()).unwrap()
    }

    #[test]
    fn one_secret_makes_one_authority() {
        let one = Authority::of(&secret("abcd")).unwrap();
        let same = Authority::of(&secret("abcd")).unwrap();
        let other = Authority::of(&secret("abce")).unwrap();
        assert_eq!(one.certificate(), same.certificate());
        assert_ne!(one.certificate(), other.certificate());
    }

    #[test]
    fn a_certificate_names_its_machine() {
        let authority = Authority::of(&secret("abcd")).unwrap();
        let machine = MachineId::new("898d10cf9463138e5b4743f5de1be174").unwrap();
        let issued = authority.issue(&machine, Duration::MINUTE).unwrap();
        assert_eq!(machine_of(&issued.certificate), Some(machine));
        assert_eq!(machine_of(authority.certificate()), None);
    }
}
