//! What lets a machine in that does not hold the secret yet: `coreinit-1-AUTHORITY-NAME-SECRET`.
//!
//! The first part tells the machine which cluster it is, before it says a word: the digest of the authority
//! that whoever answers must have his certificate from. The last part tells the cluster that the machine may
//! come in; it is never stored, only its digest is.

use std::fmt;
use std::str::FromStr;

use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::CertificateDer;

use crate::secret::{SecretError, hex};

const PREFIX: &str = "coreinit-1-";
/// Of the authority's digest; nobody finds a second certificate with the same 160 bits.
const AUTHORITY_BYTES: usize = 20;
const NAME_BYTES: usize = 5;
const SECRET_BYTES: usize = 16;

/// Printed once, when it is made.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    authority: String,
    name: String,
    secret: String,
}

/// Why a text is no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is no token, or not all of it: a token begins with {PREFIX} and has {} characters; `corectl token \
     create` on a member prints one",
    text_len()
)]
pub struct TokenError;

impl Token {
    /// A new one for the cluster of that authority.
    pub fn random(authority: &CertificateDer<'_>) -> Result<Token, SecretError> {
        let mut bytes = [0; NAME_BYTES + SECRET_BYTES];
        SystemRandom::new().fill(&mut bytes).map_err(|_| SecretError::NoRandomness)?;
        let (name, secret) = bytes.split_at(NAME_BYTES);
        Ok(Token { authority: authority_digest(authority), name: hex(name), secret: hex(secret) })
    }

    /// What it is known by in lists; gives nothing away.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What tells the cluster that its holder may come in.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// The digest of that, which is all that is stored.
    pub fn digest(&self) -> String {
        secret_digest(&self.secret)
    }

    pub(crate) fn is_of(&self, authority: &CertificateDer<'_>) -> bool {
        authority_digest(authority) == self.authority
    }
}

/// Whether these two can be of a token: what anybody may send is looked at before anything is done with it.
pub(crate) fn is_plausible(name: &str, secret: &str) -> bool {
    let is_hex = |part: &str, bytes: usize| {
        part.len() == 2 * bytes && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    is_hex(name, NAME_BYTES) && is_hex(secret, SECRET_BYTES)
}

/// What is stored of a token's secret part.
pub fn secret_digest(secret: &str) -> String {
    hex(digest(&SHA256, secret.as_bytes()).as_ref())
}

fn authority_digest(certificate: &CertificateDer<'_>) -> String {
    hex(&digest(&SHA256, certificate).as_ref()[..AUTHORITY_BYTES])
}

const fn text_len() -> usize {
    PREFIX.len() + 2 * (AUTHORITY_BYTES + NAME_BYTES + SECRET_BYTES) + 2
}

/// All of it: only for the one who asked for a token.
impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}-{}-{}", self.authority, self.name, self.secret)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}, ..)", self.name)
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Token, TokenError> {
        let text = text.trim().to_ascii_lowercase();
        let rest = text.strip_prefix(PREFIX).ok_or(TokenError)?;
        let parts: Vec<&str> = rest.split('-').collect();
        let is_digest = |part: &str| {
            part.len() == 2 * AUTHORITY_BYTES && part.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        match parts[..] {
            [authority, name, secret] if is_digest(authority) && is_plausible(name, secret) => {
                Ok(Token { authority: authority.into(), name: name.into(), secret: secret.into() })
            }
            _ => Err(TokenError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::Authority;
    use crate::secret::Secret;

    #[test]
    fn a_token_is_read_as_it_was_printed_and_tells_only_its_name() {
        let authority = |byte| Authority::of(&Secret::new(&[byte; 32]).unwrap()).unwrap();
        let token = Token::random(authority(1).certificate()).unwrap();
        let text = token.to_string();
        assert_eq!(text.len(), text_len());
        assert_eq!(format!(" {text}\n").parse(), Ok(token.clone()));
        assert!(token.is_of(authority(1).certificate()) && !token.is_of(authority(2).certificate()));
        assert!(!format!("{token:?}").contains(token.secret()) && !token.digest().contains(token.secret()));
        for wrong in ["", "hello", &text[1..], &text[..text.len() - 1], &text.replace('-', "_")] {
            assert_eq!(wrong.parse::<Token>(), Err(TokenError), "{wrong}");
        }
    }
}
