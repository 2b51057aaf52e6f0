//! The links by which systemd and other units know a unit, and units that have lost them.

use cluster::DesiredState;

use crate::host::{Host, OneMachine, sleeper};

/// `[Install]`, of units that come, change and go.
pub async fn others_are_told_who_wants_them(host: &Host, cluster: &OneMachine) {
    let wants = |unit: &str| host.systemctl(&["show", "-P", "Wants", unit]);
    cluster.start("wanting.service", &sleeper("wanting")).await;
    cluster.settled("wanting.service").await;
    let installed = format!("{}[Install]\nWantedBy=wanting.service\n", sleeper("wanted"));
    let loaded = DesiredState::Loaded;
    cluster.set(&[("wanted@1.service", &installed, loaded)]).await;
    cluster.settled("wanted@1.service").await;
    assert_eq!(wants("wanting.service"), "wanted@1.service");
    let other = installed.replace("WantedBy", "RequiredBy");
    cluster.set(&[("wanted@1.service", &other, loaded)]).await;
    cluster.settled("wanted@1.service").await;
    assert_eq!(wants("wanting.service"), "");
    assert_eq!(host.systemctl(&["show", "-P", "RequiredBy", "wanted@1.service"]), "wanting.service");
    cluster.destroy(&["wanted@1.service"]).await;
    let links = host.root.join("run/systemd/system");
    assert!(
        !links.join("wanting.service.requires").exists() && !links.join("wanting.service.wants").exists()
    );
    assert!(!host.systemctl(&["show", "-P", "Requires", "wanting.service"]).contains("wanted"));

    // What cannot be is told, and holds up no other.
    let nonsense = format!("{}[Install]\nWantedBy=nobody\n", sleeper("wanted by what is no unit"));
    cluster.set(&[("alone.service", &nonsense, loaded), ("other.service", &installed, loaded)]).await;
    let reason = cluster.settled("alone.service").await.failure.map(|failure| failure.reason);
    assert!(reason.as_deref().is_some_and(|reason| reason.contains("EnableUnitFiles")), "{reason:?}");
    assert_eq!(cluster.settled("other.service").await.failure, None);
    cluster.destroy(&["wanting.service", "alone.service", "other.service"]).await;
}

pub async fn what_has_lost_its_file_is_ours_still(host: &Host, cluster: &OneMachine) {
    for unit in ["bare.service", "wanted.service"] {
        cluster.start(unit, &sleeper("without a file")).await;
        cluster.settled(unit).await;
        std::fs::remove_file(host.root.join("run/systemd/system").join(unit)).unwrap();
        std::fs::remove_file(host.root.join("run/coreinit/units").join(unit)).unwrap();
    }
    host.systemctl(&["daemon-reload"]);
    cluster.destroy(&["bare.service"]).await;
    assert_eq!(host.systemctl(&["list-units", "--all", "--plain", "--no-legend", "bare.service"]), "");
    cluster.set(&[("wanted.service", &sleeper("without a file"), DesiredState::Loaded)]).await;
    // Without its file systemd takes the end of its process for a failure.
    let active = cluster.settled("wanted.service").await.active;
    assert!(matches!(&*active, "inactive" | "failed"), "{active}");
    cluster.destroy(&["wanted.service"]).await;
}
