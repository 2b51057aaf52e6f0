//! Every type of unit does on a cluster what it does under systemd alone, and leaves nothing behind.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use tests::deploy::Cluster;
use tests::wait::eventually;

const LIMIT: Duration = Duration::from_secs(30);

const TARGET: &str = "[Unit]\nWants=probe-a.service probe-b.service\n";
const WANTED: &str = "[Unit]\nPartOf=probe.target\n[Service]\nExecStart=/bin/sleep infinity\n\
    [X-Coreinit]\nMachineOf=probe.target\n";
const ALL: &[(&str, &str)] = &[
    ("probe.service", "[Service]\nExecStart=/bin/sleep infinity\n"),
    ("probe-sock.socket", "[Socket]\nListenStream=/run/probe-sock\n"),
    ("probe-sock.service", "[Service]\nExecStart=/bin/sleep infinity\n"),
    ("probe-tick.timer", "[Timer]\nOnActiveSec=100ms\nOnUnitInactiveSec=200ms\nAccuracySec=1ms\n"),
    ("probe-tick.service", "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo tick >>/run/probe-ticks'\n"),
    ("probe-flag.path", "[Path]\nPathExists=/run/probe-flag\n"),
    (
        "probe-flag.service",
        "[Service]\nType=oneshot\nExecStart=/bin/mv /run/probe-flag /run/probe-flag-seen\n",
    ),
    ("mnt-probe.mount", "[Mount]\nWhat=probe\nWhere=/mnt/probe\nType=tmpfs\nOptions=size=1m\n"),
    ("probe.target", TARGET),
    ("probe-a.service", WANTED),
    ("probe-b.service", WANTED),
    ("probe.slice", "[Slice]\nTasksMax=100\n"),
];
/// What somebody starts, and what systemd says of it then. The others are started by one of these.
const STARTED: &[(&str, &str)] = &[
    ("probe.service", "loaded active running"),
    ("probe-sock.socket", "loaded active listening"),
    ("probe-tick.timer", "loaded active "),
    ("probe-flag.path", "loaded active "),
    ("mnt-probe.mount", "loaded active mounted"),
    ("probe.target", "loaded active active"),
    ("probe.slice", "loaded active active"),
];

pub fn every_type_of_unit_works(cluster: &Cluster) {
    let files = cluster.lay_out("h1", ALL);
    cluster.types("h1", &format!("load {files}")).well();
    let names = |units: &[(&str, &str)]| units.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" ");
    for round in 0..2 {
        cluster.types("h2", &format!("start {}", names(STARTED))).well();
        let homes = cluster.homes("h3").expect("the daemon answers");
        for (unit, expected) in STARTED {
            let said = cluster.systemd_says(&homes[*unit], unit).expect("the host is on");
            assert!(said.starts_with(expected), "{unit}: {said}");
        }
        they_do_what_they_are_for(cluster, &homes, round);
        if round > 0 {
            break;
        }
        cluster.types("h3", &format!("stop {}", names(ALL))).well();
        for (unit, _) in ALL {
            let said = cluster.systemd_says(&homes[*unit], unit).expect("the host is on");
            // systemd may have dropped it from memory, which is what it does with units at rest.
            // A oneshot that is stopped in the middle of its work has failed.
            let is_down =
                said.ends_with(" inactive dead") || said.ends_with(" failed failed") || said == "none";
            assert!(is_down, "{unit} is stopped: {said}");
        }
        assert!(!mounts(cluster, &homes).contains("/mnt/probe"), "it is unmounted");
    }
    cluster.types("h3", &format!("destroy {}", names(ALL))).well();
    assert_eq!(cluster.units("h1"), Ok(vec![]));
    eventually(LIMIT, "nothing to be left", || cluster.nothing_left_now());
}

fn mounts(cluster: &Cluster, homes: &std::collections::BTreeMap<String, String>) -> String {
    cluster.rack.exec(&homes["mnt-probe.mount"], &["cat", "/proc/mounts"])
}

fn they_do_what_they_are_for(
    cluster: &Cluster,
    homes: &std::collections::BTreeMap<String, String>,
    round: usize,
) {
    let is_active = |unit: &str| match cluster.systemd_says(&homes[unit], unit)? {
        said if said.starts_with("loaded active") => Ok(()),
        said => Err(format!("{unit}: {said}")),
    };
    assert!(mounts(cluster, homes).contains("probe /mnt/probe tmpfs"), "it is mounted");

    let socket = cluster.rack.path(&homes["probe-sock.socket"], "/run/probe-sock").expect("the host is on");
    UnixStream::connect(socket).expect("somebody listens");
    assert_eq!(homes["probe-sock.socket"], homes["probe-sock.service"]);
    eventually(LIMIT, "the socket to start its service", || is_active("probe-sock.service"));

    let home = &homes["probe-tick.timer"];
    let ticks = |at_least: usize| {
        move || match cluster.read(home, "/run/probe-ticks").lines().count() {
            ticks if ticks >= at_least => Ok(ticks),
            ticks => Err(format!("{ticks} ticks")),
        }
    };
    let (before, _) = eventually(LIMIT, "the timer to start its service", ticks(1));
    eventually(LIMIT, "the timer to start it again", ticks(before + 2));

    let home = &homes["probe-flag.path"];
    let seen = format!("/run/probe-flag-seen{round}");
    cluster.touch(home, "/run/probe-flag");
    eventually(LIMIT, "the path to start its service", || {
        match cluster.rack.path(home, "/run/probe-flag-seen").is_some_and(|path| path.exists()) {
            true => Ok(()),
            false => Err("it is not there".into()),
        }
    });
    cluster.rack.exec(home, &["mv", "/run/probe-flag-seen", &seen]);

    for unit in ["probe-a.service", "probe-b.service"] {
        assert_eq!(homes[unit], homes["probe.target"]);
        eventually(LIMIT, "the target to pull in what it wants", || is_active(unit));
    }
    // What the cluster has not been asked to start is told all the same.
    eventually(LIMIT, "the cluster to know what other units have started", || {
        match cluster.cluster_says("h1", "probe-a.service")? {
            said if said == "loaded active running" => Ok(()),
            said => Err(said),
        }
    });
}

/// The template is stored once; its instances are started on machines that have no file of it.
pub fn a_stored_template_is_started_often(cluster: &Cluster) {
    let text = "[Service]\nExecStart=/bin/sh -c 'echo %i of %p >/run/probe-%i; exec sleep infinity'\n";
    let file = cluster.lay_out("h1", &[("probe-t@.service", text)]);
    cluster.types("h1", &format!("submit {file}")).well();
    cluster.types("h1", "start probe-t@.service").is(0, &["a template is not started"]);
    let instances = ["1", "two", "3.0"].map(|instance| format!("probe-t@{instance}.service"));
    cluster.types("h2", &format!("start {}", instances.join(" "))).well();
    let (homes, _) = cluster.at_home(LIMIT, "h3", &instances);
    for instance in ["1", "two", "3.0"] {
        let home = &homes[&format!("probe-t@{instance}.service")];
        eventually(LIMIT, "the instance to know its name", || {
            match cluster.read(home, &format!("/run/probe-{instance}")) {
                said if said == format!("{instance} of probe-t\n") => Ok(()),
                said => Err(said),
            }
        });
    }
    cluster.types("h3", &format!("destroy probe-t@.service {}", instances.join(" "))).well();
    eventually(LIMIT, "nothing to be left", || cluster.nothing_left_now());
}

/// `[Install]` does what it does for systemd, on the machine that the unit is on.
pub fn a_unit_is_pulled_in_by_another(cluster: &Cluster) {
    let announcer = "[Unit]\nBindsTo=probe-hello.service\nAfter=probe-hello.service\n\
        [Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=probe-hello.service\n\
        [X-Fleet]\nMachineOf=probe-hello.service\n";
    let files = cluster.lay_out(
        "h1",
        &[
            ("probe-hello.service", "[Service]\nExecStart=/bin/sleep infinity\n"),
            ("probe-announce.service", announcer),
        ],
    );
    cluster.types("h1", &format!("load {files}")).well();
    let home = cluster.homes("h2").expect("the daemon answers")["probe-hello.service"].clone();
    let says = |unit: &str, expected: &str| match cluster.systemd_says(&home, unit)? {
        said if said.contains(expected) => Ok(()),
        said => Err(format!("{unit}: {said}")),
    };
    assert!(says("probe-announce.service", "active running").is_err());
    for _ in 0..2 {
        cluster.types("h2", "start probe-hello").well();
        eventually(LIMIT, "the other to come along", || says("probe-announce.service", " active "));
        cluster.types("h3", "stop probe-hello").well();
        eventually(LIMIT, "the other to go along", || match says("probe-announce.service", " active ") {
            Ok(()) => Err("active".into()),
            Err(_) => Ok(()),
        });
    }
    // A new text that is wanted by nobody.
    let file = cluster.lay_out(
        "h1",
        &[("probe-announce.service", &announcer.replace("[Install]\nWantedBy=probe-hello.service\n", ""))],
    );
    cluster.types("h1", &format!("load --replace {file}")).well();
    cluster.types("h2", "start probe-hello").well();
    assert!(says("probe-announce.service", " active ").is_err(), "it was pulled in by its old text");
    cluster.types("h3", "destroy probe-hello.service probe-announce.service").well();
    eventually(LIMIT, "nothing to be left", || cluster.nothing_left_now());
}
