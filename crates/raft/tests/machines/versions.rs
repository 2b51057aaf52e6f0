//! Machines that know different commands in one cluster: what one of them could not read never gets into the
//! log, and one that knows too little is kept out.

use cluster::{Command, FEATURE_LEVEL, MachineId, MachineInfo};
use store::{ProposeError, Role, Store};
use tokio::time::Instant;

use crate::{LIMIT, Machine, clustered, submit};

async fn registers(machine: &Machine, id: &str, feature_level: u32) -> Result<(), String> {
    let info = MachineInfo {
        name: format!("host-{id}"),
        version: format!("0.{feature_level}"),
        feature_level,
        ..MachineInfo::default()
    };
    let command = Command::RegisterMachine { id: MachineId::new(id).unwrap(), info };
    let committed = machine.store.propose(vec![command], Instant::now() + LIMIT).await.unwrap();
    committed.outcomes[0].clone().map(drop).map_err(|rejected| rejected.to_string())
}

async fn raises(machine: &Machine, to: u32) -> Result<(), ProposeError> {
    let raise = vec![Command::RaiseFeatureLevel { to }];
    let committed = machine.store.propose(raise, Instant::now() + LIMIT).await?;
    committed.outcomes[0].clone().map(drop).map_err(ProposeError::TooNew)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_machine_keeps_newer_commands_out_of_the_log() {
    let dirs: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    let [one, two, three] = clustered(&dirs).await;
    registers(&one, "m1", FEATURE_LEVEL).await.unwrap();
    registers(&two, "m2", FEATURE_LEVEL - 1).await.unwrap();
    registers(&three, "m3", FEATURE_LEVEL).await.unwrap();

    // From whichever machine it comes, and together with whatever else.
    for machine in [&one, &two, &three] {
        let before = machine.store.read(Instant::now() + LIMIT).await.unwrap();
        let both =
            [submit("beside.service"), vec![Command::RaiseFeatureLevel { to: FEATURE_LEVEL }]].concat();
        let refused = machine.store.propose(both, Instant::now() + LIMIT).await.unwrap_err();
        assert!(matches!(refused, ProposeError::TooNew(_)), "{refused:?}");
        let said = refused.to_string();
        assert!(said.contains("host-m2 (machine m2) knows 1"), "{said}");
        assert!(said.contains("upgrade coreinit there"), "{said}");
        let after = machine.store.read(Instant::now() + LIMIT).await.unwrap();
        assert_eq!((&before.units, &before.cluster), (&after.units, &after.cluster));
    }
    // What all of them know goes on.
    two.store.propose(submit("old.service"), Instant::now() + LIMIT).await.unwrap();

    registers(&two, "m2", FEATURE_LEVEL).await.unwrap();
    raises(&two, FEATURE_LEVEL).await.unwrap();
    let said = registers(&two, "m2", FEATURE_LEVEL - 1).await.unwrap_err();
    assert!(said.contains("needs feature level 2"), "{said}");

    // The cluster comes to know more than this program does: it could not join it any more.
    for (machine, id) in [(&one, "m1"), (&two, "m2"), (&three, "m3")] {
        registers(machine, id, FEATURE_LEVEL + 1).await.unwrap();
    }
    raises(&one, FEATURE_LEVEL + 1).await.unwrap();
    let late = Machine::start("m4", dirs[3].path(), &[one.store.address()]).await;
    let told =
        late.becomes(|role| matches!(role, Role::Unformed { hint } if hint.contains("feature level"))).await;
    let Role::Unformed { hint } = told else { unreachable!("just looked at") };
    assert!(hint.contains("upgrade coreinit here"), "{hint}");
    for machine in [one, two, three, late] {
        machine.stop().await;
    }
}
