//! The first thing a user does: start the examples.

use std::collections::BTreeSet;
use std::time::Duration;

use tests::deploy::Cluster;
use tests::wait::eventually;

const SOCKET_UNIT: &str = "socket-activated.socket";
const SERVICE_UNIT: &str = "socket-activated.service";

/// `corectl start examples/*`: all active and spread over the machines; the service of a socket waits for
/// somebody to connect.
pub fn examples_run(cluster: &Cluster) {
    let rack = &cluster.rack;
    let output = cluster.rack.try_exec("h1", &["bash", "-c", "corectl start /examples/*"]).expect("h1 is on");
    let said = tests::rack::said(&output);
    assert!(output.status.success(), "corectl start: {said}");

    let names: Vec<String> = rack.shell("h1", "cd /examples; ls").lines().map(str::to_string).collect();
    assert!(names.iter().any(|name| name == SOCKET_UNIT), "{names:?}");
    let waits = |name: &str| name == SERVICE_UNIT || name.contains("@.");
    let active: Vec<String> = names.iter().filter(|name| !waits(name)).cloned().collect();
    let (homes, took) = cluster.at_home(Duration::from_secs(20), "h2", &active);
    println!("rack: examples: {} units active, {took:?} after corectl returned: {homes:?}", active.len());
    let used: BTreeSet<&String> = homes.values().collect();
    assert_eq!(used.len(), rack.hosts().len(), "spread over the machines: {homes:?}");

    let home = &homes[SOCKET_UNIT];
    let service = cluster.unit("h3", SERVICE_UNIT).expect("it is stored");
    let machine = service.machine.expect("it has a home");
    assert_eq!(&cluster.host_of(&machine).expect("the machine is known"), home, "beside its socket");
    let state = || {
        let units = rack.units(home, &[SERVICE_UNIT])?;
        units
            .get(SERVICE_UNIT)
            .map(|unit| format!("{} {} {}", unit.load, unit.active, unit.sub))
            .ok_or_else(|| "gone".to_string())
    };
    // systemd may have dropped it from memory, which is what it does with units at rest.
    let resting = state().unwrap_or_else(|_| "loaded inactive dead".into());
    assert_eq!(resting, "loaded inactive dead", "nobody has connected yet");
    connect(cluster, home);
    let is_active = || match state()? {
        state if state.starts_with("loaded active") => Ok(()),
        state => Err(state),
    };
    let ((), took) = eventually(Duration::from_secs(10), "the service that its socket starts", is_active);
    println!("rack: examples: active {took:?} after somebody connected");
    eventually(Duration::from_secs(10), "the cluster to know it", || {
        let unit = cluster.unit("h1", SERVICE_UNIT)?;
        let active = unit.states.iter().any(|state| state.machine == machine && state.active == "active");
        if active { Ok(()) } else { Err(format!("{:?}", unit.states)) }
    });
}

/// Connects to the first `ListenStream=` of the example, on its own host.
fn connect(cluster: &Cluster, host: &str) {
    let path = tests::sources::root().join("examples").join(SOCKET_UNIT);
    let text = std::fs::read_to_string(&path).expect("the example can be read");
    let listen = text.lines().find_map(|line| line.strip_prefix("ListenStream=")).expect("it listens").trim();
    let program = "import socket, sys\na = sys.argv[1]\n\
        s = socket.socket(socket.AF_UNIX if a[0] == '/' else socket.AF_INET)\n\
        s.connect(a if a[0] == '/' else ('127.0.0.1', int(a.split(':')[-1])))\n\
        s.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')\n";
    cluster.rack.exec(host, &["python3", "-c", program, listen]);
}
