//! Three real hosts with a systemd each, and what happens to them: one rack for all tests, one test after the
//! other.
//!
//!     cargo test -p tests --test rack [-- FILTER]
//!
//! It needs root and what `rack/README.md` lists. `HX_NAME` gives the rack another name, so that two can run
//! at once. Measurements are printed as they are made.

mod damage;
mod fleetctl;
mod kills;
mod loss;
mod many;
mod placing;
mod quorum;
mod refused;
mod start;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use libtest_mimic::{Arguments, Failed, Trial};
use tests::deploy::Cluster;

type Scenario = fn(&Cluster);

/// In the order in which they run: what leaves the most behind comes last.
const SCENARIOS: &[(&str, Scenario)] = &[
    ("examples_run", start::examples_run),
    ("bad_input_is_refused_and_nothing_is_stored", refused::bad_input_is_refused_and_nothing_is_stored),
    ("corectl_names_what_is_wrong", refused::corectl_names_what_is_wrong),
    ("two_hundred_units_come_and_go", many::two_hundred_units_come_and_go),
    ("a_drained_machine_is_empty", placing::a_drained_machine_is_empty),
    ("a_recorded_fleet_is_played", fleetctl::a_recorded_fleet_is_played),
    ("a_killed_leader_is_replaced", quorum::a_killed_leader_is_replaced),
    ("a_leader_in_the_minority_is_replaced", quorum::a_leader_in_the_minority_is_replaced),
    ("without_a_quorum_nothing_stops", quorum::without_a_quorum_nothing_stops),
    ("a_machine_without_power_loses_its_units", loss::a_machine_without_power_loses_its_units),
    ("nothing_acknowledged_is_lost", loss::nothing_acknowledged_is_lost),
    ("killed_daemons_lose_nothing", kills::killed_daemons_lose_nothing),
    ("a_damaged_store_is_set_aside", damage::a_damaged_store_is_set_aside),
];

/// Brought up by the first test that needs it.
static CLUSTER: Mutex<Option<Cluster>> = Mutex::new(None);

fn main() -> ExitCode {
    // One rack, one test at a time: they pull each other's cables.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    let trials = SCENARIOS.iter().map(|(name, scenario)| Trial::test(*name, move || run(*scenario)));
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    drop(CLUSTER.lock().unwrap_or_else(PoisonError::into_inner).take());
    conclusion.exit_code()
}

/// Runs one scenario on a cluster that is formed and empty. A cluster on which one failed is not used again.
fn run(scenario: Scenario) -> Result<(), Failed> {
    let mut slot = CLUSTER.lock().unwrap_or_else(PoisonError::into_inner);
    let old = slot.take().filter(|cluster| catch_unwind(AssertUnwindSafe(|| cluster.clean())).is_ok());
    let cluster = old.unwrap_or_else(|| Cluster::up(3));
    match catch_unwind(AssertUnwindSafe(|| scenario(&cluster))) {
        Ok(()) => {
            *slot = Some(cluster);
            Ok(())
        }
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
            Err(format!("{}\n{}", text.unwrap_or_default(), cluster.last_words()).into())
        }
    }
}
