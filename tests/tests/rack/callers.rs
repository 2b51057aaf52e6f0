//! People who use the cluster from afar: invited, served by whichever machine answers, shut out.

use std::time::{Duration, Instant};

use tests::deploy::Cluster;
use tests::wait::eventually;

const UNIT: &str = "probe-afar.service";
const TEXT: &str = "[Unit]\nDescription=Afar\n[Service]\nExecStart=/bin/sleep infinity\n";

/// Invites on one host, and keeps the context on another, as a user would carry it over.
#[track_caller]
fn invite(cluster: &Cluster, name: &str, role: &str, to: &str) {
    let file = format!("/root/{name}.context");
    cluster.types("h1", &format!("cluster invite {name} --role {role} --file {file}")).is(0, &[name, role]);
    let mode = cluster.rack.exec("h1", &["stat", "-c", "%a", &file]);
    assert_eq!(mode.trim(), "600");
    let path = |host| cluster.rack.path(host, &file).expect("the host is on");
    let text = std::fs::read_to_string(path("h1")).expect("the context is there");
    std::fs::write(path(to), &text).expect("it can be carried over");
    // As a careless copy is.
    cluster.rack.exec(to, &["chmod", "644", &file]);
    cluster.types(to, &format!("context add {name} {file}")).is(1, &["chmod 600"]);
    cluster.rack.exec(to, &["chmod", "600", &file]);
    cluster.types(to, &format!("context add {name} {file}")).is(0, &[name, role, "until"]);
    cluster.rack.exec(to, &["rm", &file]);
    // The key is in no log.
    let key = text.split("PRIVATE KEY-----\\n").nth(1).expect("there is a key");
    for host in cluster.rack.hosts() {
        assert!(!cluster.daemon_log(host, 10_000).contains(&key[..32]), "{host} has logged a key");
    }
}

pub fn people_are_served_until_they_are_shut_out(cluster: &Cluster) {
    let rack = &cluster.rack;
    cluster.types("h3", "--context prod list-units").is(1, &["there is no context \"prod\"", "context add"]);
    invite(cluster, "alice", "operator", "h3");
    invite(cluster, "vera", "viewer", "h3");
    cluster.types("h1", "cluster people").is(0, &["alice  operator", "vera   viewer", "uid 0 (root)"]);

    let file = cluster.lay_out("h3", &[(UNIT, TEXT)]);
    cluster.types("h3", &format!("--context alice start {file}")).is(0, &[UNIT, "active (running)"]);
    cluster.types("h3", "--context vera list-units").is(0, &[UNIT, "running"]);
    let viewer = "this needs the role operator, and vera has the role viewer";
    cluster.types("h3", &format!("--context vera destroy {UNIT}")).is(1, &[viewer]);
    let operator = "this needs the role admin, and alice has the role operator";
    cluster.types("h3", "--context alice cluster uninvite vera").is(1, &[operator]);

    // h1 has written the invitations, and is asked first; so it has heard all of these.
    let log = cluster.daemon_log("h1", 10_000);
    for line in [
        format!("alice (operator) from {}:", rack.address("h3")),
        format!("set {UNIT} launched: done"),
        "vera (viewer) from".into(),
        "invite alice as operator for 7776000 s: done".into(),
        "uid 0 (root), pid".into(),
    ] {
        assert!(log.contains(&line), "{line} is not in\n{log}");
    }

    // The context in use; a machine without power does not even refuse.
    cluster.types("h3", "context use alice").well();
    cluster.types("h3", "context list").is(0, &["*  alice"]);
    let machine = |host: &str| rack.exec(host, &["cat", "/etc/machine-id"]).trim().to_string();
    let (first, second) = (machine("h1"), machine("h2"));
    cluster.types("h3", "cluster status").is(0, &["Machine:", &first]);
    rack.kill("h1");
    eventually(Duration::from_secs(30), "another leader", || {
        let said = cluster.types("h2", "cluster status");
        if said.code == 0 && !said.out.contains("Leader:    -") { Ok(()) } else { Err(said.to_string()) }
    });
    let begun = Instant::now();
    let said = cluster.types("h3", "cluster status").well();
    println!("rack: with the first machine without power, another answered after {:?}", begun.elapsed());
    assert!(!said.out.contains(&format!("Machine:   {first}")), "{said}");
    cluster.types("h3", &format!("stop {UNIT}")).is(0, &[UNIT]);
    let _ = second;

    cluster.types("h2", "cluster uninvite alice").well();
    cluster.types("h3", "list-units").is(1, &["alice is not invited, or no longer"]);
    cluster.types("h3", &format!("start {UNIT}")).is(1, &["alice is not invited, or no longer"]);
    cluster.types("h3", "--context local list-units").well();
    cluster.types("h3", "context remove alice").well();
    cluster.types("h3", "list-units").well();

    // Strangers, and a machine's own certificate, are tried in the daemon's tests; here, that
    // nothing is said.
    let bare = rack.shell(
        "h3",
        &format!(
            "python3 - <<'END'\nimport ssl, socket\nc = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)\n\
             c.check_hostname, c.verify_mode = False, ssl.CERT_NONE\n\
             s = c.wrap_socket(socket.create_connection(('{}', 7421), timeout=10))\ngot = b''\n\
             try:\n  s.sendall(b'GET /v1/status HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')\n  got = s.recv(65536)\n\
             except (ssl.SSLError, ConnectionError):\n  pass\nprint(len(got))\nEND",
            rack.address("h2")
        ),
    );
    assert_eq!(bare.trim(), "0", "who shows no certificate gets nothing");

    cluster.types("h2", "cluster uninvite vera").well();
    rack.start("h1");
    cluster.formed();
}
