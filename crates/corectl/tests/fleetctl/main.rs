//! corectl under fleet's names: what a real fleet of three machines answered is asked of ours, over systemds
//! in memory. The rack plays the same over real ones.

mod exchange;
mod names;
mod world;

use exchange::{Place, exchanges};
use world::World;

const EXCHANGES: &str = include_str!("exchanges.txt");
const UNITS: &str = include_str!("units.txt");

#[tokio::test]
async fn what_fleet_answered_is_answered() {
    let world = World::begin(UNITS).await;
    let mut wrong = Vec::new();
    for exchange in exchanges(EXCHANGES, Place::Process) {
        let command = &exchange.command;
        assert!(exchange.before.is_empty(), "{command}: what happens to a host is played on hosts alone");
        let said = world.run(command).await;
        wrong.extend(exchange.expected(Place::Process).fault(command, said));
        world.settle().await;
    }
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
}
