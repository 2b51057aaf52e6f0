//! What those who watch a store see while everything else is checked: states that only go forwards.

use cluster::{ClusterState, Revision};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::World;

/// Looks at every state that each machine shows, until it is told to end.
pub struct Watching {
    stop: watch::Sender<bool>,
    tasks: JoinSet<usize>,
}

impl Watching {
    pub fn begin(world: &World) -> Watching {
        let (stop, _) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for member in &world.members {
            let (machine, mut states, mut stop) =
                (member.machine.clone(), member.store.state(), stop.subscribe());
            tasks.spawn(async move {
                let (mut last, mut count) = (states.borrow_and_update().clone(), 0);
                loop {
                    tokio::select! {
                        // Cancel-safe: both only wait.
                        changed = states.changed() => changed.expect("the store lives"),
                        _ = stop.wait_for(|stop| *stop) => return count,
                    }
                    let now = states.borrow_and_update().clone();
                    let (before, after) = (last.revision, now.revision);
                    assert!(before <= after, "{machine}: went back from revision {before} to {after}");
                    let same = ClusterState { revision: after, ..(*last).clone() } == *now;
                    assert!(same || before < after, "{machine}: two states at revision {after}");
                    assert_eq!(now.check(), Ok(()), "{machine} at {after}");
                    let ahead = now.units.iter().find(|(_, unit)| after < Revision(unit.generation.0));
                    assert!(ahead.is_none(), "{machine} at {after}: {ahead:?} is of a later revision");
                    (last, count) = (now, count + 1);
                }
            });
        }
        Watching { stop, tasks }
    }

    pub async fn end(self) {
        self.stop.send_replace(true);
        let counts = self.tasks.join_all().await;
        assert!(counts.iter().all(|count| *count > 10), "states were seen: {counts:?}");
    }
}
