//! Whether what concurrent callers were told can have come of one thing that did one call after the other,
//! each between its beginning and its end (Herlihy and Wing, 1990).
//!
//! The search is Wing and Gong's (1993) with Lowe's memory of what was tried (2017). A call whose outcome was
//! never known may have taken effect at any time after its beginning, or never. Calls on different units are
//! checked apart, which the property allows and which makes it fast.

mod unit;

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;

pub use unit::{Asked, Heard, Wish};

/// More arrangements than that are not tried: a history that needs them is too tangled to say.
const TRIED_MAX: usize = 2_000_000;

/// What the calls are made to.
pub trait Specification: Clone + Eq + Hash + Debug {
    type Operation: Debug;

    /// What comes of the operation, if it can have had the outcome that was seen.
    fn after(&self, operation: &Self::Operation) -> Option<Self>;
}

/// One call, its moments counted by whoever saw them all.
#[derive(Clone, Debug)]
pub struct Call<O> {
    pub operation: O,
    pub called: u64,
    /// `None`: nobody knows what came of it.
    pub returned: Option<u64>,
}

/// Why a history is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("not linearizable: {done} of {all} calls can be put in order, and then none of these: {stuck}")]
    NotLinearizable { done: usize, all: usize, stuck: String },
    #[error("undecided after {TRIED_MAX} arrangements")]
    Undecided,
}

/// Looks for an order of the calls that explains what each of them was told.
pub fn check<S: Specification>(initial: &S, history: &[Call<S::Operation>]) -> Result<(), Fault> {
    let mut calls: Vec<&Call<S::Operation>> = history.iter().collect();
    calls.sort_by_key(|call| call.called);
    let known = calls.iter().filter(|call| call.returned.is_some()).count();
    let mut search = Search {
        done: vec![false; calls.len()],
        left: known,
        tried: HashSet::new(),
        farthest: (known + 1, String::new()),
        calls,
    };
    match search.goes_on(initial, None) {
        Some(true) => Ok(()),
        Some(false) => {
            let (left, stuck) = search.farthest;
            Err(Fault::NotLinearizable { done: known - left, all: known, stuck })
        }
        None => Err(Fault::Undecided),
    }
}

struct Search<'a, S: Specification> {
    /// By their beginning.
    calls: Vec<&'a Call<S::Operation>>,
    done: Vec<bool>,
    /// Calls with a known outcome that have no place yet.
    left: usize,
    tried: HashSet<(Vec<bool>, S)>,
    /// The fewest that were ever left, and what could not follow then.
    farthest: (usize, String),
}

impl<S: Specification> Search<'_, S> {
    /// Whether the calls that are left can follow from here; `None` when there are too many ways to tell.
    /// `before`: what there was before the last call, if that is one of unknown outcome.
    fn goes_on(&mut self, state: &S, before: Option<&S>) -> Option<bool> {
        if self.left == 0 {
            return Some(true);
        }
        if self.tried.len() >= TRIED_MAX {
            return None;
        }
        if !self.tried.insert((self.done.clone(), state.clone())) {
            return Some(false);
        }
        let open = |i: &usize| !self.done[*i];
        let ends = (0..self.calls.len()).filter(open).filter_map(|i| self.calls[i].returned);
        let first_end = ends.min().unwrap_or(u64::MAX);
        // What begins after another's end cannot come before it.
        let begun = (0..self.calls.len()).take_while(|i| self.calls[*i].called < first_end);
        let mut candidates: Vec<usize> = begun.filter(open).collect();
        // What need not have happened is thought of last.
        candidates.sort_by_key(|i| self.calls[*i].returned.is_none());
        if self.left < self.farthest.0 {
            let stuck: Vec<String> =
                candidates.iter().map(|i| format!("{:?}", self.calls[*i].operation)).collect();
            self.farthest = (self.left, format!("{} after {state:?}", stuck.join(", ")));
        }
        for i in candidates {
            let call = self.calls[i];
            let Some(next) = state.after(&call.operation) else { continue };
            // A call of unknown outcome that changes nothing need not have happened.
            if call.returned.is_none() && next == *state {
                continue;
            }
            // Nor need the one before this, if this could have come in its place with no difference: then it
            // is left out, and may yet happen later.
            if before.is_some_and(|before| before.after(&call.operation).as_ref() == Some(&next)) {
                continue;
            }
            let counts = usize::from(call.returned.is_some());
            let unknown = call.returned.is_none().then_some(state);
            self.done[i] = true;
            self.left -= counts;
            if self.goes_on(&next, unknown)? {
                return Some(true);
            }
            self.done[i] = false;
            self.left += counts;
        }
        Some(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number that is read, set and added to.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    struct Number(i32);

    #[derive(Clone, Copy, Debug)]
    enum On {
        Read(i32),
        Set(i32),
        Add(i32),
    }

    impl Specification for Number {
        type Operation = On;

        fn after(&self, operation: &On) -> Option<Number> {
            match *operation {
                On::Read(seen) => (seen == self.0).then_some(*self),
                On::Set(to) => Some(Number(to)),
                On::Add(more) => Some(Number(self.0 + more)),
            }
        }
    }

    fn history_of(history: &[(On, u64, u64)]) -> Vec<Call<On>> {
        let call = |(operation, called, returned): &(On, u64, u64)| Call {
            operation: *operation,
            called: *called,
            returned: (*returned > 0).then_some(*returned),
        };
        history.iter().map(call).collect()
    }

    /// `(operation, called, returned)`; 0 for an end that nobody saw.
    #[track_caller]
    fn check(history: &[(On, u64, u64)], fits: bool) {
        let found = super::check(&Number(0), &history_of(history));
        assert_eq!(found.is_ok(), fits, "{found:?}");
    }

    use On::{Add, Read, Set};

    #[test]
    fn concurrent_calls_may_come_in_either_order() {
        check(&[(Set(1), 1, 4), (Read(0), 2, 3), (Read(1), 5, 6)], true);
        check(&[(Set(1), 1, 4), (Read(1), 2, 3)], true);
        check(&[(Set(1), 1, 5), (Set(2), 2, 6), (Read(1), 7, 8)], true);
        check(&[(Set(1), 1, 5), (Set(2), 2, 6), (Read(2), 7, 8)], true);
    }

    #[test]
    fn a_stale_read_is_found() {
        check(&[(Set(1), 1, 2), (Read(0), 3, 4)], false);
        check(&[(Set(1), 1, 2), (Set(2), 3, 4), (Read(2), 5, 6), (Read(1), 7, 8)], false);
        // Two readers, one after the other, while one writes: the second may not go back.
        check(&[(Set(1), 1, 9), (Read(1), 2, 3), (Read(0), 4, 5)], false);
    }

    #[test]
    fn a_lost_write_is_found() {
        check(&[(Set(1), 1, 2), (Set(2), 3, 4), (Read(1), 5, 6)], false);
        check(&[(Add(1), 1, 3), (Add(1), 2, 4), (Read(1), 5, 6)], false);
    }

    #[test]
    fn a_write_that_was_made_twice_is_found() {
        check(&[(Add(1), 1, 2), (Read(2), 3, 4)], false);
        check(&[(Add(1), 1, 0), (Read(2), 3, 4)], false);
        check(&[(Set(1), 1, 0), (Set(2), 2, 3), (Read(1), 4, 5), (Read(2), 6, 7), (Read(1), 8, 9)], false);
    }

    #[test]
    fn what_nobody_heard_of_may_have_happened_at_any_time_after() {
        check(&[(Set(1), 1, 0), (Read(0), 2, 3), (Read(1), 4, 5)], true);
        check(&[(Set(1), 1, 0), (Read(0), 2, 3)], true);
        check(&[(Set(1), 4, 0), (Read(1), 2, 3)], false);
        check(&[(Set(1), 1, 0), (Read(1), 2, 3), (Read(0), 4, 5)], false);
    }

    /// Each could come before or after each other, and be seen or not.
    #[test]
    fn many_calls_of_unknown_outcome_are_no_burden() {
        let unknown = (1..100).map(|at| (Set(at), at as u64, 0));
        let mut history: Vec<_> = unknown.collect();
        for at in (200..300).step_by(2) {
            history.push((Set(1000 + at), at as u64, at as u64 + 1));
        }
        history.push((Read(50), 400, 401));
        history.push((Read(7), 402, 403));
        check(&history, true);
        history.push((Read(7), 404, 405));
        history.push((Read(50), 406, 407));
        let found = super::check(&Number(0), &history_of(&history));
        assert!(matches!(found, Err(Fault::NotLinearizable { .. })), "{found:?}");
    }

    /// Made by something that is correct, with ends that lie late and sometimes unknown: always accepted. One
    /// read changed: found, when nothing else explains it.
    #[test]
    fn right_histories_are_accepted_and_broken_ones_are_not() {
        let (mut found, mut seed) = (0, 12_345_u64);
        let mut chance = move |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for _ in 0..200 {
            let (mut number, mut history) = (Number(0), Vec::new());
            for at in 1..60 {
                // The effect is at ten times `at`; begin and end lie around it.
                let (called, returned) = (at * 10 - chance(30).min(at * 10 - 1), at * 10 + 1 + chance(30));
                let operation = match chance(3) {
                    0 => Set(chance(1000) as i32),
                    1 => Add(1),
                    _ => Read(number.0),
                };
                number = number.after(&operation).expect("it is what it is");
                let is_read = matches!(operation, Read(_));
                history.push((operation, called, if chance(10) == 0 && !is_read { 0 } else { returned }));
            }
            check(&history, true);
            let read =
                history.iter().position(|(on, ..)| matches!(on, Read(_))).expect("one in three is one");
            history[read].0 = Read(5000);
            check(&history, false);
            found += 1;
        }
        assert_eq!(found, 200);
    }
}
