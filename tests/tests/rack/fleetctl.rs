//! Everything that a real fleet of three machines was asked by its own client, in the same order, asked of
//! ours under fleet's name, over real systemds. What fleet answered, where ours differs, and why, is in
//! `crates/corectl/tests/fleetctl/exchanges.txt`.

#[path = "../../../crates/corectl/tests/fleetctl/exchange.rs"]
mod exchange;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use api::v1::{Explanation, MachineState, State, Unit, UnitState};
use cluster::MachineId;
use tests::deploy::Cluster;
use tests::wait::eventually;

use exchange::{Place, Said, exchanges};

const EXCHANGES: &str = include_str!("../../../crates/corectl/tests/fleetctl/exchanges.txt");
const UNITS: &str = include_str!("../../../crates/corectl/tests/fleetctl/units.txt");

/// For whatever happens at once, or some seconds later, unless it is broken.
const SOON: Duration = Duration::from_secs(60);

/// fleet's machines, by id as the hosts will be: name, id, address, metadata.
const MACHINES: [[&str; 4]; 3] = [
    ["n2", "861627475b7801656672b1b98be7910a", "10.77.0.12", "num=2,region=r1"],
    ["n3", "8a52bcf79080441d1a4753df833d8d30", "10.77.0.13", "num=3,region=r0"],
    ["n1", "ee34029e22da37f4eb8085503c072265", "10.77.0.11", "num=1,region=r0"],
];

/// Hosts have no sshd. What comes by it shows in the answer only through a machine's name and an exit code.
const SSH: &str = r#"#!/bin/sh
while [ "$1" != -- ]; do
    case "$1" in
    -L) local=${2%%:*} remote=${2#*:} ;;
    -l) user=$2 ;;
    -p) [ "$2" = 22 ] || { echo "ssh: connect to port $2: Connection refused" >&2; exit 255; } ;;
    esac
    shift
done
host=$2; shift 2
case "$host" in *.99) echo "ssh: connect to host $host: Connection timed out" >&2; exit 255 ;; esac
[ "$user" != nobody ] || { echo "$user@$host: Permission denied" >&2; exit 255; }
if [ -n "$local" ]; then ln -s "$remote" "$local"; exec sleep 1000; fi
case "$*" in
hostname) echo "h${host#10.77.0.1}" ;;
"hostname -f") echo "hostname: Temporary failure in name resolution" >&2; exit 1 ;;
exit*) exit "$2" ;;
esac
"#;

pub fn a_recorded_fleet_is_played(cluster: &Cluster) {
    let begun = Instant::now();
    let stage = Stage::set(cluster);
    let all = exchanges(EXCHANGES, Place::Hosts);
    let count = all.len();
    let mut wrong = Vec::new();
    for exchange in all {
        exchange.before.iter().for_each(|action| stage.act(action));
        let command = &exchange.command;
        let said = stage.run(command);
        wrong.extend(exchange.expected(Place::Hosts).fault(command, said));
        stage.settle();
    }
    stage.clear();
    println!("rack: fleetctl: {count} exchanges in {:?}", begun.elapsed());
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
}

/// A machine of the recording, and the host that plays it.
struct Part {
    name: &'static str,
    id: &'static str,
    address: &'static str,
    metadata: &'static str,
    host: String,
    host_id: MachineId,
    host_address: String,
}

struct Stage<'a> {
    cluster: &'a Cluster,
    parts: Vec<Part>,
}

impl<'a> Stage<'a> {
    /// Gives each host its part, in the order of their ids, so that all lists have one order; then its
    /// metadata, and the client's host the unit files and what it calls.
    fn set(cluster: &'a Cluster) -> Stage<'a> {
        let hosts = cluster.rack.hosts();
        let machines = cluster.machines(&hosts[0]).expect("the cluster is formed").machines;
        let hosts: BTreeMap<MachineId, String> = machines.into_iter().map(|m| (m.id, m.name)).collect();
        let mut parts = Vec::new();
        for ([name, id, address, metadata], (host_id, host)) in MACHINES.into_iter().zip(hosts) {
            let host_address = cluster.rack.address(&host);
            parts.push(Part { name, id, address, metadata, host, host_id, host_address });
        }
        let stage = Stage { cluster, parts };
        stage.set_metadata("add");
        let client = stage.client();
        let rack = &cluster.rack;
        rack.shell(client, "mkdir -p /root/bin /root/u; ln -sf /usr/bin/corectl /root/bin/fleetctl");
        let put = |path: &str, text: &str| {
            let path = rack.path(client, path).expect("the host is on");
            std::fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        };
        put("/root/bin/ssh", SSH);
        rack.shell(client, "chmod +x /root/bin/ssh");
        for part in UNITS.split("== ").skip(1) {
            let (name, text) = part.split_once('\n').expect("a unit file follows its name");
            put(&format!("/root/u/{name}"), &stage.for_hosts(text));
        }
        stage
    }

    fn clear(&self) {
        self.set_metadata("remove");
        self.cluster.rack.shell(self.client(), "rm -r /root/bin /root/u");
    }

    fn set_metadata(&self, operation: &str) {
        let pairs = self.parts.iter().flat_map(|part| part.metadata.split(',').map(move |pair| (part, pair)));
        let operations = pairs.map(|(part, pair)| {
            let (key, value) = pair.split_once('=').expect("KEY=VALUE");
            let path = format!("/{}/metadata/{key}", part.host_id);
            serde_json::json!({"op": operation, "path": path, "value": value})
        });
        let body = serde_json::Value::from_iter(operations).to_string();
        let answer = self.cluster.call(self.client(), "PATCH", "/fleet/v1/machines", body.as_bytes());
        assert_eq!(answer.map(|answer| answer.status), Ok(204));
    }

    fn part(&self, name: &str) -> &Part {
        self.parts.iter().find(|part| part.name == name).unwrap_or_else(|| panic!("no machine {name}"))
    }

    /// The host on which the recording's client ran.
    fn client(&self) -> &str {
        &self.part("n1").host
    }

    /// What is said of the recording's machines, said of the hosts.
    fn for_hosts(&self, text: &str) -> String {
        let pairs = self.parts.iter().flat_map(|part| {
            let (id, short) = (part.host_id.to_string(), part.host_id.to_string()[..8].to_string());
            [
                (part.id, id),
                (&part.id[..8], short.clone()),
                (&part.id[..5], short[..5].to_string()),
                (part.address, part.host_address.clone()),
            ]
        });
        replaced(text, &pairs.map(|(from, to)| (from.to_string(), to)).collect::<Vec<_>>())
    }

    /// What is said of the hosts, said of the recording's machines.
    fn as_recorded(&self, text: &str) -> String {
        let pairs = self.parts.iter().flat_map(|part| {
            let id = part.host_id.to_string();
            [
                (id.clone(), part.id.to_string()),
                (id[..8].to_string(), part.id[..8].to_string()),
                (part.host_address.clone(), part.address.to_string()),
                (part.host.clone(), part.name.to_string()),
            ]
        });
        replaced(text, &pairs.collect::<Vec<_>>())
    }

    /// Runs a line in a shell of the client's host, in the folder of the unit files.
    fn run(&self, command: &str) -> Said {
        let script = format!("cd /root/u; PATH=/root/bin:$PATH; {}", self.for_hosts(command));
        let shell = ["timeout", "60", "sh", "-c", &script];
        let ended = self.cluster.rack.try_exec(self.client(), &shell).unwrap_or_else(|e| panic!("{e}"));
        let code = ended.status.code().unwrap_or(-1);
        let lines = |bytes: &[u8]| {
            self.as_recorded(&String::from_utf8_lossy(bytes)).lines().map(str::to_string).collect()
        };
        Said { code, out: lines(&ended.stdout), err: lines(&ended.stderr) }
    }

    /// What happened to the recording's machines between two commands.
    fn act(&self, action: &str) {
        let (what, name) = action.split_once(' ').unwrap_or((action, ""));
        let host = self.parts.iter().find(|part| part.name == name).map(|part| &*part.host);
        match (what, host) {
            ("kill", Some(host)) => {
                self.cluster.rack.kill(host);
                self.lost(host);
            }
            ("boot", Some(host)) => {
                self.cluster.rack.start(host);
                self.cluster.formed();
            }
            ("leave", Some(host)) => {
                self.cluster.stop_daemon(host);
                self.lost(host);
            }
            ("stop", Some(host)) => self.cluster.stop_daemon(host),
            ("begin", None) => {
                self.cluster.rack.hosts().iter().for_each(|host| self.cluster.start_daemon(host));
                self.cluster.formed();
            }
            ("says", None) => self.says(name),
            ("leaderless", None) => {
                eventually(SOON, "the daemon to give up on a leader", || {
                    let status = self.cluster.status(self.client())?;
                    match status.leaderless_seconds {
                        Some(seconds) if seconds >= 3 => Ok(()),
                        other => Err(format!("{other:?}")),
                    }
                });
            }
            _ => panic!("nobody knows how to {action}"),
        }
        self.settle();
    }

    /// `UNIT TEXT`: what a unit says comes to its journal a little later.
    fn says(&self, what: &str) {
        let (unit, text) = what.split_once(' ').unwrap_or((what, ""));
        eventually(SOON, "the unit's words", || {
            let journal = self.run(&format!("fleetctl journal {unit}")).out;
            if journal.iter().any(|line| line.contains(text)) { Ok(()) } else { Err(format!("{journal:?}")) }
        });
    }

    fn lost(&self, host: &str) {
        eventually(SOON, "the machine to be lost", || {
            let machines = self.cluster.machines(self.client())?.machines;
            let lost = machines.iter().any(|m| m.name == host && m.state == MachineState::Lost);
            if lost { Ok(()) } else { Err(format!("{machines:?}")) }
        });
    }

    /// Waits until every machine has done what is asked of it, or nobody can say whether it has.
    fn settle(&self) {
        eventually(SOON, "the machines to settle", || {
            let Ok(units) = self.cluster.units(self.client()) else { return Ok(()) };
            match units.iter().find(|unit| !self.is_settled(unit)) {
                None => Ok(()),
                Some(unit) => Err(format!("{unit:?}")),
            }
        });
    }

    fn is_settled(&self, unit: &Unit) -> bool {
        let states: Vec<&UnitState> = unit.states.iter().filter(|state| !state.stale).collect();
        let done = states.iter().all(|state| state.generation == Some(unit.generation));
        let homes = match (unit.desired_state, unit.global, &unit.machine) {
            (State::Inactive, ..) => 0,
            (_, true, _) => match self.homes(unit) {
                Some(homes) => homes,
                None => return false,
            },
            (_, false, _) if unit.unplaced.is_some() => 0,
            (_, false, Some(home)) if states.iter().any(|state| state.machine == *home) => 1,
            (_, false, _) => return false,
        };
        done && states.len() == homes
    }

    /// On how many machines a global unit belongs.
    fn homes(&self, unit: &Unit) -> Option<usize> {
        let path = format!("/v1/units/{}/explain", unit.name);
        let answer = self.cluster.call(self.client(), "GET", &path, b"").ok()?;
        let explained: Explanation = serde_json::from_slice(&answer.body).ok()?;
        let machines = self.cluster.machines(self.client()).ok()?.machines;
        let ready = |id: &MachineId| machines.iter().any(|m| m.id == *id && m.state == MachineState::Ready);
        Some(explained.machines.iter().filter(|machine| machine.fits && ready(&machine.id)).count())
    }
}

/// All at once, so that one machine's name in the place of another's is not replaced again. Where several
/// fit, the first does. A name is a whole word, or an id's beginning.
fn replaced(text: &str, pairs: &[(String, String)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let is_word = |c: char| c.is_ascii_alphanumeric();
    while !rest.is_empty() {
        let begins = !out.ends_with(is_word);
        let ends = |from: &str| !rest[from.len()..].starts_with(is_word);
        let found = pairs.iter().find(|(from, _)| begins && rest.starts_with(&**from) && ends(from));
        match found {
            Some((from, to)) => {
                out.push_str(to);
                rest = &rest[from.len()..];
            }
            None => {
                let next = rest.chars().next().map_or(0, char::len_utf8);
                out.push_str(&rest[..next]);
                rest = &rest[next..];
            }
        }
    }
    out
}
