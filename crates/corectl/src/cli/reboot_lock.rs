//! What can be typed after `corectl reboot-lock`.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use clap_complete::engine::ArgValueCompleter;

use crate::completion::machines;

#[derive(Debug, Subcommand)]
pub enum RebootLockCommand {
    /// List the groups, how many of their slots are taken, and by whom
    List,
    /// Give a machine's slot back in its place, such as when it does not come back
    Release {
        /// Its name, or the beginning of its id
        #[arg(value_name = "MACHINE", add = ArgValueCompleter::new(machines))]
        machine: String,
        /// Only the slot in this group [default: in all]
        #[arg(long)]
        group: Option<String>,
    },
    /// Set how many machines of a group may reboot at a time; 0 keeps all of them from it
    SetMax {
        #[arg(value_name = "N")]
        slots: u32,
        #[arg(long, default_value = GROUP)]
        group: String,
    },
    /// Take a slot, and wait until the machine is drained and may reboot
    Take {
        /// Its name, or the beginning of its id [default: this machine]
        #[arg(value_name = "MACHINE", add = ArgValueCompleter::new(machines))]
        machine: Option<String>,
        #[command(flatten)]
        slot: Slot,
    },
    /// Reboot this machine in its turn: take a slot, wait until it is drained, and reboot
    Reboot {
        /// Whether to wait for a slot
        #[arg(long, env = "REBOOT_STRATEGY", value_enum, default_value_t = RebootStrategy::BestEffort)]
        strategy: RebootStrategy,
        #[command(flatten)]
        slot: Slot,
    },
    /// Give this machine's slot back, once it runs again
    Done {
        #[arg(long, env = "REBOOT_GROUP", default_value = GROUP)]
        group: String,
    },
}

/// What Zincati is in unless it is told otherwise.
const GROUP: &str = "default";

#[derive(Debug, Args)]
pub struct Slot {
    /// The group whose slots it shares
    #[arg(long, env = "REBOOT_GROUP", default_value = GROUP)]
    pub group: String,
    /// Wait no longer than this, such as 90s or 30min [default: as long as it takes]
    #[arg(long, value_name = "TIME", value_parser = super::time)]
    pub timeout: Option<Duration>,
}

/// As CoreOS's update.conf has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RebootStrategy {
    /// As etcd-lock when the machine belongs to a cluster, else as reboot
    BestEffort,
    /// Wait for a slot of the cluster's reboot lock; no etcd is needed
    EtcdLock,
    /// Reboot at once
    Reboot,
    /// Do not reboot
    Off,
}
