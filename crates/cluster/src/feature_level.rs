//! Versions side by side: which commands may be proposed while machines of several versions are members. Each
//! machine says what it knows when it registers; the leader raises the cluster's level once all of them know
//! more, and a machine that knows less than the level is not registered any more.

use crate::command::{Applied, Change, Command, Kind, Rejected};
use crate::record::Cluster;
use crate::{ClusterState, MachineInfo};

/// The newest commands that this version knows. A version that appends commands raises it by one, and gives
/// them that number in [`Command::feature_level`].
pub const FEATURE_LEVEL: u32 = THIS + cfg!(feature = "next") as u32;

const THIS: u32 = 2;

/// What every cluster begins with, and every machine knows.
const FIRST: u32 = 1;

impl Command {
    /// Since which feature level this command exists: machines that know less cannot read it.
    pub fn feature_level(&self) -> u32 {
        match self {
            Command::InitCluster { .. }
            | Command::SetUnit { .. }
            | Command::DestroyUnit { .. }
            | Command::Assign { .. }
            | Command::Unassign { .. }
            | Command::RegisterMachine { .. }
            | Command::SetMachineMetadata { .. }
            | Command::MarkLost { .. }
            | Command::MarkReady { .. }
            | Command::Report { .. }
            | Command::Forget { .. }
            | Command::RemoveMachine { .. }
            | Command::SetSchedulable { .. }
            | Command::MoveUnit { .. }
            | Command::CreateToken { .. }
            | Command::UseToken { .. }
            | Command::RevokeToken { .. }
            | Command::Expel { .. }
            | Command::Readmit { .. }
            | Command::InvitePerson { .. }
            | Command::RemovePerson { .. }
            | Command::Rotate(_)
            | Command::RebootLock { .. }
            | Command::Keys { .. } => FIRST,
            // Whoever knows what it raises to knows it too.
            Command::RaiseFeatureLevel { to } => 2.max(*to),
            #[cfg(feature = "next")]
            Command::Next { .. } => FEATURE_LEVEL,
        }
    }
}

impl MachineInfo {
    fn knows(&self) -> u32 {
        self.feature_level.max(FIRST)
    }
}

impl ClusterState {
    /// The newest commands that may be proposed.
    pub fn feature_level(&self) -> u32 {
        self.cluster.as_ref().map_or(FIRST, |cluster| cluster.feature_level)
    }

    /// Whether every machine can read that command, and if not, which one keeps it back. Asked before a
    /// proposal, since a log that holds what a member cannot read would stop that member.
    pub fn admits(&self, command: &Command) -> Result<(), Rejected> {
        let needs = command.feature_level();
        if needs > self.feature_level() {
            self.all_know(needs)?;
        }
        self.has_level_for(command)
    }

    /// [`ClusterState::admits`] for a whole proposal.
    pub fn admits_all(&self, commands: &[Command]) -> Result<(), Rejected> {
        commands.iter().try_for_each(|command| self.admits(command))
    }

    /// The same, once more when it commits.
    pub(crate) fn has_level_for(&self, command: &Command) -> Result<(), Rejected> {
        let (needs, at) = (command.feature_level(), self.feature_level());
        match command {
            Command::RaiseFeatureLevel { .. } => Ok(()),
            _ if needs <= at => Ok(()),
            _ => Err(Rejected::LevelNotReached { needs, at }),
        }
    }

    /// What the leader should propose next for newer commands to be allowed: `None` while a machine does not
    /// know more. `known` is the leader's own level.
    pub fn next_feature_level(&self, known: u32) -> Option<Command> {
        let all = self.machines.values().map(|machine| machine.info.knows()).min()?.min(known);
        let higher = self.cluster.is_some() && all > self.feature_level();
        higher.then_some(Command::RaiseFeatureLevel { to: all })
    }

    /// A machine that does not know what the log may hold has no place in the cluster.
    pub(crate) fn may_register(&self, id: &crate::MachineId, info: &MachineInfo) -> Result<(), Rejected> {
        match info.knows() < self.feature_level() {
            true => Err(too_old(id, info, self.feature_level())),
            false => Ok(()),
        }
    }

    pub(crate) fn raise_feature_level(&self, to: u32) -> Result<Applied, Rejected> {
        let Some(cluster) = &self.cluster else {
            return Err(Rejected::LevelNotReached { needs: to, at: 0 });
        };
        if to <= cluster.feature_level {
            return Ok(Applied { kind: Kind::Unchanged, change: None });
        }
        self.all_know(to)?;
        let cluster = Cluster { feature_level: to, ..(**cluster).clone() };
        Ok(Applied { kind: Kind::Updated, change: Some(Change::Cluster(cluster)) })
    }

    fn all_know(&self, needs: u32) -> Result<(), Rejected> {
        match self.machines.iter().find(|(_, machine)| machine.info.knows() < needs) {
            Some((id, machine)) => Err(too_old(id, &machine.info, needs)),
            None => Ok(()),
        }
    }
}

fn too_old(id: &crate::MachineId, info: &MachineInfo, needs: u32) -> Rejected {
    Rejected::MachineTooOld {
        machine: id.clone(),
        name: info.name.clone(),
        version: info.version.clone(),
        knows: info.knows(),
        needs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MachineId, Revision};

    fn register(id: &str, feature_level: u32) -> Command {
        let (name, version) = (format!("name-of-{id}"), format!("0.{feature_level}.0"));
        let info = MachineInfo { name, version, feature_level, ..MachineInfo::default() };
        Command::RegisterMachine { id: MachineId::new(id).unwrap(), info }
    }

    fn cluster(machines: &[(&str, u32)]) -> ClusterState {
        let mut state = ClusterState::default();
        let init = Command::InitCluster { id: "c".into(), name: "c".into() };
        state.apply_all(Revision(1), &[init]);
        for (id, level) in machines {
            let outcomes = state.apply_all(Revision(2), &[register(id, *level)]);
            assert!(outcomes[0].is_ok(), "{outcomes:?}");
        }
        state
    }

    fn apply(state: &mut ClusterState, command: Command) -> Result<Kind, String> {
        let at = Revision(state.revision.0 + 1);
        state.apply_all(at, &[command]).remove(0).map_err(|rejected| rejected.to_string())
    }

    #[test]
    fn the_level_is_what_all_machines_know() {
        let check = |machines: &[(&str, u32)], known: u32, expected: Option<u32>| {
            let next = cluster(machines).next_feature_level(known);
            assert_eq!(next, expected.map(|to| Command::RaiseFeatureLevel { to }), "{machines:?}");
        };
        check(&[], 9, None);
        check(&[("a", 1), ("b", 1)], 9, None);
        check(&[("a", 0), ("b", 9)], 9, None);
        check(&[("a", 2), ("b", 1)], 9, None);
        check(&[("a", 2), ("b", 2)], 2, Some(2));
        check(&[("a", 5), ("b", 4)], 9, Some(4));
        check(&[("a", 5), ("b", 4)], 3, Some(3));
        assert_eq!(ClusterState::default().next_feature_level(9), None);
    }

    #[test]
    fn a_newer_command_waits_for_the_oldest_machine() {
        let mut state = cluster(&[("a", 3), ("b", 1), ("c", 3)]);
        let raise = Command::RaiseFeatureLevel { to: 3 };
        let said = apply(&mut state, raise.clone()).unwrap_err();
        assert!(said.contains("name-of-b (machine b) knows 1: its coreinit is 0.1.0; upgrade"), "{said}");
        assert_eq!(state.feature_level(), 1);
        // Lost or not, it may come back with its log.
        apply(&mut state, Command::MarkLost { machine: MachineId::new("b").unwrap() }).unwrap();
        assert!(apply(&mut state, raise.clone()).is_err());
        apply(&mut state, register("b", 3)).unwrap();
        assert_eq!(apply(&mut state, raise.clone()), Ok(Kind::Updated));
        assert_eq!(apply(&mut state, raise), Ok(Kind::Unchanged));
        assert_eq!((state.feature_level(), state.next_feature_level(3)), (3, None));
    }

    #[test]
    fn the_level_never_falls_and_keeps_older_machines_out() {
        let mut state = cluster(&[("a", 3)]);
        apply(&mut state, Command::RaiseFeatureLevel { to: 3 }).unwrap();
        assert_eq!(apply(&mut state, Command::RaiseFeatureLevel { to: 2 }), Ok(Kind::Unchanged));
        for older in [register("a", 2), register("b", 1)] {
            let said = apply(&mut state, older).unwrap_err();
            assert!(said.contains("needs feature level 3"), "{said}");
        }
        assert_eq!(state.machines.len(), 1);
        assert_eq!(state.feature_level(), 3);
    }

    #[test]
    fn the_newest_command_is_of_this_version() {
        let raise = Command::RaiseFeatureLevel { to: FEATURE_LEVEL };
        assert_eq!(raise.feature_level(), FEATURE_LEVEL);
        assert_eq!(register("a", 9).feature_level(), 1);
    }
}
