//! Who may speak to whom: the cluster's secret, the certificate authority that follows from it, and TLS
//! between machines with both ends known.
//!
//! Every machine that holds the secret can make the authority, always the same one, and issues its own
//! certificate from it: there is nothing to hand around, and machines that start in any order trust each
//! other at first sight. Whoever does not hold the secret gets no byte past the handshake.
//!
//! People who are invited get certificates of the same authority, of another kind: [`PeopleTls`]
//! tells the two
//! apart, and [`Tls`] lets no person in.
//!
//! Called by the daemon, which gives [`Tls`] to the store as its transport, and [`PeopleTls`] to its API.

mod authority;
pub mod joining;
mod kept;
mod keyring;
mod people;
mod person;
mod secret;
mod tls;
mod token;

pub use authority::{Authority, IssueError};
pub use kept::{Kept, KeptError, KeptPhase, Move, Secrets, next_move};
pub use keyring::Keyring;
pub use people::{GREETING_TIMEOUT, Greeted, PeopleTls, Shown};
pub use person::{IssuedPerson, PersonCertificate};
pub use secret::{SECRET_BYTES_MIN, Secret, SecretError, hex, unhex};
pub use tls::Tls;
pub use token::{Token, TokenError, secret_digest};
