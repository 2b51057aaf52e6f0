//! What can be typed after `corectl generate`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::TokenWish;

#[derive(Debug, Subcommand)]
pub enum GenerateCommand {
    /// As an Ignition configuration, for Flatcar and Fedora CoreOS
    Ignition(Generate),
    /// As a #cloud-config, for cloud-init or for `coreinitd --cloud-config`
    CloudConfig {
        #[command(flatten)]
        wish: Generate,
        /// Who is to read it
        #[arg(long = "for", value_enum, default_value_t = Dialect::CloudInit, value_name = "READER")]
        dialect: Dialect,
    },
    /// As a Butane configuration, out of which `butane` makes an Ignition one
    Butane {
        #[command(flatten)]
        wish: Generate,
        /// What the machine runs
        #[arg(long, value_enum, default_value_t = Variant::Flatcar)]
        variant: Variant,
    },
}

/// What a new machine is given at its first boot.
#[derive(Debug, Args)]
pub struct Generate {
    #[command(flatten)]
    pub wish: TokenWish,
    /// Use this token instead of making one
    #[arg(long, value_name = "TOKEN", conflicts_with_all = ["ttl", "uses"])]
    pub token: Option<String>,
    /// A member that lets the machine in, HOST or HOST:PORT; may be given more than once [default: all]
    #[arg(long = "address", value_name = "ADDRESS")]
    pub addresses: Vec<String>,
    /// Metadata of the machine; may be given more than once
    #[arg(long, value_name = "KEY=VALUE")]
    pub metadata: Vec<String>,
    /// Have the machine fetch coreinitd and corectl from below this URL, for one that has no package of them
    #[arg(long, value_name = "URL")]
    pub programs: Option<String>,
    /// How the machine reboots when an update asks for it
    #[arg(long, value_name = "STRATEGY", value_parser = ["best-effort", "etcd-lock", "reboot", "off"])]
    pub reboot_strategy: Option<String>,
    /// Write it into a new file of mode 0600, not to standard output
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// Of `#cloud-config`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Dialect {
    /// As most images for clouds have it
    CloudInit,
    /// `coreinitd --cloud-config`, and CoreOS's own
    Coreos,
}

/// Of Butane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Variant {
    Flatcar,
    /// Fedora CoreOS
    Fcos,
}
