//! What can be asked of the state, and what comes of it. Commands are what the log holds: variants are only
//! ever appended, and a published variant's fields never change.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::key_space::{KeyChange, KeyError, KeyEvent};
use crate::person::{Person, PersonName};
use crate::reboot::{RebootChange, RebootGroup, RebootGroupName};
use crate::record::{
    Assignment, Cluster, DesiredState, Expelled, Machine, MachineInfo, Observed, Token, Unit,
};
use crate::rotation::RotationStep;
use crate::{Generation, MachineId, UnitFile, UnitName};

/// One change that somebody asks for. Each touches one record at most, so that a store which can compare only
/// one key at a time (etcd v2) can keep the state as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// The first command of a cluster's life.
    InitCluster {
        id: String,
        name: String,
    },
    /// Create a unit, replace its file, or change what is wanted of it. `None` leaves that part as it is; a
    /// new unit without a desired state is `inactive`, and so is a replaced one, as with fleet.
    SetUnit {
        name: UnitName,
        file: Option<UnitFile>,
        desired: Option<DesiredState>,
    },
    DestroyUnit {
        name: UnitName,
    },
    /// The leader gives a unit its home; refused when the unit has changed since the leader looked.
    Assign {
        unit: UnitName,
        machine: MachineId,
        generation: Generation,
        reason: String,
    },
    /// The leader takes the home away; refused when the unit lives elsewhere by now.
    Unassign {
        unit: UnitName,
        machine: MachineId,
    },
    /// A machine says who it is; the first time makes it a member of the schedule.
    RegisterMachine {
        id: MachineId,
        info: MachineInfo,
    },
    /// For each key: a value, or `None` to hide the machine's own.
    SetMachineMetadata {
        id: MachineId,
        set: BTreeMap<String, Option<String>>,
    },
    MarkLost {
        machine: MachineId,
    },
    MarkReady {
        machine: MachineId,
    },
    /// A machine tells what its systemd says of a unit; `None` when the unit is gone from it.
    Report {
        machine: MachineId,
        unit: UnitName,
        observed: Option<Observed>,
    },
    /// The leader clears what a lost machine last said of a unit that has no business there any more.
    Forget {
        machine: MachineId,
        unit: UnitName,
    },
    /// A machine leaves for good. Refused while units are assigned to it.
    RemoveMachine {
        id: MachineId,
    },
    /// A machine is cordoned, or takes units again.
    SetSchedulable {
        id: MachineId,
        schedulable: bool,
    },
    /// A unit is asked to leave its machine, for `to` if one is named. Refused when it lives elsewhere by
    /// now.
    MoveUnit {
        unit: UnitName,
        machine: MachineId,
        to: Option<MachineId>,
    },
    /// An administrator lets machines in, by a token that is kept as its digest only.
    CreateToken {
        id: String,
        token: Token,
    },
    /// A machine shows a token; `at` is the second in which it did. Refused when the token does not let it
    /// in.
    UseToken {
        id: String,
        digest: String,
        machine: MachineId,
        at: u64,
    },
    RevokeToken {
        id: String,
    },
    /// A machine is not to come back by itself. Refused while units are assigned to it.
    Expel {
        machine: MachineId,
        expelled: Expelled,
    },
    /// A machine that was expelled may come back.
    Readmit {
        machine: MachineId,
    },
    /// Somebody may use the cluster from afar, with that certificate. Refused while another certificate of
    /// that name counts, unless it is to be replaced.
    InvitePerson {
        name: PersonName,
        person: Person,
        replace: bool,
    },
    /// Somebody is shut out, from now on.
    RemovePerson {
        name: PersonName,
    },
    /// From here on, commands up to that feature level may be proposed. Refused while a machine is registered
    /// that does not know it; it never falls again.
    RaiseFeatureLevel {
        to: u32,
    },
    /// The cluster's authority is changed for another, step by step.
    Rotate(RotationStep),
    /// A machine gets or gives back a slot of the reboot lock, or a group gets another number of slots.
    RebootLock {
        group: RebootGroupName,
        change: RebootChange,
    },
    /// A change of the key space, `at` milliseconds since 1970. The one kind of command that may touch many
    /// keys at once, and that not every store takes: it is not asked of [`ClusterState::apply`].
    ///
    /// [`ClusterState::apply`]: crate::ClusterState::apply
    Keys {
        at: u64,
        change: KeyChange,
    },
    /// The cluster gets another name. Stands for whatever the next version adds, and stays the last.
    #[cfg(feature = "next")]
    Next {
        name: String,
    },
}

/// One record put or deleted: the whole effect of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Cluster(Cluster),
    Unit(UnitName, Option<Unit>),
    Assignment(UnitName, Option<Assignment>),
    Machine(MachineId, Option<Machine>),
    Observed(UnitName, MachineId, Option<Observed>),
    Token(String, Option<Token>),
    Expelled(MachineId, Option<Expelled>),
    Person(PersonName, Option<Person>),
    RebootGroup(RebootGroupName, Option<RebootGroup>),
}

/// An accepted command: what it was to its record, and the change, if there was any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    pub kind: Kind,
    pub change: Option<Change>,
}

/// What an accepted command was to its record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    Created,
    /// A unit's file was replaced by another.
    Replaced,
    Updated,
    Unchanged,
    Removed,
    /// What happened in the key space.
    Key(Arc<KeyEvent>),
}

/// What became of a command, as its proposer hears it.
pub type Outcome = Result<Kind, Rejected>;

/// Why a command was not accepted. Deterministic: every replica says the same. The state has not changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Rejected {
    #[error("the cluster exists already, with id {id}")]
    ClusterExists { id: String },
    #[error("unit does not exist")]
    UnitUnknown { name: UnitName },
    #[error("unit does not exist and options field empty")]
    UnitWithoutFile { name: UnitName },
    #[error("cannot activate template \"{name}\"")]
    TemplateActivated { name: UnitName },
    #[error("unit {name} has changed since: it is at generation {now}, not {seen}")]
    GenerationStale { name: UnitName, seen: Generation, now: Generation },
    #[error("unit {name} is not wanted on any machine")]
    UnitInactive { name: UnitName },
    #[error("unit {name} is not assigned to machine {machine}")]
    NotAssigned { name: UnitName, machine: MachineId },
    #[error("machine {machine} is not known to the cluster")]
    MachineUnknown { machine: MachineId },
    #[error("machine {machine} is lost")]
    MachineLost { machine: MachineId },
    #[error("machine {machine} is not lost")]
    MachineNotLost { machine: MachineId },
    #[error("machine {machine} still has units assigned to it, {unit} among them")]
    MachineInUse { machine: MachineId, unit: UnitName },
    #[error("machine {machine} is cordoned")]
    MachineCordoned { machine: MachineId },
    #[error("unit {name} is on machine {machine} already")]
    AlreadyThere { name: UnitName, machine: MachineId },
    #[error("there is no such token; `corectl token create` on a member makes one")]
    TokenUnknown,
    #[error("the token has ended; `corectl token create` on a member makes another")]
    TokenExpired,
    #[error("the token is used up; `corectl token create` on a member makes another")]
    TokenUsed,
    #[error("a token of that name exists already")]
    TokenExists,
    #[error("machine {machine} was removed from the cluster")]
    MachineExpelled { machine: MachineId },
    #[error("{name} is invited already; another certificate takes the place of the first with --replace")]
    PersonInvited { name: PersonName },
    #[error("nobody called {name} is invited")]
    PersonUnknown { name: PersonName },
    #[error(
        "this needs feature level {needs}, and {name} (machine {machine}) knows {knows}: its coreinit is \
         {version}; upgrade coreinit there"
    )]
    MachineTooOld { machine: MachineId, name: String, version: String, knows: u32, needs: u32 },
    #[error("another change of the authority is under way; `corectl cluster rotate-ca --watch` tells of it")]
    RotationRunning,
    #[error("that change of the authority is over")]
    RotationNone,
    #[error("machine {machine} has not taken that step yet")]
    RotationAwaits { machine: MachineId },
    #[error("machines show certificates of the new authority already: the change can only be finished")]
    RotationFar,
    #[error("this needs feature level {needs}, and the cluster is at {at}; try again in a moment")]
    LevelNotReached { needs: u32, at: u32 },
    #[error("machine {machine} is about to reboot")]
    MachineReboots { machine: MachineId },
    #[error("no slot of reboot group {group} is free ({slots} slot{}): {}", plural(*.slots), held(.holders))]
    RebootSlotsTaken { group: RebootGroupName, slots: u32, holders: Vec<MachineId> },
    #[error("there are {max} reboot groups already, which is the limit")]
    RebootGroupsFull { max: usize },
    #[error(transparent)]
    Key(KeyError),
    #[error("keys are kept in the daemons' own store only; here the etcd has them")]
    KeysElsewhere,
    #[error(
        "the cluster's unit files take {bytes} bytes, and there is room for at most {max}: `corectl destroy` \
         units that nobody needs, or keep large contents in files beside the units"
    )]
    UnitsFull { bytes: usize, max: usize },
}

fn plural(count: u32) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn held(machines: &[MachineId]) -> String {
    let ids: Vec<&str> = machines.iter().map(MachineId::as_str).collect();
    if ids.is_empty() { "nobody may reboot".into() } else { format!("held by {}", ids.join(", ")) }
}
