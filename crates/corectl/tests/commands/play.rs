//! A daemon's API without a daemon behind it: tests propose what the leader and the machines would.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cluster::{
    ClusterState, Command, DesiredState, Failure, MachineId, MachineInfo, Observed, UnitFile, UnitName,
};
use coreinitd::http::{self, Access, HttpParts, InitError, Question, Words};
use store::{MemoryStore, Role, Store};
use tokio::process::Child;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

/// For anything that happens at once unless it is broken.
pub const SOON: Duration = Duration::from_secs(20);

pub const GOOD: &str = "[Unit]\nDescription=Sleep\n[Service]\nExecStart=/bin/sleep infinity\n";

pub struct Play {
    pub dir: tempfile::TempDir,
    pub store: Arc<MemoryStore>,
    serving: Option<(watch::Sender<bool>, JoinHandle<()>)>,
}

/// What a command said, and its exit code.
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Play {
    /// A cluster with the machines h1 and h2.
    pub async fn begin() -> Play {
        let machine = MachineId::new("m1").unwrap();
        let store = Arc::new(MemoryStore::new(machine));
        let mut play = Play { dir: tempfile::tempdir().unwrap(), store, serving: None };
        play.serve().await;
        play.propose(Command::InitCluster { id: "c1".into(), name: "test".into() }).await;
        for number in [1, 2] {
            let info = MachineInfo {
                name: format!("h{number}"),
                address: format!("10.0.0.{number}"),
                version: "1".into(),
                ..MachineInfo::default()
            };
            play.propose(Command::RegisterMachine { id: id(&format!("m{number}")), info }).await;
        }
        play
    }

    pub async fn serve(&mut self) {
        let socket = http::bind(&self.socket()).await.unwrap();
        let parts = HttpParts {
            store: self.store.clone(),
            machine: id("m1"),
            version: "1".into(),
            signs: Arc::default(),
            ask: Arc::new(|machine, question| Box::pin(async move { told(&machine, &question) })),
            init: Arc::new(|_| Box::pin(async { Err(InitError::Exists { id: "c1".into() }) })),
            membership: None,
            access: Access::default(),
        };
        let (stop, stopping) = watch::channel(false);
        let task = tokio::spawn(async move { http::run(parts, vec![socket], stopping).await.unwrap() });
        self.serving = Some((stop, task));
    }

    /// The daemon stops; its socket stays behind, as after a kill.
    pub async fn stop_serving(&mut self) {
        let (stop, task) = self.serving.take().expect("it serves");
        stop.send_replace(true);
        timeout(SOON, task).await.expect("the API stops").unwrap();
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("coreinit.sock")
    }

    /// A file in the folder that commands run in.
    pub fn file(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).unwrap();
    }

    pub fn command(&self, arguments: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_corectl"));
        command.args(arguments).current_dir(self.dir.path()).kill_on_drop(true);
        command.env("COREINIT_ENDPOINT", format!("unix://{}", self.socket().display()));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn child(&self, arguments: &[&str]) -> Child {
        self.command(arguments).spawn().unwrap()
    }

    /// A command that talks to another socket than the daemon's own.
    pub async fn run_at(&self, socket: &Path, arguments: &[&str]) -> Said {
        let endpoint = format!("unix://{}", socket.display());
        let arguments = [&["--endpoint", &endpoint], arguments].concat();
        end(self.spawn(&arguments)).await
    }

    /// Begins a command; it ends with [`end`].
    pub fn spawn(&self, arguments: &[&str]) -> JoinHandle<Output> {
        let child = self.child(arguments);
        tokio::spawn(async move { child.wait_with_output().await.unwrap() })
    }

    pub async fn run(&self, arguments: &[&str]) -> Said {
        end(self.spawn(arguments)).await
    }

    pub async fn propose(&self, command: Command) {
        let committed = self.store.propose(vec![command], Instant::now() + SOON).await.unwrap();
        assert!(committed.outcomes[0].is_ok(), "{:?}", committed.outcomes);
    }

    pub fn state(&self) -> Arc<ClusterState> {
        self.store.state().borrow().clone()
    }

    pub fn desired(&self, unit: &str) -> Option<DesiredState> {
        self.state().units.get(&name(unit)).map(|unit| unit.desired)
    }

    pub fn generation(&self, unit: &str) -> u64 {
        self.state().units[&name(unit)].generation.0
    }

    /// Waits until the state is so.
    pub async fn until(&self, what: &str, is_so: impl Fn(&ClusterState) -> bool) {
        let mut states = self.store.state();
        let so = timeout(SOON, states.wait_for(|state| is_so(state))).await;
        drop(so.unwrap_or_else(|_| panic!("waited in vain for {what}")).unwrap());
    }

    pub async fn until_desired(&self, unit: &str, desired: DesiredState) {
        let unit = name(unit);
        self.until(&format!("{unit} {desired}"), |s| {
            s.units.get(&unit).is_some_and(|u| u.desired == desired)
        })
        .await;
    }

    /// A unit that is there before the command.
    pub async fn create(&self, unit: &str, desired: DesiredState) {
        let file = UnitFile::parse(GOOD).unwrap();
        self.propose(Command::SetUnit { name: name(unit), file: Some(file), desired: Some(desired) }).await;
    }

    /// The leader's part.
    pub async fn assign(&self, unit: &str, machine: &str) {
        let generation = self.state().units[&name(unit)].generation;
        let (machine, reason) = (id(machine), "fewest units (0)".into());
        self.propose(Command::Assign { unit: name(unit), machine, generation, reason }).await;
    }

    /// The machine's part: it has carried out the wish, and this came of it.
    pub async fn report(&self, unit: &str, machine: &str, active: &str, sub: &str) {
        self.report_failure(unit, machine, active, sub, None).await;
    }

    pub async fn report_failure(
        &self,
        unit: &str,
        machine: &str,
        active: &str,
        sub: &str,
        why: Option<&str>,
    ) {
        let now = self.state();
        let unit = name(unit);
        let failure = why.map(|why| Failure { reason: why.into(), journal: vec!["last words".into()] });
        let observed = Observed {
            load: "loaded".into(),
            active: active.into(),
            sub: sub.into(),
            hash: UnitFile::parse(GOOD).unwrap().hash(),
            generation: now.units.get(&unit).map(|unit| unit.generation),
            failure,
        };
        self.propose(Command::Report { machine: id(machine), unit, observed: Some(observed) }).await;
    }

    pub async fn report_gone(&self, unit: &str, machine: &str) {
        self.propose(Command::Report { machine: id(machine), unit: name(unit), observed: None }).await;
    }

    /// A unit that runs on m1, long before the command.
    pub async fn running(&self, unit: &str) {
        self.create(unit, DesiredState::Launched).await;
        self.assign(unit, "m1").await;
        self.report(unit, "m1", "active", "running").await;
    }

    pub fn lead(&self, leads: bool) {
        self.store.set_role(if leads { Role::Leader { term: 1 } } else { Role::Leaderless });
    }
}

/// What the machines' own programs say. m2 does not answer.
fn told(machine: &MachineId, question: &Question) -> Result<Words, String> {
    if machine.as_str() == "m2" {
        return Err("cannot reach 10.0.0.2:7340: connection refused".into());
    }
    let text = match question {
        Question::Journal { unit, lines, follow, output } => {
            format!(
                "{unit} on {machine}: {lines} lines, {output}{}\n",
                if *follow { ", followed" } else { "" }
            )
        }
        Question::Status { unit } => format!("0\n● {unit} on {machine}\n"),
        Question::Clock => coreinitd::clocks::answer(),
    };
    Ok(Box::pin(futures::stream::iter([Ok(text.into())])))
}

pub fn name(text: &str) -> UnitName {
    UnitName::new(text).unwrap()
}

pub fn id(text: &str) -> MachineId {
    MachineId::new(text).unwrap()
}

pub async fn end(command: JoinHandle<Output>) -> Said {
    let output = timeout(SOON, command).await.expect("the command ends").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code().expect("no signal ended it");
    Said { code, out: text(output.stdout), err: text(output.stderr) }
}

impl Said {
    #[track_caller]
    pub fn is(&self, code: i32, out: &str, err: &str) {
        assert_eq!((self.code, &*self.out, &*self.err), (code, out, err));
    }
}
