//! Who calls: what each door knows of its callers, and the role that follows from it. It is found anew for
//! each request, so that whoever is shut out is shut out at once.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::response::Response;
use cluster::{ClusterState, MachineId, PersonRole};
use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt};
use futures::stream;
use hyper::body::Body as _;
use identity::{PersonCertificate, Shown};
use tokio::net::UnixStream;
use tokio::time::{Duration, sleep};

use super::Room;
use super::error::Refusal;

/// How long one looks ahead for a certificate's end; then it is looked at again, since the wall clock may
/// have been set.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// The other end of one connection. Kept in each request's extensions; a request without one is nobody's.
#[derive(Clone, Debug)]
pub struct Caller {
    who: Who,
    /// The socket's path, or the other end's address.
    address: Arc<str>,
}

#[derive(Clone, Debug)]
enum Who {
    /// A process of this machine, over a Unix socket.
    Local {
        uid: u32,
        pid: Option<i32>,
    },
    /// Over TCP without TLS.
    Anonymous,
    Person(PersonCertificate),
    /// A machine has its own port, and nothing to ask for here.
    Machine(MachineId),
    Nobody,
}

impl Caller {
    /// A process of this machine.
    pub fn local(uid: u32, pid: Option<i32>, socket: &str) -> Caller {
        Caller { who: Who::Local { uid, pid }, address: socket.into() }
    }

    pub(super) fn of_socket(stream: &UnixStream, path: Option<&Path>) -> Caller {
        let address: Arc<str> = path.map(|path| path.display().to_string()).unwrap_or_default().into();
        let who = match stream.peer_cred() {
            Ok(cred) => Who::Local { uid: cred.uid(), pid: cred.pid() },
            // The kernel always knows; if it does not say, nobody is let in.
            Err(_) => Who::Nobody,
        };
        Caller { who, address }
    }

    pub fn anonymous(from: SocketAddr) -> Caller {
        Caller { who: Who::Anonymous, address: from.to_string().into() }
    }

    pub(super) fn nobody() -> Caller {
        Caller { who: Who::Nobody, address: "".into() }
    }

    pub(super) fn shown(shown: Shown, from: SocketAddr) -> Caller {
        let who = match shown {
            Shown::Person(person) => Who::Person(person),
            Shown::Machine(machine) => Who::Machine(machine),
            Shown::Nobody => Who::Nobody,
        };
        Caller { who, address: from.to_string().into() }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// A process of this machine.
    pub(super) fn is_local(&self) -> bool {
        matches!(self.who, Who::Local { .. })
    }

    /// What goes to them is read by nobody on the way.
    pub(super) fn is_private(&self) -> bool {
        match &self.who {
            Who::Anonymous => {
                self.address.parse().is_ok_and(|at: SocketAddr| at.ip().to_canonical().is_loopback())
            }
            Who::Local { .. } | Who::Person(_) | Who::Machine(_) | Who::Nobody => true,
        }
    }

    /// What they may do now. A certificate that this machine does not know may have been made a moment ago,
    /// so the leader is asked before it is refused.
    pub(super) async fn role(&self, room: &Room) -> Result<PersonRole, Refusal> {
        let access = &room.parts.access;
        match &self.who {
            Who::Local { uid: 0, .. } => Ok(PersonRole::Admin),
            Who::Local { .. } => Ok(access.socket_role),
            Who::Anonymous => Ok(access.tcp_role),
            Who::Person(person) => {
                let known = admits(&room.parts.store.state().borrow(), person, now());
                match known {
                    Ok(()) => Ok(person.role),
                    Err(_) => admits(&*room.read(false).await?, person, now()).map(|()| person.role),
                }
            }
            Who::Machine(machine) => Err(Refusal::NotForMachines(machine.clone())),
            Who::Nobody => Err(Refusal::NobodyKnown),
        }
    }

    /// An answer that goes on for as long as one likes ends when its reader is shut out.
    pub(super) fn watched(&self, room: &Room, response: Response) -> Response {
        let Who::Person(person) = &self.who else { return response };
        if response.body().size_hint().exact().is_some() {
            return response;
        }
        let gone = gone(room, person.clone());
        response.map(|body| {
            let pieces = body.into_data_stream();
            Body::from_stream(stream::unfold(Some((pieces, gone)), |open| async move {
                let (mut pieces, mut gone) = open?;
                tokio::select! {
                    biased;
                    // Cancel-safe: both only wait, and are kept.
                    () = &mut gone => Some((Err(axum::Error::new(Refusal::NobodyKnown)), None)),
                    piece = pieces.next() => piece.map(|piece| (piece, Some((pieces, gone)))),
                }
            }))
        })
    }
}

/// Until the person's certificate counts no more.
fn gone(room: &Room, person: PersonCertificate) -> BoxFuture<'static, ()> {
    let mut states = room.parts.store.state();
    async move {
        loop {
            let admitted = admits(&states.borrow_and_update(), &person, now()).is_ok();
            if !admitted {
                return;
            }
            tokio::select! {
                // Cancel-safe: both only wait.
                changed = states.changed() => if changed.is_err() { return },
                () = sleep(LOOK_INTERVAL) => {}
            }
        }
    }
    .boxed()
}

/// Whether the person is invited, with that very certificate.
fn admits(state: &ClusterState, person: &PersonCertificate, now: u64) -> Result<(), Refusal> {
    let PersonCertificate { name, role, fingerprint } = person;
    match state.people.get(name) {
        None => Err(Refusal::ShutOut { name: name.clone(), role: *role }),
        Some(known) if known.fingerprint != *fingerprint || known.role != *role => {
            Err(Refusal::CertificateReplaced { name: name.clone() })
        }
        Some(known) if known.expires <= now => {
            Err(Refusal::CertificateExpired { name: name.clone(), role: *role })
        }
        Some(_) => Ok(()),
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// As the audit and messages name them.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.who {
            Who::Local { uid, pid } => {
                write!(f, "uid {uid}")?;
                let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
                if let Some(user) = user_name(&users, *uid) {
                    write!(f, " ({user})")?;
                }
                pid.map_or(Ok(()), |pid| write!(f, ", pid {pid}"))
            }
            Who::Anonymous => f.write_str("anonymous"),
            Who::Person(person) => write!(f, "{}", person.name),
            Who::Machine(machine) => write!(f, "machine {machine}"),
            Who::Nobody => f.write_str("nobody"),
        }
    }
}

/// From the text of passwd(5).
fn user_name(users: &str, uid: u32) -> Option<&str> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use cluster::{Change, Person, PersonName};

    use super::*;

    #[test]
    fn users_are_found_in_passwd_5() {
        let text = "root:x:0:0:root:/root:/bin/bash\nbroken\nalice:x:1000:1000::/home/alice:/bin/sh\n";
        assert_eq!(user_name(text, 1000), Some("alice"));
        assert_eq!(user_name(text, 0), Some("root"));
        assert_eq!(user_name(text, 1), None);
    }

    #[test]
    fn only_the_certificate_that_was_invited_counts() {
        let name = PersonName::new("alice").unwrap();
        let mut state = ClusterState::default();
        let role = PersonRole::Viewer;
        let (fingerprint, invited_by) = ("f".to_string(), String::new());
        let known = Person { role, fingerprint, expires: 100, invited_by };
        state.put(Change::Person(name.clone(), Some(known)));
        let check = |name: &str, role, fingerprint: &str, now, expected: &str| {
            let name = PersonName::new(name).unwrap();
            let shown = PersonCertificate { name, role, fingerprint: fingerprint.into() };
            let told = admits(&state, &shown, now).err().map(|error| error.to_string());
            assert!(told.as_deref().unwrap_or("let in").contains(expected), "{told:?}");
        };
        check("alice", role, "f", 99, "let in");
        check("alice", role, "f", 100, "has expired");
        check("alice", role, "g", 99, "was replaced");
        check("alice", PersonRole::Admin, "f", 99, "was replaced");
        check("bob", role, "f", 99, "is not invited, or no longer");
    }
}
