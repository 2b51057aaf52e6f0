//! Certificates of people: what is in them, and how they are made. One is told from a machine's
//! by the URI that
//! it names, `coreinit://person/NAME?role=ROLE`, and it is good for calling only, never for being called.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cluster::{PersonName, PersonRole};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType};
use rcgen::{PKCS_ED25519, SerialNumber};
use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};

use crate::authority::{Authority, CLOCK_SKEW, IssueError};

const PERSON_URI: &str = "coreinit://person/";

/// A person's certificate and key, as text. The key is nowhere else: whoever gets this hands it on and
/// forgets it.
pub struct IssuedPerson {
    pub certificate_pem: String,
    pub key_pem: String,
    pub fingerprint: String,
    pub not_after: OffsetDateTime,
}

/// Whose certificate it is, and what it says that they may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersonCertificate {
    pub name: PersonName,
    pub role: PersonRole,
    /// SHA-256 of it, in hex.
    pub fingerprint: String,
}

impl Authority {
    /// A new key, and the certificate that it is that person's, from now on for `lifetime`.
    pub fn issue_person(
        &self,
        name: &PersonName,
        role: PersonRole,
        lifetime: Duration,
    ) -> Result<IssuedPerson, IssueError> {
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let now = OffsetDateTime::now_utc();
        let mut params = CertificateParams::new(Vec::new())?;
        let uri = format!("{PERSON_URI}{name}?role={role}");
        params.subject_alt_names.push(SanType::URI(uri.try_into()?));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name.as_str());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(serial()?);
        params.not_before = now - CLOCK_SKEW;
        params.not_after = now + lifetime;
        let not_after = params.not_after;
        let certificate = params.signed_by(&key, &self.issuer)?.der().clone();
        Ok(IssuedPerson {
            certificate_pem: pem("CERTIFICATE", &certificate),
            key_pem: pem("PRIVATE KEY", &key.serialize_der()),
            fingerprint: fingerprint(&certificate),
            not_after,
        })
    }

    /// The certificate by which the cluster's machines are known, as text.
    pub fn certificate_pem(&self) -> String {
        pem("CERTIFICATE", self.certificate())
    }
}

/// Whose certificate it is. Only for one that was verified.
pub(crate) fn person_of(certificate: &CertificateDer<'_>) -> Option<PersonCertificate> {
    let fingerprint = fingerprint(certificate);
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    let person = certificate.valid_uri_names().find_map(|uri| {
        let (name, role) = uri.strip_prefix(PERSON_URI)?.split_once("?role=")?;
        Some((PersonName::new(name).ok()?, role.parse().ok()?))
    });
    let (name, role) = person?;
    Some(PersonCertificate { name, role, fingerprint })
}

/// RFC 5280: a positive number that the authority has not used before, of at most 20 bytes.
fn serial() -> Result<SerialNumber, IssueError> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| rcgen::Error::RingUnspecified)?;
    bytes[0] &= 0x7f;
    Ok(SerialNumber::from_slice(&bytes))
}

fn fingerprint(certificate: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, certificate);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// RFC 7468.
fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}

#[cfg(test)]
mod tests {
    use cluster::MachineId;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;
    use crate::authority::machine_of;
    use crate::secret::Secret;

    #[test]
    fn a_person_is_no_machine_and_a_machine_no_person() {
        let authority = Authority::of(&Secret::new(&[1; 32]).unwrap()).unwrap();
        let name = PersonName::new("alice@example.org").unwrap();
        let issued = authority.issue_person(&name, PersonRole::Operator, Duration::DAY).unwrap();
        let certificate = CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).unwrap();
        let person = person_of(&certificate).unwrap();
        assert_eq!((person.name, person.role), (name, PersonRole::Operator));
        assert_eq!(person.fingerprint, issued.fingerprint);
        assert_eq!(machine_of(&certificate), None);
        PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap();

        let machine = MachineId::new("m1").unwrap();
        assert_eq!(person_of(&authority.issue(&machine, Duration::DAY).unwrap().certificate), None);
        let own = CertificateDer::from_pem_slice(authority.certificate_pem().as_bytes()).unwrap();
        assert_eq!((&own, person_of(&own)), (authority.certificate(), None));
    }
}
