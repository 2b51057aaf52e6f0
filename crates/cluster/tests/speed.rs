//! Many units take a moment, and next to none when there is nothing to do. The bound is far above what even a
//! debug build needs, and far below what anything cubic would take; `cargo test --release -p cluster --test
//! speed -- --nocapture` shows the figures.

mod model;

use std::time::{Duration, Instant};

use cluster::{Command, DesiredState, Schedule, schedule};
use model::{World, file, unit};

#[test]
fn a_thousand_units_on_ten_machines() {
    for asks in ["", "Conflicts=%p-x*", "MachineOf=u0.service"] {
        let mut world = World::default();
        (0..10).for_each(|i| world.add_machine(&format!("m{i}")));
        let (plain, asking) = (file("[Service]\n"), file(&format!("[X-Fleet]\n{asks}\n")));
        let set = |i: usize| Command::SetUnit {
            name: unit(&format!("u{i}.service")),
            file: Some(if i == 0 { plain.clone() } else { asking.clone() }),
            desired: Some(DesiredState::Launched),
        };
        let commands: Vec<Command> = (0..1000).map(set).collect();
        let at = |world: &World| cluster::Revision(world.state.revision.0 + 1);
        world.state.apply_all(at(&world), &commands);
        let start = Instant::now();
        let first = schedule(&world.state);
        let first_took = start.elapsed();
        assert_eq!(first.decisions.len(), 1000, "{asks}");
        let commands: Vec<Command> =
            first.decisions.into_iter().map(|decision| decision.into_command()).collect();
        world.state.apply_all(at(&world), &commands);
        let start = Instant::now();
        assert_eq!(schedule(&world.state), Schedule::default());
        let second_took = start.elapsed();
        let shown = format!("{asks:?}: first {first_took:?}, then {second_took:?}");
        eprintln!("{shown}");
        assert!(first_took + second_took < Duration::from_secs(5), "{shown}");
    }
}
