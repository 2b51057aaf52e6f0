//! Bytes that were written once must be read for ever. Each file in `tests/golden` holds one published value
//! in hex.
//!
//! To add one, append it to [`values`] and run this test with `COREINIT_ADD_GOLDEN=1`, which writes the
//! missing file. A file that exists is never changed: when this test fails for it, the code has to change
//! back.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use cluster::{
    ClusterState, Command, DesiredState, Expelled, Failure, Generation, KeyAction, KeyChange, KeyEnd,
    KeyError, KeyEvent, KeyFault, KeyPath, KeySeen, KeyWas, Kind, MachineId, MachineInfo, Observed, Outcome,
    Person, PersonName, PersonRole, RebootChange, RebootGroupName, Rejected, Revision, RotationPhase,
    RotationStep, Token, UnitFile, UnitName,
};
use openraft::impls::leader_id_std::LeaderId;
use openraft::storage::{RaftSnapshotBuilder, RaftStateMachine};
use openraft::vote::RaftLeaderIdExt;
use openraft::{EntryPayload, Membership};
use raft::codec;
use raft::disk::{Disk, EngineKind, FlushMode};
use raft::types::{Entry, LogId, Member, Proposal, Reply, Vote};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.hex"))
}

/// The file's bytes; it is written from `bytes` when it is missing and that was asked for.
fn golden(name: &str, bytes: &[u8]) -> Vec<u8> {
    let path = path(name);
    if !path.exists() && std::env::var_os("COREINIT_ADD_GOLDEN").is_some() {
        let mut hex = String::new();
        for line in bytes.chunks(32) {
            line.iter().for_each(|byte| write!(hex, "{byte:02x}").unwrap());
            hex.push('\n');
        }
        fs::write(&path, hex).unwrap();
    }
    let hex = fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; this file's head says how to add it", path.display()));
    let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, value: &T) {
    let bytes = codec::encode(value).unwrap();
    let golden = golden(name, &bytes);
    let read: T =
        codec::decode(&golden).unwrap_or_else(|error| panic!("{name} cannot be read any more: {error}"));
    assert_eq!(read, *value, "{name} is read as something else now");
    assert_eq!(bytes, golden, "{name} is written otherwise now; daemons of the last version cannot read it");
}

fn unit(name: &str) -> UnitName {
    UnitName::new(name).unwrap()
}

fn machine(id: &str) -> MachineId {
    MachineId::new(id).unwrap()
}

fn file() -> UnitFile {
    UnitFile::parse("[Unit]\nDescription=Greets\n\n[Service]\nExecStart=/bin/echo hi\n").unwrap()
}

fn info() -> MachineInfo {
    MachineInfo {
        name: "a.example".into(),
        address: "192.0.2.1".into(),
        version: "0.1.0".into(),
        metadata: BTreeMap::from([("region".into(), "eu".into())]),
        memory_bytes: 1 << 34,
        cpu_millis: 8000,
        feature_level: 2,
    }
}

fn observed() -> Observed {
    Observed {
        load: "loaded".into(),
        active: "failed".into(),
        sub: "failed".into(),
        hash: file().hash(),
        generation: Some(Generation(9)),
        failure: Some(Failure { reason: "start job failed".into(), journal: vec!["hi".into()] }),
    }
}

fn token() -> Token {
    Token {
        digest: "d1".into(),
        created_at: 1_700_000_000,
        expires_at: Some(1_700_086_400),
        uses_left: Some(3),
        used_by: [machine("m2")].into(),
    }
}

fn expelled() -> Expelled {
    Expelled { at: 1_700_000_000, name: "a.example".into() }
}

fn key_event() -> KeyEvent {
    let seen = |value: &str, expires, modified| KeySeen {
        value: Some(value.into()),
        is_dir: false,
        expires,
        modified,
        created: 3,
    };
    KeyEvent {
        action: KeyAction::CompareAndSwap,
        path: KeyPath::new("/services/web").unwrap(),
        node: seen("192.0.2.2:80", Some(1_700_000_060_000), 4),
        before: Some(seen("192.0.2.1:80", None, 3)),
        at: 1_700_000_000_000,
        is_refresh: false,
    }
}

/// One of each kind.
fn key_commands() -> Vec<Command> {
    let path = KeyPath::new("/services/web").unwrap();
    let (path, at) = (|| path.clone(), 1_700_000_000_000);
    let queue = || KeyPath::new("/queue").unwrap();
    let was = || KeyWas { value: "192.0.2.1:80".into(), index: 1 };
    let (expires, end) = (Some(at + 60_000), KeyEnd::At(at + 60_000));
    let changes = [
        KeyChange::Set { path: path(), value: Some("192.0.2.1:80".into()), end: KeyEnd::Never },
        KeyChange::Create { path: queue(), value: None, expires: None },
        KeyChange::CreateInOrder { path: queue(), value: Some("job".into()), expires },
        KeyChange::CompareAndSwap { path: path(), was: was(), value: "192.0.2.2:80".into(), end },
        KeyChange::Update { path: path(), value: "".into(), end: KeyEnd::Refresh(at + 90_000) },
        KeyChange::CompareAndDelete { path: path(), was: was() },
        KeyChange::Expire,
        KeyChange::Delete { path: path(), dir: true, recursive: false },
    ];
    changes.map(|change| Command::Keys { at, change }).into()
}

fn person_name() -> PersonName {
    PersonName::new("alice@example.org").unwrap()
}

fn person() -> Person {
    Person {
        role: PersonRole::Operator,
        fingerprint: "c0ffee".into(),
        expires: 1_800_000_000,
        invited_by: "uid 0 (root)".into(),
    }
}

fn reboot(change: RebootChange) -> Command {
    Command::RebootLock { group: RebootGroupName::default(), change }
}

/// Every variant, by the name of its file.
fn commands() -> Vec<(&'static str, Command)> {
    let (a, m) = (unit("a.service"), machine("m1"));
    let set = BTreeMap::from([("zone".into(), Some("1".into())), ("region".into(), None)]);
    vec![
        ("command-init-cluster", Command::InitCluster { id: "c1".into(), name: "test".into() }),
        (
            "command-set-unit",
            Command::SetUnit { name: a.clone(), file: Some(file()), desired: Some(DesiredState::Launched) },
        ),
        ("command-destroy-unit", Command::DestroyUnit { name: a.clone() }),
        (
            "command-assign",
            Command::Assign {
                unit: a.clone(),
                machine: m.clone(),
                generation: Generation(7),
                reason: "fewest units".into(),
            },
        ),
        ("command-unassign", Command::Unassign { unit: a.clone(), machine: m.clone() }),
        ("command-register-machine", Command::RegisterMachine { id: m.clone(), info: info() }),
        ("command-set-machine-metadata", Command::SetMachineMetadata { id: m.clone(), set }),
        ("command-mark-lost", Command::MarkLost { machine: m.clone() }),
        ("command-mark-ready", Command::MarkReady { machine: m.clone() }),
        (
            "command-report",
            Command::Report { machine: m.clone(), unit: a.clone(), observed: Some(observed()) },
        ),
        ("command-forget", Command::Forget { machine: m.clone(), unit: a.clone() }),
        ("command-remove-machine", Command::RemoveMachine { id: m.clone() }),
        ("command-set-schedulable", Command::SetSchedulable { id: m.clone(), schedulable: false }),
        ("command-move-unit", Command::MoveUnit { unit: a, machine: m.clone(), to: Some(machine("m2")) }),
        ("command-create-token", Command::CreateToken { id: "t1".into(), token: token() }),
        (
            "command-use-token",
            Command::UseToken { id: "t1".into(), digest: "d1".into(), machine: m.clone(), at: 1_700_000_000 },
        ),
        ("command-revoke-token", Command::RevokeToken { id: "t1".into() }),
        ("command-expel", Command::Expel { machine: m.clone(), expelled: expelled() }),
        ("command-readmit", Command::Readmit { machine: m.clone() }),
        (
            "command-invite-person",
            Command::InvitePerson { name: person_name(), person: person(), replace: true },
        ),
        ("command-remove-person", Command::RemovePerson { name: person_name() }),
        ("command-raise-feature-level", Command::RaiseFeatureLevel { to: 2 }),
        (
            "command-rotate-begin",
            Command::Rotate(RotationStep::Begin { authority: "a1".into(), sealed: "5ea1".into() }),
        ),
        (
            "command-rotate-confirm",
            Command::Rotate(RotationStep::Confirm {
                machine: machine("m1"),
                number: 1,
                phase: RotationPhase::Issue,
            }),
        ),
        (
            "command-rotate-advance",
            Command::Rotate(RotationStep::Advance { number: 1, phase: RotationPhase::Trust }),
        ),
        ("command-rotate-abort", Command::Rotate(RotationStep::Abort { number: 1 })),
        ("command-reboot-take", reboot(RebootChange::Take { machine: m.clone(), at: 1_700_000_000 })),
        ("command-reboot-release", reboot(RebootChange::Release { machine: m })),
        ("command-reboot-slots", reboot(RebootChange::SetSlots(2))),
        ("command-keys", key_commands().remove(0)),
    ]
}

/// A command that is added to the enum has to be added above.
#[test]
fn every_command_has_a_file() {
    let names: Vec<&str> = commands().into_iter().map(|(name, _)| name).collect();
    for (name, command) in commands() {
        let expected = match command {
            Command::InitCluster { .. } => "command-init-cluster",
            Command::SetUnit { .. } => "command-set-unit",
            Command::DestroyUnit { .. } => "command-destroy-unit",
            Command::Assign { .. } => "command-assign",
            Command::Unassign { .. } => "command-unassign",
            Command::RegisterMachine { .. } => "command-register-machine",
            Command::SetMachineMetadata { .. } => "command-set-machine-metadata",
            Command::MarkLost { .. } => "command-mark-lost",
            Command::MarkReady { .. } => "command-mark-ready",
            Command::Report { .. } => "command-report",
            Command::Forget { .. } => "command-forget",
            Command::RemoveMachine { .. } => "command-remove-machine",
            Command::SetSchedulable { .. } => "command-set-schedulable",
            Command::MoveUnit { .. } => "command-move-unit",
            Command::CreateToken { .. } => "command-create-token",
            Command::UseToken { .. } => "command-use-token",
            Command::RevokeToken { .. } => "command-revoke-token",
            Command::Expel { .. } => "command-expel",
            Command::Readmit { .. } => "command-readmit",
            Command::InvitePerson { .. } => "command-invite-person",
            Command::RemovePerson { .. } => "command-remove-person",
            Command::RaiseFeatureLevel { .. } => "command-raise-feature-level",
            Command::Rotate(RotationStep::Begin { .. }) => "command-rotate-begin",
            Command::Rotate(RotationStep::Confirm { .. }) => "command-rotate-confirm",
            Command::Rotate(RotationStep::Advance { .. }) => "command-rotate-advance",
            Command::Rotate(RotationStep::Abort { .. }) => "command-rotate-abort",
            Command::RebootLock { change: RebootChange::Take { .. }, .. } => "command-reboot-take",
            Command::RebootLock { change: RebootChange::Release { .. }, .. } => "command-reboot-release",
            Command::RebootLock { change: RebootChange::SetSlots(_), .. } => "command-reboot-slots",
            Command::Keys { .. } => "command-keys",
        };
        assert_eq!(name, expected);
    }
    assert_eq!(names.len(), 30);
}

#[test]
fn commands_are_read_as_ever() {
    for (name, command) in commands() {
        check(name, &command);
    }
    check("key-changes", &key_commands());
}

fn id(term: u64, index: u64) -> LogId {
    LogId::new(LeaderId::new_committed(term, 1), index)
}

fn members() -> Membership<u64, Member> {
    let member = |n: u64| Member {
        machine: format!("m{n}"),
        address: format!("192.0.2.{n}:7340"),
        nonce: format!("{n:032x}"),
    };
    Membership::new(vec![[1, 2].into()], BTreeMap::from([(1, member(1)), (2, member(2)), (3, member(3))]))
        .unwrap()
}

#[test]
fn entries_are_read_as_ever() {
    let proposal = Proposal(commands().into_iter().map(|(_, command)| command).collect());
    let entry = |payload| Entry { log_id: id(3, 300), payload };
    check("entry-blank", &entry(EntryPayload::Blank));
    check("entry-normal", &entry(EntryPayload::Normal(proposal)));
    check("entry-membership", &entry(EntryPayload::Membership(members())));
}

#[test]
fn votes_are_read_as_ever() {
    check("vote", &Vote::new(5, 2));
    check("vote-committed", &Vote::new_committed(5, 2));
}

#[test]
fn outcomes_are_read_as_ever() {
    let (name, m) = (unit("a.service"), machine("m1"));
    let (seen, now) = (Generation(1), Generation(2));
    let outcomes: Vec<Outcome> = vec![
        Ok(Kind::Created),
        Ok(Kind::Replaced),
        Ok(Kind::Updated),
        Ok(Kind::Unchanged),
        Ok(Kind::Removed),
        Ok(Kind::Key(Arc::new(key_event()))),
        Err(Rejected::ClusterExists { id: "c1".into() }),
        Err(Rejected::UnitUnknown { name: name.clone() }),
        Err(Rejected::UnitWithoutFile { name: name.clone() }),
        Err(Rejected::TemplateActivated { name: name.clone() }),
        Err(Rejected::GenerationStale { name: name.clone(), seen, now }),
        Err(Rejected::UnitInactive { name: name.clone() }),
        Err(Rejected::NotAssigned { name: name.clone(), machine: m.clone() }),
        Err(Rejected::MachineUnknown { machine: m.clone() }),
        Err(Rejected::MachineLost { machine: m.clone() }),
        Err(Rejected::MachineNotLost { machine: m.clone() }),
        Err(Rejected::MachineInUse { machine: m.clone(), unit: name.clone() }),
        Err(Rejected::MachineCordoned { machine: m.clone() }),
        Err(Rejected::AlreadyThere { machine: m.clone(), name }),
        Err(Rejected::TokenUnknown),
        Err(Rejected::TokenExpired),
        Err(Rejected::TokenUsed),
        Err(Rejected::TokenExists),
        Err(Rejected::MachineExpelled { machine: m.clone() }),
        Err(Rejected::PersonInvited { name: person_name() }),
        Err(Rejected::PersonUnknown { name: person_name() }),
        Err(Rejected::MachineTooOld {
            machine: m.clone(),
            name: "h1".into(),
            version: "0.1.0".into(),
            knows: 1,
            needs: 2,
        }),
        Err(Rejected::LevelNotReached { needs: 2, at: 1 }),
        Err(Rejected::MachineReboots { machine: m.clone() }),
        Err(Rejected::RebootSlotsTaken { group: RebootGroupName::default(), slots: 1, holders: vec![m] }),
        Err(Rejected::RebootGroupsFull { max: 100 }),
        Err(Rejected::Key(KeyError { fault: KeyFault::Exists, cause: "/a".into(), index: 7 })),
        Err(Rejected::KeysElsewhere),
    ];
    check("reply", &Reply(outcomes));
}

fn state() -> ClusterState {
    let mut state = ClusterState::default();
    let (a, m) = (unit("a.service"), machine("m1"));
    state.apply_all(Revision(1), &[Command::InitCluster { id: "c1".into(), name: "test".into() }]);
    state.apply_all(Revision(2), &[Command::RegisterMachine { id: m.clone(), info: info() }]);
    let desired = Some(DesiredState::Launched);
    state.apply_all(Revision(3), &[Command::SetUnit { name: a.clone(), file: Some(file()), desired }]);
    let (generation, reason) = (Generation(3), "fewest units".to_string());
    state.apply_all(
        Revision(4),
        &[Command::Assign { unit: a.clone(), machine: m.clone(), generation, reason }],
    );
    state.apply_all(Revision(5), &[Command::Report { machine: m, unit: a, observed: Some(observed()) }]);
    state.apply_all(Revision(6), &[Command::CreateToken { id: "t1".into(), token: token() }]);
    state.apply_all(Revision(7), &[Command::Expel { machine: machine("m9"), expelled: expelled() }]);
    let invite = Command::InvitePerson { name: person_name(), person: person(), replace: false };
    state.apply_all(Revision(8), &[invite]);
    let take = RebootChange::Take { machine: machine("m1"), at: 1_700_000_000 };
    state.apply_all(Revision(9), &[reboot(take)]);
    for (number, command) in (0..).zip(key_commands()) {
        let outcomes = state.apply_all(Revision(10 + number), &[command]);
        assert!(!matches!(outcomes[0], Err(Rejected::KeysElsewhere)));
    }
    state
}

#[test]
fn states_are_read_as_ever() {
    check("state", &state());
}

/// The file as a whole, as the store writes it.
#[tokio::test]
async fn snapshot_files_are_read_as_ever() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(dir.path(), EngineKind::Sled, FlushMode::Inline).unwrap();
    let mut machine = disk.state_machine();
    let entry = |index, payload| Ok((Entry { log_id: id(1, index), payload }, None));
    let commands = vec![Command::InitCluster { id: "c1".into(), name: "test".into() }];
    let entries = vec![
        entry(0, EntryPayload::Membership(members())),
        entry(1, EntryPayload::Blank),
        entry(2, EntryPayload::Normal(Proposal(commands))),
    ];
    machine.apply(futures::stream::iter(entries)).await.unwrap();
    machine.try_create_snapshot_builder(true).await.unwrap().build_snapshot().await.unwrap();
    let state = disk.state().borrow().clone();
    drop((disk, machine));

    let file = fs::read_dir(dir.path().join("snapshots")).unwrap().next().unwrap().unwrap().path();
    let bytes = fs::read(&file).unwrap();
    let golden = golden("snapshot-file", &bytes);
    assert_eq!(bytes, golden, "a snapshot is written otherwise now");
    fs::write(&file, golden).unwrap();
    let disk = Disk::open(dir.path(), EngineKind::Sled, FlushMode::Inline).unwrap();
    assert_eq!(*disk.state().borrow(), Arc::clone(&state));
    assert_eq!(disk.state_machine().applied_state().await.unwrap().0, Some(id(1, 2)));
}
