//! A cluster on the rack: our programs on every host, the packaged unit file, three equal configurations, and
//! what tests ask such a cluster. What is asked of systemd itself goes to the hosts' own buses, never through
//! our daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use api::v1::{Batch, BatchDone, Machines, Operation, Role, State, Status, Unit, Units};
use cluster::MachineId;
use serde::de::DeserializeOwned;

use crate::http::{self, Answer};
use crate::rack::Rack;
use crate::sources;
use crate::wait::eventually;

/// Longer than the daemon's own longest deadline (10 s).
const ANSWER_LIMIT: Duration = Duration::from_secs(12);
const FORMING_LIMIT: Duration = Duration::from_secs(30);
const DAEMON: &str = "coreinitd.service";
const NEXT_DAEMON: &str = "coreinitd-next";
const SOCKET: &str = "/run/coreinit.sock";
const CONFIGURATION: &str = "coreinitd.toml";
const SECRET: &str = "secret";
/// What the hosts know each other by.
pub const SECRET_FILE: &str = "/etc/coreinit/secret";
/// The hosts' disks that forget at a power cut what was not synced are at /data.
pub const DATA_DIR: &str = "/data/coreinit";

/// A formed cluster on a rack of its own.
pub struct Cluster {
    pub rack: Arc<Rack>,
    /// What the hosts have bound as /usr/bin/coreinitd and corectl, and their configuration.
    programs: tempfile::TempDir,
}

impl Cluster {
    /// Brings up the rack and the cluster, and waits until it is formed. `HX_NAME` names the rack.
    pub fn up(count: usize) -> Cluster {
        let programs = tempfile::tempdir().expect("a directory for the programs");
        let built = programs_built();
        let mut options = vec![format!("--bind-ro={}:/examples", sources::root().join("examples").display())];
        for program in ["coreinitd", "corectl"] {
            // A copy, since a build may replace the original while the hosts run.
            let copy = programs.path().join(program);
            std::fs::copy(built.join(program), &copy).unwrap_or_else(|e| panic!("{program}: {e}"));
            options.push(format!("--bind-ro={}:/usr/bin/{program}", copy.display()));
        }
        let name = std::env::var("HX_NAME").unwrap_or_else(|_| "coreinit-tests".into());
        let rack = Arc::new(Rack::up(&name, count, &options.join(" ")));
        let config = programs.path().join(CONFIGURATION);
        std::fs::write(&config, configuration(rack.hosts())).expect("the configuration can be written");
        std::fs::write(
            programs.path().join(SECRET),
            "a secret that only this rack's hosts know, which is enough",
        )
        .expect("the secret can be written");
        let cluster = Cluster { rack, programs };
        cluster.rack.hosts().iter().for_each(|host| cluster.install(host));
        cluster.formed();
        cluster
    }

    /// The cluster that comes to be on a rack, by whatever is done there. Nothing is put on the hosts.
    pub fn on(rack: Arc<Rack>) -> Cluster {
        Cluster { rack, programs: tempfile::tempdir().expect("a directory") }
    }

    /// Puts the daemon on a host, configured like all the others, and starts it.
    #[track_caller]
    fn install(&self, host: &str) {
        let rack = &self.rack;
        rack.exec(host, &["mkdir", "-p", "/etc/coreinit"]);
        rack.put(host, &self.programs.path().join(CONFIGURATION), "/etc/coreinit/coreinitd.toml");
        rack.put(host, &self.programs.path().join(SECRET), SECRET_FILE);
        rack.exec(host, &["chmod", "600", SECRET_FILE]);
        let unit = sources::root().join("dist/systemd/coreinitd.service");
        rack.put(host, &unit, "/etc/systemd/system/coreinitd.service");
        // As docs/security.md tells whoever keeps the state elsewhere, or has coreinit in a container.
        rack.shell(
            host,
            "d=/etc/systemd/system/coreinitd.service.d; mkdir -p $d
             printf '[Service]\\nReadWritePaths=/data\\n' >$d/data.conf
             printf '[Service]\\nProtectKernelTunables=no\\nProtectControlGroups=no\\n' >$d/container.conf",
        );
        rack.exec(host, &["systemctl", "enable", "--quiet", "--now", "--no-block", DAEMON]);
    }

    /// Boots one host more, which joins the cluster; returns its name. Nobody else knows of it, so the
    /// cluster is not [`Cluster::formed`] any more: there is one machine too many.
    #[track_caller]
    pub fn add_machine(&self) -> String {
        let host = self.rack.add();
        self.install(&host);
        host
    }

    // ---- the daemon

    /// The path of the daemon's socket from here.
    pub fn socket(&self, host: &str) -> Result<PathBuf, String> {
        self.rack.path(host, SOCKET).ok_or_else(|| format!("{host} is off"))
    }

    /// One request to the daemon of a host, as raw as it is.
    pub fn call(&self, host: &str, method: &str, path: &str, body: &[u8]) -> Result<Answer, String> {
        http::call(&self.socket(host)?, method, path, body, ANSWER_LIMIT).map_err(|e| format!("{host}: {e}"))
    }

    fn get<T: DeserializeOwned>(&self, host: &str, path: &str) -> Result<T, String> {
        read(host, self.call(host, "GET", path, b"")?)
    }

    pub fn status(&self, host: &str) -> Result<Status, String> {
        self.get(host, "/v1/status")
    }

    pub fn units(&self, host: &str) -> Result<Vec<Unit>, String> {
        self.get::<Units>(host, "/v1/units").map(|answer| answer.units)
    }

    pub fn unit(&self, host: &str, name: &str) -> Result<Unit, String> {
        self.get(host, &format!("/v1/units/{name}"))
    }

    pub fn machines(&self, host: &str) -> Result<Machines, String> {
        self.get(host, "/v1/machines")
    }

    /// Changes units; `Err` also when one operation is refused.
    pub fn batch(&self, host: &str, operations: Vec<Operation>) -> Result<BatchDone, String> {
        let body = serde_json::to_vec(&Batch { operations }).expect("a batch can be written as JSON");
        let done: BatchDone = read(host, self.call(host, "POST", "/v1/units", &body)?)?;
        match done.results.iter().find(|result| result.message.is_some()) {
            Some(refused) => Err(format!("{host}: {refused:?}")),
            None => Ok(done),
        }
    }

    /// Gives the cluster units to run that only sleep; they are acknowledged when this returns.
    #[track_caller]
    pub fn launch(&self, host: &str, names: &[String]) {
        let text = "[Unit]\nDescription=Sleep\n[Service]\nExecStart=/bin/sleep infinity\n";
        let launch = |name: &String| set(name, Some(text), State::Launched);
        self.batch(host, names.iter().map(launch).collect()).unwrap_or_else(|e| panic!("{e}"));
    }

    /// Runs `corectl` on a host.
    #[track_caller]
    pub fn corectl(&self, host: &str, arguments: &[&str]) -> Output {
        let command = [&["corectl"], arguments].concat();
        self.rack.try_exec(host, &command).unwrap_or_else(|e| panic!("{e}"))
    }

    pub fn kill_daemon(&self, host: &str) -> std::time::Instant {
        self.rack.kill_main(host, DAEMON)
    }

    pub fn stop_daemon(&self, host: &str) {
        self.rack.exec(host, &["systemctl", "stop", DAEMON]);
    }

    pub fn start_daemon(&self, host: &str) {
        self.rack.exec(host, &["systemctl", "start", "--no-block", DAEMON]);
    }

    /// What the daemon of a host has said.
    pub fn daemon_log(&self, host: &str, lines: usize) -> String {
        self.rack.journal(host, DAEMON, lines)
    }

    // ---- the cluster

    /// Every host that is on follows one leader, and every machine is ready. Returns the leader's host.
    pub fn formed_now(&self) -> Result<String, String> {
        let mut leaders = BTreeSet::new();
        for host in self.rack.hosts() {
            let status = self.status(host)?;
            match (status.role, status.leader) {
                (Role::Leader | Role::Follower, Some(leader)) => leaders.insert(leader),
                (role, _) => return Err(format!("{host} is {role:?}")),
            };
        }
        let machines = self.machines(&self.rack.hosts()[0])?.machines;
        let ready = machines.iter().filter(|machine| machine.state == api::v1::MachineState::Ready).count();
        match (leaders.len(), leaders.first()) {
            (1, Some(leader)) if ready == self.rack.hosts().len() => self.host_of(leader),
            _ => Err(format!("leaders {leaders:?}, {ready} machines ready")),
        }
    }

    /// Waits for [`Cluster::formed_now`].
    #[track_caller]
    pub fn formed(&self) -> String {
        eventually(FORMING_LIMIT, "one leader and all machines ready", || self.formed_now()).0
    }

    /// The host that is this machine.
    pub fn host_of(&self, machine: &MachineId) -> Result<String, String> {
        let on = self.rack.hosts().iter().find_map(|host| self.machines(host).ok());
        let machines = on.ok_or("no daemon answers")?.machines;
        let found = machines.iter().find(|one| one.id == *machine);
        Ok(found.ok_or_else(|| format!("no machine {machine}"))?.name.clone())
    }

    /// Where the cluster says that each unit is; units that are nowhere are left out.
    pub fn homes(&self, host: &str) -> Result<BTreeMap<String, String>, String> {
        let machines = self.machines(host)?.machines;
        let names: BTreeMap<_, _> = machines.into_iter().map(|machine| (machine.id, machine.name)).collect();
        let units = self.units(host)?.into_iter();
        Ok(units
            .filter_map(|unit| Some((unit.name.to_string(), names.get(&unit.machine?)?.clone())))
            .collect())
    }

    /// Where each unit really runs: on these hosts its systemd says that it is active.
    pub fn running(&self, patterns: &[&str]) -> BTreeMap<String, Vec<String>> {
        let mut running: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for host in self.rack.hosts() {
            for (name, status) in self.rack.units(host, patterns).unwrap_or_default() {
                if status.active == "active" {
                    running.entry(name).or_default().push(host.clone());
                }
            }
        }
        running
    }

    /// Each of these units is active on exactly one host, and that is the one that the cluster says. Returns
    /// where they are.
    pub fn at_home_now(&self, host: &str, names: &[String]) -> Result<BTreeMap<String, String>, String> {
        let homes = self.homes(host)?;
        let patterns: Vec<&str> = names.iter().map(String::as_str).collect();
        let running = self.running(&patterns);
        for name in names {
            let (home, runs) = (homes.get(name), running.get(name));
            if home.is_none() || runs.is_none_or(|runs| Some(&runs[..]) != home.map(std::slice::from_ref)) {
                return Err(format!("{name}: home {home:?}, active on {runs:?}"));
            }
        }
        Ok(homes.into_iter().filter(|(name, _)| names.contains(name)).collect())
    }

    /// Waits for [`Cluster::at_home_now`], and returns how long that took.
    #[track_caller]
    pub fn at_home(
        &self,
        limit: Duration,
        host: &str,
        names: &[String],
    ) -> (BTreeMap<String, String>, Duration) {
        eventually(limit, "each unit active on its one home", || self.at_home_now(host, names))
    }

    /// The main processes of units, each at its home.
    #[track_caller]
    pub fn main_pids(&self, homes: &BTreeMap<String, String>) -> BTreeMap<String, (String, u32)> {
        let mut pids = BTreeMap::new();
        for host in homes.values().collect::<BTreeSet<_>>() {
            let units = homes.iter().filter(|(_, home)| *home == host).map(|(name, _)| name.clone());
            let units: Vec<String> = units.collect();
            for (name, pid) in self.rack.main_pids(host, &units) {
                assert!(pid > 0, "{name} has no process on {host}");
                pids.insert(name, (host.clone(), pid));
            }
        }
        pids
    }

    /// Mends all faults and destroys all units, for the next test to begin with a formed and empty cluster.
    pub fn clean(&self) {
        self.rack.mend();
        for host in self.rack.hosts() {
            self.start_daemon(host);
        }
        self.formed();
        eventually(Duration::from_secs(30), "an empty cluster", || {
            let units = self.units(&self.rack.hosts()[0])?;
            if units.is_empty() {
                return Ok(());
            }
            let destroy = |unit: &Unit| Operation::Destroy { name: unit.name.to_string() };
            self.batch(&self.rack.hosts()[0], units.iter().map(destroy).collect())?;
            Err(format!("{} units are left", units.len()))
        });
        eventually(Duration::from_secs(30), "no trace of any unit on any host", || self.nothing_left_now());
    }

    /// The last words of every daemon, for a test that failed.
    pub fn last_words(&self) -> String {
        let words =
            self.rack.hosts().iter().map(|host| format!("---- {host}\n{}\n", self.daemon_log(host, 30)));
        words.collect()
    }
}

/// Creates or replaces a unit.
pub fn set(name: &str, text: Option<&str>, state: State) -> Operation {
    Operation::Set { name: name.into(), text: text.map(str::to_string), desired_state: Some(state) }
}

/// `probe-KIND-1.service` and so on.
pub fn probes(kind: &str, count: usize) -> Vec<String> {
    (1..=count).map(|n| format!("probe-{kind}-{n}.service")).collect()
}

fn read<T: DeserializeOwned>(host: &str, answer: Answer) -> Result<T, String> {
    if answer.status != 200 {
        return Err(format!("{host}: {} {}", answer.status, answer.text()));
    }
    serde_json::from_slice(&answer.body).map_err(|e| format!("{host}: {e} in {}", answer.text()))
}

/// The same for each host.
fn configuration(hosts: &[String]) -> String {
    format!(
        "data_dir = {DATA_DIR:?}\nlisten = \"0.0.0.0:7340\"\ncluster_secret_file = {SECRET_FILE:?}\n\
         bootstrap_expect = {}\n\
         join = {hosts:?}\nmachine_lost_after = \"6s\"\nsocket = {SOCKET:?}\n\
         fleet_socket = \"/run/fleet.sock\"\napi_listen = [\"127.0.0.1:49153\"]\n\
         api_tls_listen = \"0.0.0.0\"\n",
        hosts.len()
    )
}

/// The folder with the programs, built first unless `COREINIT_PROGRAMS` names a folder that has them.
pub fn programs_built() -> PathBuf {
    if let Ok(folder) = std::env::var("COREINIT_PROGRAMS") {
        return folder.into();
    }
    built(&["-p", "coreinitd", "-p", "corectl"])
}

/// The daemon as the next version might have it, built first if it is not in the folder of the programs.
pub fn next_daemon() -> PathBuf {
    let named = std::env::var("COREINIT_PROGRAMS").map(|folder| Path::new(&folder).join(NEXT_DAEMON));
    match named {
        Ok(path) if path.exists() => path,
        _ => built(&["-p", "coreinitd", "--features", "next", "--bin", NEXT_DAEMON]).join(NEXT_DAEMON),
    }
}

/// Where our own build puts that.
fn built(what: &[&str]) -> PathBuf {
    let own = std::env::current_exe().expect("the test knows where it is");
    let folder = own.parent().and_then(Path::parent).expect("a test is in target/PROFILE/deps").to_path_buf();
    let mut cargo = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    cargo.current_dir(sources::root()).args(["build", "--quiet"]).args(what);
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    // Where our own build went, whatever decided that.
    let target = folder.parent().expect("target/PROFILE is in target");
    assert!(cargo.env("CARGO_TARGET_DIR", target).status().is_ok_and(|s| s.success()), "the build failed");
    folder
}
