//! A machine that was made from a copy of another's disk.

use std::time::Duration;

use tests::deploy::{Cluster, DATA_DIR, probes};
use tests::rack::said;
use tests::wait::eventually;

/// The copy is kept out, both machines say so, and no unit notices; with an id of its own it is taken in.
pub fn a_second_machine_with_one_id_is_kept_out(cluster: &Cluster) {
    let rack = &cluster.rack;
    let units = probes("twin", 4);
    let id = rack.shell("h2", "tr -d '\\n' < /etc/machine-id");
    let own = rack.shell("h3", "tr -d '\\n' < /etc/machine-id");
    cluster.stop_daemon("h3");
    rack.shell("h3", &format!("mv {DATA_DIR} {DATA_DIR}.own && echo {id} > /etc/machine-id"));
    cluster.launch("h1", &units);
    cluster.start_daemon("h3");

    let refused = || {
        let output = cluster.corectl("h3", &["cluster", "status"]);
        let words = said(&output);
        match words.contains("the machine at 10.77.0.12:7340 has the same machine id") {
            true => Ok(words),
            false => Err(words),
        }
    };
    let (words, took) = eventually(Duration::from_secs(20), "the copy to say why it is kept out", refused);
    println!("rack: twin: after {took:?}: {}", words.trim());
    assert!(words.contains("systemd-machine-id-setup"), "{words}");
    eventually(Duration::from_secs(10), "the first to have said it too", || {
        let log = cluster.daemon_log("h2", 200);
        if log.contains("another machine has this machine's id") { Ok(()) } else { Err(log) }
    });
    // The leader may have been h3, and another one has to place them.
    eventually(Duration::from_secs(20), "h2 to be what it was", || {
        let homes = (cluster.homes("h1")?.len(), cluster.homes("h2")?.len());
        if homes == (units.len(), units.len()) { Ok(()) } else { Err(format!("{homes:?}")) }
    });
    assert_eq!(cluster.machines("h1").expect("an answer").machines.len(), 3);

    cluster.stop_daemon("h3");
    rack.shell(
        "h3",
        &format!("rm -r {DATA_DIR} && mv {DATA_DIR}.own {DATA_DIR} && echo {own} > /etc/machine-id"),
    );
    cluster.start_daemon("h3");
    cluster.formed();
    cluster.at_home(Duration::from_secs(30), "h1", &units);
}
