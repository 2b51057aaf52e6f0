//! Who belongs to the cluster: members, tokens, and the way in and out.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use api::membership::{
    ClusterJoin, MemberView, Members, NewToken, Part, Removal, TokenView, TokenWish, Tokens,
};
use api::v1;
use async_trait::async_trait;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::{get, post};
use axum::{Json, Router};
use cluster::{ClusterState, Command, Expelled, Liveness, MachineId, Rejected, RotationStep, Token};

use super::error::Refusal;
use super::request::{Name, Payload, decode_body, expect_json};
use super::rotation::unrotating;
use super::v1::{only, status_of};
use super::{READ_DEADLINE, Room};

/// Longer is as good as for ever.
const TTL_MAX: u64 = 10 * 366 * 86_400;

/// What the daemon around this room can do about its own membership, where machines have one.
#[async_trait]
pub trait Membership: Send + Sync + 'static {
    /// Shows the token to the first member that answers. When it was good, the daemon begins anew, as a
    /// machine that joins.
    async fn join(&self, wish: ClusterJoin) -> Result<(), String>;
    /// A new token for the cluster of this machine.
    fn make_token(&self) -> Result<MadeToken, String>;
    /// The beginning of a change of the cluster's authority, to that secret or to one that is made here.
    fn rotation(&self, secret: Option<&[u8]>) -> Result<RotationStep, String>;
    /// Where this machine lets others in.
    fn address(&self) -> String;
}

/// A token, before the cluster knows of it.
pub struct MadeToken {
    pub text: String,
    pub name: String,
    pub digest: String,
}

pub(super) fn routes() -> Router<Arc<Room>> {
    Router::new()
        .route("/v1/cluster/join", only("POST", post(join)))
        .route("/v1/cluster/members", only("GET", get(members)))
        .route("/v1/cluster/tokens", only("GET and POST", get(tokens).post(create_token)))
        .route("/v1/cluster/tokens/{name}/revoke", only("POST", post(revoke_token)))
        .route("/v1/machines/{name}/remove", only("POST", post(remove)))
        .route("/v1/machines/{name}/readmit", only("POST", post(readmit)))
}

impl Room {
    pub(super) fn membership(&self) -> Result<&dyn Membership, Refusal> {
        let none = "with backend = \"etcd\" every machine that reaches the etcd belongs to the cluster, and \
                    there is nothing to join";
        self.parts.membership.as_deref().ok_or_else(|| Refusal::Nowhere(none.into()))
    }

    pub(super) async fn propose_one(&self, command: Command) -> Result<(), Refusal> {
        let committed = self.propose(vec![command]).await?;
        committed.outcomes.into_iter().next().transpose()?;
        Ok(())
    }
}

async fn join(
    State(room): State<Arc<Room>>,
    headers: HeaderMap,
    Payload(body): Payload,
) -> Result<Json<v1::Status>, Refusal> {
    expect_json(&headers)?;
    let join: ClusterJoin = decode_body(&body)?;
    if join.addresses.is_empty() {
        return Err(Refusal::Invalid("no address of a member is given".into()));
    }
    room.membership()?.join(join).await.map_err(Refusal::Nowhere)?;
    Ok(Json(status_of(&room)))
}

async fn members(State(room): State<Arc<Room>>) -> Result<Json<Members>, Refusal> {
    let state = room.parts.store.state().borrow().clone();
    let seen = room.parts.store.members(room.leaderless.deadline(READ_DEADLINE).await).await?;
    let members = seen.into_iter().map(|member| {
        let info = state.machines.get(&member.machine).map(|machine| machine.info.clone());
        let info = info.unwrap_or_default();
        MemberView {
            name: info.name,
            version: info.version,
            address: member.address,
            part: match (member.leads, member.votes) {
                (true, _) => Part::Leader,
                (false, true) => Part::Voter,
                (false, false) => Part::Learner,
            },
            lag: member.lag,
            silent_ms: member.silence.as_millis().try_into().unwrap_or(u64::MAX),
            machine: member.machine,
        }
    });
    Ok(Json(Members { members: members.collect() }))
}

async fn create_token(
    State(room): State<Arc<Room>>,
    headers: HeaderMap,
    Payload(body): Payload,
) -> Result<Json<NewToken>, Refusal> {
    expect_json(&headers)?;
    let wish: TokenWish = decode_body(&body)?;
    if wish.ttl.is_some_and(|ttl| ttl == 0 || ttl > TTL_MAX) {
        return Err(Refusal::Invalid(format!("a token lives from 1 to {TTL_MAX} seconds, or without end")));
    }
    if wish.uses == Some(0) {
        return Err(Refusal::Invalid("a token that lets in no machine is of no use".into()));
    }
    let membership = room.membership()?;
    unrotating(&*room.read(false).await?)?;
    let made = membership.make_token().map_err(Refusal::Nowhere)?;
    let created_at = now();
    let expires_at = wish.ttl.map(|ttl| created_at + ttl);
    let (digest, used_by) = (made.digest, BTreeSet::new());
    let token = Token { digest, created_at, expires_at, uses_left: wish.uses, used_by };
    room.propose_one(Command::CreateToken { id: made.name.clone(), token }).await?;
    let address = membership.address();
    Ok(Json(NewToken { token: made.text, name: made.name, address, expires_at, uses: wish.uses }))
}

async fn tokens(State(room): State<Arc<Room>>) -> Result<Json<Tokens>, Refusal> {
    let state = room.read(false).await?;
    let view = |(name, token): (&String, &Arc<Token>)| TokenView {
        name: name.clone(),
        created_at: token.created_at,
        expires_at: token.expires_at,
        uses_left: token.uses_left,
        used_by: token.used_by.iter().cloned().collect(),
    };
    Ok(Json(Tokens { tokens: state.tokens.iter().map(view).collect() }))
}

async fn revoke_token(State(room): State<Arc<Room>>, Name(name): Name) -> Result<(), Refusal> {
    room.propose_one(Command::RevokeToken { id: name }).await
}

/// Whether a machine may be removed, and if not, the way to it.
fn removable(
    state: &ClusterState,
    machine: &MachineId,
    own: &MachineId,
    force: bool,
) -> Result<Expelled, Refusal> {
    let known = state.machines.get(machine);
    let known = known.ok_or_else(|| Rejected::MachineUnknown { machine: machine.clone() })?;
    let name = known.info.name.clone();
    if state.machines.len() == 1 {
        return Err(Refusal::Nowhere(format!(
            "{name} is the cluster's last machine; without it there is no cluster. `corectl destroy` its \
             units and stop its daemon instead"
        )));
    }
    if known.liveness == Liveness::Ready && machine != own && !force {
        return Err(Refusal::Nowhere(format!(
            "{name} is alive: run `corectl cluster leave` there, which moves its units away first; or use \
             --force, and its units are started anew elsewhere"
        )));
    }
    let assigned = state.assignments.iter().filter(|(_, a)| a.machine == *machine).count();
    if assigned > 0 && machine == own && !force {
        return Err(Refusal::Nowhere(format!(
            "{assigned} units are on {name}; `corectl drain {name}` moves them away, and --force takes them \
             from it even if they can run nowhere else"
        )));
    }
    Ok(Expelled { at: now(), name })
}

async fn remove(
    State(room): State<Arc<Room>>,
    Name(name): Name,
    headers: HeaderMap,
    Payload(body): Payload,
) -> Result<(), Refusal> {
    expect_json(&headers)?;
    let removal: Removal = decode_body(&body)?;
    let machine = machine_id(&name)?;
    let state = room.read(false).await?;
    if state.expelled.contains_key(&machine) && !state.machines.contains_key(&machine) {
        return Ok(());
    }
    let expelled = removable(&state, &machine, &room.parts.machine, removal.force)?;
    // No new units come from here on, so those that are there now are all.
    room.propose_one(Command::SetSchedulable { id: machine.clone(), schedulable: false }).await?;
    let state = room.read(false).await?;
    let mut commands: Vec<Command> = state
        .assignments
        .iter()
        .filter(|(_, assignment)| assignment.machine == machine)
        .map(|(unit, _)| Command::Unassign { unit: unit.clone(), machine: machine.clone() })
        .collect();
    commands.push(Command::Expel { machine: machine.clone(), expelled });
    commands.push(Command::RemoveMachine { id: machine });
    let committed = room.propose(commands).await?;
    // A unit that has left meanwhile is as good as one that was taken away.
    for outcome in committed.outcomes.into_iter().rev().take(2) {
        outcome?;
    }
    Ok(())
}

async fn readmit(State(room): State<Arc<Room>>, Name(name): Name) -> Result<(), Refusal> {
    room.propose_one(Command::Readmit { machine: machine_id(&name)? }).await
}

fn machine_id(text: &str) -> Result<MachineId, Refusal> {
    MachineId::new(text).map_err(|error| Refusal::Invalid(error.to_string()))
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
