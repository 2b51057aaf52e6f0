//! The three machines that fleet's exchanges were recorded on, in one process: the daemon's own API, leader
//! and agents, over a store and systemds in memory.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use cluster::{Assignment, Command, MachineId, MachineInfo, Observed, UnitName, schedule};
use coreinitd::agent::AgentParts;
use coreinitd::http::{self, Access, HttpParts, InitError, Question};
use coreinitd::systemd::{Behaviour, Memory, Start};
use store::{MemoryStore, Store};
use tokio::process::Command as Process;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::exchange::Said;

/// For anything that happens at once unless it is broken.
pub const SOON: Duration = Duration::from_secs(30);

const MACHINES: [(&str, &str, &str, &str); 3] = [
    ("n1", "ee34029e22da37f4eb8085503c072265", "10.77.0.11", "num=1,region=r0"),
    ("n2", "861627475b7801656672b1b98be7910a", "10.77.0.12", "num=2,region=r1"),
    ("n3", "8a52bcf79080441d1a4753df833d8d30", "10.77.0.13", "num=3,region=r0"),
];

/// A machine of the rack is `n1` at 10.77.0.11, and so on; it has `hostname` and `exit`.
const SSH: &str = r#"#!/bin/sh
echo "$@" >>"$HOME/ssh.log"
while [ "$1" != -- ]; do
    case "$1" in -L) ln -s "${2#*:}" "${2%%:*}"; exec sleep 1000 ;; esac
    shift
done
host=$2; shift 2
case "$1" in
hostname) echo "n${host#10.77.0.1}" ;;
exit) exit "$2" ;;
esac
"#;

pub struct World {
    pub dir: tempfile::TempDir,
    pub store: Arc<MemoryStore>,
    _stop: watch::Sender<bool>,
    _rooms: JoinSet<()>,
}

impl World {
    pub async fn begin(units: &str) -> World {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(MemoryStore::new(MachineId::new(MACHINES[0].1).unwrap()));
        let (stop, stopping) = watch::channel(false);
        let mut rooms = JoinSet::new();
        propose(&store, Command::InitCluster { id: "c1".into(), name: "test".into() }).await;
        for (name, id, address, metadata) in MACHINES {
            let pairs = metadata.split(',').filter_map(|pair| pair.split_once('='));
            let metadata = pairs.map(|(key, value)| (key.to_string(), value.to_string())).collect();
            let info = MachineInfo {
                name: name.into(),
                address: address.into(),
                version: "1".into(),
                metadata,
                ..Default::default()
            };
            let machine = MachineId::new(id).unwrap();
            propose(&store, Command::RegisterMachine { id: machine.clone(), info }).await;
            let systemd = Memory::new();
            let behave = |unit: &str, start| {
                let behaviour = Behaviour { start, ..Behaviour::default() };
                systemd.behave(&UnitName::new(unit).unwrap(), behaviour);
            };
            behave("oneshot.service", Start::Completes);
            behave("fails.service", Start::Fails);
            behave("noexec.service", Start::Fails);
            let parts = AgentParts {
                machine,
                store: store.clone(),
                units: Arc::new(systemd),
                marks_dir: dir.path().join(format!("marks-{name}")),
                signs: Arc::default(),
            };
            rooms.spawn(coreinitd::agent::run(parts, stopping.clone()));
        }
        rooms.spawn(coreinitd::leader::run(
            store.clone(),
            Duration::from_secs(3600),
            Arc::default(),
            stopping.clone(),
        ));
        let socket = http::bind(&dir.path().join("fleet.sock")).await.unwrap();
        let parts = HttpParts {
            store: store.clone(),
            machine: MachineId::new(MACHINES[0].1).unwrap(),
            version: "1".into(),
            signs: Arc::default(),
            init: Arc::new(|_| Box::pin(async { Err(InitError::Exists { id: "c1".into() }) })),
            ask: Arc::new(|machine, question| {
                let text = match question {
                    Question::Journal { unit, lines, follow, output } => {
                        format!("{unit} on {}: {lines} {output} {follow}\n", machine.short())
                    }
                    Question::Status { unit } => format!("3\n○ {unit} on {}\n", machine.short()),
                    Question::Clock => coreinitd::clocks::answer(),
                };
                Box::pin(async move { Ok(Box::pin(futures::stream::iter([Ok(text.into())])) as http::Words) })
            }),
            membership: None,
            access: Access::default(),
        };
        rooms.spawn(async move { http::run(parts, vec![socket], stopping).await.unwrap() });
        let world = World { dir, store, _stop: stop, _rooms: rooms };
        world.put_files(units);
        world
    }

    fn put_files(&self, units: &str) {
        let at = |name: &str| self.dir.path().join(name);
        std::fs::create_dir(at("bin")).unwrap();
        let binary = Path::new(env!("CARGO_BIN_EXE_corectl"));
        for name in ["fleetctl", "fltctl", "corectl"] {
            symlink(binary, at("bin").join(name)).unwrap();
        }
        std::fs::write(at("bin/ssh"), SSH).unwrap();
        std::fs::set_permissions(at("bin/ssh"), std::fs::Permissions::from_mode(0o755)).unwrap();
        for part in units.split("== ").skip(1) {
            let (name, text) = part.split_once('\n').unwrap();
            std::fs::write(at(name), text).unwrap();
        }
    }

    /// Runs a line in a shell, in the folder of the unit files.
    pub async fn run(&self, line: &str) -> Said {
        self.run_with(line, &[]).await
    }

    pub async fn run_with(&self, line: &str, variables: &[(&str, &str)]) -> Said {
        let bin = self.dir.path().join("bin");
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
        let endpoint = format!("unix://{}/fleet.sock", self.dir.path().display());
        let mut shell = Process::new("sh");
        shell.arg("-c").arg(line).current_dir(self.dir.path()).env("PATH", path);
        shell
            .env("HOME", self.dir.path())
            .env("FLEETCTL_ENDPOINT", &endpoint)
            .env("FLTCTL_ENDPOINT", &endpoint);
        shell.env("COREINIT_ENDPOINT", &endpoint).envs(variables.iter().copied());
        shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let ended = timeout(SOON, shell.output()).await.unwrap_or_else(|_| panic!("does not end: {line}"));
        let ended = ended.unwrap();
        let lines = |bytes: Vec<u8>| -> Vec<String> {
            String::from_utf8(bytes).unwrap().lines().map(str::to_string).collect()
        };
        let code = ended.status.code().expect("no signal ended it");
        Said { code, out: lines(ended.stdout), err: lines(ended.stderr) }
    }

    /// Waits until the leader has nothing to decide and every machine has done what is asked of it.
    pub async fn settle(&self) {
        let mut states = self.store.state();
        let settled = states.wait_for(|state| {
            let is_done = |((unit, machine), seen): (&(UnitName, MachineId), &Arc<Observed>)| {
                let home = state.assignments.get(unit).map(|assignment| &assignment.machine);
                let wish = state.units.get(unit).map(|unit| unit.generation);
                home == Some(machine) && seen.generation == wish
            };
            let is_held = |(unit, assignment): (&UnitName, &Arc<Assignment>)| {
                state.observed.contains_key(&(unit.clone(), assignment.machine.clone()))
            };
            schedule(state).decisions.is_empty()
                && state.observed.iter().all(is_done)
                && state.assignments.iter().all(is_held)
        });
        drop(timeout(SOON, settled).await.expect("the machines settle"));
    }
}

async fn propose(store: &MemoryStore, command: Command) {
    let committed = store.propose(vec![command], Instant::now() + SOON).await.unwrap();
    assert!(committed.outcomes[0].is_ok(), "{:?}", committed.outcomes);
}
