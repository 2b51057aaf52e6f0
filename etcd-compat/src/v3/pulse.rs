//! Whether the watch still tells: etcd before 3.4.25 can starve one on a connection that is busy otherwise,
//! and then this machine's copy would stand still while everything else goes on.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::V3;

/// How often etcd is asked for its newest change: a small reading for each machine.
const INTERVAL: Duration = Duration::from_secs(2);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// A watch brings what is new within milliseconds.
const BEHIND_MAX: Duration = Duration::from_secs(4);

impl V3 {
    /// Gives up a connection whose watch has fallen silent, for as long as it is polled.
    pub(super) async fn feel_pulse(&self) {
        let mut tick = interval(INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let Some(connection) = self.link.current() else { continue };
            // A reading of everything takes its time.
            if !self.mirror.watches_on(connection.number) {
                continue;
            }
            let newest = timeout(ANSWER_TIMEOUT, self.newest(&connection)).await;
            // What else can go wrong is others' affair: the lease is renewed over the same connection.
            let Ok(Ok(newest)) = newest else { continue };
            let is_seen = self.seen(newest, Instant::now() + BEHIND_MAX).await;
            if !is_seen && self.mirror.watches_on(connection.number) {
                self.link.failed(connection.number, "its watch tells nothing any more");
            }
        }
    }
}
