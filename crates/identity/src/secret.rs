//! The cluster's secret: a file with the same content on every machine.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ring::{aead, hkdf};

/// Whoever reaches the port is shown a certificate, and can try secrets against it for as long as they like:
/// it has to be a random one, and 32 characters of base64 are 192 bits.
pub const SECRET_BYTES_MIN: usize = 32;
/// Of the whole file.
const SECRET_BYTES_MAX: u64 = 4096;
const MAKE_ONE: &str = "make one with `head -c 32 /dev/urandom | base64`";

/// Never printed, never sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

/// Why a secret cannot be used; the secret itself is never in it.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("cannot read {}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} can be read by others than its owner; use `chmod 600 {}`", path.display(), path.display())]
    Open { path: PathBuf },
    #[error("the secret has {bytes} bytes, and {SECRET_BYTES_MIN} are the least; {MAKE_ONE}")]
    Short { bytes: usize },
    #[error("the secret is larger than {SECRET_BYTES_MAX} bytes; {MAKE_ONE}")]
    Long,
    #[error("this was sealed with another secret, or is damaged")]
    Unsealable,
    #[error("the system gives no random numbers")]
    NoRandomness,
}

impl Secret {
    /// The content of a file that only its owner can read, without the space around it.
    pub fn read(path: &Path) -> Result<Secret, SecretError> {
        let unreadable = |source| SecretError::Unreadable { path: path.into(), source };
        let file = File::open(path).map_err(unreadable)?;
        if file.metadata().map_err(unreadable)?.mode() & 0o077 != 0 {
            return Err(SecretError::Open { path: path.into() });
        }
        let mut bytes = Vec::new();
        file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        Secret::new(&bytes)
    }

    pub fn new(bytes: &[u8]) -> Result<Secret, SecretError> {
        if bytes.len() as u64 > SECRET_BYTES_MAX {
            return Err(SecretError::Long);
        }
        let bytes = bytes.trim_ascii();
        match bytes.len() {
            ..SECRET_BYTES_MIN => Err(SecretError::Short { bytes: bytes.len() }),
            _ => Ok(Secret(bytes.to_vec())),
        }
    }

    /// A new one, by chance: 256 bits, written in hexadecimal.
    pub fn random() -> Result<Secret, SecretError> {
        let mut bytes = [0; 32];
        let filled = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes);
        filled.map_err(|_| SecretError::NoRandomness)?;
        Ok(Secret(hex(&bytes).into_bytes()))
    }

    /// For the file that it is kept in, and for a machine that is let in.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Another secret, for those to read who know this one: in hexadecimal, nonce and tag included. `purpose`
    /// is no secret, and has to be the same for opening.
    pub fn seal(&self, other: &Secret, purpose: &str) -> Result<String, SecretError> {
        let mut nonce = [0; aead::NONCE_LEN];
        let filled = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut nonce);
        filled.map_err(|_| SecretError::NoRandomness)?;
        let mut sealed = other.0.clone();
        let unique = aead::Nonce::assume_unique_for_key(nonce);
        let about = aead::Aad::from(purpose.as_bytes());
        let done = self.sealing_key().seal_in_place_append_tag(unique, about, &mut sealed);
        done.map_err(|_| SecretError::Unsealable)?;
        Ok(hex(&[nonce.as_slice(), &sealed].concat()))
    }

    /// What was sealed with this secret for that purpose.
    pub fn open(&self, sealed: &str, purpose: &str) -> Result<Secret, SecretError> {
        let bytes = unhex(sealed).ok_or(SecretError::Unsealable)?;
        let (nonce, sealed) = bytes.split_first_chunk().ok_or(SecretError::Unsealable)?;
        let mut sealed = sealed.to_vec();
        let unique = aead::Nonce::assume_unique_for_key(*nonce);
        let about = aead::Aad::from(purpose.as_bytes());
        let opened = self.sealing_key().open_in_place(unique, about, &mut sealed);
        Secret::new(opened.map_err(|_| SecretError::Unsealable)?)
    }

    fn sealing_key(&self) -> aead::LessSafeKey {
        let key = self.derive("sealing of another secret, 1");
        let key = aead::UnboundKey::new(&aead::CHACHA20_POLY1305, &key).expect("32 bytes are a key");
        aead::LessSafeKey::new(key)
    }

    /// 32 bytes for one purpose, from which neither the secret nor those of another purpose can be found
    /// (HKDF-SHA256, RFC 5869).
    pub(crate) fn derive(&self, purpose: &str) -> [u8; 32] {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"coreinit cluster secret");
        let key = salt.extract(&self.0);
        let mut derived = [0; 32];
        key.expand(&[purpose.as_bytes()], hkdf::HKDF_SHA256)
            .and_then(|expanded| expanded.fill(&mut derived))
            .expect("one block of output is always there");
        derived
    }
}

/// Two digits a byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `None` when that is not what [`hex`] writes.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.iter().all(u8::is_ascii_hexdigit) || !digits.len().is_multiple_of(2) {
        return None;
    }
    let pairs = digits.chunks_exact(2).map(|pair| std::str::from_utf8(pair).ok());
    pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect()
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_a_private_file_with_a_long_secret_will_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let check = |content: &str, mode: u32, expected: Result<(), &str>| {
            let _ = fs::remove_file(&path);
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            match (Secret::read(&path), expected) {
                (Ok(_), Ok(())) => {}
                (Err(error), Err(part)) => {
                    let text = error.to_string();
                    assert!(text.contains(part), "{text}");
                    assert!(content.trim().is_empty() || !text.contains(content.trim()), "{text}");
                }
                (got, expected) => panic!("{got:?} for {expected:?}"),
            }
        };
        let good = "0123456789abcdef0123456789abcdef";
        check(good, 0o600, Ok(()));
        check(&format!("{good}\n"), 0o400, Ok(()));
        check(good, 0o640, Err("chmod 600"));
        check(good, 0o604, Err("can be read by others"));
        check("swordfish\n", 0o600, Err("the secret has 9 bytes"));
        check("", 0o600, Err("the secret has 0 bytes"));
        check(&"x".repeat(5000), 0o600, Err("larger than 4096"));
        assert!(Secret::read(&dir.path().join("none")).unwrap_err().to_string().contains("cannot read"));
        assert_eq!(
            Secret::new(good.as_bytes()).unwrap(),
            Secret::new(format!(" {good}\n").as_bytes()).unwrap()
        );
    }

    #[test]
    fn a_secret_is_sealed_for_those_who_know_another() {
        let [old, new, other] = [b'a', b'b', b'c'].map(|byte| Secret::new(&[byte; 40]).unwrap());
        let sealed = old.seal(&new, "1").unwrap();
        assert_eq!(old.open(&sealed, "1").unwrap(), new);
        assert_ne!(sealed, old.seal(&new, "1").unwrap(), "each with a nonce of its own");
        let damaged = format!("{}{}", if sealed.starts_with('0') { '1' } else { '0' }, &sealed[1..]);
        for (secret, text, purpose) in [
            (&other, &*sealed, "1"),
            (&old, &sealed, "2"),
            (&old, &damaged, "1"),
            (&old, "00", "1"),
            (&old, "é", "1"),
        ] {
            assert!(matches!(secret.open(text, purpose), Err(SecretError::Unsealable)), "{text}");
        }
        assert!(!sealed.contains(&hex(new.expose())));
    }

    #[test]
    fn a_secret_is_not_printed() {
        let secret = Secret::new(b"0123456789abcdef0123456789abcdef").unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        assert_ne!(secret.derive("a"), secret.derive("b"));
    }
}
