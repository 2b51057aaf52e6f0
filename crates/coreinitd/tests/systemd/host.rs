//! A real host with a systemd, and a cluster of this one machine.

use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cluster::{ClusterState, Command, DesiredState, MachineId, MachineInfo, Observed, UnitFile, UnitName};
use coreinitd::agent::{AgentParts, run};
use coreinitd::systemd::DBus;
use store::{MemoryStore, Store};
use tokio::sync::watch;

/// The world's name; other worlds may run beside it.
const WORLD: &str = "hxagent";
const UNITS_DIR: &str = "/run/coreinit/units";

/// One real host. Goes down with the test, however that ends.
pub struct Host {
    pub bus: String,
    pub root: PathBuf,
}

impl Host {
    pub fn boot() -> Host {
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

    pub async fn systemd(&self) -> Arc<DBus> {
        let units = DBus::connect_to(Some(self.bus.clone()), UNITS_DIR.into(), &self.root).await;
        Arc::new(units.expect("the host's systemd answers"))
    }

    pub fn systemctl(&self, arguments: &[&str]) -> String {
        hosts(&[&["exec", "h1", "systemctl"], arguments].concat())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        hosts(&["down"]);
    }
}

pub fn hosts(arguments: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/rack/hosts.sh");
    let output = Process::new(script).args(arguments).env("HX_NAME", WORLD).stdin(Stdio::null()).output();
    let output = output.expect("tests/rack/hosts.sh can be executed");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "hosts.sh {arguments:?}: {out}{err}");
    out.trim().to_string()
}

/// A cluster of this one machine, with an agent that can be ended and begun anew.
pub struct OneMachine {
    pub store: Arc<MemoryStore>,
    pub machine: MachineId,
    pub marks: tempfile::TempDir,
    pub agent: Option<(watch::Sender<bool>, tokio::task::JoinHandle<()>)>,
}

impl OneMachine {
    pub async fn form() -> OneMachine {
        let machine = MachineId::new("m1").unwrap();
        let store = Arc::new(MemoryStore::new(machine.clone()));
        let this = OneMachine { store, machine, marks: tempfile::tempdir().unwrap(), agent: None };
        let register = Command::RegisterMachine { id: this.machine.clone(), info: MachineInfo::default() };
        this.propose(vec![Command::InitCluster { id: "c".into(), name: "c".into() }, register]).await;
        this
    }

    pub fn begin(&mut self, units: Arc<DBus>) {
        let parts = AgentParts {
            machine: self.machine.clone(),
            store: self.store.clone(),
            units,
            marks_dir: self.marks.path().into(),
            signs: Arc::default(),
        };
        let (stop, stopping) = watch::channel(false);
        self.agent = Some((stop, tokio::spawn(run(parts, stopping))));
    }

    pub async fn end(&mut self) {
        let (stop, task) = self.agent.take().expect("an agent runs");
        stop.send_replace(true);
        task.await.unwrap();
    }

    pub async fn propose(&self, commands: Vec<Command>) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
        let committed = self.store.propose(commands, deadline).await.unwrap();
        for outcome in committed.outcomes {
            outcome.unwrap();
        }
    }

    pub async fn set(&self, units: &[(&str, &str, DesiredState)]) {
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

    pub async fn start(&self, unit: &str, text: &str) {
        self.set(&[(unit, text, DesiredState::Launched)]).await;
    }

    pub async fn destroy(&self, units: &[&str]) {
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
    pub async fn settled(&self, unit: &str) -> Observed {
        let unit = name(unit);
        let settled = |state: &ClusterState| {
            let (_, observed) = state.observed_of(&unit).next()?;
            (observed.generation == Some(state.units.get(&unit)?.generation)).then(|| (**observed).clone())
        };
        let state = self.wait(&format!("{unit} settles"), |state| settled(state).is_some()).await;
        settled(&state).unwrap()
    }

    pub async fn wait(&self, what: &str, mut holds: impl FnMut(&ClusterState) -> bool) -> Arc<ClusterState> {
        let mut state = self.store.state();
        let found = tokio::time::timeout(Duration::from_secs(30), state.wait_for(|state| holds(state))).await;
        let known = self.store.state().borrow().observed.clone();
        found.unwrap_or_else(|_| panic!("waited in vain until {what}: {known:#?}")).unwrap().clone()
    }
}

pub fn name(unit: &str) -> UnitName {
    UnitName::new(unit).unwrap()
}

pub fn sleeper(text: &str) -> String {
    format!("[Unit]\nDescription={text}\n[Service]\nExecStart=/bin/sleep 1000\n")
}
