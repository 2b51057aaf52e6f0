//! A real etcd of one member, with its v2 interface, beside which ours is held.

use std::net::SocketAddr;

use etcd_process::Etcd;
use tokio::time::Instant;

use crate::served::{PATIENCE, ask};

pub struct RealEtcd {
    pub address: SocketAddr,
    etcd: Etcd,
}

impl RealEtcd {
    pub async fn start() -> RealEtcd {
        let etcd = Etcd::start(1, &[]).await;
        let endpoint = etcd.endpoints().remove(0);
        let address = endpoint.trim_start_matches("http://").parse().unwrap();
        let real = RealEtcd { address, etcd };
        real.settled().await;
        real
    }

    /// Waits until it has written all that it writes of itself, the cluster's version last.
    async fn settled(&self) {
        let begun = Instant::now();
        loop {
            let version = ask(self.address, "GET", "/version", "").await.text();
            if version.contains("\"etcdcluster\":\"3.4") {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "etcd has no version: {}", self.etcd.log(0));
            tokio::task::yield_now().await;
        }
    }
}
