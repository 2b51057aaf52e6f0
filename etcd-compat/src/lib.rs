//! The store on an etcd that stands already, as on CoreOS: on etcd's v3 interface or on its v2 one, whichever
//! is there. Nothing of etcd's libraries leaves this crate; the daemon sees `store::Store`.

mod belonging;
mod detect;
mod etcd_store;
mod fleet;
mod http;
pub mod offline;
mod options;
mod presence;
mod reads;
mod record;
mod shared;
mod tls;
mod v2;
mod v3;

pub use etcd_store::EtcdStore;
pub use fleet::{FLEET_PREFIX, FleetCluster, FleetUnit, read_fleet};
pub use options::{Api, Options, PREFIX, Tls, User};
