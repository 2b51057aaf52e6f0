//! How this node fares, for those who watch from outside: read off openraft's own figures, never asked of
//! anybody, so that looking costs the cluster nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use openraft::async_runtime::WatchReceiver;
use store::{LogVitals, MemberVitals};

use crate::forming::machine_id;
use crate::node::Node;
use crate::peers::CallError;

impl Node {
    pub fn log_vitals(&self) -> LogVitals {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let index = |id: &Option<crate::types::LogId>| id.as_ref().map_or(0, |id| id.index);
        LogVitals {
            term: metrics.current_term,
            last_index: metrics.last_log_index.unwrap_or(0),
            committed_index: index(&metrics.local_committed),
            applied_index: index(&metrics.last_applied),
        }
    }

    /// In the order of node ids, which is the order in which they came.
    pub fn member_vitals(&self) -> Vec<MemberVitals> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let last = metrics.last_log_index.unwrap_or(0);
        let lag = |node: &u64| match &metrics.replication {
            _ if *node == self.identity.node => metrics.replication.as_ref().map(|_| 0),
            Some(matched) => {
                let held = matched.get(node)?.as_ref().map_or(0, |id| id.index);
                Some(last.saturating_sub(held))
            }
            None => None,
        };
        let members = membership.nodes().filter_map(|(node, member)| {
            let votes = membership.voter_ids().any(|voter| voter == *node);
            Some(MemberVitals { machine: machine_id(&member.machine)?, votes, lag: lag(node) })
        });
        members.collect()
    }
}

/// Calls that came to nothing, by kind.
#[derive(Debug, Default)]
pub struct CallErrors([AtomicU64; KINDS.len()]);

const KINDS: [&str; 3] = ["unreachable", "no_answer", "refused"];

impl CallErrors {
    pub fn note(&self, error: &CallError) {
        let kind = match error {
            CallError::Unreachable { .. } => 0,
            CallError::NoAnswer { .. } => 1,
            CallError::Refused { .. } => 2,
        };
        self.0[kind].fetch_add(1, Ordering::Relaxed);
    }

    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        KINDS.iter().zip(&self.0).map(|(kind, count)| (*kind, count.load(Ordering::Relaxed))).collect()
    }
}
