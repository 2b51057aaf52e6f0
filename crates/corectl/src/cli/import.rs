//! What can be typed after `corectl import`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub enum ImportCommand {
    /// A fleet cluster's units and what is wanted of them, from fleet's own keys; nothing there is changed
    Fleet(FleetSource),
}

#[derive(Debug, Args)]
pub struct FleetSource {
    /// A member of fleet's etcd, with its v2 interface
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:2379")]
    pub etcd: String,
    /// fleet's etcd_key_prefix
    #[arg(long, value_name = "PREFIX", default_value = etcd_compat::FLEET_PREFIX)]
    pub prefix: String,
    /// Only tell what would be taken over
    #[arg(long)]
    pub dry_run: bool,
    /// Replace units that are here already and have other files
    #[arg(long)]
    pub replace: bool,
    /// Who vouches for an https etcd, in PEM
    #[arg(long, value_name = "FILE")]
    pub etcd_ca: Option<PathBuf>,
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub etcd_cert: Option<PathBuf>,
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub etcd_key: Option<PathBuf>,
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub etcd_user: Option<String>,
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub etcd_password_file: Option<PathBuf>,
}
