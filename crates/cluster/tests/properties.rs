//! What holds of every history: random commands, random faults, random moments.

mod model;

use std::collections::{BTreeMap, BTreeSet};

use cluster::{
    Action, Assignment, ClusterState, Command, Desired, DesiredState, Expelled, Generation, Liveness,
    MachineId, MachineInfo, Observed, Person, PersonName, PersonRole, Revision, RotationPhase, RotationStep,
    Schedule, Scheduler, Token, UnitHash, UnitName, is_global, move_unit, plan, rebalance, schedule,
    validate, wanted_on,
};
use model::{Host, World, file, machine, unit};
use proptest::prelude::*;
use proptest::sample::select;

const UNITS: [&str; 8] = [
    "a.service",
    "a.socket",
    "b.service",
    "b.timer",
    "c.service",
    "w@.service",
    "w@1.service",
    "w@2.service",
];
const MACHINES: [&str; 4] = ["m1", "m2", "m3", "m4"];
const FILES: [&str; 17] = [
    "",
    "[Service]\nExecStart=/a\n",
    "[Service]\nExecStart=/b\n",
    "# said otherwise\n[Service]\nExecStart=/b\n",
    "[Socket]\nService=c.service\n",
    "[X-Fleet]\nMachineOf=b.service\n",
    "[X-Fleet]\nMachineOf=c.service a\n[X-Flt]\nMachineOf=c.service\n",
    "[X-Fleet]\nConflicts=w@* b.service\n",
    "[X-Coreinit]\nMachineMetadata=disk=ssd\n",
    "[X-Fleet]\nGlobal=true\n",
    "[X-Fleet]\nGlobal=true\nConflicts=a.* b.service\nMachineMetadata=disk=ssd\n",
    "[X-Fleet]\nReplaces=b.service w@*\n",
    "[X-Fleet]\nReplaces=a.*\nMachineMetadata=disk=ssd\n",
    "[X-Fleet]\nMachineID=m2\nConflicts=w@2.service\n",
    "[X-Coreinit]\nX-Coreinit-Provides=db,web\nX-Coreinit-MachineSingleton=true\n",
    "[Service]\nMemoryMax=3\n[X-Coreinit]\nMachineOf=b.service\n",
    "[X-Coreinit]\nSpread=disk\nPreferMetadata=disk=hdd\nMemoryReservation=2\nCPUReservation=0.5\n",
];

/// Templates of which there are many instances, and what these ask.
const CROWD: [(&str, &str); 11] = [
    ("plain", "[Service]\nExecStart=/a\n"),
    ("ssd", "[X-Fleet]\nMachineMetadata=disk=ssd\n"),
    ("alone", "[X-Fleet]\nConflicts=%p@*\n"),
    ("shy", "[X-Fleet]\nConflicts=*@1*\nMachineMetadata=\"zone=a\" \"zone=b\"\n"),
    ("spread", "[X-Coreinit]\nSpread=zone\n"),
    ("picky", "[X-Coreinit]\nSpread=zone\nPreferMetadata=disk=ssd\nMachineOf=plain@%i.service\n"),
    ("large", "[Service]\nMemoryMax=2\n"),
    ("side", "[Service]\nMemoryMax=1\n[X-Fleet]\nMachineOf=large@%i.service\n"),
    ("kick", "[X-Fleet]\nReplaces=plain@*\n"),
    ("shove", "[X-Fleet]\nReplaces=large@* alone@*\nMachineMetadata=disk=ssd\n"),
    ("everywhere", "[X-Fleet]\nGlobal=true\nMachineMetadata=zone=c\nConflicts=alone@2*\n"),
];

fn units() -> impl Strategy<Value = UnitName> {
    select(&UNITS[..]).prop_map(unit)
}

fn machines() -> impl Strategy<Value = MachineId> {
    select(&MACHINES[..]).prop_map(machine)
}

fn desired() -> impl Strategy<Value = DesiredState> {
    select(
        &[DesiredState::Inactive, DesiredState::Loaded, DesiredState::Launched, DesiredState::Launched][..],
    )
}

fn set_unit() -> impl Strategy<Value = Command> {
    (units(), proptest::option::of(select(&FILES[..])), proptest::option::of(desired()))
        .prop_map(|(name, text, desired)| Command::SetUnit { name, file: text.map(file), desired })
}

fn register() -> impl Strategy<Value = Command> {
    (machines(), select(&["ssd", "hdd"][..]), 0..8u64).prop_map(|(id, disk, memory_bytes)| {
        let metadata = BTreeMap::from([("disk".into(), disk.into())]);
        let info = MachineInfo { metadata, memory_bytes, cpu_millis: 1000, ..MachineInfo::default() };
        Command::RegisterMachine { id, info }
    })
}

fn observed() -> impl Strategy<Value = Observed> {
    let active = select(&["active", "activating", "deactivating", "inactive", "failed"][..]);
    (active, proptest::option::of(0..40u64)).prop_map(|(active, generation)| Observed {
        load: "loaded".into(),
        active: active.into(),
        sub: "x".into(),
        hash: UnitHash([0; 20]),
        generation: generation.map(Generation),
        failure: None,
    })
}

fn cordon() -> impl Strategy<Value = Command> {
    (machines(), any::<bool>()).prop_map(|(id, schedulable)| Command::SetSchedulable { id, schedulable })
}

fn admission() -> impl Strategy<Value = Command> {
    let id = || "t".to_string();
    let token = Token {
        digest: "d".into(),
        created_at: 1,
        expires_at: Some(9),
        uses_left: Some(1),
        used_by: Default::default(),
    };
    prop_oneof![
        Just(Command::CreateToken { id: id(), token }),
        Just(Command::RevokeToken { id: id() }),
        (machines(), 0..20u64).prop_map(move |(machine, at)| {
            Command::UseToken { id: id(), digest: "d".into(), machine, at }
        }),
        machines().prop_map(|machine| {
            Command::Expel { machine, expelled: Expelled { at: 1, name: "gone".into() } }
        }),
        machines().prop_map(|machine| Command::Readmit { machine }),
    ]
}

/// Any command, sensible or not.
fn commands() -> impl Strategy<Value = Command> {
    prop_oneof![
        4 => set_unit(),
        1 => units().prop_map(|name| Command::DestroyUnit { name }),
        4 => (units(), machines(), 0..40u64).prop_map(|(unit, machine, generation)| Command::Assign {
            unit, machine, generation: Generation(generation), reason: String::new(),
        }),
        1 => (units(), machines()).prop_map(|(unit, machine)| Command::Unassign { unit, machine }),
        2 => register(),
        1 => (machines(), proptest::option::of(select(&["ssd", "hdd"][..]))).prop_map(|(id, value)| {
            let set = BTreeMap::from([("disk".into(), value.map(String::from))]);
            Command::SetMachineMetadata { id, set }
        }),
        1 => machines().prop_map(|machine| Command::MarkLost { machine }),
        1 => machines().prop_map(|machine| Command::MarkReady { machine }),
        3 => (machines(), units(), proptest::option::of(observed()))
            .prop_map(|(machine, unit, observed)| Command::Report { machine, unit, observed }),
        1 => (machines(), units()).prop_map(|(machine, unit)| Command::Forget { machine, unit }),
        1 => machines().prop_map(|id| Command::RemoveMachine { id }),
        1 => cordon(),
        1 => (units(), machines(), proptest::option::of(machines()))
            .prop_map(|(unit, machine, to)| Command::MoveUnit { unit, machine, to }),
        1 => admission(),
        1 => (select(&["alice", "bob"][..]), 0..3u64, any::<bool>()).prop_map(|(name, expires, replace)| {
            let (role, name) = (PersonRole::Viewer, PersonName::new(name).unwrap());
            let person = Person { role, fingerprint: String::new(), expires, invited_by: String::new() };
            match expires {
                0 => Command::RemovePerson { name },
                _ => Command::InvitePerson { name, person, replace },
            }
        }),
        1 => (0..4, machines(), 1..3u64, any::<bool>()).prop_map(|(step, machine, number, late)| {
            let phase = if late { RotationPhase::Issue } else { RotationPhase::Trust };
            Command::Rotate(match step {
                0 => RotationStep::Begin { authority: "a".into(), sealed: String::new() },
                1 => RotationStep::Confirm { machine, number, phase },
                2 => RotationStep::Advance { number, phase },
                _ => RotationStep::Abort { number },
            })
        }),
        1 => select(&["x", "y"][..]).prop_map(|id| {
            Command::InitCluster { id: id.into(), name: String::new() }
        }),
    ]
}

/// A state that some history has led to. Assignments are made with the right generation half of the time.
fn states() -> impl Strategy<Value = ClusterState> {
    proptest::collection::vec((commands(), any::<bool>()), 0..60).prop_map(|commands| {
        let mut state = ClusterState::default();
        for ((mut command, is_fresh), at) in commands.into_iter().zip(1..) {
            if let Command::Assign { unit, generation, .. } = &mut command
                && let Some(now) = state.units.get(unit).filter(|_| is_fresh)
            {
                *generation = now.generation;
            }
            state.apply_all(Revision(at), &[command]);
        }
        state
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// Past Only, Idle Templates, Known Home; determinism; a command that is repeated does nothing more; no
    /// generation is used twice for a name.
    #[test]
    fn any_history_keeps_the_invariants(commands in proptest::collection::vec(commands(), 0..60)) {
        let (mut state, mut twice) = (ClusterState::default(), ClusterState::default());
        let mut last: BTreeMap<UnitName, (Generation, Option<(UnitHash, DesiredState)>)> = BTreeMap::new();
        for (command, at) in commands.iter().zip(1..) {
            let before = state.clone();
            let outcome = state.apply_all(Revision(at), std::slice::from_ref(command));
            prop_assert_eq!(state.check(), Ok(()));
            if outcome[0].is_err() {
                prop_assert_eq!(&ClusterState { revision: before.revision, ..state.clone() }, &before);
            }
            twice.apply_all(Revision(at), &[command.clone(), command.clone()]);
            prop_assert_eq!(&twice, &state);
            for (name, unit) in &state.units {
                let now = (unit.generation, Some((unit.file.hash(), unit.desired)));
                let old = last.insert(name.clone(), now).unwrap_or_default();
                prop_assert!(old.0 <= now.0, "{} went back to generation {}", name, now.0);
                prop_assert!((old.0 == now.0) == (old.1 == now.1), "{} changed within {}", name, now.0);
            }
            // A unit that was destroyed does not come back as what it was.
            for (name, wish) in last.iter_mut().filter(|(name, _)| !state.units.contains_key(*name)) {
                let _ = name;
                wish.1 = None;
            }
        }
    }

    /// What schedule decides is accepted, is all that was to be decided, and does not depend on anything but
    /// the state.
    #[test]
    fn a_schedule_is_sound_and_complete(state in states()) {
        let first = schedule(&state);
        prop_assert_eq!(&first, &schedule(&state.clone()));
        // Single Home: no unit is given two homes at once.
        let mut given = std::collections::BTreeSet::new();
        for decision in &first.decisions {
            if let cluster::Decision::Assign { unit, .. } = decision {
                prop_assert!(given.insert(unit.clone()), "{} is given two homes: {:?}", unit, first);
            }
        }
        let mut after = state.clone();
        for decision in &first.decisions {
            let at = Revision(after.revision.0 + 1);
            let outcome = after.apply_all(at, &[decision.clone().into_command()]);
            prop_assert!(outcome[0].is_ok(), "{:?} was refused: {:?}", decision, outcome);
        }
        let second = schedule(&after);
        prop_assert!(second.decisions.is_empty(), "{:?} after {:?}", second, first);
        let waiting = |schedule: &Schedule| schedule.unplaced.keys().cloned().collect::<Vec<_>>();
        prop_assert_eq!(waiting(&second), waiting(&first));
        for (name, record) in &after.units {
            if is_global(name, &record.file) {
                prop_assert!(!after.assignments.contains_key(name), "{} is everywhere", name);
                continue;
            }
            let home = after.assignments.get(name).and_then(|a| after.machines.get(&a.machine));
            let at_home = home.is_some_and(|machine| machine.liveness == Liveness::Ready);
            let is_wanted = record.desired != DesiredState::Inactive;
            prop_assert_eq!(after.assignments.contains_key(name) && !is_wanted, false);
            // Everything wanted has a home, or a reason why not; what is on its way has both.
            let leaves = after.assignments.get(name).is_some_and(|a| a.leaving.is_some());
            if is_wanted && leaves {
                prop_assert!(first.unplaced.contains_key(name), "{} in {:?}", name, first);
            } else if is_wanted {
                prop_assert!(at_home != first.unplaced.contains_key(name), "{} in {:?}", name, first);
            }
            // Hands Off: a unit's lost machine is no reason to take the unit away.
            let is_lost = |id| state.machines[id].liveness == Liveness::Lost;
            let lost = state.assignments.get(name).filter(|a| is_lost(&a.machine));
            if let Some(lost) = lost && is_wanted && !at_home {
                prop_assert_eq!(&after.assignments[name].machine, &lost.machine);
            }
        }
        // Nobody who runs somewhere ready is started somewhere else.
        for (name, assignment) in &after.assignments {
            let is_new = state.assignments.get(name).is_none_or(|old| old.machine != assignment.machine);
            // A cordoned machine gets no new units.
            prop_assert!(!is_new || state.machines[&assignment.machine].schedulable, "{}", name);
            for (other, observed) in state.observed_of(name).filter(|_| is_new) {
                let runs = matches!(&*observed.active, "active" | "activating" | "deactivating");
                let ready = state.machines.get(other).is_some_and(|m| m.liveness == Liveness::Ready);
                prop_assert!(*other == assignment.machine || !runs || !ready, "{} would run twice", name);
            }
        }
    }

    /// A leader that dies between two of its decisions leaves nothing behind that the next one cannot finish.
    #[test]
    fn half_a_schedule_can_be_finished(
        state in states(),
        done in proptest::collection::vec(any::<bool>(), 40),
    ) {
        let mut after = state;
        for done in [done, vec![true; 400], vec![true; 400], vec![true; 400]] {
            for (decision, done) in schedule(&after).decisions.into_iter().zip(done) {
                if done {
                    let at = Revision(after.revision.0 + 1);
                    after.apply_all(at, &[decision.into_command()]);
                }
            }
        }
        prop_assert_eq!(schedule(&after).decisions, vec![]);
    }

    /// What is kept from one schedule to the next makes no difference to what it says.
    #[test]
    fn a_scheduler_says_what_schedule_says(
        commands in proptest::collection::vec((commands(), any::<bool>(), 0..4usize), 0..80),
    ) {
        let (mut state, mut scheduler) = (ClusterState::default(), Scheduler::default());
        let mut earlier = state.clone();
        for ((mut command, is_fresh, then), at) in commands.into_iter().zip(1..) {
            if let Command::Assign { unit, generation, .. } = &mut command
                && let Some(now) = state.units.get(unit).filter(|_| is_fresh)
            {
                *generation = now.generation;
            }
            state.apply_all(Revision(at), &[command]);
            match then {
                0 => {}
                // A state may also be older than the one before.
                1 => prop_assert_eq!(scheduler.schedule(&earlier), schedule(&earlier)),
                2 => earlier = state.clone(),
                _ => {
                    let decided = scheduler.schedule(&state);
                    prop_assert_eq!(&decided, &schedule(&state));
                    let commands: Vec<Command> =
                        decided.decisions.into_iter().map(|decision| decision.into_command()).collect();
                    state.apply_all(Revision(at), &commands);
                }
            }
        }
        prop_assert_eq!(scheduler.schedule(&state), schedule(&state));
    }

    /// Nor do the short cuts by which it finds machines, of which there are many here, and many units that
    /// ask for the same.
    #[test]
    fn short_cuts_lead_to_the_same_machines(
        machines in proptest::collection::vec((0..2usize, 0..3usize, 0..6u64), 4..14),
        waves in proptest::collection::vec(
            (proptest::collection::vec((0..60usize, 0..CROWD.len()), 0..40), 0..14usize), 1..4,
        ),
    ) {
        let (mut state, mut scheduler) = (ClusterState::default(), Scheduler::default());
        let id = |n: usize| machine(&format!("m{n:02}"));
        let tell = |state: &mut ClusterState, commands: Vec<Command>| {
            let at = Revision(state.revision.0 + 1);
            state.apply_all(at, &commands);
        };
        for (n, (disk, zone, memory_bytes)) in machines.iter().enumerate() {
            let pairs = [("disk", ["ssd", "hdd"][*disk]), ("zone", ["a", "b", "c"][*zone])];
            let metadata = pairs.map(|(key, value)| (key.into(), value.into())).into();
            let info = MachineInfo { metadata, memory_bytes: *memory_bytes, ..MachineInfo::default() };
            tell(&mut state, vec![Command::RegisterMachine { id: id(n), info }]);
        }
        for (units, lost) in waves {
            for (n, kind) in units {
                let (stem, text) = CROWD[kind];
                let name = unit(&format!("{stem}@{n}.service"));
                let desired = Some(DesiredState::Launched);
                tell(&mut state, vec![Command::SetUnit { name, file: Some(file(text)), desired }]);
            }
            let decided = scheduler.schedule(&state);
            prop_assert_eq!(&decided, &schedule(&state));
            let commands: Vec<Command> =
                decided.decisions.into_iter().map(|decision| decision.into_command()).collect();
            tell(&mut state, commands);
            tell(&mut state, vec![Command::MarkLost { machine: id(lost) }]);
            prop_assert_eq!(scheduler.schedule(&state), schedule(&state));
        }
    }

    #[test]
    fn plain_units_are_spread_evenly(count in 0..60usize, machine_count in 1..8usize) {
        let mut world = World::default();
        (0..machine_count).for_each(|i| world.add_machine(&format!("m{i}")));
        for i in 0..count {
            let (name, file) = (unit(&format!("u{i}.service")), Some(file(FILES[1])));
            let desired = Some(DesiredState::Launched);
            world.propose(Command::SetUnit { name, file, desired }).expect("a good unit");
        }
        world.lead();
        let mut loads: BTreeMap<&MachineId, usize> = world.state.machines.keys().map(|id| (id, 0)).collect();
        world.state.assignments.values().for_each(|a| *loads.get_mut(&a.machine).expect("a member") += 1);
        let (least, most) = (loads.values().min(), loads.values().max());
        prop_assert!(most <= least.map(|least| least + 1).as_ref(), "{:?}", loads);
        prop_assert_eq!(world.state.assignments.len(), count);
    }

    /// The moves that are advised can be made, one after another, and leave none to be advised.
    #[test]
    fn rebalance_comes_to_an_end(
        commands in proptest::collection::vec(prop_oneof![2 => set_unit(), 1 => register()], 0..40),
        late in proptest::collection::vec(register(), 1..3),
    ) {
        let mut world = World::default();
        for command in commands.into_iter().chain(late) {
            if let Command::RegisterMachine { id, .. } = &command {
                world.hosts.entry(id.clone()).or_default();
            }
            world.happen(&Event::User(command));
            world.happen(&Event::Round);
        }
        world.settle();
        // Who waits for a place may be quicker.
        if !schedule(&world.state).unplaced.is_empty() {
            return Ok(());
        }
        for relocation in rebalance(&world.state) {
            let commands = move_unit(&world.state, &relocation.unit, Some(&relocation.to));
            prop_assert!(commands.is_ok(), "{:?}: {:?}", relocation, commands);
            for command in commands.into_iter().flatten() {
                world.propose(command).expect("what can be moved can be asked to");
            }
            world.settle();
            for name in relocation.with.iter().chain([&relocation.unit]) {
                prop_assert_eq!(&world.state.assignments[name].machine, &relocation.to);
            }
        }
        prop_assert_eq!(rebalance(&world.state), vec![]);
    }

    /// However a machine's units were left, a few rounds make them what the cluster wants, and then nothing
    /// is asked for. A wish may be taken back for a moment and come again in the same generation.
    #[test]
    fn a_plan_carried_out_asks_for_no_more(
        wishes in proptest::collection::vec((states(), 0..4usize, proptest::option::of(0..3usize)), 1..4),
    ) {
        let mut host = Host::default();
        let mut wanted = BTreeMap::new();
        for ((state, rounds, taken_back), number) in wishes.into_iter().zip(1..) {
            wanted = all_of(state, 1000 * number);
            play(&mut host, &wanted, rounds);
            if let Some(rounds) = taken_back {
                play(&mut host, &BTreeMap::new(), rounds);
            }
        }
        let left = play(&mut host, &wanted, 8);
        prop_assert!(left.is_empty(), "still {:?}", left);
        prop_assert_eq!(wanted.keys().collect::<Vec<_>>(), host.units.keys().collect::<Vec<_>>());
        for (name, wanted) in &wanted {
            prop_assert_eq!(host.units[name].is_running(), wanted.launched, "{}", name);
        }
    }
}

/// Everything that the state wants anywhere, wanted here, in later generations.
fn all_of(mut state: ClusterState, later: u64) -> BTreeMap<UnitName, Desired> {
    for name in state.units.keys() {
        let (generation, reason) = (Generation(0), String::new());
        let home = Assignment { machine: machine("m1"), generation, reason, leaving: None };
        state.assignments.insert(name.clone(), home.into());
    }
    let mut wanted = Host::desired(&state, &machine("m1"));
    wanted.values_mut().for_each(|wanted| wanted.generation.0 += later);
    wanted
}

/// So many rounds of one machine; what is still asked for then.
fn play(host: &mut Host, wanted: &BTreeMap<UnitName, Desired>, rounds: usize) -> Vec<Action> {
    for round in 0..rounds {
        host.carry_out(&plan(wanted, &host.current()));
        // The last round's jobs are still under way.
        if round + 1 < rounds {
            host.end_jobs(&BTreeSet::new(), &BTreeSet::new());
        }
    }
    plan(wanted, &host.current())
}

/// What can happen in the life of a cluster.
#[derive(Clone, Debug)]
enum Event {
    User(Command),
    Ask(UnitName, Option<MachineId>),
    Join(Command),
    Cut(MachineId),
    Crash(MachineId),
    Return(MachineId),
    Slow(UnitName),
    Broken(UnitName),
    Round,
}

fn events() -> impl Strategy<Value = Event> {
    let destroy = units().prop_map(|name| Command::DestroyUnit { name });
    prop_oneof![
        4 => prop_oneof![3 => set_unit(), 1 => destroy].prop_map(Event::User),
        1 => cordon().prop_map(Event::User),
        1 => (units(), proptest::option::of(machines())).prop_map(|(unit, to)| Event::Ask(unit, to)),
        1 => register().prop_map(Event::Join),
        1 => machines().prop_map(Event::Cut),
        1 => machines().prop_map(Event::Crash),
        2 => machines().prop_map(Event::Return),
        1 => units().prop_map(Event::Slow),
        1 => units().prop_map(Event::Broken),
        6 => Just(Event::Round),
    ]
}

impl World {
    fn happen(&mut self, event: &Event) {
        match event {
            Event::User(command) => {
                if let Command::SetUnit { name, file: Some(file), .. } = command
                    && validate(name, file).is_err()
                {
                    return;
                }
                drop(self.propose(command.clone()));
            }
            Event::Ask(name, to) => {
                for command in move_unit(&self.state, name, to.as_ref()).into_iter().flatten() {
                    self.propose(command).expect("what can be moved can be asked to");
                }
            }
            Event::Join(command) => {
                let Command::RegisterMachine { id, .. } = command else { return };
                self.hosts.entry(id.clone()).or_default();
                self.propose(command.clone()).expect("a machine can always register");
            }
            Event::Cut(id) | Event::Crash(id) => {
                let Some(host) = self.hosts.get_mut(id) else { return };
                host.is_cut = true;
                if matches!(event, Event::Crash(_)) {
                    host.units.clear();
                }
                drop(self.propose(Command::MarkLost { machine: id.clone() }));
            }
            Event::Return(id) => {
                let Some(host) = self.hosts.get_mut(id) else { return };
                host.is_cut = false;
                drop(self.propose(Command::MarkReady { machine: id.clone() }));
            }
            Event::Slow(name) => drop(self.slow.replace(name.clone())),
            Event::Broken(name) => drop(self.broken.replace(name.clone())),
            Event::Round => drop(self.round()),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// Convergence: once faults end, every unit is where and how it was asked to be, or the schedule says why
    /// not.
    #[test]
    fn the_cluster_heals(events in proptest::collection::vec(events(), 0..80)) {
        let mut world = World::default();
        MACHINES[..3].iter().for_each(|id| world.add_machine(id));
        for event in &events {
            world.happen(event);
        }
        world.slow.clear();
        for id in world.hosts.keys().cloned().collect::<Vec<_>>() {
            world.happen(&Event::Return(id));
        }
        world.settle();
        let unplaced = schedule(&world.state).unplaced;
        for (name, record) in &world.state.units {
            let runs_on = world.runs_on(name);
            if is_global(name, &record.file) {
                for id in world.hosts.keys() {
                    let wanted = wanted_on(&world.state, id);
                    let wanted = wanted.get(name).is_some_and(|wanted| wanted.launched);
                    let runs = runs_on.contains(&id);
                    prop_assert!(runs == wanted || world.broken.contains(name), "{} on {}", name, id);
                }
                continue;
            }
            let home = world.state.assignments.get(name).map(|a| &a.machine);
            let done = home.and_then(|home| world.state.observed.get(&(name.clone(), home.clone())));
            match record.desired {
                DesiredState::Inactive => prop_assert!(home.is_none() && runs_on.is_empty(), "{}", name),
                DesiredState::Loaded | DesiredState::Launched if unplaced.contains_key(name) => {
                    prop_assert!(home.is_none() && runs_on.is_empty(), "{}: {:?}", name, unplaced);
                }
                wanted => {
                    let done = done.and_then(|done| done.generation);
                    prop_assert_eq!(done, Some(record.generation), "{}", name);
                    prop_assert!(runs_on.len() <= 1 && runs_on.iter().all(|m| Some(*m) == home), "{}", name);
                    let runs = wanted == DesiredState::Launched && !world.broken.contains(name);
                    prop_assert!(runs_on.len() == 1 || !runs, "{} does not run", name);
                }
            }
        }
        // Nothing is left over anywhere.
        for (id, host) in &world.hosts {
            let wanted = Host::desired(&world.state, id);
            prop_assert_eq!(host.units.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
        }
    }
}
