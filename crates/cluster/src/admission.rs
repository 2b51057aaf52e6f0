//! Who may become a member: tokens that let machines in, and machines that were removed for good.

use crate::command::{Applied, Change, Kind, Rejected};
use crate::record::{Expelled, Token};
use crate::{ClusterState, MachineId};

impl ClusterState {
    pub(crate) fn create_token(&self, id: &str, token: &Token) -> Result<Applied, Rejected> {
        match self.tokens.get(id) {
            Some(old) if **old == *token => Ok(Applied { kind: Kind::Unchanged, change: None }),
            Some(_) => Err(Rejected::TokenExists),
            None => Ok(token_change(Kind::Created, id, Some(token.clone()))),
        }
    }

    pub(crate) fn use_token(
        &self,
        id: &str,
        digest: &str,
        machine: &MachineId,
        at: u64,
    ) -> Result<Applied, Rejected> {
        // A wrong secret is told no more than a wrong name.
        let token = self.tokens.get(id).filter(|token| token.digest == digest);
        let token = token.ok_or(Rejected::TokenUnknown)?;
        if token.expires_at.is_some_and(|end| end <= at) {
            return Err(Rejected::TokenExpired);
        }
        // Repeated by a machine that was removed since, it would undo that.
        if token.used_by.contains(machine) && !self.expelled.contains_key(machine) {
            return Ok(Applied { kind: Kind::Unchanged, change: None });
        }
        let mut token = (**token).clone();
        token.uses_left = match token.uses_left {
            Some(0) => return Err(Rejected::TokenUsed),
            left => left.map(|left| left - 1),
        };
        token.used_by.insert(machine.clone());
        Ok(token_change(Kind::Updated, id, Some(token)))
    }

    /// Whether there is such a token, whatever it may do by now.
    pub fn knows_token(&self, id: &str, digest: &str) -> bool {
        self.tokens.get(id).is_some_and(|token| token.digest == digest)
    }

    pub(crate) fn revoke_token(&self, id: &str) -> Result<Applied, Rejected> {
        match self.tokens.contains_key(id) {
            true => Ok(token_change(Kind::Removed, id, None)),
            false => Err(Rejected::TokenUnknown),
        }
    }

    pub(crate) fn expel(&self, machine: &MachineId, expelled: &Expelled) -> Result<Applied, Rejected> {
        if self.expelled.contains_key(machine) {
            return Ok(Applied { kind: Kind::Unchanged, change: None });
        }
        if let Some((unit, _)) = self.assignments.iter().find(|(_, a)| a.machine == *machine) {
            return Err(Rejected::MachineInUse { machine: machine.clone(), unit: unit.clone() });
        }
        let change = Some(Change::Expelled(machine.clone(), Some(expelled.clone())));
        Ok(Applied { kind: Kind::Created, change })
    }

    pub(crate) fn readmit(&self, machine: &MachineId) -> Applied {
        match self.expelled.contains_key(machine) {
            true => Applied { kind: Kind::Removed, change: Some(Change::Expelled(machine.clone(), None)) },
            false => Applied { kind: Kind::Unchanged, change: None },
        }
    }
}

fn token_change(kind: Kind, id: &str, token: Option<Token>) -> Applied {
    Applied { kind, change: Some(Change::Token(id.into(), token)) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{Command, MachineInfo, Outcome, Revision};

    fn apply(state: &mut ClusterState, command: Command) -> Outcome {
        let at = Revision(state.revision.0 + 1);
        state.apply_all(at, &[command]).remove(0)
    }

    fn token(expires_at: Option<u64>, uses_left: Option<u32>) -> Command {
        let token =
            Token { digest: "d".into(), created_at: 100, expires_at, uses_left, used_by: BTreeSet::new() };
        Command::CreateToken { id: "t".into(), token }
    }

    fn used(machine: &str, digest: &str, at: u64) -> Command {
        let machine = MachineId::new(machine).unwrap();
        Command::UseToken { id: "t".into(), digest: digest.into(), machine, at }
    }

    #[test]
    fn a_token_lets_in_as_many_as_it_says() {
        let mut state = ClusterState::default();
        assert_eq!(apply(&mut state, used("m1", "d", 101)), Err(Rejected::TokenUnknown));
        assert_eq!(apply(&mut state, token(None, Some(2))), Ok(Kind::Created));
        assert_eq!(apply(&mut state, token(None, Some(9))), Err(Rejected::TokenExists));
        assert_eq!(apply(&mut state, used("m1", "wrong", 101)), Err(Rejected::TokenUnknown));
        assert_eq!(apply(&mut state, used("m1", "d", 101)), Ok(Kind::Updated));
        // It has crashed, and asks again.
        assert_eq!(apply(&mut state, used("m1", "d", 102)), Ok(Kind::Unchanged));
        assert_eq!(apply(&mut state, used("m2", "d", 103)), Ok(Kind::Updated));
        assert_eq!(apply(&mut state, used("m3", "d", 104)), Err(Rejected::TokenUsed));
        assert_eq!(apply(&mut state, Command::RevokeToken { id: "t".into() }), Ok(Kind::Removed));
        assert_eq!(apply(&mut state, used("m1", "d", 105)), Err(Rejected::TokenUnknown));
    }

    #[test]
    fn a_used_up_token_does_not_undo_a_removal() {
        let mut state = ClusterState::default();
        let machine = MachineId::new("m1").unwrap();
        let expelled = Expelled { at: 100, name: "one".into() };
        let expel = || Command::Expel { machine: machine.clone(), expelled: expelled.clone() };
        for (uses, again) in
            [(Some(1), Err(Rejected::TokenUsed)), (Some(2), Ok(Kind::Updated)), (None, Ok(Kind::Updated))]
        {
            apply(&mut state, token(None, uses)).unwrap();
            assert_eq!(apply(&mut state, used("m1", "d", 101)), Ok(Kind::Updated));
            assert_eq!(apply(&mut state, used("m1", "d", 102)), Ok(Kind::Unchanged));
            apply(&mut state, expel()).unwrap();
            assert_eq!(apply(&mut state, used("m1", "d", 103)), again, "{uses:?}");
            apply(&mut state, Command::Readmit { machine: machine.clone() }).unwrap();
            apply(&mut state, Command::RevokeToken { id: "t".into() }).unwrap();
        }
    }

    #[test]
    fn a_token_ends() {
        let mut state = ClusterState::default();
        apply(&mut state, token(Some(200), None)).unwrap();
        assert_eq!(apply(&mut state, used("m1", "d", 199)), Ok(Kind::Updated));
        // Not even for one that it has let in before.
        assert_eq!(apply(&mut state, used("m1", "d", 200)), Err(Rejected::TokenExpired));
    }

    #[test]
    fn who_was_expelled_is_not_taken_back_unasked() {
        let mut state = ClusterState::default();
        let machine = MachineId::new("m1").unwrap();
        let register = || Command::RegisterMachine { id: machine.clone(), info: MachineInfo::default() };
        let expelled = Expelled { at: 100, name: "one".into() };
        let expel = || Command::Expel { machine: machine.clone(), expelled: expelled.clone() };
        apply(&mut state, register()).unwrap();
        assert_eq!(apply(&mut state, expel()), Ok(Kind::Created));
        assert_eq!(apply(&mut state, expel()), Ok(Kind::Unchanged));
        apply(&mut state, Command::RemoveMachine { id: machine.clone() }).unwrap();
        let refused = Err(Rejected::MachineExpelled { machine: machine.clone() });
        assert_eq!(apply(&mut state, register()), refused);
        assert_eq!(apply(&mut state, Command::Readmit { machine: machine.clone() }), Ok(Kind::Removed));
        assert_eq!(apply(&mut state, register()), Ok(Kind::Created));
    }
}
