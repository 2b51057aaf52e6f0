//! Three real hosts with a systemd each, and what happens to them: one rack for all tests, one test after the
//! other.
//!
//!     cargo test -p tests --test rack [-- FILTER]
//!
//! It needs root and what `rack/README.md` lists. `HX_NAME` gives the rack another name, so that two can run
//! at once. Measurements are printed as they are made.

mod backup;
mod behind;
mod by_hand;
mod callers;
mod damage;
mod demo;
mod etcd;
mod fleetctl;
mod forming;
mod health;
mod joining;
mod keys;
mod kills;
mod kinds;
mod loss;
mod many;
mod packages;
mod placing;
mod quorum;
mod rebooting;
mod refused;
mod restore_by_hand;
mod rotating;
mod secret;
mod start;
mod storm;
mod together;
mod trouble;
mod twin;
mod upgrade;
mod user_data;

use std::any::Any;
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
    ("every_type_of_unit_works", kinds::every_type_of_unit_works),
    ("a_stored_template_is_started_often", kinds::a_stored_template_is_started_often),
    ("a_unit_is_pulled_in_by_another", kinds::a_unit_is_pulled_in_by_another),
    ("a_sidekick_goes_where_its_unit_goes", together::a_sidekick_goes_where_its_unit_goes),
    ("slow_units_are_waited_for_and_delay_no_other", trouble::slow_units_are_waited_for_and_delay_no_other),
    ("a_failed_start_says_why", trouble::a_failed_start_says_why),
    ("a_unit_that_goes_round_is_told", trouble::a_unit_that_goes_round_is_told),
    ("a_unit_that_does_not_stop_is_killed", trouble::a_unit_that_does_not_stop_is_killed),
    ("bad_units_among_a_hundred_delay_no_other", many::bad_units_among_a_hundred_delay_no_other),
    ("what_is_done_by_hand_is_respected", behind::what_is_done_by_hand_is_respected),
    ("lost_files_are_put_back", behind::lost_files_are_put_back),
    ("work_goes_on_through_reloads_and_lost_buses", behind::work_goes_on_through_reloads_and_lost_buses),
    ("a_drained_machine_is_empty", placing::a_drained_machine_is_empty),
    ("a_second_machine_with_one_id_is_kept_out", twin::a_second_machine_with_one_id_is_kept_out),
    ("only_those_with_the_secret_are_let_in", secret::only_those_with_the_secret_are_let_in),
    ("a_secret_that_others_can_read_is_named", secret::a_secret_that_others_can_read_is_named),
    ("health_and_readiness_are_told", health::health_and_readiness_are_told),
    ("bad_requests_hold_nothing_up", storm::bad_requests_hold_nothing_up),
    ("a_recorded_fleet_is_played", fleetctl::a_recorded_fleet_is_played),
    ("a_killed_leader_is_replaced", quorum::a_killed_leader_is_replaced),
    ("a_leader_in_the_minority_is_replaced", quorum::a_leader_in_the_minority_is_replaced),
    ("without_a_quorum_nothing_stops", quorum::without_a_quorum_nothing_stops),
    ("hosts_that_stood_still_keep_their_units", quorum::hosts_that_stood_still_keep_their_units),
    ("a_machine_without_power_loses_its_units", loss::a_machine_without_power_loses_its_units),
    ("nothing_acknowledged_is_lost", loss::nothing_acknowledged_is_lost),
    ("units_announce_themselves_without_an_etcd", keys::units_announce_themselves_without_an_etcd),
    ("the_state_may_be_kept_in_etcd", etcd::the_state_may_be_kept_in_etcd),
    ("a_cluster_forms_itself_in_any_order", forming::a_cluster_forms_itself_in_any_order),
    ("two_that_want_to_reboot_do_it_in_turn", rebooting::two_that_want_to_reboot_do_it_in_turn),
    (
        "a_machine_that_cannot_be_emptied_does_not_reboot",
        rebooting::a_machine_that_cannot_be_emptied_does_not_reboot,
    ),
    ("a_machine_joins_by_its_user_data", user_data::a_machine_joins_by_its_user_data),
    ("a_cluster_is_made_by_hand", by_hand::a_cluster_is_made_by_hand),
    ("a_backup_is_restored_by_hand", restore_by_hand::a_backup_is_restored_by_hand),
    (
        "a_rolling_restart_loses_no_write_and_stops_no_unit",
        upgrade::a_rolling_restart_loses_no_write_and_stops_no_unit,
    ),
    (
        "an_upgrade_under_load_waits_for_the_last_machine",
        upgrade::an_upgrade_under_load_waits_for_the_last_machine,
    ),
    ("one_survivor_recovers_the_cluster", backup::one_survivor_recovers_the_cluster),
    ("a_backup_brings_everything_back", backup::a_backup_brings_everything_back),
    ("killed_daemons_lose_nothing", kills::killed_daemons_lose_nothing),
    ("people_are_served_until_they_are_shut_out", callers::people_are_served_until_they_are_shut_out),
    ("a_damaged_store_is_set_aside", damage::a_damaged_store_is_set_aside),
    ("a_global_unit_is_on_machines_that_come_later", joining::a_global_unit_is_on_machines_that_come_later),
];

/// With hosts of their own.
const ALONE: &[(&str, fn())] = &[
    ("the_readme_is_true", packages::the_readme_is_true),
    ("the_readmes_demo_runs", demo::the_readmes_demo_runs),
];

/// Brought up by the first test that needs it.
static CLUSTER: Mutex<Option<Cluster>> = Mutex::new(None);

fn main() -> ExitCode {
    // One rack, one test at a time: they pull each other's cables.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    let trials = SCENARIOS.iter().map(|(name, scenario)| Trial::test(*name, move || run(*scenario)));
    let alone = ALONE.iter().map(|(name, scenario)| Trial::test(*name, move || run_alone(*scenario)));
    let conclusion = libtest_mimic::run(&arguments, trials.chain(alone).collect());
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
        Err(panic) => Err(format!("{}\n{}", text_of(&*panic), cluster.last_words()).into()),
    }
}

/// Runs one that brings up what it needs; what stands is taken down first.
fn run_alone(scenario: fn()) -> Result<(), Failed> {
    drop(CLUSTER.lock().unwrap_or_else(PoisonError::into_inner).take());
    catch_unwind(scenario).map_err(|panic| text_of(&*panic).into())
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string())).unwrap_or_default()
}
