//! Commands by chance, always the same ones for a seed: good ones, stale ones, and such as mean nothing.

use std::collections::BTreeMap;

use cluster::{
    Change, ClusterState, Command, DesiredState, Expelled, Failure, Generation, MachineId, MachineInfo,
    Observed, Person, PersonName, PersonRole, RebootChange, RebootGroupName, RotationPhase, RotationStep,
    Token, UnitHash, UnitName,
};

use super::{file, machine, unit};

/// A generator that needs no library.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % sides
    }

    fn one<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.roll(all.len())].clone()
    }
}

/// A command that means the same to two stores, whose generations have different numbers.
#[derive(Clone, Debug)]
pub struct Plan {
    command: Command,
    /// The generation that an assignment is decided for: the unit's own, or one that never was.
    is_fresh: bool,
}

impl Plan {
    pub fn draw(dice: &mut Dice) -> Plan {
        Plan { command: draw(dice), is_fresh: dice.roll(4) > 0 }
    }

    /// The command for a store that is in this state.
    pub fn command(&self, state: &ClusterState) -> Command {
        let mut command = self.command.clone();
        let current = |unit: &UnitName| state.units.get(unit).map_or(Generation(0), |unit| unit.generation);
        let is_too_new = state.admits(&command).is_err();
        match &mut command {
            Command::Assign { unit, generation, .. } if self.is_fresh => *generation = current(unit),
            Command::Report { unit, observed: Some(observed), .. } if self.is_fresh => {
                observed.generation = Some(current(unit));
            }
            // The stores refuse it by other words, at the door.
            Command::RaiseFeatureLevel { .. } if is_too_new => {
                command = Command::MarkReady { machine: machine("chance-0") };
            }
            _ => {}
        }
        command
    }
}

fn draw(dice: &mut Dice) -> Command {
    let unit = unit(&format!("chance-{}.service", dice.roll(4)));
    let ids: Vec<MachineId> = (0..3).map(|id| machine(&format!("chance-{id}"))).collect();
    let (id, other) = (dice.one(&ids), dice.one(&ids));
    match dice.roll(19) {
        0 => Command::InitCluster { id: "another".into(), name: "another".into() },
        1..=3 => Command::SetUnit {
            name: unit,
            file: (dice.roll(3) > 0).then(|| file(&dice.roll(2).to_string())),
            desired: dice.one(&[None, Some(DesiredState::Inactive), Some(DesiredState::Launched)]),
        },
        4 => Command::DestroyUnit { name: unit },
        5..=7 => Command::Assign { unit, machine: id, generation: Generation(0), reason: "by chance".into() },
        8 => Command::Unassign { unit, machine: id },
        9 => {
            let info = MachineInfo {
                name: format!("name-{}", dice.roll(2)),
                feature_level: dice.roll(4) as u32,
                ..MachineInfo::default()
            };
            Command::RegisterMachine { id, info }
        }
        10 => Command::MarkLost { machine: id },
        11 => Command::MarkReady { machine: id },
        12 => {
            let observed = Observed {
                load: "loaded".into(),
                active: dice.one(&["active", "failed"]).into(),
                sub: "running".into(),
                hash: UnitHash([dice.roll(2) as u8; 20]),
                generation: None,
                failure: (dice.roll(3) == 0).then(|| {
                    let journal = (0..dice.roll(3)).map(|line| format!("\u{e4} \"{line}\"\t")).collect();
                    Failure { reason: "by chance".into(), journal }
                }),
            };
            Command::Report { machine: id, unit, observed: (dice.roll(4) > 0).then_some(observed) }
        }
        13 => Command::Forget { machine: id, unit },
        14 => match dice.roll(6) {
            0 => Command::RemoveMachine { id },
            1 => Command::SetSchedulable { id, schedulable: dice.roll(2) > 0 },
            2 => Command::RaiseFeatureLevel { to: 1 + dice.roll(3) as u32 },
            3 | 4 => Command::Rotate(rotation(dice, id)),
            _ => {
                let set = BTreeMap::from([("key".into(), dice.one(&[None, Some("value".to_string())]))]);
                Command::SetMachineMetadata { id, set }
            }
        },
        15 => admission(dice, id),
        16 if dice.roll(3) > 0 => {
            let group = dice.one(&["default", "chance"]);
            let group = RebootGroupName::new(group).expect("a group's name");
            let change = match dice.roll(5) {
                0 => RebootChange::SetSlots(dice.roll(3) as u32),
                1 | 2 => RebootChange::Release { machine: id },
                _ => RebootChange::Take { machine: id, at: 1 },
            };
            Command::RebootLock { group, change }
        }
        16 => Command::RevokeToken { id: "chance".into() },
        17 => {
            let name = PersonName::new(&format!("chance-{}", dice.roll(2))).expect("a person's name");
            let fingerprint = dice.roll(3).to_string();
            let (role, invited_by) = (PersonRole::Viewer, String::new());
            let person = Person { role, fingerprint, expires: 0, invited_by };
            match dice.roll(3) {
                0 => Command::RemovePerson { name },
                _ => Command::InvitePerson { name, person, replace: dice.roll(2) > 0 },
            }
        }
        _ => Command::MoveUnit { unit, machine: id, to: (dice.roll(2) > 0).then_some(other) },
    }
}

/// A change of the authority, which needs luck to come far.
fn rotation(dice: &mut Dice, machine: MachineId) -> RotationStep {
    let number = 1 + dice.roll(3) as u64;
    let phase = dice.one(&[RotationPhase::Trust, RotationPhase::Issue]);
    match dice.roll(6) {
        0 | 1 => RotationStep::Begin { authority: "a1".into(), sealed: "5e".into() },
        2 | 3 => RotationStep::Confirm { machine, number, phase },
        4 => RotationStep::Advance { number, phase },
        _ => RotationStep::Abort { number },
    }
}

/// Who may come in, and who may not.
fn admission(dice: &mut Dice, machine: MachineId) -> Command {
    let (id, digest) = ("chance".to_string(), dice.one(&["right", "wrong"]).to_string());
    match dice.roll(5) {
        0 => {
            let (created_at, expires_at) = (1, (dice.roll(2) > 0).then_some(9));
            let uses_left = (dice.roll(2) > 0).then_some(1);
            let token = Token { digest, created_at, expires_at, uses_left, used_by: Default::default() };
            Command::CreateToken { id, token }
        }
        1 | 2 => Command::UseToken { id, digest, machine, at: dice.roll(20) as u64 },
        3 => Command::Expel { machine, expelled: Expelled { at: 1, name: "gone".into() } },
        _ => Command::Readmit { machine },
    }
}

/// Every record, without the numbers that each store gives by itself: a generation is only told as the unit's
/// own or another.
pub fn records(state: &ClusterState) -> Vec<Change> {
    let of = |unit: &UnitName, generation: Generation| {
        let is_current = state.units.get(unit).is_some_and(|unit| unit.generation == generation);
        Generation(is_current.into())
    };
    let mut all = Vec::new();
    for (name, unit) in &state.units {
        let mut unit = (**unit).clone();
        unit.generation = Generation(1);
        all.push(Change::Unit(name.clone(), Some(unit)));
    }
    for (name, home) in &state.assignments {
        let mut home = (**home).clone();
        home.generation = of(name, home.generation);
        all.push(Change::Assignment(name.clone(), Some(home)));
    }
    for (id, machine) in &state.machines {
        all.push(Change::Machine(id.clone(), Some((**machine).clone())));
    }
    for (id, token) in &state.tokens {
        all.push(Change::Token(id.clone(), Some((**token).clone())));
    }
    for (id, expelled) in &state.expelled {
        all.push(Change::Expelled(id.clone(), Some((**expelled).clone())));
    }
    for ((name, id), observed) in &state.observed {
        let mut observed = (**observed).clone();
        observed.generation = observed.generation.map(|generation| of(name, generation));
        all.push(Change::Observed(name.clone(), id.clone(), Some(observed)));
    }
    for (name, person) in &state.people {
        all.push(Change::Person(name.clone(), Some((**person).clone())));
    }
    for (name, group) in &state.reboot_groups {
        all.push(Change::RebootGroup(name.clone(), Some((**group).clone())));
    }
    all
}
