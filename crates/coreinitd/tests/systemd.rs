//! The agent and its D-Bus driver against a real systemd, in a host that `tests/rack/hosts.sh` boots. Needs
//! root and systemd-nspawn; without them it fails and says so. One host for all of it, since a host takes
//! longer than most checks.

use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::{ClusterState, Command, DesiredState, MachineId, MachineInfo, Observed, UnitFile, UnitName};
use coreinitd::agent::{AgentParts, run};
use coreinitd::systemd::{DBus, JobEnd, UnitManager};
use futures::future::join_all;
use store::{MemoryStore, Store};
use tokio::sync::watch;

/// The world's name; other worlds may run beside it.
const WORLD: &str = "hxagent";
const UNITS_DIR: &str = "/run/coreinit/units";

/// One real host. Goes down with the test, however that ends.
struct Host {
    bus: String,
    root: PathBuf,
}

impl Host {
    fn boot() -> Host {
        let missing = ["systemd-nspawn", "nft", "nsenter", "mkfs.ext4"].into_iter().find(|tool| {
            let found = Process::new("sh").args(["-c", &format!("command -v {tool}")]).output();
            !found.is_ok_and(|found| found.status.success())
        });
        let uid = Process::new("id").arg("-u").output().expect("id is on every machine").stdout;
        if missing.is_some() || uid.trim_ascii() != b"0" {
            panic!(
                "this test boots a host of its own and needs root, and the packages systemd-container \
                nftables iproute2 e2fsprogs procps python3 dbus (missing: {missing:?}, uid: {})",
                String::from_utf8_lossy(&uid).trim()
            );
        }
        hosts(&["down"]);
        hosts(&["up", "1"]);
        let bus = hosts(&["bus", "h1"]);
        let root =
            bus.strip_prefix("unix:path=").and_then(|path| path.strip_suffix("/run/dbus/system_bus_socket"));
        let root = PathBuf::from(root.unwrap_or_else(|| panic!("unexpected bus address {bus}")));
        Host { bus, root }
    }

    async fn systemd(&self) -> Arc<DBus> {
        let units = DBus::connect_to(Some(self.bus.clone()), UNITS_DIR.into(), &self.root).await;
        Arc::new(units.expect("the host's systemd answers"))
    }

    fn systemctl(&self, arguments: &[&str]) -> String {
        hosts(&[&["exec", "h1", "systemctl"], arguments].concat())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        hosts(&["down"]);
    }
}

fn hosts(arguments: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/rack/hosts.sh");
    let output = Process::new(script).args(arguments).env("HX_NAME", WORLD).stdin(Stdio::null()).output();
    let output = output.expect("tests/rack/hosts.sh can be executed");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "hosts.sh {arguments:?}: {out}{err}");
    out.trim().to_string()
}

/// A cluster of this one machine, with an agent that can be ended and begun anew.
struct OneMachine {
    store: Arc<MemoryStore>,
    machine: MachineId,
    marks: tempfile::TempDir,
    agent: Option<(watch::Sender<bool>, tokio::task::JoinHandle<()>)>,
}

impl OneMachine {
    async fn form() -> OneMachine {
        let machine = MachineId::new("m1").unwrap();
        let store = Arc::new(MemoryStore::new(machine.clone()));
        let this = OneMachine { store, machine, marks: tempfile::tempdir().unwrap(), agent: None };
        let register = Command::RegisterMachine { id: this.machine.clone(), info: MachineInfo::default() };
        this.propose(vec![Command::InitCluster { id: "c".into(), name: "c".into() }, register]).await;
        this
    }

    fn begin(&mut self, units: Arc<DBus>) {
        let parts = AgentParts {
            machine: self.machine.clone(),
            store: self.store.clone(),
            units,
            marks_dir: self.marks.path().into(),
        };
        let (stop, stopping) = watch::channel(false);
        self.agent = Some((stop, tokio::spawn(run(parts, stopping))));
    }

    async fn end(&mut self) {
        let (stop, task) = self.agent.take().expect("an agent runs");
        stop.send_replace(true);
        task.await.unwrap();
    }

    async fn propose(&self, commands: Vec<Command>) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
        let committed = self.store.propose(commands, deadline).await.unwrap();
        for outcome in committed.outcomes {
            outcome.unwrap();
        }
    }

    async fn set(&self, units: &[(&str, &str, DesiredState)]) {
        let set = units.iter().map(|(unit, text, desired)| Command::SetUnit {
            name: name(unit),
            file: Some(UnitFile::parse(text).unwrap()),
            desired: Some(*desired),
        });
        self.propose(set.collect()).await;
        let state = self.store.state().borrow().clone();
        let assign = units.iter().map(|(unit, ..)| Command::Assign {
            unit: name(unit),
            machine: self.machine.clone(),
            generation: state.units[&name(unit)].generation,
            reason: "it is the only one".into(),
        });
        self.propose(assign.collect()).await;
    }

    async fn start(&self, unit: &str, text: &str) {
        self.set(&[(unit, text, DesiredState::Launched)]).await;
    }

    async fn destroy(&self, units: &[&str]) {
        let gone = |unit: &&str| {
            let (unit, machine) = (name(unit), self.machine.clone());
            [Command::DestroyUnit { name: unit.clone() }, Command::Unassign { unit, machine }]
        };
        self.propose(units.iter().flat_map(gone).collect()).await;
        self.wait("the units are gone", |state| {
            units.iter().all(|unit| state.observed_of(&name(unit)).next().is_none())
        })
        .await;
    }

    /// Waits until the machine has carried out the newest wish, and gives its report.
    async fn settled(&self, unit: &str) -> Observed {
        let unit = name(unit);
        let settled = |state: &ClusterState| {
            let (_, observed) = state.observed_of(&unit).next()?;
            (observed.generation == Some(state.units.get(&unit)?.generation)).then(|| (**observed).clone())
        };
        let state = self.wait(&format!("{unit} settles"), |state| settled(state).is_some()).await;
        settled(&state).unwrap()
    }

    async fn wait(&self, what: &str, mut holds: impl FnMut(&ClusterState) -> bool) -> Arc<ClusterState> {
        let mut state = self.store.state();
        let found = tokio::time::timeout(Duration::from_secs(30), state.wait_for(|state| holds(state))).await;
        let known = self.store.state().borrow().observed.clone();
        found.unwrap_or_else(|_| panic!("waited in vain until {what}: {known:#?}")).unwrap().clone()
    }
}

fn name(unit: &str) -> UnitName {
    UnitName::new(unit).unwrap()
}

fn sleeper(text: &str) -> String {
    format!("[Unit]\nDescription={text}\n[Service]\nExecStart=/bin/sleep 1000\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_systemd_is_driven() {
    let host = Host::boot();
    let units = host.systemd().await;
    as_fast_as_systemctl(&host, &units, 1).await;
    as_fast_as_systemctl(&host, &units, 100).await;

    a_file_in_a_directory_without_new_time_is_found(&host, &units).await;

    let mut cluster = OneMachine::form().await;
    cluster.begin(units);
    many_at_once(&host, &cluster).await;
    a_killed_process_is_seen(&host, &cluster).await;
    a_failure_says_why(&cluster).await;
    a_new_text_runs(&host, &cluster).await;
    the_machines_own_units_are_left_alone(&host, &cluster).await;
    a_socket_comes_before_its_service(&host, &cluster).await;
    what_is_made_again_runs_the_new_text(&host, &cluster).await;
    a_person_may_start_again_and_again(&host, &cluster).await;
    a_unit_that_waits_to_be_tried_again_says_why(&cluster).await;
    others_are_told_who_wants_them(&host, &cluster).await;
    what_has_lost_its_file_is_ours_still(&host, &cluster).await;
    a_lost_bus_is_found_again(&host, &cluster).await;
    an_agent_that_comes_back_starts_nothing(&host, &mut cluster).await;
}

/// Starts units through the driver, and as many with systemctl, whose files lie in place.
async fn as_fast_as_systemctl(host: &Host, units: &Arc<DBus>, count: usize) {
    let names: Vec<UnitName> = (0..count).map(|i| name(&format!("ours-{count}-{i}.service"))).collect();
    let file = UnitFile::parse(&sleeper("measured")).unwrap();
    let begun = Instant::now();
    for name in &names {
        units.write(name, &file).await.unwrap();
    }
    assert!(units.link(&names).await.unwrap().is_empty());
    let linked = begun.elapsed();
    let ends = join_all(names.iter().map(|name| units.start(name))).await;
    let ours = begun.elapsed();
    assert!(ends.iter().all(|end| *end == JobEnd::Done), "{ends:?}");
    let ends = join_all(names.iter().map(|name| units.stop(name))).await;
    assert!(ends.iter().all(|end| *end == JobEnd::Done), "{ends:?}");
    assert!(units.remove(&names).await.unwrap().is_empty());

    let dir = host.root.join("run/systemd/system");
    for i in 0..count {
        std::fs::write(dir.join(format!("theirs-{count}-{i}.service")), file.text()).unwrap();
    }
    let begun = Instant::now();
    hosts(&["exec", "h1", "true"]);
    let entering = begun.elapsed();
    let begun = Instant::now();
    let start = format!("systemctl start theirs-{count}-{{0..{}}}.service", count - 1);
    let start = if count == 1 { start.replace("{0..0}", "0") } else { start };
    hosts(&["exec", "h1", "bash", "-c", &start]);
    let theirs = begun.elapsed().saturating_sub(entering);
    hosts(&["exec", "h1", "bash", "-c", &start.replace("start", "stop")]);
    for i in 0..count {
        std::fs::remove_file(dir.join(format!("theirs-{count}-{i}.service"))).unwrap();
    }
    eprintln!("{count} units: linked in {linked:?}, running in {ours:?}; systemctl start {theirs:?}");
    // The machine may be busy with something else during one of the two.
    assert!(ours < theirs * 3 + Duration::from_millis(200), "{ours:?} against {theirs:?}");
}

/// As on a kernel whose clock ticks every 4 ms, when two files come within one tick.
async fn a_file_in_a_directory_without_new_time_is_found(host: &Host, units: &Arc<DBus>) {
    let links = std::fs::File::open(host.root.join("run/systemd/system")).unwrap();
    units.observe(&[name("nobody.service")].into()).await.unwrap();
    let time = links.metadata().unwrap().modified().unwrap();
    let unit = name("same-tick.service");
    units.write(&unit, &UnitFile::parse(&sleeper("same tick")).unwrap()).await.unwrap();
    assert!(units.link(std::slice::from_ref(&unit)).await.unwrap().is_empty());
    links.set_modified(time).unwrap();
    assert_eq!(units.start(&unit).await, JobEnd::Done);
    assert_eq!(units.stop(&unit).await, JobEnd::Done);
    assert!(units.remove(&[unit]).await.unwrap().is_empty());
}

async fn many_at_once(host: &Host, cluster: &OneMachine) {
    let names: Vec<String> = (0..300).map(|i| format!("many-{i}.service")).collect();
    let text = sleeper("one of many");
    let all: Vec<_> = names.iter().map(|name| (name.as_str(), &*text, DesiredState::Launched)).collect();
    let begun = Instant::now();
    let before = cluster.store.state().borrow().revision.0;
    cluster.set(&all).await;
    let up = |state: &ClusterState| state.observed.values().filter(|o| &*o.active == "active").count() == 300;
    let after = cluster.wait("300 units are up", up).await;
    let proposals = after.revision.0 - before - 2;
    eprintln!("300 units wanted, started and reported: {:?}, {proposals} proposals", begun.elapsed());
    assert!(proposals <= 60, "{proposals} proposals");
    let active = host.systemctl(&["list-units", "--plain", "--no-legend", "--state=active", "many-*"]);
    assert_eq!(active.lines().count(), 300);
    let begun = Instant::now();
    cluster.destroy(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    eprintln!("300 units destroyed: {:?}", begun.elapsed());
    assert_eq!(host.systemctl(&["list-units", "--all", "--plain", "--no-legend", "many-*"]), "");
    assert_eq!(std::fs::read_dir(host.root.join("run/coreinit/units")).unwrap().count(), 0);
}

async fn a_killed_process_is_seen(host: &Host, cluster: &OneMachine) {
    cluster.start("victim.service", &sleeper("victim")).await;
    assert_eq!(&*cluster.settled("victim.service").await.active, "active");
    host.systemctl(&["kill", "-s", "KILL", "victim.service"]);
    let failed = |state: &ClusterState| {
        state.observed_of(&name("victim.service")).any(|(_, o)| {
            o.failure.as_ref().is_some_and(|f| f.reason == "signal (killed by signal 9)")
                && &*o.active == "failed"
        })
    };
    cluster.wait("the kill is reported with its reason", failed).await;
    cluster.destroy(&["victim.service"]).await;
}

async fn a_failure_says_why(cluster: &OneMachine) {
    let text = "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo no luck today; exit 3'\n";
    cluster.start("bad.service", text).await;
    let observed = cluster.settled("bad.service").await;
    let failure = observed.failure.expect("a failed start says why");
    assert_eq!((&*observed.active, &*failure.reason), ("failed", "start job failed: exit-code (status 3)"));
    assert!(failure.journal.iter().any(|line| line == "no luck today"), "{:?}", failure.journal);

    cluster.start("absent.service", "[Service]\nExecStart=/nowhere/to/be/found\n").await;
    // To systemd this start has succeeded, and the unit failed after it.
    let why = |o: &Observed| o.failure.as_ref().is_some_and(|f| f.reason == "exit-code (status 203)");
    cluster
        .wait("its failure is told", |state| state.observed_of(&name("absent.service")).any(|(_, o)| why(o)))
        .await;

    cluster
        .start(
            "needy.service",
            &sleeper("needy").replace("[Service]", "Requires=bad.service\nAfter=bad.service\n[Service]"),
        )
        .await;
    let observed = cluster.settled("needy.service").await;
    assert_eq!(&*observed.failure.unwrap().reason, "start job failed: dependency");

    cluster.start("empty.service", "[Service]\n").await;
    let observed = cluster.settled("empty.service").await;
    assert!(observed.failure.unwrap().reason.contains("bad unit file setting"));
    cluster.destroy(&["bad.service", "absent.service", "needy.service", "empty.service"]).await;
}

async fn a_new_text_runs(host: &Host, cluster: &OneMachine) {
    for round in 0..3 {
        cluster.start("text.service", &sleeper(&format!("version {round}"))).await;
        assert_eq!(&*cluster.settled("text.service").await.active, "active");
        let shown = host.systemctl(&["show", "-P", "Description", "text.service"]);
        assert_eq!(shown, format!("version {round}"));
        assert_eq!(host.systemctl(&["show", "-P", "NeedDaemonReload", "text.service"]), "no");
    }
    cluster.destroy(&["text.service"]).await;
}

async fn the_machines_own_units_are_left_alone(host: &Host, cluster: &OneMachine) {
    let before = host.systemctl(&["show", "-P", "MainPID,FragmentPath", "dbus.service"]);
    cluster.start("dbus.service", &sleeper("not the bus")).await;
    let observed = cluster.settled("dbus.service").await;
    assert_eq!(&*observed.active, "failed");
    let reason = observed.failure.unwrap().reason;
    assert!(
        reason.contains("/lib/systemd/system/dbus.service") && reason.contains("another name"),
        "{reason}"
    );
    cluster.destroy(&["dbus.service"]).await;
    assert_eq!(host.systemctl(&["show", "-P", "MainPID,FragmentPath", "dbus.service"]), before);
}

async fn a_socket_comes_before_its_service(host: &Host, cluster: &OneMachine) {
    let socket = "[Socket]\nListenStream=127.0.0.1:7999\n";
    let service = "[Service]\nExecStart=/bin/sleep 1000\n";
    let (launched, loaded) = (DesiredState::Launched, DesiredState::Loaded);
    cluster.set(&[("pair.service", service, loaded), ("pair.socket", socket, launched)]).await;
    assert_eq!(&*cluster.settled("pair.socket").await.sub, "listening");
    assert_eq!(&*cluster.settled("pair.service").await.active, "inactive");
    hosts(&["exec", "h1", "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/7999"]);
    let up = |state: &ClusterState| {
        state.observed_of(&name("pair.service")).any(|(_, observed)| &*observed.active == "active")
    };
    cluster.wait("the connection has started the service", up).await;
    cluster.destroy(&["pair.service", "pair.socket"]).await;

    for _ in 0..5 {
        cluster.set(&[("both.service", service, launched), ("both.socket", socket, launched)]).await;
        assert_eq!(&*cluster.settled("both.socket").await.active, "active");
        assert_eq!(&*cluster.settled("both.service").await.active, "active");
        cluster.destroy(&["both.service", "both.socket"]).await;
    }
    assert_eq!(host.systemctl(&["list-units", "--all", "--plain", "--no-legend", "pair*", "both*"]), "");
}

async fn what_is_made_again_runs_the_new_text(host: &Host, cluster: &OneMachine) {
    // The friend's After= keeps systemd from letting go of the unit.
    let friend = sleeper("friend").replace("[Service]", "After=again.service\n[Service]");
    cluster.start("friend.service", &friend).await;
    cluster.settled("friend.service").await;
    for round in 0..4 {
        cluster.start("again.service", &sleeper(&format!("life {round}"))).await;
        assert_eq!(&*cluster.settled("again.service").await.active, "active");
        let shown = host.systemctl(&["show", "-P", "Description", "again.service"]);
        assert_eq!(shown, format!("life {round}"));
        cluster.destroy(&["again.service"]).await;
    }
    cluster.destroy(&["friend.service"]).await;
}

async fn a_person_may_start_again_and_again(host: &Host, cluster: &OneMachine) {
    for round in 0..8 {
        cluster.start("eager.service", &sleeper(&format!("attempt {round}"))).await;
        let observed = cluster.settled("eager.service").await;
        assert_eq!(&*observed.active, "active", "{:?}", observed.failure);
    }
    cluster.destroy(&["eager.service"]).await;

    // systemd's result of a start that it refuses is that of the start before.
    for round in 0..3 {
        let limit = format!("Description=attempt {round}\nStartLimitBurst=1\nStartLimitIntervalSec=600\n");
        let fails = "Type=oneshot\nExecStart=/bin/sh -c 'echo again >>/run/attempts; exit 3'\n";
        cluster.start("loser.service", &format!("[Unit]\n{limit}[Service]\n{fails}")).await;
        let reason = cluster.settled("loser.service").await.failure.map(|failure| failure.reason);
        assert_eq!(reason.as_deref(), Some("start job failed: exit-code (status 3)"));
    }
    let attempts = std::fs::read_to_string(host.root.join("run/attempts")).unwrap();
    assert_eq!(attempts.lines().count(), 3);
    cluster.destroy(&["loser.service"]).await;
}

async fn a_unit_that_waits_to_be_tried_again_says_why(cluster: &OneMachine) {
    let text = "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'exit 3'\nRestart=on-failure\nRestartSec=1h\n";
    cluster.start("round.service", text).await;
    let observed = cluster.settled("round.service").await;
    let reason = observed.failure.map(|failure| failure.reason);
    assert_eq!((&*observed.active, &*observed.sub), ("activating", "auto-restart"));
    assert_eq!(reason.as_deref(), Some("start job failed: exit-code (status 3)"));
    cluster.destroy(&["round.service"]).await;
}

async fn what_has_lost_its_file_is_ours_still(host: &Host, cluster: &OneMachine) {
    for unit in ["bare.service", "wanted.service"] {
        cluster.start(unit, &sleeper("without a file")).await;
        cluster.settled(unit).await;
        std::fs::remove_file(host.root.join("run/systemd/system").join(unit)).unwrap();
        std::fs::remove_file(host.root.join("run/coreinit/units").join(unit)).unwrap();
    }
    host.systemctl(&["daemon-reload"]);
    cluster.destroy(&["bare.service"]).await;
    assert_eq!(host.systemctl(&["list-units", "--all", "--plain", "--no-legend", "bare.service"]), "");
    cluster.set(&[("wanted.service", &sleeper("without a file"), DesiredState::Loaded)]).await;
    // Without its file systemd takes the end of its process for a failure.
    let active = cluster.settled("wanted.service").await.active;
    assert!(matches!(&*active, "inactive" | "failed"), "{active}");
    cluster.destroy(&["wanted.service"]).await;
}

/// `[Install]`, of units that come, change and go.
async fn others_are_told_who_wants_them(host: &Host, cluster: &OneMachine) {
    let wants = |unit: &str| host.systemctl(&["show", "-P", "Wants", unit]);
    cluster.start("wanting.service", &sleeper("wanting")).await;
    cluster.settled("wanting.service").await;
    let installed = format!("{}[Install]\nWantedBy=wanting.service\n", sleeper("wanted"));
    let loaded = DesiredState::Loaded;
    cluster.set(&[("wanted@1.service", &installed, loaded)]).await;
    cluster.settled("wanted@1.service").await;
    assert_eq!(wants("wanting.service"), "wanted@1.service");
    let other = installed.replace("WantedBy", "RequiredBy");
    cluster.set(&[("wanted@1.service", &other, loaded)]).await;
    cluster.settled("wanted@1.service").await;
    assert_eq!(wants("wanting.service"), "");
    assert_eq!(host.systemctl(&["show", "-P", "RequiredBy", "wanted@1.service"]), "wanting.service");
    cluster.destroy(&["wanted@1.service"]).await;
    let links = host.root.join("run/systemd/system");
    assert!(
        !links.join("wanting.service.requires").exists() && !links.join("wanting.service.wants").exists()
    );
    assert!(!host.systemctl(&["show", "-P", "Requires", "wanting.service"]).contains("wanted"));

    // What cannot be is told, and holds up no other.
    let nonsense = format!("{}[Install]\nWantedBy=nobody\n", sleeper("wanted by what is no unit"));
    cluster.set(&[("alone.service", &nonsense, loaded), ("other.service", &installed, loaded)]).await;
    let reason = cluster.settled("alone.service").await.failure.map(|failure| failure.reason);
    assert!(reason.as_deref().is_some_and(|reason| reason.contains("EnableUnitFiles")), "{reason:?}");
    assert_eq!(cluster.settled("other.service").await.failure, None);
    cluster.destroy(&["wanting.service", "alone.service", "other.service"]).await;
}

async fn a_lost_bus_is_found_again(host: &Host, cluster: &OneMachine) {
    for (step, loss) in ["daemon-reexec", "restart dbus.service"].into_iter().enumerate() {
        let slow = format!("[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sleep 1.{step}\n");
        let (before, during, after) = (
            format!("before-{step}.service"),
            format!("during-{step}.service"),
            format!("after-{step}.service"),
        );
        cluster.start(&before, &sleeper("before")).await;
        cluster.settled(&before).await;
        cluster.start(&during, &slow).await;
        cluster
            .wait("the slow start is under way", |state| {
                state.observed_of(&name(&during)).any(|(_, observed)| &*observed.active == "activating")
            })
            .await;
        let begun = Instant::now();
        host.systemctl(&loss.split(' ').collect::<Vec<_>>());
        cluster.start(&after, &sleeper("after")).await;
        assert_eq!(&*cluster.settled(&after).await.active, "active");
        eprintln!("{loss}: the next unit ran after {:?}", begun.elapsed());
        assert_eq!(&*cluster.settled(&during).await.active, "active");
        host.systemctl(&["kill", "-s", "KILL", &before]);
        let failed = |state: &ClusterState| {
            state.observed_of(&name(&before)).any(|(_, observed)| &*observed.active == "failed")
        };
        cluster.wait("a kill is seen again", failed).await;
        cluster.destroy(&[&before, &during, &after]).await;
    }
}

async fn an_agent_that_comes_back_starts_nothing(host: &Host, cluster: &mut OneMachine) {
    let once = "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo once >>/run/once'\n";
    cluster.start("once.service", once).await;
    cluster.start("stays.service", &sleeper("stays")).await;
    cluster.settled("once.service").await;
    cluster.settled("stays.service").await;
    let pid = host.systemctl(&["show", "-P", "MainPID", "stays.service"]);
    cluster.end().await;
    assert_eq!(host.systemctl(&["show", "-P", "MainPID", "stays.service"]), pid);
    cluster.begin(host.systemd().await);
    cluster.start("later.service", &sleeper("later")).await;
    cluster.settled("later.service").await;
    assert_eq!(host.systemctl(&["show", "-P", "MainPID", "stays.service"]), pid);
    assert_eq!(std::fs::read_to_string(host.root.join("run/once")).unwrap(), "once\n");
    cluster.destroy(&["once.service", "stays.service", "later.service"]).await;
    cluster.end().await;
}
