//! Everything that the API says and takes, once in full, as the daemon's own types write it. A field that is
//! added to a type has to be added here, and is then missing from the document.

use std::collections::BTreeMap;

use api::fleet;
use api::membership::{
    ClusterJoin, MemberView, Members, NewToken, Part, Removal, Rotate, RotationView, TokenView, TokenWish,
    Tokens,
};
use api::reboot_lock::{HolderView, LockGroup, LockRelease, LockSlots, RebootLock};
use api::v1::{
    Batch, BatchDone, ClusterInit, Event, EventFilter, ExplainedMachine, Explanation, Failure, Invite,
    Machine, MachineState, Machines, Member, Move, Moving, Operation, OperationDone, OperationOutcome,
    People, Person, PlannedMove, Rebalance, Role, State, Status, SystemdStatus, Told, Uninvite, Unit,
    UnitState, Units,
};
use cluster::{Generation, MachineId, PersonName, PersonRole, Revision, RotationPhase, UnitName};
use serde::Serialize;
use serde_json::{Value, json};

const AT: Revision = Revision(42);

fn machine() -> MachineId {
    MachineId::new("3c1a7c0e").expect("it is an id")
}

fn unit_name() -> UnitName {
    UnitName::new("web@1.service").expect("it is a name")
}

fn person() -> PersonName {
    PersonName::new("alice").expect("it is a name")
}

fn metadata() -> BTreeMap<String, String> {
    BTreeMap::from([("disk".into(), "ssd".into())])
}

fn status() -> Status {
    Status {
        machine: machine(),
        version: "1".into(),
        role: Role::Leader,
        leader: Some(machine()),
        cluster_id: Some("c".into()),
        cluster_name: Some("demo".into()),
        revision: AT,
        voters: Some(3),
        member: Some(Member::Voter),
        leaderless_seconds: None,
        trouble: None,
        concerns: vec!["a disk is nearly full".into()],
    }
}

/// Before a machine belongs to a cluster.
fn status_of_none() -> Status {
    let (leader, cluster_id, cluster_name) = (None, None, None);
    let (voters, member, trouble) = (None, None, Some("not part of a cluster".into()));
    let (role, leaderless_seconds) = (Role::Unformed, Some(3));
    Status { role, leader, cluster_id, cluster_name, voters, member, leaderless_seconds, trouble, ..status() }
}

fn unit_state() -> UnitState {
    let failure = Failure { reason: "exit-code".into(), journal: vec!["oh".into()] };
    let text = |text: &str| text.to_string();
    UnitState {
        machine: machine(),
        load: text("loaded"),
        active: text("failed"),
        sub: text("failed"),
        hash: "0".repeat(40),
        generation: Some(Generation(7)),
        failure: Some(failure),
        stale: true,
    }
}

fn unit() -> Unit {
    Unit {
        name: unit_name(),
        desired_state: State::Launched,
        current_state: State::Loaded,
        generation: Generation(7),
        hash: "0".repeat(40),
        description: "Web".into(),
        global: true,
        machine: Some(machine()),
        reason: Some("fewest units".into()),
        unplaced: None,
        states: vec![unit_state()],
        text: Some("[Service]\n".into()),
    }
}

/// What is left out is left out.
fn unit_nowhere() -> Unit {
    let state = UnitState { generation: None, failure: None, stale: false, ..unit_state() };
    let unplaced = Some("no machine has disk=ssd".into());
    Unit { global: false, machine: None, reason: None, unplaced, states: vec![state], text: None, ..unit() }
}

fn a_machine() -> Machine {
    Machine {
        id: machine(),
        name: "h1".into(),
        address: "10.0.0.1".into(),
        version: "1".into(),
        metadata: metadata(),
        state: MachineState::Lost,
        units: 3,
        schedulable: false,
    }
}

fn token() -> TokenView {
    let used_by = vec![machine()];
    TokenView { name: "t".into(), created_at: 1, expires_at: Some(2), uses_left: Some(1), used_by }
}

fn fleet_unit() -> fleet::Unit {
    let option =
        fleet::UnitOption { section: "Service".into(), name: "ExecStart".into(), value: "/a".into() };
    let (current_state, desired_state) = ("launched".into(), "launched".into());
    fleet::Unit {
        current_state,
        desired_state,
        machine_id: "m".into(),
        name: "a.service".into(),
        options: vec![option],
    }
}

fn fleet_state() -> fleet::UnitState {
    fleet::UnitState {
        hash: "0".into(),
        machine_id: "m".into(),
        name: "a.service".into(),
        systemd_active_state: "active".into(),
        systemd_load_state: "loaded".into(),
        systemd_sub_state: "running".into(),
    }
}

fn fleet_machine() -> fleet::Machine {
    fleet::Machine { id: "m".into(), metadata: metadata(), primary_ip: "10.0.0.1".into() }
}

#[derive(Default)]
struct Samples(Vec<(&'static str, Value)>);

impl Samples {
    fn add(&mut self, schema: &'static str, sample: impl Serialize) {
        self.0.push((schema, serde_json::to_value(sample).expect("it can be written as JSON")));
    }
}

/// A schema's name and a value of it, as often as there are forms of it.
pub fn all() -> Vec<(&'static str, Value)> {
    let mut all = Samples::default();
    units(&mut all);
    members(&mut all);
    people(&mut all);
    events(&mut all);
    fleets(&mut all);
    all.0
}

fn units(all: &mut Samples) {
    all.add("Revision", AT);
    all.add("Empty", serde_json::json!({}));
    for state in [State::Inactive, State::Loaded, State::Launched] {
        all.add("State", state);
    }
    all.add("Status", status());
    all.add("Status", status_of_none());
    all.add("Failure", unit_state().failure);
    all.add("UnitState", unit_state());
    all.add("Unit", unit());
    all.add("Unit", unit_nowhere());
    all.add("Units", Units { revision: AT, units: vec![unit(), unit_nowhere()] });
    all.add("SystemdStatus", SystemdStatus { machine: machine(), exit_status: 3, text: "dead".into() });
    let (home, fits, units) = (true, false, 2);
    let explained = ExplainedMachine {
        id: machine(),
        name: "h1".into(),
        fits,
        home,
        units,
        reasons: vec!["full".into()],
    };
    all.add("ExplainedMachine", &explained);
    let placed = Some(machine());
    let explanation =
        Explanation { unit: unit_name(), placed, summary: "runs".into(), machines: vec![explained] };
    all.add("Explanation", &explanation);
    all.add("Explanation", Explanation { placed: None, ..explanation });
    all.add("Move", Move { machine: Some("h2".into()) });
    all.add("Move", Move { machine: None });
    all.add("Moving", Moving { units: vec![unit_name()] });
    let (from, to, why) = (machine(), machine(), "evens out".to_string());
    let planned = PlannedMove { unit: unit_name(), with: vec![unit_name()], from, to, why };
    all.add("PlannedMove", &planned);
    all.add("Rebalance", Rebalance { moves: vec![planned] });
    let name = || "a.service".to_string();
    let set =
        Operation::Set { name: name(), text: Some("[Service]".into()), desired_state: Some(State::Launched) };
    all.add("Operation", Operation::Destroy { name: name() });
    all.add("Operation", Operation::Set { name: name(), text: None, desired_state: None });
    all.add("Operation", &set);
    all.add("Batch", Batch { operations: vec![set] });
    for outcome in [
        OperationOutcome::Created,
        OperationOutcome::Replaced,
        OperationOutcome::Updated,
        OperationOutcome::Unchanged,
        OperationOutcome::Removed,
    ] {
        all.add("OperationDone", OperationDone { name: name(), outcome, message: None });
    }
    let refused = OperationDone {
        name: name(),
        outcome: OperationOutcome::Refused,
        message: Some("no such unit".into()),
    };
    all.add("OperationDone", &refused);
    all.add("BatchDone", BatchDone { revision: AT, results: vec![refused] });
}

fn rotation(all: &mut Samples) {
    all.add("Rotate", Rotate { secret: None });
    all.add("Rotate", Rotate { secret: Some("5ec7".into()) });
    let none = RotationView { number: None, phase: None, awaited: Vec::new(), authority: None, ended: 0 };
    all.add("Rotation", &none);
    for phase in [RotationPhase::Trust, RotationPhase::Issue] {
        let (number, awaited) = (Some(2), vec!["h1".into()]);
        let authority = Some("d1".into());
        all.add("Rotation", RotationView { number, phase: Some(phase), awaited, authority, ended: 1 });
    }
}

fn reboots(all: &mut Samples) {
    let (name, since) = ("h1".to_string(), 1);
    let holder =
        HolderView { machine: machine(), name, since, drained: false, waits_for: Some("a.service".into()) };
    let empty = HolderView { drained: true, waits_for: None, ..holder.clone() };
    all.add("LockHolder", &holder);
    all.add("LockHolder", &empty);
    let group = LockGroup { group: "default".into(), slots: 1, holders: vec![holder, empty] };
    all.add("LockGroup", &group);
    all.add("RebootLock", RebootLock { groups: vec![group] });
    all.add("LockRelease", LockRelease { machine: "h1".into(), group: None });
    all.add("LockRelease", LockRelease { machine: "h1".into(), group: Some("default".into()) });
    all.add("LockSlots", LockSlots { group: "default".into(), slots: 2 });
    // Of a protocol that is not ours.
    all.add("FleetLock", json!({ "client_params": { "id": "1", "group": "default" } }));
    all.add("FleetLockError", json!({ "kind": "draining", "value": "words" }));
}

fn members(all: &mut Samples) {
    all.add("Machine", a_machine());
    all.add("Machine", Machine { schedulable: true, state: MachineState::Ready, ..a_machine() });
    all.add("Machines", Machines { revision: AT, machines: vec![a_machine()] });
    let advertise = || Some("10.0.0.1".to_string());
    all.add("ClusterInit", ClusterInit { name: Some("demo".into()), advertise: advertise() });
    all.add("ClusterInit", ClusterInit::default());
    let join = ClusterJoin { token: "t".into(), addresses: vec!["h1".into()], advertise: None };
    all.add("ClusterJoin", &join);
    all.add("ClusterJoin", ClusterJoin { advertise: advertise(), ..join });
    rotation(all);
    reboots(all);
    all.add("TokenWish", TokenWish { ttl: Some(1), uses: Some(1) });
    all.add("TokenWish", TokenWish { ttl: None, uses: None });
    let (expires_at, uses) = (Some(2), Some(1));
    let made = NewToken { token: "t".into(), name: "n".into(), address: "h1:7340".into(), expires_at, uses };
    all.add("NewToken", &made);
    all.add("NewToken", NewToken { expires_at: None, uses: None, ..made });
    all.add("Token", token());
    all.add("Token", TokenView { expires_at: None, uses_left: None, ..token() });
    all.add("Tokens", Tokens { tokens: vec![token()] });
    for part in [Part::Leader, Part::Voter, Part::Learner] {
        let (name, address, version) = ("h1".into(), "10.0.0.1:7340".into(), "1".into());
        let member =
            MemberView { machine: machine(), name, address, version, part, lag: Some(3), silent_ms: 100 };
        all.add("Member", &member);
        all.add("Members", Members { members: vec![MemberView { lag: None, ..member }] });
    }
    all.add("Removal", Removal { force: true });
}

fn people(all: &mut Samples) {
    for role in [PersonRole::Viewer, PersonRole::Operator, PersonRole::Admin] {
        all.add("Role", role);
    }
    let (name, role) = (person(), PersonRole::Operator);
    let addresses = vec!["h1:7421".to_string()];
    all.add("Invite", Invite { name, role, ttl: 3600, addresses: addresses.clone(), replace: true });
    all.add("Uninvite", Uninvite { name: person() });
    let listed = Person { name: person(), role, expires: 7, invited_by: "root".into() };
    all.add("Person", &listed);
    all.add("People", People { revision: AT, people: vec![listed] });
    let text = |text: &str| text.to_string();
    let context = api::Context {
        version: 1,
        cluster: text("demo"),
        cluster_id: text("c"),
        person: person(),
        role,
        expires: 7,
        addresses,
        authority: text("A"),
        certificate: text("B"),
        key: text("C"),
    };
    all.add("Context", context);
}

fn events(all: &mut Samples) {
    all.add("EventFilter", EventFilter { units: vec![unit_name()] });
    for event in [
        Event::Reset,
        Event::Unit { unit: Box::new(unit()) },
        Event::Gone { name: unit_name(), states: vec![unit_state()] },
        Event::Machine { machine: a_machine() },
        Event::MachineGone { id: machine() },
        Event::Synced { leader: Some(machine()) },
        Event::Synced { leader: None },
    ] {
        all.add("Event", Told { revision: AT, event });
    }
}

fn fleets(all: &mut Samples) {
    let error = fleet::ErrorDetail { code: 404, message: "unit not found".into() };
    all.add("Error", fleet::ErrorBody { error });
    all.add("FleetUnitOption", fleet_unit().options.remove(0));
    all.add("FleetUnit", fleet_unit());
    let token = || "t".to_string();
    all.add("FleetUnitPage", fleet::UnitPage { next_page_token: token(), units: vec![fleet_unit()] });
    all.add("FleetUnitState", fleet_state());
    all.add(
        "FleetUnitStatePage",
        fleet::UnitStatePage { next_page_token: token(), states: vec![fleet_state()] },
    );
    all.add("FleetMachine", fleet_machine());
    all.add(
        "FleetMachinePage",
        fleet::MachinePage { machines: vec![fleet_machine()], next_page_token: token() },
    );
}
