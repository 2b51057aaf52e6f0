//! Finds places for units that have none, or none that fits. Units which must be together are placed
//! together, in one pass.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::board::Board;
use super::{Decision, Schedule, Unplaced};

/// Leaves on the board all units that are well where they are. Of two that cannot stand side by side, the one
/// that was changed last has to go, and who needs it goes with it.
pub(super) fn settle(board: &mut Board) {
    let count = board.wishes.len();
    let mut stays: Vec<bool> = (0..count)
        .map(|i| {
            let wish = &board.wishes[i];
            let fits = |home| wish.is_plain() || wish.missing.is_none() && board.lack(i, home).is_none();
            wish.home.is_some_and(fits)
        })
        .collect();
    let mut needed_by: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for i in 0..count {
        for need in &board.wishes[i].needs {
            needed_by.entry(*need).or_default().push(i);
        }
    }
    let is_torn = |board: &Board, stays: &[bool], i: usize| {
        let wish = &board.wishes[i];
        wish.needs.iter().any(|need| !stays[*need] || board.wishes[*need].home != wish.home)
    };
    let mut leaving: Vec<usize> = (0..count).filter(|i| stays[*i] && is_torn(board, &stays, *i)).collect();
    leaving.iter().for_each(|i| stays[*i] = false);
    let follow = |board: &mut Board, stays: &mut [bool], leaving: &mut Vec<usize>| {
        while let Some(gone) = leaving.pop() {
            board.take_away(gone);
            for follower in needed_by.get(&gone).into_iter().flatten() {
                if std::mem::replace(&mut stays[*follower], false) {
                    leaving.push(*follower);
                }
            }
        }
    };
    follow(board, &mut stays, &mut leaving);
    let mut order: Vec<usize> = (0..count).collect();
    if board.has_conflicts {
        order.sort_by_key(|i| (board.wishes[*i].unit.generation, *i));
    }
    for i in order {
        let Some(home) = board.wishes[i].home.filter(|_| stays[i]) else { continue };
        if board.has_conflict(i, home) {
            stays[i] = false;
            leaving.push(i);
            follow(board, &mut stays, &mut leaving);
        } else {
            board.place(i, home);
        }
    }
}

/// Places what has no place yet.
pub(super) fn place_all(board: &mut Board, result: &mut Schedule) {
    for group in groups(board) {
        place_group(board, group, result);
    }
}

/// The units without a place, those together that hang together, each group in the order of names.
fn groups(board: &Board) -> Vec<Vec<usize>> {
    let free = |i: usize| board.wishes[i].spot.is_none() && !board.is_impossible(i);
    let mut leader: Vec<usize> = (0..board.wishes.len()).collect();
    fn find(leader: &mut [usize], mut i: usize) -> usize {
        while leader[i] != i {
            leader[i] = leader[leader[i]];
            i = leader[i];
        }
        i
    }
    for i in (0..board.wishes.len()).filter(|i| free(*i)) {
        for need in board.wishes[i].needs.iter().filter(|need| free(**need)) {
            let (one, other) = (find(&mut leader, i), find(&mut leader, *need));
            leader[one.max(other)] = one.min(other);
        }
    }
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for i in (0..board.wishes.len()).filter(|i| free(*i)) {
        groups.entry(find(&mut leader, i)).or_default().push(i);
    }
    groups.into_values().collect()
}

fn place_group(board: &mut Board, mut group: Vec<usize>, result: &mut Schedule) {
    let weights = weights(board, &group);
    let runs_on: BTreeMap<usize, Vec<usize>> = group.iter().map(|i| (*i, board.runs_on(*i))).collect();
    while !group.is_empty() {
        let candidates = (0..board.spots.len()).filter_map(|s| {
            let fitting = fitting(board, &group, s, &weights);
            let at_home = fitting.iter().filter(|i| board.wishes[**i].home == Some(s));
            let (weight, homes) = at_home.fold((0, 0), |(w, n), i| (w + weights[i], n + 1));
            let running = fitting.iter().filter(|i| runs_on[*i].contains(&s)).count();
            let key = (Reverse(fitting.len()), Reverse((weight, homes, running)), board.load(s), s);
            (!fitting.is_empty()).then_some((key, fitting))
        });
        let Some(((.., s), fitting)) = candidates.min_by_key(|(key, _)| *key) else { break };
        group.retain(|i| !fitting.contains(i));
        settle_in(board, &fitting, s, &runs_on, result);
    }
    give_up(board, group, result);
}

/// How many members of the group need each, directly or not: the needed are not to move for those who need
/// them.
fn weights(board: &Board, group: &[usize]) -> BTreeMap<usize, usize> {
    let mut weights: BTreeMap<usize, usize> = group.iter().map(|i| (*i, 0)).collect();
    if group.len() == 1 {
        return weights;
    }
    for i in group {
        let mut seen = std::collections::BTreeSet::from([*i]);
        let mut open = vec![*i];
        while let Some(at) = open.pop() {
            for need in board.wishes[at].needs.iter().filter(|need| seen.insert(**need)) {
                if let Some(weight) = weights.get_mut(need) {
                    *weight += 1;
                    open.push(*need);
                }
            }
        }
    }
    weights
}

/// The largest part of the group that can stand on that machine, with all that each of them needs.
fn fitting(board: &Board, group: &[usize], s: usize, weights: &BTreeMap<usize, usize>) -> Vec<usize> {
    let fits = |i: &usize| board.lack(*i, s).is_none() && !board.has_conflict(*i, s);
    let mut fitting: Vec<usize> = group.iter().copied().filter(fits).collect();
    loop {
        let before = fitting.len();
        let is_there =
            |need: &usize| board.wishes[*need].spot == Some(s) || fitting.binary_search(need).is_ok();
        let complete = |i: &usize| board.wishes[*i].needs.iter().all(is_there);
        fitting = fitting.iter().copied().filter(complete).collect();
        if fitting.len() < before {
            continue;
        }
        if !board.has_conflicts || fitting.len() < 2 {
            return fitting;
        }
        let pairs = fitting.iter().flat_map(|i| fitting.iter().map(move |j| (*i, *j)));
        let mut clashes = pairs.filter(|(i, j)| i < j && board.are_in_conflict(*i, *j));
        let Some((i, j)) = clashes.next() else { return fitting };
        let key = |i: usize| (weights[&i], Reverse(board.wishes[i].unit.generation), Reverse(i));
        let out = if key(i) < key(j) { i } else { j };
        fitting.retain(|k| *k != out);
    }
}

/// Gives the members that machine, unless one of them still runs on another: then they wait until it has
/// stopped.
fn settle_in(
    board: &mut Board,
    members: &[usize],
    s: usize,
    runs_on: &BTreeMap<usize, Vec<usize>>,
    result: &mut Schedule,
) {
    let still = |i: usize| runs_on[&i].iter().copied().find(|r| *r != s);
    let blocker = members.iter().find_map(|i| Some((*i, still(*i)?)));
    let count = board.load(s);
    for i in members.iter().copied() {
        board.place(i, s);
        let wish = &board.wishes[i];
        if wish.home == Some(s) {
            continue;
        }
        let (unit, target) = (wish.name.clone(), board.spots[s].id.clone());
        let Some((held_by, r)) = blocker else {
            let reason = reason(board, i, s, members.len(), count);
            result.decisions.push(Decision::Assign {
                unit,
                machine: target,
                generation: wish.unit.generation,
                reason,
            });
            continue;
        };
        if let Some(home) = wish.home {
            let reason = format!("{}; it moves to {}", board.why_not(i, home), board.label(&target));
            unassign(board, i, &reason, result);
        }
        let (own, r) = (still(i), board.label(board.spots[r].id));
        let why = match own {
            Some(own) => format!("still stopping on {}", board.label(board.spots[own].id)),
            None => format!("has to be with {}, which is still stopping on {r}", board.wishes[held_by].name),
        };
        result.unplaced.insert(unit, Unplaced { why });
    }
}

fn reason(board: &Board, i: usize, s: usize, member_count: usize, load: usize) -> String {
    let wish = &board.wishes[i];
    let before = match (wish.assigned, wish.home) {
        (None, _) => String::new(),
        (Some(machine), None) => format!("{} is lost; ", board.label(machine)),
        (Some(_), Some(home)) => format!("{}; ", board.why_not(i, home)),
    };
    let needed = wish.needs.iter().any(|need| board.wishes[*need].spot == Some(s));
    let together = if needed || member_count > 1 { "together with the units it belongs to, " } else { "" };
    format!("{before}{together}fewest units ({load})")
}

fn unassign(board: &Board, i: usize, reason: &str, result: &mut Schedule) {
    let wish = &board.wishes[i];
    let Some(machine) = wish.assigned.cloned() else { return };
    result.decisions.push(Decision::Unassign { unit: wish.name.clone(), machine, reason: reason.into() });
}

/// Units for which there is no place. On a lost machine they stay assigned; on a ready one too, as long as
/// nothing that they ask for themselves speaks against it.
fn give_up(board: &mut Board, mut group: Vec<usize>, result: &mut Schedule) {
    loop {
        let stays = group.iter().copied().find_map(|i| {
            let wish = &board.wishes[i];
            let home = wish.home?;
            let with_peers = wish.peers().iter().all(|peer| board.wishes[*peer].spot == Some(home));
            (with_peers && board.lack(i, home).is_none() && !board.has_conflict(i, home)).then_some((i, home))
        });
        let Some((i, home)) = stays else { break };
        board.place(i, home);
        group.retain(|member| *member != i);
    }
    for i in group {
        let why = why(board, i);
        if board.wishes[i].home.is_some() {
            unassign(board, i, &why, result);
        }
        result.unplaced.insert(board.wishes[i].name.clone(), Unplaced { why });
    }
}

/// All that speaks against each machine, like reasons together.
fn why(board: &Board, i: usize) -> String {
    const REASONS_MAX: usize = 4;
    const MACHINES_MAX: usize = 3;
    if board.spots.is_empty() {
        return match board.state.machines.len() {
            0 => "no machine has joined the cluster yet".into(),
            1 => "no machine is ready: the only one is lost".into(),
            n => format!("no machine is ready: all {n} are lost"),
        };
    }
    let mut reasons: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for s in 0..board.spots.len() {
        reasons.entry(board.why_not(i, s)).or_default().push(board.label(board.spots[s].id));
    }
    let hidden: usize = reasons.values().skip(REASONS_MAX).map(Vec::len).sum();
    let mut parts: Vec<String> = Vec::new();
    for (reason, machines) in reasons.iter().take(REASONS_MAX) {
        let more = machines.len().saturating_sub(MACHINES_MAX);
        let shown = machines[..machines.len() - more].join(", ");
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        parts.push(format!("{reason} (on {shown}{more})"));
    }
    if hidden > 0 {
        parts.push(format!("and {hidden} more machines will not do either"));
    }
    format!("no machine can run it: {}", parts.join("; "))
}
