//! Which records decide about a command: all that `ClusterState::apply` looks at. A write is only made when
//! none of them has changed since.

use cluster::{Command, RotationStep};

use crate::record::Key;

/// What a command's outcome rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reads {
    /// The record that it may change is among them.
    pub keys: Vec<Key>,
    /// Every assignment, those to come too.
    pub all_assignments: bool,
    /// Every machine, those to come too.
    pub all_machines: bool,
    /// Every group of the reboot lock, those to come too.
    pub all_reboot_groups: bool,
}

impl Reads {
    /// Whether records decide that this machine may know no more than to have been there.
    pub fn rests_on_a_range(&self) -> bool {
        self.all_assignments || self.all_machines || self.all_reboot_groups
    }
}

/// What `apply` looks at for this command.
pub fn reads(command: &Command) -> Reads {
    let keys = match command {
        Command::InitCluster { .. } => vec![Key::Cluster],
        Command::SetUnit { name, .. } | Command::DestroyUnit { name } => vec![Key::Unit(name.clone())],
        Command::Assign { unit, machine, .. } => {
            vec![Key::Unit(unit.clone()), Key::Assignment(unit.clone()), Key::Machine(machine.clone())]
        }
        Command::Unassign { unit, .. } => vec![Key::Assignment(unit.clone())],
        Command::RegisterMachine { id, .. } => {
            vec![Key::Machine(id.clone()), Key::Expelled(id.clone()), Key::Cluster]
        }
        Command::SetMachineMetadata { id, .. }
        | Command::SetSchedulable { id, .. }
        | Command::RemoveMachine { id } => vec![Key::Machine(id.clone())],
        Command::MarkLost { machine } | Command::MarkReady { machine } => vec![Key::Machine(machine.clone())],
        Command::Report { machine, unit, .. } | Command::Forget { machine, unit } => {
            vec![Key::Machine(machine.clone()), Key::Observed(unit.clone(), machine.clone())]
        }
        Command::MoveUnit { unit, to, .. } => {
            let to = to.iter().map(|to| Key::Machine(to.clone()));
            [Key::Assignment(unit.clone())].into_iter().chain(to).collect()
        }
        Command::CreateToken { id, .. } | Command::RevokeToken { id } => vec![Key::Token(id.clone())],
        Command::UseToken { id, machine, .. } => vec![Key::Token(id.clone()), Key::Expelled(machine.clone())],
        Command::Expel { machine, .. } | Command::Readmit { machine } => vec![Key::Expelled(machine.clone())],
        Command::InvitePerson { name, .. } | Command::RemovePerson { name } => {
            vec![Key::Person(name.clone())]
        }
        Command::RaiseFeatureLevel { .. } | Command::Rotate(_) => vec![Key::Cluster],
        Command::RebootLock { group, .. } => vec![Key::RebootGroup(group.clone())],
        // It is refused, whatever there is.
        Command::Keys { .. } => Vec::new(),
        #[cfg(feature = "next")]
        Command::Next { .. } => vec![Key::Cluster],
    };
    Reads {
        keys,
        all_assignments: matches!(command, Command::RemoveMachine { .. } | Command::Expel { .. }),
        all_machines: matches!(
            command,
            Command::RaiseFeatureLevel { .. }
                | Command::RebootLock { .. }
                | Command::Rotate(RotationStep::Advance { .. })
        ),
        all_reboot_groups: matches!(
            command,
            Command::Assign { .. } | Command::MoveUnit { .. } | Command::RebootLock { .. }
        ),
    }
}

#[cfg(test)]
mod tests {
    use cluster::{ClusterState, Revision};
    use store::conformance::chance::{Dice, Plan};

    use super::*;
    use crate::record::{encode, records};

    /// `apply` says the same when it sees nothing but those records.
    #[test]
    fn nothing_else_decides() {
        let mut dice = Dice(7);
        let mut state = ClusterState::default();
        let (mut made, mut refused) = (0, 0);
        for at in 1..6_000 {
            let command = Plan::draw(&mut dice).command(&state);
            let reads = reads(&command);
            let mut seen = ClusterState { revision: state.revision, ..ClusterState::default() };
            for change in records(&state) {
                let (key, _) = encode(&change);
                let all = match key {
                    Key::Assignment(_) => reads.all_assignments,
                    Key::Machine(_) => reads.all_machines,
                    Key::RebootGroup(_) => reads.all_reboot_groups,
                    _ => false,
                };
                if all || reads.keys.contains(&key) {
                    seen.put(change);
                }
            }
            let outcome = state.apply(Revision(at), &command);
            assert_eq!(outcome, seen.apply(Revision(at), &command), "{command:?}");
            if let Ok(Some(change)) = outcome.as_ref().map(|applied| applied.change.clone()) {
                assert!(reads.keys.contains(&encode(&change).0), "{command:?} changes {change:?}");
            }
            match outcome {
                Ok(_) => made += 1,
                Err(_) => refused += 1,
            }
            state.apply_all(Revision(at), &[command]);
        }
        assert!(made > 500 && refused > 500, "{made} made, {refused} refused");
    }
}
