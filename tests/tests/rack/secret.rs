//! Machines that do not hold the cluster's secret.

use std::time::Duration;

use tests::deploy::{Cluster, SECRET_FILE, probes};
use tests::rack::said;
use tests::wait::eventually;

/// What a stranger tries on the peers' port, in Python; it prints what it gets.
const STRANGER: &str = r"
import socket, ssl
def bytes_for(word, tls):
    s = socket.create_connection(('10.77.0.11', 7340), timeout=10)
    try:
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.set_alpn_protocols(['h2', 'http/1.1'])
            s = context.wrap_socket(s)
        s.sendall(word)
        got = b''
        while piece := s.recv(65536):
            got += piece
        return got
    except (ssl.SSLError, ConnectionError) as error:
        return b''
h2 = b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0'
for tls in (False, True):
    for word in (b'POST /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n', h2):
        print(len(bytes_for(word, tls)))
";

/// A machine with another secret says so, and is a machine again with the right one; the others go on. Who
/// has none gets no byte of the state.
pub fn only_those_with_the_secret_are_let_in(cluster: &Cluster) {
    let rack = &cluster.rack;
    let units = probes("secret", 3);
    cluster.stop_daemon("h3");
    let other = "another secret, which is as long and as good as the first";
    rack.shell("h3", &format!("cp -p {SECRET_FILE} /root/secret && echo '{other}' > {SECRET_FILE}"));
    cluster.start_daemon("h3");
    let told = || {
        let words = said(&cluster.corectl("h3", &["cluster", "status"]));
        match words.contains("10.77.0.11:7340 belongs to another cluster") {
            true => Ok(words),
            false => Err(words),
        }
    };
    let (words, took) = eventually(Duration::from_secs(20), "the machine to say what is wrong", told);
    println!("rack: another secret: after {took:?}: {}", words.lines().last().unwrap_or_default());
    cluster.launch("h1", &units);
    let placed = || {
        let homes = cluster.homes("h1")?;
        let there = units.iter().filter(|unit| homes.get(*unit).is_some_and(|home| home != "h3")).count();
        if there == units.len() { Ok(()) } else { Err(format!("{homes:?}")) }
    };
    eventually(Duration::from_secs(30), "the others to go on without it", placed);

    let got = rack.exec("h3", &["python3", "-c", STRANGER]);
    let got: Vec<usize> = got.lines().map(|line| line.parse().expect("a number")).collect();
    println!("rack: strangers at the port got {got:?} bytes");
    // Without TLS an alert of 7 bytes, with TLS not one.
    assert!(got.len() == 4 && got[..2].iter().all(|n| *n <= 7) && got[2..] == [0, 0], "{got:?}");

    cluster.stop_daemon("h3");
    rack.shell("h3", &format!("cp -p /root/secret {SECRET_FILE}"));
    cluster.start_daemon("h3");
    cluster.formed();
    cluster.at_home(Duration::from_secs(30), "h1", &units);
}

/// A daemon that does not start for its secret's sake says what to do, as an error, among the last words in
/// the journal, however often systemd tries again.
pub fn a_secret_that_others_can_read_is_named(cluster: &Cluster) {
    let rack = &cluster.rack;
    cluster.stop_daemon("h3");
    rack.exec("h3", &["chmod", "644", SECRET_FILE]);
    cluster.start_daemon("h3");
    let advice = format!("use `chmod 600 {SECRET_FILE}`");
    let restarted = || {
        let words = cluster.daemon_log("h3", 10);
        let tried = words.contains("Scheduled restart job");
        if tried && words.contains(&advice) { Ok(words) } else { Err(words) }
    };
    eventually(Duration::from_secs(20), "the advice between the tries", restarted);
    let errors = ["journalctl", "-t", "coreinitd", "-p", "err", "-n", "1", "--no-pager"];
    let errors = rack.exec("h3", &errors);
    assert!(errors.contains(&advice), "{errors}");
    rack.exec("h3", &["chmod", "600", SECRET_FILE]);
    cluster.formed();
}
