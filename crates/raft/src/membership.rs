//! Who votes: what the leader should change next, from the membership and how far each node has come.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::types::{Member, NodeId};

/// A node is caught up when it is no further behind than this many entries.
const LAG_MAX: u64 = 100;
/// More voters make each write slower, and two may be lost with five.
const VOTERS_MAX: usize = 5;
/// Machines say each second that they are alive.
const HEARD_MAX: Duration = Duration::from_secs(4);

/// The metadata that voters are spread over: what fails together has the same value.
pub const ZONE: &str = "zone";

/// The membership as the leader sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    pub leader: NodeId,
    pub voters: BTreeSet<NodeId>,
    /// Those who are to vote after a change that is half done: a majority of them and one of those before
    /// decide until it is finished.
    pub wanted: Option<BTreeSet<NodeId>>,
    pub nodes: BTreeMap<NodeId, Member>,
    /// The last log index that each node is known to hold.
    pub matched: BTreeMap<NodeId, u64>,
    pub last_index: u64,
    /// For how long the leader has not heard each node's machine.
    pub silence: BTreeMap<NodeId, Duration>,
    /// Nodes of machines that were removed.
    pub expelled: BTreeSet<NodeId>,
    /// What each node's machine says of [`ZONE`]; those that say nothing are alone in theirs.
    pub zones: BTreeMap<NodeId, String>,
    /// A voter that was silent for so long is replaced.
    pub voter_grace: Duration,
}

/// One change of the membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make these the voters; nodes that fall out of them are removed.
    Voters(BTreeSet<NodeId>),
    /// Make these the voters; nodes that fall out of them stay, and hold the state without voting.
    Swap(BTreeSet<NodeId>),
    /// Finish a change that its leader did not live to finish; nodes that fall out of them stay.
    Finish(BTreeSet<NodeId>),
    /// Drop a learner.
    Remove(NodeId),
    /// Hand the lead to this voter.
    Transfer(NodeId),
}

/// The next change, if one is due.
///
/// A machine that lost its store came back under a new id: its old node will never answer again, so the new
/// one takes its place, as a voter once it has caught up. A cluster that has grown gets more voters, always
/// an odd number of them and at most [`VOTERS_MAX`]. A voter that has not been heard for long changes places
/// with a learner that has.
pub fn next_step(members: &Members) -> Option<Step> {
    if let Some(wanted) = &members.wanted {
        return Some(Step::Finish(wanted.clone()));
    }
    if let Some(step) = expel(members) {
        return Some(step);
    }
    let replaced = replaced(&members.nodes);
    for (old, new) in &replaced {
        if !members.voters.contains(old) {
            return Some(Step::Remove(*old));
        }
        if *old != members.leader && members.has_caught_up(*new) {
            let mut voters = members.voters.clone();
            voters.remove(old);
            voters.insert(*new);
            return Some(Step::Voters(voters));
        }
    }
    let comes_back = |node: &NodeId| replaced.iter().any(|(old, new)| old == node || new == node);
    let ready: Vec<NodeId> = members.ready().filter(|node| !comes_back(node)).collect();
    let wanted = odd((members.voters.len() + ready.len()).min(VOTERS_MAX));
    if let Some(more) = wanted.checked_sub(members.voters.len()).filter(|more| *more > 0) {
        let voters = members.filled(members.voters.clone(), &ready, members.voters.len() + more);
        return members.can_become(&voters).then_some(Step::Voters(voters));
    }
    let silent = |node: &&NodeId| {
        **node != members.leader
            && !comes_back(node)
            && members.silence.get(node).is_some_and(|silence| *silence >= members.voter_grace)
    };
    let gone = members.voters.iter().find(silent).filter(|_| !ready.is_empty())?;
    let mut voters = members.voters.clone();
    voters.remove(gone);
    Some(Step::Swap(members.filled(voters, &ready, members.voters.len())))
}

/// The next step on the way out of a machine that was removed: the lead, then the vote, then the membership.
fn expel(members: &Members) -> Option<Step> {
    let is_out = |node: &NodeId| members.expelled.contains(node);
    if let Some(learner) = members.expelled.iter().find(|node| !members.voters.contains(node)) {
        return members.nodes.contains_key(learner).then_some(Step::Remove(*learner));
    }
    if members.expelled.is_empty() {
        return None;
    }
    let mut voters: BTreeSet<NodeId> = members.voters.iter().filter(|node| !is_out(node)).copied().collect();
    let ready: Vec<NodeId> = members.ready().filter(|node| !is_out(node)).collect();
    if is_out(&members.leader) {
        let heir = voters.iter().find(|node| members.is_heard(**node) && members.has_caught_up(**node));
        return heir.map(|heir| Step::Transfer(*heir)).or_else(|| {
            let more = members.filled(members.voters.clone(), &ready, members.voters.len() + 1);
            (more != members.voters).then_some(Step::Voters(more))
        });
    }
    let wanted = odd((voters.len() + ready.len()).min(VOTERS_MAX));
    voters = members.filled(voters, &ready, wanted);
    while voters.len() > wanted {
        let last = voters.iter().rev().find(|node| **node != members.leader).copied()?;
        voters.remove(&last);
    }
    members.can_become(&voters).then_some(Step::Swap(voters))
}

/// That many, or one less: an even number of voters survives no more losses than the odd one below it.
fn odd(count: usize) -> usize {
    if count.is_multiple_of(2) { count.saturating_sub(1) } else { count }
}

impl Members {
    /// Learners that could vote at once.
    fn ready(&self) -> impl Iterator<Item = NodeId> {
        let learners = self.nodes.keys().filter(|node| !self.voters.contains(node)).copied();
        learners.filter(|node| self.is_heard(*node) && self.has_caught_up(*node))
    }

    /// These voters and as many of the `ready` as make up `count`, from the zones with the fewest voters
    /// first.
    fn filled(&self, mut voters: BTreeSet<NodeId>, ready: &[NodeId], count: usize) -> BTreeSet<NodeId> {
        while voters.len() < count {
            let crowd = |node: &NodeId| {
                let zone = self.zones.get(node);
                voters.iter().filter(|voter| zone.is_some() && self.zones.get(voter) == zone).count()
            };
            let left = ready.iter().filter(|node| !voters.contains(node));
            let Some(next) = left.min_by_key(|node| (crowd(node), **node)) else { break };
            voters.insert(*next);
        }
        voters
    }

    /// Never a change that the living could not carry out: a majority of those before, and of those after.
    fn can_become(&self, voters: &BTreeSet<NodeId>) -> bool {
        let living = |nodes: &BTreeSet<NodeId>| {
            nodes.iter().filter(|node| self.is_heard(**node)).count() > nodes.len() / 2
        };
        living(&self.voters) && living(voters)
    }

    fn has_caught_up(&self, node: NodeId) -> bool {
        let matched = self.matched.get(&node).copied().unwrap_or(0);
        matched + LAG_MAX >= self.last_index && matched > 0
    }

    fn is_heard(&self, node: NodeId) -> bool {
        node == self.leader || self.silence.get(&node).is_some_and(|silence| *silence < HEARD_MAX)
    }
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

    const SOON: Duration = Duration::from_secs(1);

    /// `voters` and `learners` as `ID MACHINE` pairs; `matched` of each node; node 1 leads, and all but the
    /// `silent` were heard a second ago.
    fn check(
        voters: &[(NodeId, &str)],
        learners: &[(NodeId, &str)],
        matched: &[(NodeId, u64)],
        silent: &[(NodeId, u64)],
        expected: Option<Step>,
    ) {
        let member = |machine: &str| Member { machine: machine.into(), ..Member::default() };
        let nodes: BTreeMap<_, _> =
            voters.iter().chain(learners).map(|(id, machine)| (*id, member(machine))).collect();
        let mut silence: BTreeMap<_, _> = nodes.keys().map(|node| (*node, SOON)).collect();
        silence.extend(silent.iter().map(|(node, seconds)| (*node, Duration::from_secs(*seconds))));
        let members = Members {
            leader: 1,
            voters: voters.iter().map(|(id, _)| *id).collect(),
            wanted: None,
            nodes,
            matched: matched.iter().copied().collect(),
            last_index: 1000,
            silence,
            expelled: BTreeSet::new(),
            zones: BTreeMap::new(),
            voter_grace: Duration::from_secs(60),
        };
        assert_eq!(next_step(&members), expected);
    }

    #[test]
    fn a_machine_has_one_node() {
        let three = [(1, "a"), (2, "b"), (3, "c")];
        check(&three, &[], &[], &[], None);
        check(&three, &[(70, "c")], &[(70, 10)], &[], None);
        check(&three, &[(70, "c")], &[], &[], None);
        check(&three, &[(70, "c")], &[(70, 950)], &[], Some(Step::Voters([1, 2, 70].into())));
        check(&[(1, "a"), (2, "b"), (70, "c")], &[(3, "c")], &[(70, 1000)], &[], Some(Step::Remove(3)));
        check(&three, &[(70, "c"), (80, "c")], &[(70, 999), (80, 0)], &[], Some(Step::Remove(70)));
        check(&three, &[(70, "a")], &[(70, 1000)], &[], None);
    }

    #[test]
    fn a_cluster_that_grows_gets_an_odd_number_of_voters() {
        let check =
            |voters: &[(NodeId, &str)], learners: &[(NodeId, &str)], silent: &[(NodeId, u64)], expected| {
                let matched: Vec<_> = learners.iter().map(|(node, _)| (*node, 1000)).collect();
                let step = |voters: &[NodeId]| Step::Voters(voters.iter().copied().collect());
                check(voters, learners, &matched, silent, Option::<&[NodeId]>::map(expected, step));
            };
        let one = [(1, "a")];
        let three = [(1, "a"), (2, "b"), (3, "c")];
        let five = [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "e")];
        check(&one, &[], &[], None);
        check(&one, &[(70, "b")], &[], None);
        check(&one, &[(70, "b"), (71, "c")], &[], Some(&[1, 70, 71]));
        check(&one, &[(70, "b"), (71, "c")], &[(71, 5)], None);
        check(&one, &[(70, "b"), (71, "c"), (72, "d")], &[(70, 9)], Some(&[1, 71, 72]));
        check(&[(1, "a"), (2, "b")], &[(70, "c")], &[], Some(&[1, 2, 70]));
        check(&three, &[(70, "d")], &[], None);
        check(&three, &[(70, "d"), (71, "e")], &[], Some(&[1, 2, 3, 70, 71]));
        check(&five, &[(70, "f"), (71, "g")], &[], None);
        // Machines that come back are counted once.
        check(&three, &[(70, "b"), (71, "c"), (72, "d")], &[], Some(&[1, 3, 70]));
        // With two of three away there is no majority to decide it.
        check(&three, &[(70, "d"), (71, "e")], &[(3, 9)], Some(&[1, 2, 3, 70, 71]));
        check(&three, &[(70, "d"), (71, "e")], &[(2, 9), (3, 9)], None);
    }

    #[test]
    fn a_removed_machine_gives_up_the_lead_then_its_vote_then_its_place() {
        // All are heard and caught up; node 1 leads, and as many as `voters` from node 1 on vote.
        let check = |nodes: u64, voters: u64, expelled: &[NodeId], silent: &[NodeId], expected| {
            let all = 1..=nodes;
            let member = |id: NodeId| (id, Member { machine: format!("m{id}"), ..Member::default() });
            let silence = |id: NodeId| (id, Duration::from_secs(if silent.contains(&id) { 99 } else { 1 }));
            let members = Members {
                leader: 1,
                voters: (1..=voters).collect(),
                wanted: None,
                nodes: all.clone().map(member).collect(),
                matched: all.clone().map(|id| (id, 1000)).collect(),
                last_index: 1000,
                silence: all.map(silence).collect(),
                expelled: expelled.iter().copied().collect(),
                zones: BTreeMap::new(),
                voter_grace: Duration::from_secs(60),
            };
            assert_eq!(next_step(&members), expected);
        };
        let swap = |voters: &[NodeId]| Some(Step::Swap(voters.iter().copied().collect()));
        check(4, 3, &[4], &[], Some(Step::Remove(4)));
        check(4, 3, &[3], &[], swap(&[1, 2, 4]));
        check(3, 3, &[3], &[3], swap(&[1]));
        check(5, 5, &[5], &[], swap(&[1, 2, 3]));
        check(7, 5, &[5], &[], swap(&[1, 2, 3, 4, 6]));
        check(3, 3, &[1], &[], Some(Step::Transfer(2)));
        check(3, 3, &[1], &[2], Some(Step::Transfer(3)));
        check(2, 1, &[1], &[], Some(Step::Voters([1, 2].into())));
        check(1, 1, &[1], &[], None);
        // Two of three are away: nothing can be decided.
        check(3, 3, &[3], &[2, 3], None);
    }

    #[test]
    fn voters_are_spread_over_zones() {
        let members = |zones: &[(NodeId, &str)]| Members {
            zones: zones.iter().map(|(node, zone)| (*node, zone.to_string())).collect(),
            ..Members::default()
        };
        let check = |zones: &[(NodeId, &str)], count, expected: &[NodeId]| {
            let voters = members(zones).filled([1].into(), &[2, 3, 4, 5], count);
            assert_eq!(voters, expected.iter().copied().collect(), "{zones:?}");
        };
        check(&[], 3, &[1, 2, 3]);
        check(&[(1, "a"), (2, "a"), (3, "a"), (4, "b"), (5, "c")], 3, &[1, 4, 5]);
        check(&[(1, "a"), (2, "a"), (3, "b"), (4, "b"), (5, "b")], 3, &[1, 2, 3]);
        check(&[(1, "a"), (2, "a"), (3, "a"), (4, "b")], 5, &[1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_change_that_is_half_done_is_finished_first() {
        let wanted: BTreeSet<NodeId> = [1, 2, 70].into();
        let members = Members { leader: 1, voters: [1, 2, 3, 70].into(), ..Members::default() };
        assert_eq!(next_step(&members), None);
        let members = Members { wanted: Some(wanted.clone()), ..members };
        assert_eq!(next_step(&members), Some(Step::Finish(wanted)));
    }

    #[test]
    fn a_voter_that_is_long_away_changes_places_with_a_learner() {
        let three = [(1, "a"), (2, "b"), (3, "c")];
        let learner = [(70, "d")];
        check(&three, &learner, &[(70, 1000)], &[(2, 59)], None);
        check(&three, &learner, &[(70, 1000)], &[(2, 61)], Some(Step::Swap([1, 3, 70].into())));
        check(&three, &learner, &[(70, 1000)], &[(2, 61), (70, 61)], None);
        check(&three, &learner, &[(70, 10)], &[(2, 61)], None);
        check(&three, &[], &[], &[(2, 61)], None);
    }
}
