//! What was acknowledged outlives the daemons: written before all of them end, looked for after they have
//! begun anew.

use std::sync::Arc;

use cluster::{ClusterState, Command, DesiredState, Revision};

use super::chance::{Dice, Plan};
use super::{Member, World, register, same_records, set, unit};

/// What must be there afterwards.
pub struct Kept {
    state: Arc<ClusterState>,
    last: Revision,
}

/// Writes a little of everything into a fresh cluster. All stores are to be ended after it, and begun anew
/// where they were.
pub async fn leave(members: Vec<Member>) -> Kept {
    let world = World { members };
    super::promise::one_leads(&world).await;
    world.any(0).propose(world.members.iter().map(|member| register(&member.machine)).collect()).await;
    let mut dice = Dice(23);
    for round in 0..150 {
        let member = world.any(round);
        let state = member.read().await;
        member.propose(vec![Plan::draw(&mut dice).command(&state)]).await;
    }
    let large = "x".repeat(300_000);
    let last = set(&unit("last.service"), &large, DesiredState::Inactive);
    let last = world.any(1).propose(vec![last]).await.revision;
    Kept { state: world.agree("before the end").await, last }
}

/// Everything is as it was, and what comes is newer.
pub async fn found(members: Vec<Member>, kept: &Kept) {
    let world = World { members };
    super::promise::one_leads(&world).await;
    let state = world.agree("after the beginning").await;
    assert!(kept.last <= state.revision, "{} <= {}", kept.last, state.revision);
    assert!(same_records(&kept.state, &state), "{:?}, then {:?}", kept.state.counts(), state.counts());
    let again = Command::DestroyUnit { name: unit("last.service") };
    let committed = world.any(2).propose(vec![again]).await;
    assert!(committed.outcomes[0].is_ok() && kept.last < committed.revision, "{committed:?}");
}
