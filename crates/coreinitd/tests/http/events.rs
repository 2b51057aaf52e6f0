//! The event streams, through the client and a real socket.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::v1::{Batch, Event, Machine, Operation, State, Unit, UnitState};
use api::{Client, ClientError, Endpoint, Events};
use axum::body::Body;
use axum::http::Request;
use cluster::{Command, DesiredState, Generation, MachineId, Revision, UnitName};
use coreinitd::http;
use http_body_util::BodyExt;
use proptest::prelude::*;
use store::{MemoryStore, Store};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tower::ServiceExt;

use crate::bench::{assign, machine, name, parts, propose, register, report, root, set, soon, state};

/// More than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A daemon's HTTP room on a socket.
struct Served {
    stop: watch::Sender<bool>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Served {
    async fn start(store: &Arc<MemoryStore>, path: &Path) -> Served {
        let listener = http::bind(path).await.unwrap();
        let (stop, stopping) = watch::channel(false);
        Served { stop, task: tokio::spawn(http::run(parts(store), vec![listener], stopping)) }
    }

    async fn stop(&mut self) {
        self.stop.send_replace(true);
        (&mut self.task).await.unwrap().unwrap();
    }
}

struct Bench {
    store: Arc<MemoryStore>,
    served: Served,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("coreinit.sock");
        let store = Arc::new(MemoryStore::new(machine("m1")));
        let served = Served::start(&store, &path).await;
        Bench { store, served, path, _dir: dir }
    }

    fn client(&self) -> Client {
        Client::new(Endpoint::Unix(self.path.clone()))
    }

    async fn propose(&self, command: Command) {
        propose(&*self.store, command).await;
    }
}

async fn next(events: &mut Events) -> Event {
    timeout(PATIENCE, events.next()).await.expect("an event comes").unwrap().1
}

/// Everything up to and with the next `synced`.
async fn until_synced(events: &mut Events) -> Vec<Event> {
    let mut told = Vec::new();
    loop {
        told.push(next(events).await);
        if let Some(Event::Synced { .. }) = told.last() {
            return told;
        }
    }
}

fn gone(unit: &str, states: usize) -> impl Fn(&Event) -> bool {
    move |event| match event {
        Event::Gone { name, states: held } => name.as_str() == unit && held.len() == states,
        _ => false,
    }
}

/// What a reader of events knows.
#[derive(Debug, Default, PartialEq)]
struct Known {
    units: BTreeMap<UnitName, Unit>,
    held: BTreeMap<UnitName, Vec<UnitState>>,
    machines: BTreeMap<MachineId, Machine>,
}

impl Known {
    fn take(&mut self, event: Event) {
        match event {
            Event::Reset => *self = Known::default(),
            Event::Unit { unit } => {
                self.held.remove(&unit.name);
                self.units.insert(unit.name.clone(), *unit);
            }
            Event::Gone { name, states } => {
                self.units.remove(&name);
                self.held.remove(&name);
                if !states.is_empty() {
                    self.held.insert(name, states);
                }
            }
            Event::Machine { machine } => drop(self.machines.insert(machine.id.clone(), machine)),
            Event::MachineGone { id } => drop(self.machines.remove(&id)),
            Event::Synced { .. } => {}
        }
    }

    /// Reads on until that unit is told of in that generation; says whether there was a reset.
    async fn follow(&mut self, events: &mut Events, unit: &UnitName, generation: Generation) -> bool {
        let mut reset = false;
        while self.units.get(unit).is_none_or(|unit| unit.generation < generation) {
            let event = next(events).await;
            reset |= event == Event::Reset;
            self.take(event);
        }
        reset
    }

    /// What the other endpoints say.
    async fn asked(client: &Client) -> Known {
        let units = client.units(&[], false).await.unwrap().units;
        let machines = client.machines(false).await.unwrap().machines;
        Known {
            units: units.into_iter().map(|unit| (unit.name.clone(), unit)).collect(),
            held: BTreeMap::new(),
            machines: machines.into_iter().map(|machine| (machine.id.clone(), machine)).collect(),
        }
    }
}

#[tokio::test]
async fn a_unit_is_followed_from_its_start_to_its_end() {
    let bench = Bench::new().await;
    let client = bench.client();
    bench.propose(register("m1", "10.0.0.1", &[])).await;
    let mut events = client.events(None, &[name("a.service")]);
    let told = until_synced(&mut events).await;
    assert!(gone("a.service", 0)(&told[0]) && told.len() == 2, "{told:?}");
    assert_eq!(told[1], Event::Synced { leader: Some(machine("m1")) });

    let operation = Operation::Set {
        name: "a.service".into(),
        text: Some("[Service]\nExecStart=/bin/a\n".into()),
        desired_state: Some(State::Launched),
    };
    let done = client.batch(&Batch { operations: vec![operation] }).await.unwrap();
    bench.propose(set("other.service", "/bin/o", DesiredState::Launched)).await;
    bench.propose(assign(&state(&*bench.store), "a.service", "m1")).await;
    let generation = Generation(done.revision.0);
    bench.propose(report(&state(&*bench.store), "a.service", "m1", "active", Some(generation))).await;
    loop {
        match next(&mut events).await {
            Event::Unit { unit } if unit.current_state == State::Launched => {
                assert_eq!(unit.states[0].generation, Some(generation));
                break;
            }
            Event::Unit { unit } => assert_eq!(unit.name, name("a.service")),
            other => panic!("{other:?}"),
        }
    }

    client.batch(&Batch { operations: vec![Operation::Destroy { name: "a.service".into() }] }).await.unwrap();
    assert!(gone("a.service", 1)(&next(&mut events).await));
    // One who comes now learns the same.
    let told = until_synced(&mut client.events(None, &[name("a.service")])).await;
    assert!(gone("a.service", 1)(&told[0]) && told.len() == 2, "{told:?}");
    let unnamed = until_synced(&mut client.events(None, &[])).await;
    assert!(unnamed.iter().any(gone("a.service", 1)), "{unnamed:?}");

    let unassign = Command::Unassign { unit: name("a.service"), machine: machine("m1") };
    bench.propose(unassign).await;
    let report = Command::Report { machine: machine("m1"), unit: name("a.service"), observed: None };
    bench.propose(report).await;
    while !gone("a.service", 0)(&next(&mut events).await) {}
    assert_eq!(client.unit(&name("a.service"), false).await.unwrap(), None);
}

#[tokio::test]
async fn whoever_begins_after_a_change_is_told_of_it() {
    let store = Arc::new(MemoryStore::new(machine("m1")));
    let (router, follower) = http::router(parts(&store));
    propose(&*store, set("a.service", "/bin/a", DesiredState::Inactive)).await;
    let mut request = Request::builder().uri("/v1/events?unit=a.service").body(Body::empty()).unwrap();
    request.extensions_mut().insert(root());
    let mut body = router.oneshot(request).await.unwrap().into_body();
    // The stream is asked before the task that feeds it has seen the change.
    let (stopped, stop) = oneshot::channel::<()>();
    let first = async {
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        stopped.send(()).unwrap();
        String::from_utf8(first.to_vec()).unwrap()
    };
    let (first, ()) = tokio::join!(biased; first, follower.run(async { drop(stop.await) }));
    assert!(first.contains(r#""kind":"unit""#), "{first}");
}

#[tokio::test]
async fn a_stream_goes_on_where_it_was_cut() {
    let mut bench = Bench::new().await;
    for unit in ["a.service", "b.service", "c.service"] {
        bench.propose(set(unit, "/bin/1", DesiredState::Inactive)).await;
    }
    let mut events = bench.client().events(None, &[]);
    assert_eq!(until_synced(&mut events).await.len(), 4);
    assert_eq!(events.told_up_to(), Some(state(&*bench.store).revision));
    let after = events.told_up_to();
    drop(events);
    bench.propose(set("b.service", "/bin/2", DesiredState::Inactive)).await;
    bench.propose(Command::DestroyUnit { name: name("c.service") }).await;

    let told = until_synced(&mut bench.client().events(after, &[])).await;
    assert!(
        matches!(&told[..], [Event::Unit { unit }, g, Event::Synced { .. }]
        if unit.name == name("b.service") && gone("c.service", 0)(g)),
        "{told:?}"
    );
    let named = until_synced(&mut bench.client().events(after, &[name("a.service")])).await;
    assert_eq!(named.len(), 1, "{named:?}");
    // Before the daemon's memory: it began with the store's first revision, but not before this.
    bench.served.stop().await;
    bench.served = Served::start(&bench.store, &bench.path).await;
    let told = until_synced(&mut bench.client().events(after, &[])).await;
    assert_eq!(told[0], Event::Reset, "{told:?}");
    assert_eq!(told.len(), 4, "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_revision_that_was_never_reached_means_a_reset() {
    let bench = Bench::new().await;
    bench.propose(set("a.service", "/bin/1", DesiredState::Inactive)).await;
    let told = until_synced(&mut bench.client().events(Some(Revision(1000)), &[])).await;
    assert_eq!(told[0], Event::Reset, "{told:?}");
}

#[tokio::test]
async fn a_restart_of_the_daemon_is_outlived() {
    let mut bench = Bench::new().await;
    bench.propose(set("a.service", "/bin/1", DesiredState::Inactive)).await;
    let mut patient = bench.client().events(None, &[]).with_patience(Some(PATIENCE));
    let mut impatient = bench.client().events(None, &[]);
    until_synced(&mut patient).await;
    until_synced(&mut impatient).await;
    timeout(PATIENCE, bench.served.stop()).await.expect("streams do not keep the daemon from stopping");
    let error = impatient.next().await.unwrap_err();
    assert!(error.is_unreachable(), "{error}");
    let error = impatient.next().await.unwrap_err();
    assert!(matches!(error, ClientError::NobodyAnswers { .. }), "{error}");
    let waiting = tokio::spawn(async move { (next(&mut patient).await, patient) });
    bench.served = Served::start(&bench.store, &bench.path).await;
    let (event, mut patient) = timeout(PATIENCE, waiting).await.unwrap().unwrap();
    assert_eq!(event, Event::Synced { leader: Some(machine("m1")) });
    assert!(matches!(impatient.next().await.unwrap().1, Event::Synced { .. }));
    bench.propose(set("b.service", "/bin/1", DesiredState::Inactive)).await;
    assert!(matches!(next(&mut patient).await, Event::Unit { .. }));
}

#[tokio::test]
async fn a_missing_daemon_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none.sock");
    let error = Client::new(Endpoint::Unix(path.clone())).status().await.unwrap_err();
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    assert!(error.to_string().contains("is coreinitd running?"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_quiet_stream_stays_open() {
    let bench = Bench::new().await;
    let mut events = bench.client().events(None, &[name("a.service")]);
    until_synced(&mut events).await;
    let store = bench.store.clone();
    // Time flies while all wait: several times the silence that a client bears.
    let changes = tokio::spawn(async move {
        for number in 0..40 {
            tokio::time::sleep(Duration::from_secs(2)).await;
            propose(&*store, set("other.service", &format!("/bin/{number}"), DesiredState::Inactive)).await;
        }
        propose(&*store, set("a.service", "/bin/a", DesiredState::Inactive)).await;
    });
    let event = events.next().await.unwrap().1;
    assert!(matches!(event, Event::Unit { .. }), "{event:?}");
    changes.await.unwrap();
    // The keep-alives have moved the revision as well.
    assert!(events.told_up_to() > Some(Revision(30)), "{:?}", events.told_up_to());
}

/// One revision in which five hundred units change.
async fn change_all(store: &MemoryStore, round: usize) -> Generation {
    let units =
        (0..500).map(|unit| set(&format!("u{unit}.service"), &format!("/{round}"), DesiredState::Loaded));
    Generation(store.propose(units.collect(), soon()).await.unwrap().revision.0)
}

#[tokio::test]
async fn a_slow_reader_is_told_to_begin_anew_and_holds_up_nobody() {
    let bench = Bench::new().await;
    let mut slow = UnixStream::connect(&bench.path).await.unwrap();
    slow.write_all(b"GET /v1/events HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut start = [0; 12];
    slow.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");

    let (mut quick, mut known) = (bench.client().events(None, &[]), Known::default());
    let last = name("u0.service");
    let mut generation = Generation(0);
    for round in 0..40 {
        generation = change_all(&bench.store, round).await;
        assert!(!known.follow(&mut quick, &last, generation).await, "the quick reader is never behind");
    }
    let end = format!(
        r#""name":"u99.service","desiredState":"loaded","currentState":"inactive","generation":{generation},"#
    );
    let mut text = String::new();
    let mut part = vec![0; 1 << 20];
    while !text.contains(&end) {
        let count = timeout(PATIENCE, slow.read(&mut part)).await.unwrap().unwrap();
        assert!(count > 0);
        text.push_str(&String::from_utf8_lossy(&part[..count]));
        text.drain(..text.floor_char_boundary(text.len().saturating_sub(2 << 20)));
    }
    assert_eq!(text.matches(r#""kind":"reset""#).count(), 1);
}

#[tokio::test]
async fn five_hundred_units_start_before_several_streams() {
    let bench = Bench::new().await;
    for id in ["m1", "m2", "m3"] {
        bench.propose(register(id, "10.0.0.1", &[])).await;
    }
    let mut streams: Vec<_> = (0..4).map(|_| (bench.client().events(None, &[]), Known::default())).collect();
    for (events, known) in &mut streams {
        until_synced(events).await.into_iter().for_each(|event| known.take(event));
    }
    let store = bench.store.clone();
    let began = std::time::Instant::now();
    let work = tokio::spawn(async move {
        let generation = change_all(&store, 0).await;
        let homes = |unit: usize| ["m1", "m2", "m3"][unit % 3];
        let now = state(&*store);
        let assigns = (0..500).map(|unit| assign(&now, &format!("u{unit}.service"), homes(unit)));
        store.propose(assigns.collect(), soon()).await.unwrap();
        for (active, done) in [("activating", None), ("active", None), ("active", Some(generation))] {
            for tick in 0..100 {
                let now = state(&*store);
                let some = (0..5).map(|unit| 5 * tick + unit);
                let reports =
                    some.map(|unit| report(&now, &format!("u{unit}.service"), homes(unit), active, done));
                store.propose(reports.collect(), soon()).await.unwrap();
                tokio::task::yield_now().await;
            }
        }
        propose(&*store, set("last.service", "/bin/l", DesiredState::Inactive)).await;
        Generation(state(&*store).revision.0)
    });
    let generation = work.await.unwrap();
    for (events, known) in &mut streams {
        known.follow(events, &name("last.service"), generation).await;
    }
    let asked = Known::asked(&bench.client()).await;
    for (_, known) in &streams {
        assert_eq!(*known, asked);
    }
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
}

/// One thing that happens to a small cluster, or to a reader of its events.
#[derive(Clone, Debug)]
enum Step {
    Change(Change, usize, usize),
    Read,
    Reconnect,
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Set,
    Wish,
    Destroy,
    Assign,
    Unassign,
    Register,
    Lose,
    Find,
    Report,
    Unreport,
    Tag,
    Remove,
}

fn step() -> impl Strategy<Value = Step> {
    use Change::*;
    let all = [
        Set, Set, Wish, Destroy, Assign, Assign, Unassign, Register, Lose, Find, Report, Report, Report,
        Unreport, Tag, Remove,
    ];
    let change = (prop::sample::select(all.to_vec()), 0..3usize, 0..3usize);
    prop_oneof![
        8 => change.prop_map(|(change, unit, machine)| Step::Change(change, unit, machine)),
        2 => Just(Step::Read),
        1 => Just(Step::Reconnect),
    ]
}

fn command(store: &MemoryStore, serial: usize, change: Change, unit: usize, home: usize) -> Command {
    let now = state(store);
    let (unit, home) = (format!("u{unit}.service"), format!("m{home}"));
    let generation = now.units.get(&name(&unit)).map(|unit| unit.generation);
    match change {
        Change::Set => set(&unit, &format!("/bin/{serial}"), DesiredState::Launched),
        Change::Wish => {
            Command::SetUnit { name: name(&unit), file: None, desired: Some(DesiredState::Loaded) }
        }
        Change::Destroy => Command::DestroyUnit { name: name(&unit) },
        Change::Assign => assign(&now, &unit, &home),
        Change::Unassign => Command::Unassign { unit: name(&unit), machine: machine(&home) },
        Change::Register => register(&home, &format!("10.0.0.{serial}"), &[]),
        Change::Lose => Command::MarkLost { machine: machine(&home) },
        Change::Find => Command::MarkReady { machine: machine(&home) },
        Change::Report => {
            report(&now, &unit, &home, if serial.is_multiple_of(2) { "active" } else { "failed" }, generation)
        }
        Change::Unreport => Command::Report { machine: machine(&home), unit: name(&unit), observed: None },
        Change::Tag => Command::SetMachineMetadata {
            id: machine(&home),
            set: BTreeMap::from([("serial".to_owned(), Some(serial.to_string()))]),
        },
        Change::Remove => Command::RemoveMachine { id: machine(&home) },
    }
}

async fn replay(steps: Vec<Step>) {
    let bench = Bench::new().await;
    let client = bench.client();
    let few = [name("u0.service"), name("u1.service"), name("z.service")];
    for id in ["m0", "m1", "m2"] {
        bench.propose(register(id, "10.0.0.1", &[])).await;
    }
    let mut all = (client.events(None, &[]), Known::default());
    let mut cut = (client.events(None, &[]), Known::default());
    let mut named = (client.events(None, &few), Known::default());
    read_on(&bench.store, 0, [&mut all, &mut cut, &mut named]).await;
    for (serial, step) in (1..).zip(steps) {
        match step {
            Step::Change(change, unit, home) => {
                let command = command(&bench.store, serial, change, unit, home);
                // Some are rejected, which is as good.
                bench.store.propose(vec![command], soon()).await.unwrap();
                tokio::task::yield_now().await;
            }
            Step::Read => read_on(&bench.store, serial, [&mut all, &mut cut, &mut named]).await,
            Step::Reconnect => {
                let after = cut.0.told_up_to();
                if after.is_none() {
                    cut.1 = Known::default();
                }
                cut.0 = client.events(after, &[]);
            }
        }
    }
    // What stands beside the first mark may come after it, but not after the second.
    for mark in [1000, 1001] {
        read_on(&bench.store, mark, [&mut all, &mut cut, &mut named]).await;
    }
    let asked = Known::asked(&client).await;
    let now = state(&*bench.store);
    let held: BTreeSet<_> = now.observed.keys().map(|(unit, _)| unit.clone()).collect();
    let held: BTreeSet<_> = held.into_iter().filter(|unit| !now.units.contains_key(unit)).collect();
    for known in [&all.1, &cut.1] {
        assert_eq!((&known.units, &known.machines), (&asked.units, &asked.machines));
        assert_eq!(known.held.keys().cloned().collect::<BTreeSet<_>>(), held);
    }
    let mut few_asked = asked.units;
    few_asked.retain(|unit, _| few.contains(unit));
    assert_eq!(named.1.units, few_asked);
    assert!(named.1.machines.is_empty());
}

/// Makes a change that every reader is told of, and lets all read up to it.
async fn read_on(store: &MemoryStore, serial: usize, readers: [&mut (Events, Known); 3]) {
    propose(store, set("z.service", &format!("/mark/{serial}"), DesiredState::Inactive)).await;
    let generation = Generation(state(store).revision.0);
    for (events, known) in readers {
        known.follow(events, &name("z.service"), generation).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_replayed_events_are_what_the_other_endpoints_say(steps in prop::collection::vec(step(), 20..100)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(replay(steps));
    }
}
