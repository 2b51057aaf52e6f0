//! One unit as its users see it: a file and a wish, or nothing. Written from what is promised, not from the
//! code that keeps it.

use cluster::{DesiredState, Kind};

use super::Specification;

/// The number of the file, and what is wanted; `None`: there is no such unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wish(pub Option<(u32, DesiredState)>);

/// What was asked of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Set { file: Option<u32>, desired: Option<DesiredState> },
    Destroy,
    Read,
}

/// A question with its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// What the store said; `Some(None)` when it refused, `None` when it said nothing.
    Changed(Asked, Option<Option<Kind>>),
    Seen(Wish),
}

impl Specification for Wish {
    type Operation = Heard;

    fn after(&self, operation: &Heard) -> Option<Wish> {
        match operation {
            Heard::Seen(seen) => (seen == self).then_some(*self),
            Heard::Changed(asked, answer) => {
                let (kind, after) = self.change(asked);
                answer.as_ref().is_none_or(|answer| *answer == kind).then_some(after)
            }
        }
    }
}

impl Wish {
    /// What the store has to say, and what there is then.
    fn change(&self, asked: &Asked) -> (Option<Kind>, Wish) {
        let wish = |file, desired: Option<DesiredState>| {
            Wish(Some((file, desired.unwrap_or(DesiredState::Inactive))))
        };
        match (*asked, self.0) {
            (Asked::Read, _) => (Some(Kind::Unchanged), *self),
            (Asked::Destroy, Some(_)) => (Some(Kind::Removed), Wish(None)),
            (Asked::Destroy, None) | (Asked::Set { file: None, .. }, None) => (None, Wish(None)),
            (Asked::Set { file: Some(file), desired }, None) => (Some(Kind::Created), wish(file, desired)),
            (Asked::Set { file: Some(file), desired }, Some((old, _))) if file != old => {
                (Some(Kind::Replaced), wish(file, desired))
            }
            (Asked::Set { desired, .. }, Some((file, old))) => match desired.unwrap_or(old) {
                now if now == old => (Some(Kind::Unchanged), *self),
                now => (Some(Kind::Updated), Wish(Some((file, now)))),
            },
        }
    }
}
