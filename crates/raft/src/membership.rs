//! Who votes: what the leader should change next, from the membership and how far each node has come.

use std::collections::{BTreeMap, BTreeSet};

use crate::types::{Member, NodeId};

/// A node is caught up when it is no further behind than this many entries.
const LAG_MAX: u64 = 100;

/// The membership as the leader sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    pub leader: NodeId,
    pub voters: BTreeSet<NodeId>,
    pub nodes: BTreeMap<NodeId, Member>,
    /// The last log index that each node is known to hold.
    pub matched: BTreeMap<NodeId, u64>,
    pub last_index: u64,
}

/// One change of the membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make these the voters; nodes that fall out of them are removed.
    Voters(BTreeSet<NodeId>),
    /// Drop a learner.
    Remove(NodeId),
}

/// The next change, if one is due. A machine that lost its store came back under a new id: its old node will
/// never answer again, so the new one takes its place, as a voter once it has caught up.
pub fn next_step(members: &Members) -> Option<Step> {
    for (old, new) in replaced(&members.nodes) {
        if !members.voters.contains(&old) {
            return Some(Step::Remove(old));
        }
        let matched = members.matched.get(&new).copied().unwrap_or(0);
        if old != members.leader && matched + LAG_MAX >= members.last_index && matched > 0 {
            let mut voters = members.voters.clone();
            voters.remove(&old);
            voters.insert(new);
            return Some(Step::Voters(voters));
        }
    }
    None
}

/// Nodes whose machine has a newer one, with the newest. Ids only grow.
fn replaced(nodes: &BTreeMap<NodeId, Member>) -> Vec<(NodeId, NodeId)> {
    let mut newest: BTreeMap<&str, NodeId> = BTreeMap::new();
    for (node, member) in nodes {
        newest.insert(&member.machine, *node);
    }
    let old = nodes.iter().filter_map(|(node, member)| {
        let newest = newest[member.machine.as_str()];
        (newest != *node).then_some((*node, newest))
    });
    old.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `voters` and `learners` as `ID MACHINE` pairs; `matched` of each node.
    fn check(
        voters: &[(NodeId, &str)],
        learners: &[(NodeId, &str)],
        matched: &[(NodeId, u64)],
        expected: Option<Step>,
    ) {
        let member = |machine: &str| Member { machine: machine.into(), ..Member::default() };
        let nodes = voters.iter().chain(learners).map(|(id, machine)| (*id, member(machine))).collect();
        let members = Members {
            leader: 1,
            voters: voters.iter().map(|(id, _)| *id).collect(),
            nodes,
            matched: matched.iter().copied().collect(),
            last_index: 1000,
        };
        assert_eq!(next_step(&members), expected);
    }

    #[test]
    fn a_machine_has_one_node() {
        let three = [(1, "a"), (2, "b"), (3, "c")];
        check(&three, &[], &[], None);
        check(&three, &[(70, "c")], &[(70, 10)], None);
        check(&three, &[(70, "c")], &[], None);
        check(&three, &[(70, "c")], &[(70, 950)], Some(Step::Voters([1, 2, 70].into())));
        check(&[(1, "a"), (2, "b"), (70, "c")], &[(3, "c")], &[(70, 1000)], Some(Step::Remove(3)));
        check(&three, &[(70, "c"), (80, "c")], &[(70, 999), (80, 0)], Some(Step::Remove(70)));
        check(&three, &[(70, "a")], &[(70, 1000)], None);
    }
}
