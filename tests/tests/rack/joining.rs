//! Units that belong on every machine, and machines that were not there when they were started.

use std::time::{Duration, Instant};

use api::membership::{Members, Part};
use api::v1::State;
use tests::deploy::{Cluster, set};
use tests::wait::eventually;

const LIMIT: Duration = Duration::from_secs(30);
/// The daemon's own patience with a voter that is away.
const VOTER_GRACE: Duration = Duration::from_secs(60);
const UNIT: &str = "probe-everywhere.service";

/// One machine is without power when the unit is started; another joins the cluster for the first time after
/// that. It leaves a cluster with a machine that nobody else knows of, so it comes last.
pub fn a_global_unit_is_on_machines_that_come_later(cluster: &Cluster) {
    let rack = &cluster.rack;
    let text = "[Service]\nExecStart=/bin/sleep infinity\n[X-Coreinit]\nGlobal=true\n";
    let file = cluster.lay_out("h1", &[(UNIT, text)]);
    rack.kill("h3");
    cluster.types("h1", &format!("start {file}")).well();
    let active_on = |host: &str| match cluster.systemd_says(host, UNIT)? {
        said if said == "loaded active running" => Ok(()),
        said => Err(format!("{host}: {said}")),
    };
    for host in ["h1", "h2"] {
        active_on(host).expect("corectl has waited for it");
    }
    rack.start("h3");
    eventually(LIMIT, "the unit on the machine that has come back", || active_on("h3"));

    let fourth = cluster.add_machine();
    eventually(LIMIT, "the unit on the machine that has joined", || active_on(&fourth));
    eventually(LIMIT, "all machines to be told", || match cluster.unit("h1", UNIT)?.states {
        states if states.len() == 4 && states.iter().all(|state| state.active == "active") => Ok(()),
        states => Err(format!("{states:?}")),
    });
    cluster.types("h1", &format!("status --brief {UNIT}")).is(0, &["h3", "h4"]);
    cluster.types(&fourth, &format!("destroy {UNIT}")).well();
    eventually(LIMIT, "nothing to be left", || cluster.nothing_left_now());
    assert_eq!(cluster.systemd_says(&fourth, UNIT).as_deref(), Ok("none"));
    replaced_for_good(cluster, &fourth);
}

/// A voter that never comes back gives its vote to the machine that has joined. Nobody says a word.
fn replaced_for_good(cluster: &Cluster, fourth: &str) {
    let begun = Instant::now();
    cluster.rack.kill("h3");
    eventually(VOTER_GRACE + LIMIT, "three living voters", || {
        let answer = cluster.call("h1", "GET", "/v1/cluster/members", b"")?;
        let members: Members = serde_json::from_slice(&answer.body).map_err(|_| answer.text())?;
        let voting = members.members.into_iter().filter(|member| member.part != Part::Learner);
        let mut names: Vec<String> = voting.map(|member| member.name).collect();
        names.sort();
        if names == ["h1", "h2", fourth] { Ok(()) } else { Err(format!("{names:?} vote")) }
    });
    println!("rack: replaced: a new machine votes {:.1?} after one was lost for good", begun.elapsed());
    // As many may be lost as before: the next leader has a majority without the dead one.
    cluster
        .batch(
            fourth,
            vec![set("probe-later.service", Some("[Service]\nExecStart=/bin/true\n"), State::Inactive)],
        )
        .expect("it is taken");
}
