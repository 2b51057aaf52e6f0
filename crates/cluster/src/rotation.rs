//! The change of what machines know each other by, with no moment in which two of them do not: first all take
//! the new authority beside the old one, then all show certificates of the new one, then the old one is gone.
//!
//! A step is taken when every registered machine has confirmed the one before, so a machine that is away
//! holds the change up, and finds its way when it comes back. The state holds the new secret only sealed with
//! the old.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::command::{Applied, Change, Kind, Rejected};
use crate::record::Cluster;
use crate::{ClusterState, Command, MachineId};

/// A change of the cluster's authority that is under way. Part of the cluster's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// Counts up; no two of a cluster have the same.
    pub number: u64,
    pub phase: RotationPhase,
    /// The digest of the new authority's certificate, in hexadecimal.
    pub authority: String,
    /// The new secret, for who knows the old one; in hexadecimal.
    pub sealed: String,
    /// Machines that are where the phase wants them.
    pub confirmed: BTreeSet<MachineId>,
}

/// What all machines are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RotationPhase {
    /// Take certificates of either authority.
    Trust,
    /// Show certificates of the new one.
    Issue,
}

/// A step of such a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RotationStep {
    /// An administrator asks for it.
    Begin { authority: String, sealed: String },
    /// A machine is where the phase wants it.
    Confirm { machine: MachineId, number: u64, phase: RotationPhase },
    /// The leader goes on to the next phase, or ends the last. Refused while a machine has not confirmed.
    Advance { number: u64, phase: RotationPhase },
    /// An administrator wants the old authority to stay. Refused once machines may have no more of it.
    Abort { number: u64 },
}

impl ClusterState {
    pub(crate) fn rotate(&self, step: &RotationStep) -> Result<Applied, Rejected> {
        let cluster = self.cluster.as_ref().ok_or(Rejected::RotationNone)?;
        let running = |number: u64| {
            let running = cluster.rotation.as_ref().filter(|rotation| rotation.number == number);
            running.ok_or(Rejected::RotationNone)
        };
        let mut next = (**cluster).clone();
        match step {
            RotationStep::Begin { authority, sealed } => {
                if cluster.rotation.is_some() {
                    return Err(Rejected::RotationRunning);
                }
                next.rotation = Some(Rotation {
                    number: cluster.rotations + 1,
                    phase: RotationPhase::Trust,
                    authority: authority.clone(),
                    sealed: sealed.clone(),
                    confirmed: BTreeSet::new(),
                });
            }
            RotationStep::Confirm { machine, number, phase } => {
                let mut rotation = running(*number)?.clone();
                if rotation.phase != *phase || !rotation.confirmed.insert(machine.clone()) {
                    return Ok(Applied { kind: Kind::Unchanged, change: None });
                }
                next.rotation = Some(rotation);
            }
            RotationStep::Advance { number, phase } => {
                let rotation = running(*number)?;
                if rotation.phase != *phase {
                    return Ok(Applied { kind: Kind::Unchanged, change: None });
                }
                if let Some(machine) = self.machines.keys().find(|id| !rotation.confirmed.contains(*id)) {
                    return Err(Rejected::RotationAwaits { machine: machine.clone() });
                }
                match phase {
                    RotationPhase::Trust => {
                        let phase = RotationPhase::Issue;
                        next.rotation =
                            Some(Rotation { phase, confirmed: BTreeSet::new(), ..rotation.clone() });
                    }
                    RotationPhase::Issue => {
                        next.authority = Some(rotation.authority.clone());
                        next.rotations = rotation.number;
                        next.rotation = None;
                    }
                }
            }
            RotationStep::Abort { number } => match running(*number)?.phase {
                RotationPhase::Trust => {
                    next.rotations = *number;
                    next.rotation = None;
                }
                RotationPhase::Issue => return Err(Rejected::RotationFar),
            },
        }
        Ok(Applied { kind: Kind::Updated, change: Some(Change::Cluster(next)) })
    }

    /// What the leader should propose for a change of the authority to go on.
    pub fn next_rotation_step(&self) -> Option<Command> {
        let rotation = self.cluster.as_ref()?.rotation.as_ref()?;
        let (number, phase) = (rotation.number, rotation.phase);
        let all = self.machines.keys().all(|id| rotation.confirmed.contains(id));
        all.then_some(Command::Rotate(RotationStep::Advance { number, phase }))
    }
}

impl Cluster {
    /// Without a change of the authority that is under way, as if it had been given up.
    pub fn unrotated(&self) -> Cluster {
        let number = self.rotation.as_ref().map_or(self.rotations, |rotation| rotation.number);
        Cluster { rotation: None, rotations: number, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MachineInfo, Outcome, Revision};

    fn apply(state: &mut ClusterState, command: Command) -> Outcome {
        let at = Revision(state.revision.0 + 1);
        state.apply_all(at, &[command]).remove(0)
    }

    fn id(text: &str) -> MachineId {
        MachineId::new(text).unwrap()
    }

    fn cluster_of(machines: &[&str]) -> ClusterState {
        let mut state = ClusterState::default();
        apply(&mut state, Command::InitCluster { id: "c".into(), name: "c".into() }).unwrap();
        for machine in machines {
            let register = Command::RegisterMachine { id: id(machine), info: MachineInfo::default() };
            apply(&mut state, register).unwrap();
        }
        state
    }

    fn begin() -> Command {
        Command::Rotate(RotationStep::Begin { authority: "new".into(), sealed: "5ea1".into() })
    }

    fn confirm(machine: &str, number: u64, phase: RotationPhase) -> Command {
        Command::Rotate(RotationStep::Confirm { machine: id(machine), number, phase })
    }

    fn running(state: &ClusterState) -> Option<&Rotation> {
        state.cluster.as_ref().unwrap().rotation.as_ref()
    }

    #[test]
    fn each_step_waits_for_every_machine() {
        use RotationPhase::{Issue, Trust};
        let mut state = cluster_of(&["m1", "m2"]);
        assert_eq!(state.next_rotation_step(), None);
        apply(&mut state, begin()).unwrap();
        assert_eq!(apply(&mut state, begin()), Err(Rejected::RotationRunning));
        for phase in [Trust, Issue] {
            assert_eq!(running(&state).unwrap().phase, phase);
            let advance = Command::Rotate(RotationStep::Advance { number: 1, phase });
            apply(&mut state, confirm("m1", 1, phase)).unwrap();
            assert_eq!(state.next_rotation_step(), None);
            let refused = Err(Rejected::RotationAwaits { machine: id("m2") });
            assert_eq!(apply(&mut state, advance.clone()), refused);
            assert_eq!(apply(&mut state, confirm("m2", 1, phase)), Ok(Kind::Updated));
            assert_eq!(apply(&mut state, confirm("m2", 1, phase)), Ok(Kind::Unchanged));
            assert_eq!(state.next_rotation_step(), Some(advance.clone()));
            apply(&mut state, advance).unwrap();
        }
        let cluster = state.cluster.clone().unwrap();
        assert_eq!((cluster.rotations, cluster.authority.as_deref()), (1, Some("new")));
        assert_eq!(running(&state), None);
        // What belongs to one that is over changes nothing.
        assert_eq!(apply(&mut state, confirm("m1", 1, Issue)), Err(Rejected::RotationNone));
        apply(&mut state, begin()).unwrap();
        assert_eq!(apply(&mut state, confirm("m1", 1, Trust)), Err(Rejected::RotationNone));
    }

    #[test]
    fn it_is_given_up_while_all_have_the_old_authority() {
        let mut state = cluster_of(&["m1"]);
        apply(&mut state, begin()).unwrap();
        apply(&mut state, Command::Rotate(RotationStep::Abort { number: 1 })).unwrap();
        let cluster = state.cluster.clone().unwrap();
        assert_eq!((cluster.rotations, &cluster.authority), (1, &None));
        apply(&mut state, begin()).unwrap();
        apply(&mut state, confirm("m1", 2, RotationPhase::Trust)).unwrap();
        let advance = state.next_rotation_step().unwrap();
        apply(&mut state, advance).unwrap();
        let abort = Command::Rotate(RotationStep::Abort { number: 2 });
        assert_eq!(apply(&mut state, abort), Err(Rejected::RotationFar));
    }

    #[test]
    fn a_machine_that_was_removed_is_not_waited_for() {
        let mut state = cluster_of(&["m1", "m2"]);
        apply(&mut state, begin()).unwrap();
        apply(&mut state, confirm("m1", 1, RotationPhase::Trust)).unwrap();
        apply(&mut state, Command::RemoveMachine { id: id("m2") }).unwrap();
        let advance = state.next_rotation_step().unwrap();
        assert_eq!(apply(&mut state, advance), Ok(Kind::Updated));
    }
}
