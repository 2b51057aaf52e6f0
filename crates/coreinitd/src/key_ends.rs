//! While this machine leads, it ends the keys whose time is over. The time is the leader's; every replica
//! ends the same keys, since the command says as of when.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cluster::{Command, KeyChange};
use store::{Role, Store};
use tokio::sync::watch;
use tokio::time::Instant;

/// Keys that end within so long of each other end together. etcd looks every 500 ms.
const TICK: Duration = Duration::from_millis(100);
/// The wall clock may be set meanwhile.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A proposal of the leader's is made to its own log: longer than this, and there is no quorum.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs until `stop`. While another machine leads, or no key ends, it only waits.
pub async fn run(store: Arc<dyn Store>, mut stop: watch::Receiver<bool>) {
    let (mut state, mut role) = (store.state(), store.role());
    loop {
        let leads = matches!(*role.borrow_and_update(), Role::Leader { .. });
        let next = state.borrow_and_update().keys.next_end().filter(|_| leads);
        let now = now_millis();
        let wait = match next {
            Some(at) if at <= now => {
                let expire = Command::Keys { at: now, change: KeyChange::Expire };
                tokio::select! {
                    // Not resumed when cancelled: the next leader ends them.
                    proposed = store.propose(vec![expire], Instant::now() + PROPOSE_TIMEOUT) => {
                        if let Err(error) = proposed {
                            tracing::debug!(%error, "keys whose time is over stay for now");
                        }
                    }
                    _ = stop.wait_for(|stop| *stop) => return,
                }
                tokio::select! {
                    // Cancel-safe: both only wait.
                    () = tokio::time::sleep(TICK) => continue,
                    _ = stop.wait_for(|stop| *stop) => return,
                }
            }
            Some(at) => Duration::from_millis(at - now).min(LOOK_INTERVAL),
            None => Duration::MAX,
        };
        tokio::select! {
            // Cancel-safe: all of these only wait.
            changed = state.changed() => if changed.is_err() { return },
            changed = role.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(wait), if next.is_some() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

fn now_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use cluster::{KeyEnd, KeyPath, MachineId};
    use store::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn keys_end_while_this_machine_leads() {
        let store = Arc::new(MemoryStore::new(MachineId::new("m1").unwrap()));
        let path = |text: &str| KeyPath::new(text).unwrap();
        let set = |text: &str, end| Command::Keys {
            at: now_millis(),
            change: KeyChange::Set { path: path(text), value: Some("v".into()), end },
        };
        let deadline = || Instant::now() + Duration::from_secs(30);
        let over = KeyEnd::At(now_millis() + 50);
        let later = KeyEnd::At(now_millis() + 3_600_000);
        let commands = vec![set("/soon", over), set("/later", later), set("/never", KeyEnd::Never)];
        store.propose(commands, deadline()).await.unwrap();
        store.set_role(Role::Follower { leader: MachineId::new("m2").unwrap() });
        let (stop, stopping) = watch::channel(false);
        let running = tokio::spawn(run(store.clone(), stopping));
        let mut states = store.state();
        store.set_role(Role::Leader { term: 2 });
        let gone = states.wait_for(|state| state.keys.get(&path("/soon")).is_err());
        tokio::time::timeout_at(deadline(), gone).await.expect("it ends").unwrap();
        let state = store.state().borrow().clone();
        assert_eq!((state.keys.count(), state.keys.index()), (2, 4));
        stop.send_replace(true);
        running.await.unwrap();
    }
}
