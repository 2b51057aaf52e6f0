//! What a unit file asks of its home, and what a set of units asks of each other.

use std::collections::BTreeSet;

use crate::{DesiredState, UnitName};

/// What a unit file's `[X-Coreinit]` and `[X-Fleet]` sections ask of the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requirements {}

/// The desired state of each unit of one `corectl start`: launched, but loaded for a service whose socket is started with
/// it, since the socket starts it when somebody calls.
pub fn launch_states(names: &BTreeSet<UnitName>) -> Vec<(UnitName, DesiredState)> {
    names
        .iter()
        .map(|name| {
            let socket = name.with_suffix("socket").ok().filter(|_| name.suffix() == "service");
            let awaited = socket.is_some_and(|socket| names.contains(&socket));
            let state = if awaited { DesiredState::Loaded } else { DesiredState::Launched };
            (name.clone(), state)
        })
        .collect()
}
