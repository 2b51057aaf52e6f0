//! What a daemon says of itself to those who watch.

use std::time::Duration;

use tests::deploy::Cluster;
use tests::wait::eventually;

/// The daemon's own words of its health, on a machine as it is, without a bus, and without the others.
pub fn health_and_readiness_are_told(cluster: &Cluster) {
    let rack = &cluster.rack;
    let ask = |path: &str| cluster.call("h3", "GET", path, b"").map(|answer| (answer.status, answer.text()));
    let becomes = |path: &str, status: u16, words: &str| {
        let what = format!("{path} to be {status} {words}");
        eventually(Duration::from_secs(40), &what, || match ask(path)? {
            (got, text) if got == status && text.contains(words) => Ok(()),
            (got, text) => Err(format!("{got} {text}")),
        })
    };
    becomes("/healthz", 200, "ok");
    becomes("/readyz", 200, "leads");
    rack.cut("h3");
    becomes("/readyz", 503, "2 of the 3 voting machines must be running");
    becomes("/healthz", 200, "ok");
    rack.heal();
    becomes("/readyz", 200, "leads");
    rack.exec("h3", &["systemctl", "stop", "dbus.socket", "dbus.service"]);
    becomes("/healthz", 503, "systemd cannot be reached");
    rack.exec("h3", &["systemctl", "start", "dbus.socket"]);
    becomes("/healthz", 200, "ok");
    let status = cluster.status("h3").unwrap_or_else(|e| panic!("{e}"));
    assert!(status.concerns.is_empty() && status.trouble.is_none(), "{status:?}");
}
