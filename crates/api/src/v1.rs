//! Our own API: batches, whole views of units and machines, and a stream of their changes.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/status` | [`Status`] of the daemon that answers |
//! | `GET /v1/units[?stale=true][&unit=NAME]...` | [`Units`] |
//! | `GET /v1/units/NAME[?stale=true]` | [`Unit`] with `text`; 404 |
//! | `GET /v1/units/NAME/journal[?lines=N][&follow=true][&output=MODE][&machine=ID]` | text as it comes |
//! | `GET /v1/units/NAME/status[?machine=ID]` | [`SystemdStatus`]: what `systemctl status` says there |
//! | `POST /v1/units` with [`Batch`] | [`BatchDone`]; 400, with nothing stored, when one is invalid |
//! | `GET /v1/machines[?stale=true]` | [`Machines`] |
//! | `POST /v1/cluster/init` with [`ClusterInit`] | 200 [`Status`]; 409 when there is a cluster already |
//! | `POST /v1/cluster/join` with [`ClusterJoin`](crate::membership::ClusterJoin) | 200 [`Status`]; 409 |
//! | `GET /v1/cluster/members` | [`Members`](crate::membership::Members) |
//! | `POST /v1/cluster/tokens` with [`TokenWish`](crate::membership::TokenWish) | a new token, once |
//! | `GET /v1/cluster/tokens` | [`Tokens`](crate::membership::Tokens) |
//! | `POST /v1/cluster/tokens/NAME/revoke` | 200; 404 |
//! | `POST /v1/machines/ID/remove` with [`Removal`](crate::membership::Removal) | 200; 409 with the reason |
//! | `POST /v1/machines/ID/readmit` | 200 |
//! | `POST /v1/cluster/invite` with [`Invite`] | 200 [`crate::Context`], whose key is nowhere else; 409 |
//! | `POST /v1/cluster/uninvite` with [`Uninvite`] | 200; 409 when nobody is called that |
//! | `GET /v1/cluster/people[?stale=true]` | [`People`] |
//! | `GET /v1/cluster/backup` | the state as a file, see [`crate::backup`] |
//! | `GET /v1/units/NAME/explain` | [`Explanation`] |
//! | `POST /v1/units/NAME/move` with [`Move`] | 200; 409 with the reason |
//! | `POST /v1/machines/ID/cordon`, `POST /v1/machines/ID/uncordon` | 200 |
//! | `GET /v1/rebalance` | [`Rebalance`] |
//! | `GET /v1/reboot-lock[?stale=true]` | [`RebootLock`](crate::reboot_lock::RebootLock) |
//! | `POST /v1/reboot-lock/release` with [`LockRelease`](crate::reboot_lock::LockRelease) | 200; 409 |
//! | `POST /v1/reboot-lock/slots` with [`LockSlots`](crate::reboot_lock::LockSlots) | 200 |
//! | `POST /v1/pre-reboot`, `POST /v1/steady-state` | FleetLock's, with its body and its errors |
//! | `GET /v1/events[?after=REVISION][&unit=NAME]...` | server-sent events, see [`Told`] |
//! | `POST /v1/events[?after=REVISION]` with [`EventFilter`] | the same, for any number of names |
//!
//! Errors have fleet's body, [`crate::fleet::ErrorBody`].

use std::collections::BTreeMap;

use cluster::{DesiredState, Generation, MachineId, PersonName, PersonRole, Revision, UnitName};
use serde::{Deserialize, Serialize};

/// One daemon, and the cluster as it knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub machine: MachineId,
    pub version: String,
    pub role: Role,
    /// The leading machine, if one is known.
    pub leader: Option<MachineId>,
    pub cluster_id: Option<String>,
    pub cluster_name: Option<String>,
    pub revision: Revision,
    /// How many machines vote; `None` while that is not known.
    #[serde(default)]
    pub voters: Option<usize>,
    /// What the daemon's machine is to a vote.
    #[serde(default)]
    pub member: Option<Member>,
    /// Whole seconds since this daemon last knew a leader; `None` while it knows one.
    #[serde(default)]
    pub leaderless_seconds: Option<u64>,
    /// What keeps the daemon from being part of a cluster, or the cluster from having a leader, and what to
    /// do about it; `None` when nothing does.
    #[serde(default)]
    pub trouble: Option<String>,
    /// What is wrong though the cluster works, or will be soon, and what to do about it, for people: machines
    /// that are lost, units that failed, too few voters, a full disk.
    #[serde(default)]
    pub concerns: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Member {
    Voter,
    /// Holds the state, and does not vote.
    Learner,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Not part of a cluster yet.
    Unformed,
    Leader,
    Follower,
    Leaderless,
}

/// All that is known of one unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unit {
    pub name: UnitName,
    pub desired_state: State,
    /// fleet's current state: what has come of the wish.
    pub current_state: State,
    pub generation: Generation,
    /// 40 hex digits.
    pub hash: String,
    /// The first `Description=`, or empty.
    pub description: String,
    /// Every machine that suits it is its home; `machine` stays empty.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub global: bool,
    /// Where the cluster put it.
    pub machine: Option<MachineId>,
    /// Why it was put there.
    pub reason: Option<String>,
    /// Why it is nowhere, though it is wanted.
    pub unplaced: Option<String>,
    /// What each machine that holds it says; usually one.
    pub states: Vec<UnitState>,
    /// The unit file; only when one unit was asked for by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Inactive,
    Loaded,
    Launched,
}

/// What one machine's systemd says of one unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnitState {
    pub machine: MachineId,
    pub load: String,
    pub active: String,
    pub sub: String,
    pub hash: String,
    /// The wish that the machine has carried out, well or badly.
    pub generation: Option<Generation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The machine is lost: this is the last it said.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stale: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub reason: String,
    /// The unit's last journal lines, oldest first.
    pub journal: Vec<String>,
}

/// What `systemctl status` of the unit's machine says of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SystemdStatus {
    pub machine: MachineId,
    /// As systemctl(1) has it: 0 active, 3 not active, 4 no such unit.
    pub exit_status: u8,
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Units {
    pub revision: Revision,
    pub units: Vec<Unit>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    pub id: MachineId,
    pub name: String,
    pub address: String,
    pub version: String,
    pub metadata: BTreeMap<String, String>,
    /// `ready` or `lost`.
    pub state: MachineState,
    /// Units assigned to it.
    pub units: usize,
    /// `false`: it is cordoned, and gets no new units.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub schedulable: bool,
}

fn yes() -> bool {
    true
}

fn is_yes(value: &bool) -> bool {
    *value
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MachineState {
    Ready,
    Lost,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machines {
    pub revision: Revision,
    pub machines: Vec<Machine>,
}

/// Where a unit is, and what each machine has against it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    pub unit: UnitName,
    /// The machine that it is on.
    pub placed: Option<MachineId>,
    /// What has come of the unit's wish, and why, in one line.
    #[serde(default)]
    pub summary: String,
    pub machines: Vec<ExplainedMachine>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedMachine {
    pub id: MachineId,
    pub name: String,
    /// It would take the unit.
    pub fits: bool,
    /// The unit is there, or is to be there.
    #[serde(default)]
    pub home: bool,
    /// How many units stand there, this one not counted.
    #[serde(default)]
    pub units: usize,
    /// Everything that speaks against it.
    pub reasons: Vec<String>,
}

/// Asks that a unit leaves its machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// Where to: an id or a name. Without it, wherever it fits best.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
}

/// These units have been asked to leave their machine: the one that was named, and those that hang together
/// with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moving {
    pub units: Vec<UnitName>,
}

/// What would even out the machines. Nothing of it is done by asking.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebalance {
    pub moves: Vec<PlannedMove>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedMove {
    pub unit: UnitName,
    /// Units that hang together with it, and go with it.
    #[serde(default)]
    pub with: Vec<UnitName>,
    pub from: MachineId,
    pub to: MachineId,
    pub why: String,
}

/// Several changes in one request. All are checked before the first is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    pub operations: Vec<Operation>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "op")]
pub enum Operation {
    /// Create the unit, replace its file, or change what is wanted of it.
    #[serde(rename_all = "camelCase")]
    Set {
        name: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        desired_state: Option<State>,
    },
    Destroy {
        name: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchDone {
    pub revision: Revision,
    /// One for each operation, in order.
    pub results: Vec<OperationDone>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationDone {
    pub name: String,
    pub outcome: OperationOutcome,
    /// Set when the outcome is `refused`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OperationOutcome {
    Created,
    Replaced,
    Updated,
    Unchanged,
    Removed,
    Refused,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterInit {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where the other machines reach this one, as `HOST` or `HOST:PORT`; without it, the daemon finds out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
}

/// Somebody is to use the cluster from afar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Invite {
    pub name: PersonName,
    pub role: PersonRole,
    /// For how long, in seconds.
    pub ttl: u64,
    /// Where they reach the cluster, each `HOST:PORT`; empty: where the cluster's machines serve it.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// A certificate that they have already is worth nothing from now on.
    #[serde(default)]
    pub replace: bool,
}

/// Somebody is shut out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uninvite {
    pub name: PersonName,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct People {
    pub revision: Revision,
    pub people: Vec<Person>,
}

/// Somebody who was invited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Person {
    pub name: PersonName,
    pub role: PersonRole,
    /// In seconds since 1970.
    pub expires: u64,
    pub invited_by: String,
}

/// The units that a stream is to tell of; all, and the machines, when it is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventFilter {
    #[serde(default)]
    pub units: Vec<UnitName>,
}

/// One message of `/v1/events`, which are server-sent events (`text/event-stream`). The data is this as JSON:
/// `{"revision":42,"kind":"unit","unit":{...}}`.
///
/// A stream begins with what stands: every matching unit and machine, then `synced`. After that it tells what
/// changes.
///
/// The message's `id` is a revision too, and is there only when everything up to that revision has been told;
/// it may come alone, in a message without data. It may be given back as `Last-Event-ID` or `?after=`, to
/// this daemon or another: then the stream begins with what changed since, then `synced`. A stream that
/// cannot be resumed, or whose reader is too slow, says `reset`, then what stands, then `synced`. Every 5 s
/// in which there is nothing to tell, an empty message says that the daemon is there.
///
/// Names (`?unit=`, [`EventFilter`]) limit units to those named and leave machines out. A named unit that is
/// not in the cluster is told as `gone` when the stream begins, with the machines that still hold it; without
/// names, only such units are told as `gone` at the beginning as some machine still holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The daemon's state in which it saw this.
    pub revision: Revision,
    #[serde(flatten)]
    pub event: Event,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum Event {
    /// What was known before may be wrong: forget it.
    Reset,
    Unit {
        unit: Box<Unit>,
    },
    /// The unit is not in the cluster; `states` lists the machines that still hold it. Told again whenever
    /// `states` changes, the last time when it is empty.
    Gone {
        name: UnitName,
        states: Vec<UnitState>,
    },
    Machine {
        machine: Machine,
    },
    MachineGone {
        id: MachineId,
    },
    /// What stands, or what changed since, has been told; from here on, changes as they come. `leader` is who
    /// leads now.
    Synced {
        leader: Option<MachineId>,
    },
}

impl From<DesiredState> for State {
    fn from(state: DesiredState) -> State {
        match state {
            DesiredState::Inactive => State::Inactive,
            DesiredState::Loaded => State::Loaded,
            DesiredState::Launched => State::Launched,
        }
    }
}

impl From<State> for DesiredState {
    fn from(state: State) -> DesiredState {
        match state {
            State::Inactive => DesiredState::Inactive,
            State::Loaded => DesiredState::Loaded,
            State::Launched => DesiredState::Launched,
        }
    }
}
