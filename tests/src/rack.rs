//! Real hosts for a test: `rack/hosts.sh` driven from Rust. Each host has its own systemd, bus, journal,
//! address and disk. Faults go through the script; what is done often (running a command, asking the bus) is
//! done here without it.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::sources;

/// A rack of hosts `h1` to `hN`, taken down when it goes out of scope.
pub struct Rack {
    name: String,
    /// More options for systemd-nspawn, such as directories to bind.
    nspawn: String,
    /// What is below every host's own files; without it, this machine's own.
    base: Option<PathBuf>,
    hosts: Vec<String>,
    /// Held as long as the rack stands: nobody else may use its name.
    _lock: File,
}

/// A unit as one host's systemd has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitStatus {
    pub load: String,
    pub active: String,
    pub sub: String,
}

impl Rack {
    /// A rack of `count` hosts, all booted. What an earlier run under the same name left behind is swept
    /// first; a rack of that name that is in use is an error.
    pub fn up(name: &str, count: usize, nspawn: &str) -> Rack {
        Rack::up_on(None, name, count, nspawn)
    }

    /// The same, of hosts that have nothing but what is in a folder, such as a Debian of debootstrap's.
    pub fn up_on(base: Option<PathBuf>, name: &str, count: usize, nspawn: &str) -> Rack {
        let path = format!("/run/lock/{name}-rack.lock");
        let lock = File::create(&path).unwrap_or_else(|e| panic!("{path}: {e}; the rack needs root"));
        lock.try_lock().unwrap_or_else(|e| panic!("{path}: {e}; set HX_NAME to another name for the rack"));
        let hosts = (1..=count).map(|n| format!("h{n}")).collect();
        let rack = Rack { name: name.into(), nspawn: nspawn.into(), base, hosts, _lock: lock };
        rack.script(&["down"]);
        rack.script(&["up", &count.to_string()]);
        rack
    }

    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// All hosts but one.
    pub fn others(&self, host: &str) -> Vec<String> {
        self.hosts.iter().filter(|other| *other != host).cloned().collect()
    }

    /// Boots one host more. It is not among [`Rack::hosts`].
    #[track_caller]
    pub fn add(&self) -> String {
        let count = self.hosts.len() + 1;
        self.script(&["up", &count.to_string()]);
        format!("h{count}")
    }

    pub fn address(&self, host: &str) -> String {
        let number: u32 = host[1..].parse().expect("hosts are called h1, h2, ...");
        format!("10.77.0.{}", 10 + number)
    }

    /// Runs the script; a command of it that fails ends the test.
    #[track_caller]
    pub fn script(&self, arguments: &[&str]) -> String {
        let output = Command::new(sources::root().join("tests/rack/hosts.sh"))
            .args(arguments)
            .env("HX_NAME", &self.name)
            .env("HX_NSPAWN", &self.nspawn)
            .env("HX_ROOTFS", self.base.as_deref().unwrap_or(Path::new("/")))
            .stdin(Stdio::null())
            .output()
            .expect("tests/rack/hosts.sh can be run");
        let text = said(&output);
        assert!(output.status.success(), "hosts.sh {}: {text}", arguments.join(" "));
        text
    }

    /// Cuts the power: the peers see silence, and `/data` forgets what was not synced.
    pub fn kill(&self, host: &str) {
        self.script(&["kill", host]);
    }

    /// Boots a host that is off, and waits for its systemd.
    pub fn start(&self, host: &str) {
        self.script(&["start", host]);
    }

    pub fn pause(&self, host: &str) {
        self.script(&["pause", host]);
    }

    pub fn resume(&self, host: &str) {
        self.script(&["resume", host]);
    }

    /// Drops everything between the two sides, both ways.
    pub fn partition(&self, one: &[&str], other: &[&str]) {
        self.script(&["partition", &one.join(","), &other.join(",")]);
    }

    /// Drops everything from and to the host.
    pub fn cut(&self, host: &str) {
        self.script(&["cut", host]);
    }

    /// Ends every partition, cut and netem.
    pub fn heal(&self) {
        self.script(&["heal"]);
    }

    /// Delay, loss and the like on the host's cable; see the script's help.
    pub fn netem(&self, host: &str, options: &[&str]) {
        self.script(&[&["netem", host], options].concat());
    }

    /// Leaves so many kilobytes free on `/data`.
    pub fn fill(&self, host: &str, kilobytes: u32) {
        self.script(&["fill", host, &kilobytes.to_string()]);
    }

    pub fn put(&self, host: &str, from: &Path, to: &str) {
        self.script(&["put", host, &from.to_string_lossy(), to]);
    }

    /// PID 1 of the host as this machine sees it; `None` while the host is off.
    pub fn init_pid(&self, host: &str) -> Option<u32> {
        let base = Path::new("/sys/fs/cgroup");
        let unified = base.join("cgroup.controllers").exists();
        let base = if unified { base.into() } else { base.join("unified") };
        let path = base.join(&self.name).join(host).join("payload/init.scope/cgroup.procs");
        std::fs::read_to_string(path).ok()?.lines().next()?.parse().ok()
    }

    /// A path of the host's file system, reachable from here while the host is on.
    pub fn path(&self, host: &str, path: &str) -> Option<PathBuf> {
        let pid = self.init_pid(host)?;
        Some(format!("/proc/{pid}/root/{}", path.trim_start_matches('/')).into())
    }

    /// A command that will run in the host. It must not outlive an orderly shutdown of the host.
    fn command(&self, host: &str, command: &[&str]) -> Result<Command, String> {
        let pid = self.init_pid(host).ok_or_else(|| format!("{host} is off"))?;
        let mut enter = Command::new("nsenter");
        enter.args(["-t", &pid.to_string(), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", "--"]);
        enter.args(["env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]);
        enter.args(["HOME=/root", "TERM=dumb", "LANG=C.UTF-8"]).args(command).stdin(Stdio::null());
        Ok(enter)
    }

    /// Runs a command in the host and returns what came of it; `Err` when the host is off.
    pub fn try_exec(&self, host: &str, command: &[&str]) -> Result<Output, String> {
        self.command(host, command)?.output().map_err(|e| format!("nsenter: {e}"))
    }

    /// Runs a command in the host that must succeed, and returns what it wrote.
    #[track_caller]
    pub fn exec(&self, host: &str, command: &[&str]) -> String {
        let output = self.try_exec(host, command).unwrap_or_else(|e| panic!("{e}"));
        assert!(output.status.success(), "{host}: {}: {}", command.join(" "), said(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a shell script in the host that must succeed.
    #[track_caller]
    pub fn shell(&self, host: &str, script: &str) -> String {
        self.exec(host, &["bash", "-euc", script])
    }

    /// The journal of one unit on the host, all boots, oldest line first.
    pub fn journal(&self, host: &str, unit: &str, lines: usize) -> String {
        let command =
            ["journalctl", "-u", unit, "-n", &lines.to_string(), "--no-pager", "-o", "short-precise"];
        match self.try_exec(host, &command) {
            Ok(output) => said(&output),
            Err(off) => off,
        }
    }

    /// The host's units that match a pattern, as its systemd tells on its bus. `Err` when the host is off or
    /// its bus does not answer yet.
    pub fn units(&self, host: &str, patterns: &[&str]) -> Result<BTreeMap<String, UnitStatus>, String> {
        let bus = self.path(host, "/run/dbus/system_bus_socket").ok_or_else(|| format!("{host} is off"))?;
        let output = Command::new("busctl")
            .arg(format!("--address=unix:path={}", bus.display()))
            .args([
                "--json=short",
                "--timeout=5",
                "call",
                "org.freedesktop.systemd1",
                "/org/freedesktop/systemd1",
            ])
            .args(["org.freedesktop.systemd1.Manager", "ListUnitsByPatterns", "asas", "0"])
            .arg(patterns.len().to_string())
            .args(patterns)
            .output()
            .map_err(|e| format!("busctl: {e}"))?;
        if !output.status.success() {
            return Err(format!("{host}: {}", said(&output)));
        }
        let answer: Value = serde_json::from_slice(&output.stdout).map_err(|e| format!("busctl: {e}"))?;
        let rows = answer["data"][0].as_array().ok_or("busctl: no list")?;
        let text = |row: &Value, column: usize| row[column].as_str().unwrap_or_default().to_string();
        let unit = |row| UnitStatus { load: text(row, 2), active: text(row, 3), sub: text(row, 4) };
        Ok(rows.iter().map(|row| (text(row, 0), unit(row))).collect())
    }

    /// The main process of each of these services on the host; 0: none.
    #[track_caller]
    pub fn main_pids(&self, host: &str, units: &[String]) -> BTreeMap<String, u32> {
        if units.is_empty() {
            return BTreeMap::new();
        }
        let mut command = vec!["systemctl", "show", "-p", "MainPID", "--value"];
        command.extend(units.iter().map(String::as_str));
        let text = self.exec(host, &command);
        let pids = text.lines().filter_map(|line| line.trim().parse().ok());
        units.iter().cloned().zip(pids).collect()
    }

    /// Kills a unit's main process without a word, and returns the moment just before.
    #[track_caller]
    pub fn kill_main(&self, host: &str, unit: &str) -> Instant {
        let before = Instant::now();
        self.exec(host, &["systemctl", "kill", "--kill-who=main", "-s", "KILL", unit]);
        before
    }

    /// Starts every host that is off, wakes every one that is paused, and mends the network.
    pub fn mend(&self) {
        self.heal();
        for line in self.script(&["status"]).lines() {
            let mut words = line.split(' ');
            match (words.next(), words.next()) {
                (Some(host), Some("off")) => self.start(host),
                (Some(host), Some("paused")) => self.resume(host),
                _ => {}
            }
        }
    }
}

impl Drop for Rack {
    fn drop(&mut self) {
        let mut down = Command::new(sources::root().join("tests/rack/hosts.sh"));
        // It may run during a panic, where another would hide the first. The next `up` sweeps what stays.
        let _ = down.arg("down").env("HX_NAME", &self.name).output();
    }
}

/// Both of a command's streams as text.
pub fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&text).trim().to_string()
}

/// Watches units on every host from another thread, as fast as it can, until it is told to stop.
pub struct Watch {
    stop: std::sync::mpsc::SyncSender<()>,
    thread: std::thread::JoinHandle<Vec<Seen>>,
}

/// One look: these units were active, activating or stopping there.
#[derive(Clone, Debug)]
pub struct Seen {
    pub at: Instant,
    pub host: String,
    pub units: Vec<String>,
}

impl Watch {
    pub fn begin(rack: &std::sync::Arc<Rack>, pattern: &str) -> Watch {
        let (stop, stopped) = std::sync::mpsc::sync_channel(1);
        let (rack, pattern) = (rack.clone(), pattern.to_string());
        let thread = std::thread::spawn(move || {
            let mut all = Vec::new();
            while stopped.try_recv().is_err() {
                for host in rack.hosts() {
                    // A host that is off or just boots runs nothing yet.
                    let Ok(units) = rack.units(host, &[&pattern]) else { continue };
                    let runs = |status: &UnitStatus| !matches!(status.active.as_str(), "inactive" | "failed");
                    let units = units.iter().filter(|(_, status)| runs(status));
                    let units = units.map(|(name, _)| name.clone()).collect();
                    all.push(Seen { at: Instant::now(), host: host.clone(), units });
                }
                crate::wait::pause(Duration::from_millis(10));
            }
            all
        });
        Watch { stop, thread }
    }

    pub fn end(self) -> Vec<Seen> {
        // It may have ended by a panic, which join tells.
        let _ = self.stop.send(());
        self.thread.join().expect("the watch ran to its end")
    }
}
