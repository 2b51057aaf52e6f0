//! Units on every machine, and machines that are emptied.

use std::time::Duration;

use api::v1::State;
use tests::deploy::{Cluster, probes, set};
use tests::rack::said;
use tests::wait::eventually;

/// A global unit runs everywhere; a drained machine keeps it and loses the others, one by one, and gets them
/// back only when it takes units again.
pub fn a_drained_machine_is_empty(cluster: &Cluster) {
    let text = "[Service]\nExecStart=/bin/sleep infinity\n[X-Coreinit]\nGlobal=true\n";
    cluster.batch("h1", vec![set("probe-everywhere.service", Some(text), State::Launched)]).expect("stored");
    let units = probes("drain", 6);
    cluster.launch("h1", &units);
    let (homes, _) = cluster.at_home(Duration::from_secs(20), "h1", &units);
    let everywhere =
        || match cluster.running(&["probe-everywhere.service"]).remove("probe-everywhere.service") {
            Some(hosts) if hosts.len() == cluster.rack.hosts().len() => Ok(()),
            other => Err(format!("{other:?}")),
        };
    eventually(Duration::from_secs(20), "the global unit on every host", everywhere);
    let there =
        |homes: &std::collections::BTreeMap<String, String>| homes.values().filter(|h| *h == "h2").count();
    assert_eq!(there(&homes), 2, "{homes:?}");

    let output = cluster.corectl("h3", &["drain", "h2", "--timeout", "30s"]);
    assert!(output.status.success(), "{}", said(&output));
    let (homes, _) = cluster.at_home(Duration::from_secs(5), "h1", &units);
    assert_eq!(there(&homes), 0, "{homes:?}");
    everywhere().expect("the global unit stays");

    let output = cluster.corectl("h1", &["move", "probe-drain-1.service", "h2"]);
    assert!(!output.status.success() && said(&output).contains("cordoned"), "{}", said(&output));
    let output = cluster.corectl("h1", &["uncordon", "h2"]);
    assert!(output.status.success(), "{}", said(&output));
    let output = cluster.corectl("h1", &["rebalance", "--yes"]);
    assert!(output.status.success(), "{}", said(&output));
    let (homes, _) = cluster.at_home(Duration::from_secs(5), "h1", &units);
    assert_eq!(there(&homes), 2, "{homes:?}");
}
