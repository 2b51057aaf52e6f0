//! Packages on bare Debian hosts that have never seen this project: what the README says is typed there, line
//! by line, and makes a cluster out of packages alone. Then they are upgraded, removed and purged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use api::v1::MachineState;
use tests::deploy::{Cluster, programs_built};
use tests::document::document;
use tests::rack::{Rack, said};
use tests::sources::root;
use tests::transcript::{Told, Typed, commands, looks_like};
use tests::wait::eventually;

const LIMIT: Duration = Duration::from_secs(60);
const EXAMPLES: &str = "/usr/share/doc/coreinit/examples";
const CONFIGURATION: &str = "/etc/coreinit/coreinitd.toml";

/// Two versions of the packages, and a bare Debian to put them on.
struct Ware {
    folder: tempfile::TempDir,
    debian: PathBuf,
}

impl Ware {
    fn made() -> Ware {
        let folder = tempfile::tempdir().expect("a directory for the packages");
        let programs = programs_built();
        let make = |folder: &Path, version: &[&str]| {
            let mut package = Command::new(root().join("dist/package"));
            package.arg("--quick").arg("--programs").arg(&programs).arg("--out").arg(folder).args(version);
            succeeds(&mut package);
        };
        make(&folder.path().join("now"), &[]);
        make(&folder.path().join("next"), &["--version", "99.0"]);
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
        let debian = target.join("bare-debian");
        succeeds(Command::new(root().join("tests/rack/debian.sh")).arg(&debian));
        Ware { folder, debian }
    }

    /// The package of that name in `now` or `next`.
    fn package(&self, version: &str, name: &str) -> PathBuf {
        let folder = std::fs::read_dir(self.folder.path().join(version)).expect("it was made");
        let mut files = folder.flatten().map(|entry| entry.path());
        let is_it =
            |path: &PathBuf| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name));
        files.find(is_it).unwrap_or_else(|| panic!("no {name}* in {version}"))
    }
}

fn succeeds(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", said(&output));
}

/// Tells the daemons' last words when a test ends badly.
struct Mourner<'a>(&'a Cluster);

impl Drop for Mourner<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.0.last_words());
        }
    }
}

pub fn the_readme_is_true() {
    let ware = Ware::made();
    let name = std::env::var("HX_NAME").unwrap_or_else(|_| "coreinit-tests".into());
    let rack = Rack::up_on(Some(ware.debian.clone()), &format!("{name}-bare"), 3, "");
    let cluster = Cluster::on(Arc::new(rack));
    let _mourner = Mourner(&cluster);
    for host in cluster.rack.hosts() {
        for version in ["now", "next"] {
            let at = if version == "now" { "/root" } else { "/root/next" };
            cluster.rack.exec(host, &["mkdir", "-p", at]);
            for name in ["coreinit_", "coreinit-fleet_"] {
                cluster.rack.put(host, &ware.package(version, name), &format!("{at}/"));
            }
        }
        // As docs/security.md tells for containers of systemd-nspawn.
        cluster.rack.shell(
            host,
            "d=/etc/systemd/system/coreinitd.service.d; mkdir -p $d
             printf '[Service]\\nProtectKernelTunables=no\\nProtectControlGroups=no\\n' >$d/container.conf",
        );
    }
    type_the_readme(&cluster);
    what_is_installed(&cluster);
    upgraded(&cluster);
    removed(&cluster);
    purged(&cluster);
}

fn type_the_readme(cluster: &Cluster) {
    let mut told = Told::default();
    let blocks = document("README.md").blocks();
    let lines: Vec<Typed> = blocks.iter().filter(|b| b.language == "console").flat_map(commands).collect();
    assert!(lines.len() > 8, "the lines are found: {lines:?}");
    for typed in lines {
        let (host, command) = (typed.host.as_str(), told.fill_in(&typed.command));
        let output = cluster.rack.try_exec(host, &["bash", "-c", &format!("cd && {command}")]);
        if command.contains("poweroff") {
            lost(cluster, host);
            continue;
        }
        let output = output.unwrap_or_else(|e| panic!("README.md:{}: {e}", typed.line));
        let words = said(&output);
        assert!(output.status.success(), "README.md:{}: {host}# {command}\n{words}", typed.line);
        looks_like(&typed.shown, &words).unwrap_or_else(|why| panic!("README.md:{}: {why}", typed.line));
        println!("rack: readme: {host}# {command}\n{words}");
        told.hear(&words);
        if command.starts_with("apt install") {
            waits_for_orders(cluster, host);
        }
        if command.starts_with("corectl start") {
            eventually(LIMIT, "each example to run once", || each_runs_once(cluster));
        }
    }
    cluster.rack.start("h2");
    cluster.formed();
    eventually(LIMIT, "each example to run once, with h2 back", || each_runs_once(cluster));
}

/// A daemon that is installed, and belongs to nobody yet: it runs, and has opened no port (7340 is 1CAC).
fn waits_for_orders(cluster: &Cluster, host: &str) {
    cluster.rack.exec(host, &["systemctl", "is-active", "--quiet", "coreinitd"]);
    cluster.types(host, "cluster status").is(0, &["not part of a cluster"]);
    let open = cluster.rack.shell(host, "grep -ci ':1CAC ' /proc/net/tcp /proc/net/tcp6 || true");
    assert!(open.lines().all(|line| line.ends_with(":0")), "{host} listens: {open}");
}

/// The host is off, the others know it, and its units run there.
fn lost(cluster: &Cluster, host: &str) {
    let rack = &cluster.rack;
    let off = || rack.init_pid(host).map_or(Ok(()), |pid| Err(format!("its PID 1 is {pid}")));
    eventually(LIMIT, "the host to be off", off);
    let other = rack.others(host).remove(0);
    let ((), took) = eventually(LIMIT, "the host to be lost, and its units elsewhere", || {
        let machines = cluster.machines(&other)?.machines;
        match machines.iter().find(|machine| machine.name == host) {
            Some(machine) if machine.state == MachineState::Lost => each_runs_once(cluster),
            machine => Err(format!("{machine:?}")),
        }
    });
    println!("rack: readme: the units of {host} run elsewhere {took:.1?} after its power went");
}

/// The examples that are to run: no templates, and of a service with a socket only the socket.
fn examples(cluster: &Cluster) -> Vec<String> {
    let listed = cluster.rack.exec("h1", &["ls", EXAMPLES]);
    let names: Vec<&str> = listed.lines().collect();
    let waits = |name: &str| {
        name.contains("@.")
            || name.strip_suffix(".service").is_some_and(|n| names.contains(&&*format!("{n}.socket")))
    };
    names.iter().filter(|name| !waits(name)).map(|name| name.to_string()).collect()
}

fn each_runs_once(cluster: &Cluster) -> Result<(), String> {
    let names = examples(cluster);
    let patterns: Vec<&str> = names.iter().map(String::as_str).collect();
    let running = cluster.running(&patterns);
    match names.iter().find(|name| running.get(*name).is_none_or(|hosts| hosts.len() != 1)) {
        Some(name) => Err(format!("{name} runs on {:?}", running.get(name))),
        None => Ok(()),
    }
}

fn what_is_installed(cluster: &Cluster) {
    let rack = &cluster.rack;
    rack.shell(
        "h1",
        "exec 2>&1; set -x
         test $(systemctl is-enabled coreinitd) = enabled
         test \"$(systemctl is-enabled coreinit.socket || true)\" = disabled
         for unit in coreinit-cloud-config.service coreinit-reboot.path coreinit-reboot-done.service; do
           test \"$(systemctl is-enabled $unit || true)\" = disabled
         done
         test $(systemctl is-enabled coreinit-reboot.service) = static
         systemd-analyze verify --man=no /usr/lib/systemd/system/coreinit*
         systemctl enable --now coreinit-reboot.path
         systemctl is-active --quiet coreinit-reboot.path
         systemctl disable --now coreinit-reboot.path
         systemctl is-active --quiet coreinit.service
         test \"$(stat -c '%U %G %a' /run/coreinit.sock)\" = 'root coreinit 660'
         test \"$(stat -c '%U %G %a' /var/lib/coreinit)\" = 'root root 700'
         cd /usr/share/man
         ls man1/corectl.1.gz man1/corectl-start.1.gz man8/coreinitd.8.gz man5/coreinitd.toml.5.gz
         cd ..
         ls bash-completion/completions/corectl zsh/vendor-completions/_corectl
         ls fish/vendor_completions.d/corectl.fish
         ls doc/coreinit/copyright doc/coreinit/changelog.gz
         ls doc/coreinit/CHANGELOG.md doc/coreinit/docs/tutorial.md
         dpkg --verify coreinit | { ! grep .; }",
    );
    let version = rack.shell("h1", "coreinitd --version; corectl version");
    for word in ["commit ", "feature level ", "log format ", "snapshot format ", "API v1"] {
        assert!(version.contains(word), "{version}");
    }
    // As docs/packages.md says it.
    rack.shell(
        "h2",
        "systemctl stop coreinitd; systemctl enable --now coreinit.socket; systemctl start coreinitd",
    );
    cluster.formed();
    rack.shell("h2", "systemctl is-active coreinit.socket; corectl list-machines");
    rack.shell("h1", "dpkg -i /root/coreinit-fleet_*.deb 2>&1");
    let fleetctl = rack.shell("h1", "fleetctl list-machines --no-legend; fltctl version");
    assert!(fleetctl.contains("10.77.0.11") && fleetctl.contains("fltctl version"), "{fleetctl}");
    rack.shell("h1", "dpkg -P coreinit-fleet 2>&1; ! command -v fleetctl");
}

fn main_pids(cluster: &Cluster) -> BTreeMap<String, (String, u32)> {
    let mut names = examples(cluster);
    names.retain(|name| name.ends_with(".service"));
    let patterns: Vec<&str> = names.iter().map(String::as_str).collect();
    let homes = cluster.running(&patterns).into_iter();
    cluster.main_pids(&homes.filter_map(|(name, hosts)| Some((name, hosts.into_iter().next()?))).collect())
}

fn daemon(cluster: &Cluster, host: &str) -> u32 {
    let pids = cluster.rack.main_pids(host, &["coreinitd.service".to_string()]);
    pids.values().next().copied().unwrap_or_default()
}

/// From one version to the next, one machine after another: each daemon is another one, no unit is.
fn upgraded(cluster: &Cluster) {
    let rack = &cluster.rack;
    rack.shell("h2", &format!("echo 'metadata = {{ disk = \"ssd\" }}' >>{CONFIGURATION}"));
    let before = main_pids(cluster);
    assert!(before.len() >= 4, "{before:?}");
    for host in rack.hosts() {
        let daemon_before = daemon(cluster, host);
        let said = rack.shell(host, "dpkg -i /root/next/coreinit_*.deb 2>&1");
        assert_ne!(daemon(cluster, host), daemon_before, "{host} has the old daemon: {said}");
        cluster.formed();
        assert_eq!(rack.shell(host, "dpkg-query -W -f '${Version}' coreinit"), "99.0");
    }
    assert_eq!(main_pids(cluster), before, "an upgrade has touched units");
    assert!(
        cluster.read("h2", CONFIGURATION).ends_with("metadata = { disk = \"ssd\" }\n"),
        "the change is kept"
    );
    let machines = cluster.machines("h1").expect("an answer").machines;
    let h2 = machines.iter().find(|machine| machine.name == "h2").expect("it is there");
    assert_eq!(h2.metadata.get("disk").map(String::as_str), Some("ssd"), "the new daemon has read it");
    println!("rack: packages: upgraded, with the main processes of {} units as they were", before.len());
}

/// The examples that run on the host.
fn on(cluster: &Cluster, host: &str) -> Vec<String> {
    let names = examples(cluster);
    let patterns: Vec<&str> = names.iter().map(String::as_str).collect();
    let running = cluster.running(&patterns).into_iter();
    running.filter(|(_, hosts)| hosts.iter().any(|one| one == host)).map(|(name, _)| name).collect()
}

/// The daemon goes, units and state stay; installed again, it is back.
fn removed(cluster: &Cluster) {
    let rack = &cluster.rack;
    let (mine, before) = (on(cluster, "h3"), main_pids(cluster));
    assert!(!mine.is_empty(), "h3 has units");
    let said = rack.shell("h3", "dpkg -r coreinit 2>&1");
    for name in &mine {
        assert!(said.contains(name.as_str()), "{name} is not named: {said}");
    }
    let after = main_pids(cluster);
    let kept = before.iter().filter(|(_, (host, _))| host == "h3").all(|one| after.get(one.0) == Some(one.1));
    assert!(kept, "before {before:?}, after {after:?}");
    rack.shell(
        "h3",
        &format!(
            "if systemctl is-active --quiet coreinitd; then exit 1; fi
             for gone in /usr/bin/coreinitd /run/coreinit.sock; do if test -e $gone; then exit 1; fi; done
             test -s {CONFIGURATION}; test -n \"$(ls /var/lib/coreinit)\""
        ),
    );
    rack.shell("h3", "dpkg -i /root/next/coreinit_*.deb 2>&1");
    cluster.formed();
    eventually(LIMIT, "each example to run once, with h3 back", || each_runs_once(cluster));
}

/// Nothing is left, and the other machines have the units.
fn purged(cluster: &Cluster) {
    let rack = &cluster.rack;
    // Empty or not: it must not depend on what the last step has moved.
    cluster.types("h1", "start --all-machines /usr/share/doc/coreinit/examples/hello.service --replace");
    let runs_there = || match on(cluster, "h3").as_slice() {
        [] => Err("nothing".into()),
        _ => Ok(()),
    };
    eventually(LIMIT, "h3 to have a unit", runs_there);
    // A unit of the host's own, whose name the cluster has too.
    rack.shell(
        "h3",
        "printf '[Service]\\nExecStart=/bin/sleep infinity\\n' >/etc/systemd/system/own.service
         systemctl daemon-reload; systemctl start own",
    );
    rack.shell(
        "h1",
        "printf '[Service]\\nExecStart=/bin/sleep infinity\\n[X-Fleet]\\nGlobal=true\\n' >/root/own.service
         corectl start --no-block /root/own.service",
    );
    let known =
        || match rack.try_exec("h3", &["test", "-e", "/run/coreinit/units/own.service"])?.status.success() {
            true => Ok(()),
            false => Err("it has no file of ours".to_string()),
        };
    eventually(LIMIT, "h3 to know a unit of that name", known);
    let names = examples(cluster);
    let said = rack.shell("h3", "dpkg -P coreinit 2>&1");
    let left = on(cluster, "h3");
    assert!(left.is_empty(), "{left:?} run on: {said}");
    rack.shell("h3", "systemctl is-active own; systemctl stop own; rm /etc/systemd/system/own.service");
    rack.shell(
        "h3",
        "for path in /etc/coreinit /var/lib/coreinit /run/coreinit /run/coreinit.sock /usr/bin/corectl; do
           ! test -e $path || { echo $path is left; exit 1; }
         done
         left=$(find /etc/systemd /run/systemd/system -name '*coreinit*' ! -path '*coreinitd.service.d*')
         test -z \"$left\" || { echo $left; exit 1; }
         test \"$(dpkg-query -W -f '${db:Status-Status}' coreinit 2>/dev/null)\" != installed",
    );
    for name in &names {
        let link = rack.shell("h3", &format!("ls /run/systemd/system/{name} 2>/dev/null || true"));
        assert!(link.is_empty(), "{link}");
    }
    println!("rack: packages: purged, with nothing left of {} units", names.len());
}
