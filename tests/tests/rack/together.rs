//! A sidekick: a unit that lives and dies with another (`BindsTo=`) on the other's machine (`MachineOf=`).

use std::collections::BTreeMap;
use std::time::Duration;

use tests::deploy::Cluster;
use tests::wait::eventually;

const LIMIT: Duration = Duration::from_secs(30);
const MAIN: &str = "probe-main.service";
const SIDE: &str = "probe-side.service";
const FILES: &[(&str, &str)] = &[
    (MAIN, "[Service]\nExecStart=/bin/sleep infinity\n"),
    (
        SIDE,
        "[Unit]\nBindsTo=probe-main.service\nAfter=probe-main.service\n\
         [Service]\nExecStart=/bin/sleep infinity\n\
         [X-Fleet]\nMachineOf=probe-main.service\n",
    ),
];

pub fn a_sidekick_goes_where_its_unit_goes(cluster: &Cluster) {
    let files = cluster.lay_out("h1", FILES);
    cluster.types("h1", &format!("start {files}")).well();
    let mut home = together(cluster, "h2");
    for _ in 0..3 {
        let from = home.clone();
        cluster.types(&from, &format!("move {MAIN}")).well();
        home = together(cluster, &from);
        assert_ne!(home, from, "they have moved");
    }
    // The sidekick may be named as well.
    cluster.types("h1", &format!("move {SIDE}")).well();
    assert_ne!(together(cluster, "h1"), home);

    cluster.types("h1", &format!("stop {MAIN}")).well();
    eventually(LIMIT, "both to have stopped", || match cluster.running(&["probe-*"]) {
        running if running.is_empty() => Ok(()),
        running => Err(format!("{running:?}")),
    });
    cluster.types("h1", &format!("start {MAIN} {SIDE}")).well();
    let home = together(cluster, "h2");

    // systemd ends the sidekick when its unit fails; neither comes back by itself, and both do when asked.
    cluster.rack.kill_main(&home, MAIN);
    eventually(LIMIT, "both to be told as ended", || {
        let said = (cluster.cluster_says("h1", MAIN)?, cluster.cluster_says("h1", SIDE)?);
        match said.0 == "loaded failed failed" && said.1 == "loaded inactive dead" {
            true => Ok(()),
            false => Err(format!("{said:?}")),
        }
    });
    cluster.types("h1", &format!("start {MAIN} {SIDE}")).well();
    assert_eq!(together(cluster, "h3"), home, "they stay where they are");

    let other = cluster.rack.others(&home)[0].clone();
    cluster.rack.kill(&home);
    let moved = || match together_now(cluster, &other)? {
        now if now != home => Ok(now),
        now => Err(format!("both on {now}")),
    };
    eventually(LIMIT, "both on another machine", moved);
    cluster.types(&other, &format!("destroy {MAIN} {SIDE}")).well();
    cluster.rack.start(&home);
    eventually(LIMIT, "nothing to be left", || cluster.nothing_left_now());
}

/// Waits until both are active on the one machine that the cluster says; returns it.
#[track_caller]
fn together(cluster: &Cluster, asked: &str) -> String {
    eventually(LIMIT, "both on one machine", || together_now(cluster, asked)).0
}

fn together_now(cluster: &Cluster, asked: &str) -> Result<String, String> {
    let homes: BTreeMap<String, String> = cluster.at_home_now(asked, &[MAIN.into(), SIDE.into()])?;
    // Units are moved when their machine has told that it has started them.
    let told = (cluster.cluster_says(asked, MAIN)?, cluster.cluster_says(asked, SIDE)?);
    let is_told = told.0 == "loaded active running" && told.1 == told.0;
    match homes[MAIN] == homes[SIDE] && is_told {
        true => Ok(homes[MAIN].clone()),
        false => Err(format!("{homes:?}, {told:?}")),
    }
}
