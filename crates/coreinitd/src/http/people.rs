//! Who may use the cluster from afar: inviting, shutting out, and the list.

use std::sync::Arc;
use std::time::Duration;

use api::{Context, v1};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use cluster::{ClusterState, Command, Person, PersonName, PersonRole};
use identity::IssuedPerson;

use super::Room;
use super::audit::Noted;
use super::caller::Caller;
use super::error::Refusal;
use super::request::{Parameters, Payload, decode_body, expect_json};
use super::rotation::unrotating;
use super::v1::only;

/// Shorter, and it could be over before it is used.
const TTL_MIN: Duration = Duration::from_secs(60);
/// Ten years: beyond that, somebody has typed a digit too many.
const TTL_MAX: Duration = Duration::from_secs(3660 * 24 * 3600);
/// Of one context. More are no safer.
const ADDRESSES_MAX: usize = 64;
const ADDRESS_BYTES_MAX: usize = 260;

/// What callers may do who show no certificate, and whether certificates are made here.
pub struct Access {
    /// Of whoever can open a Unix socket and is not root; root may do everything.
    pub socket_role: PersonRole,
    /// Of whoever reaches a TCP port without TLS.
    pub tcp_role: PersonRole,
    /// How people are invited, or why they cannot be.
    pub invite: Result<Inviting, String>,
}

/// Makes a certificate for a person, for so long; with the authority's own, as PEM.
pub type IssuePerson =
    Arc<dyn Fn(&PersonName, PersonRole, Duration) -> Result<(IssuedPerson, String), String> + Send + Sync>;

pub struct Inviting {
    pub issue: IssuePerson,
    /// Where this daemon serves people who show certificates; taken to be the same on all machines.
    pub port: Option<u16>,
}

/// Those who can open a socket may do everything, as its mode says; those who only reach a port
/// of loopback may
/// be anybody on the machine, and are not to make themselves a certificate that lasts.
impl Default for Access {
    fn default() -> Access {
        Access {
            socket_role: PersonRole::Admin,
            tcp_role: PersonRole::Operator,
            invite: Err("this daemon has no cluster_secret_file, out of which certificates are made".into()),
        }
    }
}

pub(super) fn routes() -> Router<Arc<Room>> {
    Router::new()
        .route("/v1/cluster/invite", only("POST", post(invite)))
        .route("/v1/cluster/uninvite", only("POST", post(uninvite)))
        .route("/v1/cluster/people", only("GET", get(people)))
}

async fn invite(
    State(room): State<Arc<Room>>,
    Extension(caller): Extension<Caller>,
    Extension(noted): Extension<Noted>,
    headers: HeaderMap,
    Payload(body): Payload,
) -> Result<Json<Context>, Refusal> {
    expect_json(&headers)?;
    let wish: v1::Invite = decode_body(&body)?;
    noted.asked([format!("invite {} as {} for {} s", wish.name, wish.role, wish.ttl)]);
    if !caller.is_private() {
        return Err(Refusal::Invalid(
            "the key would travel unencrypted; invite over a Unix socket, or with a certificate of your own"
                .into(),
        ));
    }
    let ttl = Duration::from_secs(wish.ttl);
    if !(TTL_MIN..=TTL_MAX).contains(&ttl) {
        return Err(Refusal::Invalid("a certificate lasts a minute at least, and ten years at most".into()));
    }
    let inviting = room.parts.access.invite.as_ref().map_err(|why| Refusal::NoInvitations(why.clone()))?;
    let state = room.read(false).await?;
    let cluster =
        state.cluster.as_ref().ok_or_else(|| Refusal::NoInvitations("there is no cluster".into()))?;
    let addresses = match wish.addresses.is_empty() {
        true => addresses(&room, &state, inviting.port)?,
        false => given(wish.addresses)?,
    };
    unrotating(&state)?;
    let (issued, authority) = (inviting.issue)(&wish.name, wish.role, ttl).map_err(Refusal::NoInvitations)?;
    let expires = u64::try_from(issued.not_after.unix_timestamp()).unwrap_or_default();
    let (role, fingerprint) = (wish.role, issued.fingerprint);
    let person = Person { role, fingerprint, expires, invited_by: caller.to_string() };
    let (name, replace) = (wish.name.clone(), wish.replace);
    for outcome in room.propose(vec![Command::InvitePerson { name, person, replace }]).await?.outcomes {
        outcome?;
    }
    Ok(Json(Context {
        version: Context::version(),
        cluster: cluster.name.clone(),
        cluster_id: cluster.id.clone(),
        person: wish.name,
        role,
        expires,
        addresses,
        authority,
        certificate: issued.certificate_pem,
        key: issued.key_pem,
    }))
}

fn given(addresses: Vec<String>) -> Result<Vec<String>, Refusal> {
    let is_good = |address: &String| {
        let port = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        address.len() <= ADDRESS_BYTES_MAX
            && !address.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/')
            && port.is_some_and(|(host, _)| !host.is_empty())
    };
    match addresses.iter().find(|address| !is_good(address)) {
        Some(bad) => Err(Refusal::Invalid(format!("{bad:?} is no address; write HOST:PORT"))),
        None if addresses.len() > ADDRESSES_MAX => {
            Err(Refusal::Invalid(format!("at most {ADDRESSES_MAX} addresses go into one invitation")))
        }
        None => Ok(addresses),
    }
}

/// Every machine's, this one's first.
fn addresses(room: &Room, state: &ClusterState, port: Option<u16>) -> Result<Vec<String>, Refusal> {
    let port = port.ok_or_else(|| {
        Refusal::NoInvitations(
            "this daemon listens on loopback alone and serves nobody from afar; set `listen` or \
             api_tls_listen on the machines, or name where people reach the cluster with --address HOST:PORT"
                .into(),
        )
    })?;
    let own = state.machines.get(&room.parts.machine);
    let others = state.machines.iter().filter(|(id, _)| **id != room.parts.machine).map(|(_, m)| m);
    let known = own.into_iter().chain(others).map(|machine| machine.info.address.as_str());
    let known = known.filter(|address| !address.is_empty()).take(ADDRESSES_MAX);
    let addresses: Vec<String> = known
        .map(|address| match address.contains(':') {
            true => format!("[{address}]:{port}"),
            false => format!("{address}:{port}"),
        })
        .collect();
    match addresses.is_empty() {
        true => Err(Refusal::NoInvitations(
            "no machine's address is known; name where people reach the cluster with --address HOST:PORT"
                .into(),
        )),
        false => Ok(addresses),
    }
}

async fn uninvite(
    State(room): State<Arc<Room>>,
    Extension(noted): Extension<Noted>,
    headers: HeaderMap,
    Payload(body): Payload,
) -> Result<Json<serde_json::Value>, Refusal> {
    expect_json(&headers)?;
    let v1::Uninvite { name } = decode_body(&body)?;
    noted.asked([format!("uninvite {name}")]);
    for outcome in room.propose(vec![Command::RemovePerson { name }]).await?.outcomes {
        outcome?;
    }
    Ok(Json(serde_json::json!({})))
}

async fn people(State(room): State<Arc<Room>>, query: Parameters) -> Result<Json<v1::People>, Refusal> {
    let state = room.read(query.stale()?).await?;
    let people = state.people.iter().map(|(name, person)| v1::Person {
        name: name.clone(),
        role: person.role,
        expires: person.expires,
        invited_by: person.invited_by.clone(),
    });
    Ok(Json(v1::People { revision: state.revision, people: people.collect() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_a_port() {
        let check = |address: &str| given(vec![address.into()]).is_ok();
        assert!(check("h1:7421") && check("10.0.0.1:1") && check("[2001:db8::1]:7421"));
        for bad in ["", "h1", ":7421", "h1:", "h1:port", "h 1:7421", "https://h1:7421", "h1:70000"] {
            assert!(!check(bad), "{bad}");
        }
    }
}
