//! The pure core: what a unit file is, what the cluster knows, how a command changes it, where a unit goes,
//! and what one machine has to do. Every decision of the system is here, as plain functions over values.
//!
//! Nothing here reads a clock, draws a random number, does I/O or awaits: every replica must come to the same
//! state.
//!
//! The front door: [`UnitFile::parse`], [`ClusterState::apply`], [`schedule`], [`plan`].

mod activation;
mod admission;
mod apply;
mod command;
mod explain;
mod feature_level;
mod glob;
mod global;
mod ids;
mod invariant;
mod key_space;
mod need;
mod person;
mod plan;
mod reboot;
mod record;
mod relocate;
mod requirement;
mod room;
mod rotation;
mod schedule;
mod state;
mod unit_file;
mod unit_name;

pub use activation::activated_unit;
pub use command::{Applied, Change, Command, Kind, Outcome, Rejected};
pub use explain::{Explanation, Opinion, explain};
pub use feature_level::FEATURE_LEVEL;
pub use global::wanted_on;
pub use ids::{Generation, IdError, MachineId, Revision};
pub use key_space::{
    KEY_DEPTH_MAX, KEY_EVENTS_BYTES_MAX, KEY_EVENTS_MAX, KEY_PATH_BYTES_MAX, KEY_VALUE_BYTES_MAX,
    KEYS_BYTES_MAX, KEYS_MAX, KeyAction, KeyChange, KeyContent, KeyEnd, KeyError, KeyEvent, KeyFault,
    KeyNode, KeyNodes, KeyPath, KeyPathError, KeySeen, KeySpace, KeyWas,
};
pub use person::{Person, PersonError, PersonName, PersonRole};
pub use plan::{Action, Current, Desired, Job, JobKind, plan};
pub use reboot::{
    DrainStep, REBOOT_SLOTS_MAX, REBOOT_SLOTS_USUAL, RebootChange, RebootGroup, RebootGroupError,
    RebootGroupName, RebootHolder, drain_obstacle, drain_step,
};
pub use record::{
    Assignment, Cluster, Condition, DesiredState, Expelled, Failure, Leaving, Liveness, Machine, MachineInfo,
    Observed, Token, Unit,
};
pub use relocate::{MoveRefused, Relocation, move_unit, rebalance};
pub use requirement::{
    OptionName, RequirementError, Requirements, Warning, is_global, launch_states, option_names, validate,
};
pub use room::{TOLD_BYTES_MAX, UNITS_BYTES_MAX};
pub use rotation::{Rotation, RotationPhase, RotationStep};
pub use schedule::{Decision, Schedule, Scheduler, Unplaced, schedule};
pub use state::{ClusterState, Weigh, Weighed, differences};
pub use unit_file::{UNIT_FILE_BYTES_MAX, UnitFile, UnitFileError, UnitHash, UnitOption};
pub use unit_name::{UnitName, UnitNameError};
