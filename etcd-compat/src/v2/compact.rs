//! The log is kept short: the leader puts it into a snapshot, and takes away what is in it. A log is only
//! ever listed whole, values and all, so its bytes count as well as its entries.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::V2;
use super::keys::{KeyError, Member};
use super::mirror::View;
use super::snapshot;

const ANSWER_TIMEOUT: Duration = Duration::from_millis(1500);
/// Entries after which the log is put into a snapshot.
const LOG_ENTRIES_MAX: usize = 400;
/// Bytes of a listing after which it is.
const LOG_BYTES_MAX: usize = 8 << 20;
/// Bytes of a listing from which on nothing is added: half of what is taken as an answer, since others may be
/// about to add theirs.
const LOG_BYTES_FULL: usize = 32 << 20;
/// Between two tries of which the first has failed.
const PAUSE: Duration = Duration::from_secs(1);

/// How long a text is in a listing: JSON as Go writes it, which puts six characters for each of `<>&`.
pub(super) fn listed_bytes(text: &str) -> usize {
    let listed = text.bytes().map(|byte| match byte {
        b'"' | b'\\' => 2,
        b'<' | b'>' | b'&' | 0..=0x1f => 6,
        _ => 1,
    });
    listed.sum()
}

fn is_long(view: &View) -> bool {
    LOG_ENTRIES_MAX <= view.log.len() || LOG_BYTES_MAX <= view.log_bytes()
}

impl V2 {
    /// Keeps the log short while this machine leads, for as long as it is polled. Beside the renewals: a
    /// large snapshot takes longer than a lease.
    pub(super) async fn keep_short(&self) {
        let mut views = self.mirror.views();
        loop {
            if let Some(view) = self.mirror.view().filter(|view| is_long(view) && self.term().is_some())
                && let Err(error) = self.compact(&self.link.current(), &view).await
            {
                tracing::warn!(%error, "the log in etcd was not made shorter; trying again later");
                tokio::time::sleep(PAUSE).await;
            }
            // Cancel-safe: it only waits.
            if views.changed().await.is_err() {
                return;
            }
        }
    }

    /// Puts the log into a snapshot, and takes away what is in it. Whatever fails is done by the next.
    async fn compact(&self, member: &Member, view: &View) -> Result<(), KeyError> {
        let old = view.snapshot.as_ref();
        let pointer = snapshot::save(member, &self.dir, &view.state, view.applied, old).await?;
        for key in view.log.range(..=pointer.index).map(|(_, entry)| &entry.key) {
            match member.delete(key, "", ANSWER_TIMEOUT).await {
                Ok(_) | Err(KeyError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
            // The next leader goes on with it.
            if self.term().is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Waits until the log may grow; `false` when the deadline was first.
    pub(super) async fn has_room(&self, deadline: Instant) -> bool {
        let mut views = self.mirror.views();
        let has_room = |view: &Option<std::sync::Arc<View>>| {
            view.as_ref().is_none_or(|view| view.log_bytes() < LOG_BYTES_FULL)
        };
        timeout_at(deadline, views.wait_for(has_room)).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against what Go makes of it.
    #[test]
    fn a_text_is_as_long_as_it_is_listed() {
        for (text, listed) in [
            ("", ""),
            ("plain \u{e4}", "plain \u{e4}"),
            ("{\"a\":\"b\\n\"}", "{\\\"a\\\":\\\"b\\\\n\\\"}"),
            ("a<b>&", "a\\u003cb\\u003e\\u0026"),
        ] {
            assert_eq!(listed_bytes(text), listed.len(), "{text}");
        }
    }
}
