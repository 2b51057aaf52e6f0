//! Compares this machine's clock with others': the leader with all, everybody else with the leader. Nothing
//! in the cluster hangs on equal clocks, but certificates and people who read journals do. It only tells.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cluster::{Liveness, MachineId};
use futures::StreamExt;
use store::{Role, Store};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::http::{AskMachine, Question};
use crate::signs::Signs;

/// Clocks drift by seconds in a day.
const INTERVAL: Duration = Duration::from_secs(60);
/// A machine that answers later is not compared: nobody knows when it looked at its clock.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// Machines that are asked at each time; a different part each time when there are more.
const ASKED_MAX: usize = 200;
/// The answer is one number.
const ANSWER_BYTES_MAX: usize = 64;

/// What this machine answers: microseconds of Unix time.
pub fn answer() -> String {
    now_micros().to_string()
}

/// Runs until `stop`.
pub async fn run(
    store: Arc<dyn Store>,
    own: MachineId,
    ask: AskMachine,
    signs: Arc<Signs>,
    mut stop: watch::Receiver<bool>,
) {
    let (mut role, mut round) = (store.role(), 0);
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // Cancel-safe: all of these only wait.
            _ = tick.tick() => {}
            changed = role.changed() => if changed.is_err() { return },
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let role = role.borrow_and_update().clone();
        let others: Vec<MachineId> = match &role {
            Role::Leader { .. } => {
                let state = store.state().borrow().clone();
                let ready =
                    state.machines.iter().filter(|(id, m)| **id != own && m.liveness == Liveness::Ready);
                ready.map(|(id, _)| id.clone()).collect()
            }
            Role::Follower { leader } => vec![leader.clone()],
            Role::Leaderless | Role::Unformed { .. } => continue,
        };
        let compared = compare(&ask, &others, round);
        round += 1;
        tokio::select! {
            // Not resumed when cancelled: the next round asks anew.
            ahead = compared => signs.clocks(ahead),
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// By how many microseconds each machine's clock is ahead of ours.
async fn compare(ask: &AskMachine, machines: &[MachineId], round: usize) -> BTreeMap<MachineId, i64> {
    let mut ahead = BTreeMap::new();
    let from = (round * ASKED_MAX) % machines.len().max(1);
    for machine in machines.iter().cycle().skip(from).take(ASKED_MAX.min(machines.len())) {
        let (before, asked) = (now_micros(), Instant::now());
        let question = async {
            let mut words = ask(machine.clone(), Question::Clock).await.ok()?;
            let mut text = Vec::new();
            while let Some(piece) = words.next().await {
                text.extend_from_slice(&piece.ok()?);
                if ANSWER_BYTES_MAX < text.len() {
                    return None;
                }
            }
            String::from_utf8(text).ok()?.trim().parse::<i64>().ok()
        };
        // A machine of another version may not understand it, and one that does not answer is others' affair.
        let Ok(Some(theirs)) = timeout(ANSWER_MAX, question).await else { continue };
        ahead.insert(machine.clone(), difference(before, asked.elapsed(), theirs));
    }
    ahead
}

/// They looked at some moment between the question and its answer; what may be explained by that is none.
fn difference(asked: i64, took: Duration, theirs: i64) -> i64 {
    let took = i64::try_from(took.as_micros()).unwrap_or(i64::MAX);
    match theirs {
        early if early < asked => early - asked,
        late if asked.saturating_add(took) < late => late - asked - took,
        _ => 0,
    }
}

fn now_micros() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_difference_is_what_the_way_does_not_explain() {
        let check = |theirs: i64, expected: i64| {
            assert_eq!(difference(1_000_000, Duration::from_micros(500), theirs), expected);
        };
        check(1_000_000, 0);
        check(1_000_500, 0);
        check(999_990, -10);
        check(1_000_700, 200);
    }

    #[tokio::test]
    async fn clocks_are_compared_with_those_that_answer() {
        let id = |text: &str| MachineId::new(text).unwrap();
        let ask: AskMachine = Arc::new(|machine, question| {
            async move {
                assert_eq!(question, Question::Clock);
                let text = match machine.as_str() {
                    "m2" => answer(),
                    "m3" => (now_micros() + 60_000_000).to_string(),
                    "m4" => "what?".into(),
                    _ => return Err("it does not answer".into()),
                };
                Ok(futures::stream::iter([Ok(text.into())]).boxed())
            }
            .boxed()
        });
        let ahead = compare(&ask, &["m2", "m3", "m4", "m5"].map(id), 7).await;
        assert_eq!(ahead.keys().cloned().collect::<Vec<_>>(), ["m2", "m3"].map(id));
        assert_eq!(ahead[&id("m2")], 0);
        assert!((50_000_000..=60_000_000).contains(&ahead[&id("m3")]), "{ahead:?}");
    }
}
