//! The connection to one member of etcd at a time, and the next one when it fails. A balancing channel would
//! go on sending every third request to a member that is cut off from the others.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{
    Certificate, Client, ConnectOptions, GetOptions, Identity, KvClient, TlsOptions, WatchClient,
};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::trouble::{NO_SPACE, Trouble, chain, of_tls};
use crate::options::Options;
use crate::shared::Shared;

/// From the first packet to an answer that a majority of etcd stands behind.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two rounds through all members. A machine must be back well before it counts as lost.
const ROUND_PAUSE: Duration = Duration::from_millis(300);
/// etcd closes connections that ask for a sign of life more often than every 5 s.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(6), Duration::from_secs(3));
/// The default of 4 MiB is less than two large unit files.
const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// A member that has answered.
pub struct Connection {
    pub number: u64,
    pub endpoint: String,
    /// Of etcd: revisions of two clusters have nothing to do with each other.
    pub cluster_id: u64,
    client: Client,
}

impl Connection {
    pub fn kv(&self) -> KvClient {
        self.client.kv_client().max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub fn watches(&self) -> WatchClient {
        self.client.watch_client().max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub fn client(&self) -> Client {
        self.client.clone()
    }
}

pub struct Link {
    shared: Arc<Shared>,
    current: watch::Sender<Option<Arc<Connection>>>,
}

impl Link {
    pub fn new(shared: Arc<Shared>) -> Link {
        Link { shared, current: watch::Sender::new(None) }
    }

    pub fn current(&self) -> Option<Arc<Connection>> {
        self.current.borrow().clone()
    }

    /// Waits for a connection; `None` when there is none by the deadline.
    pub async fn connected(&self, deadline: Instant) -> Option<Arc<Connection>> {
        let mut current = self.current.subscribe();
        let found = tokio::time::timeout_at(deadline, current.wait_for(Option::is_some)).await;
        found.ok()?.ok()?.clone()
    }

    /// Waits for a connection.
    pub async fn ready(&self) -> Arc<Connection> {
        let mut current = self.current.subscribe();
        loop {
            let found = current.wait_for(Option::is_some).await;
            match found.ok().and_then(|found| found.clone()) {
                Some(found) => return found,
                // The sender is a part of this link.
                None => std::future::pending().await,
            }
        }
    }

    /// Until connection `number` is no more the current one.
    pub async fn replaced(&self, number: u64) {
        let mut current = self.current.subscribe();
        let other = |now: &Option<Arc<Connection>>| now.as_ref().is_none_or(|now| now.number != number);
        let _ = current.wait_for(other).await;
    }

    /// Something went wrong on connection `number`: the next member is tried, unless it would say the same.
    pub fn fails(&self, number: u64, trouble: &Trouble) {
        match trouble {
            Trouble::Refused(why) => self.shared.set_denied(Some(why.clone())),
            Trouble::TooLarge(_) => {}
            Trouble::Stranger(why) | Trouble::NotTaken(why) | Trouble::Unknown(why) => {
                self.failed(number, why);
            }
        }
    }

    /// Connection `number` did not do what it should: the next member is tried.
    pub fn failed(&self, number: u64, reason: &str) {
        self.current.send_if_modified(|current| {
            let is_current = current.as_ref().is_some_and(|now| now.number == number);
            if is_current {
                let endpoint = current.take().map(|now| now.endpoint.clone()).unwrap_or_default();
                tracing::warn!(endpoint, reason, "a member of etcd does not serve; trying the next");
            }
            is_current
        });
    }

    /// Keeps a connection for as long as it is polled.
    pub async fn run(&self) {
        let endpoints = &self.shared.options.endpoints;
        let (mut next, mut number) = (0, 0);
        let mut current = self.current.subscribe();
        loop {
            let _ = current.wait_for(Option::is_none).await;
            let mut reasons = Vec::new();
            for step in 0..endpoints.len() {
                let at = (next + step) % endpoints.len();
                let endpoint = &endpoints[at];
                let connected = timeout(CONNECT_TIMEOUT, connect(&self.shared.options, endpoint)).await;
                let connected = connected
                    .unwrap_or_else(|_| Err(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs())));
                match connected {
                    Ok((client, found)) => {
                        number += 1;
                        next = at + 1;
                        let cluster_id = found.cluster_id;
                        tracing::info!(endpoint, number, "using etcd {}", found.told);
                        self.shared.set_trouble(None);
                        if found.is_full {
                            self.shared.set_denied(Some(NO_SPACE.into()));
                        }
                        let endpoint = endpoint.clone();
                        let connection = Connection { number, endpoint, cluster_id, client };
                        self.current.send_replace(Some(Arc::new(connection)));
                        break;
                    }
                    Err(reason) => reasons.push(format!("{endpoint}: {reason}")),
                }
            }
            if reasons.len() == endpoints.len() {
                self.shared.set_trouble(Some(reasons.join("; ")));
                tokio::time::sleep(ROUND_PAUSE).await;
            }
        }
    }
}

struct Found {
    cluster_id: u64,
    /// Version, size, members: for people.
    told: String,
    is_full: bool,
}

/// Connects to one member, and has it prove that a majority of etcd stands behind it.
async fn connect(options: &Options, endpoint: &str) -> Result<(Client, Found), String> {
    let told = |error: &etcd_client::Error| match Trouble::of(error) {
        Trouble::Refused(reason) | Trouble::Stranger(reason) => reason,
        _ => of_tls(error, options.tls.as_ref()).unwrap_or_else(|| chain(error)),
    };
    let mut how = ConnectOptions::new()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_keep_alive(KEEP_ALIVE.0, KEEP_ALIVE.1)
        .with_require_leader(true)
        .with_auto_token_refresh(true);
    if let Some(user) = &options.user {
        how = how.with_user(&user.name, &user.password);
    }
    if let (Some(tls), true) = (&options.tls, endpoint.starts_with("https://")) {
        let mut told = TlsOptions::new().ca_certificate(Certificate::from_pem(&tls.ca));
        if let Some((certificate, key)) = &tls.identity {
            told = told.identity(Identity::from_pem(certificate, key));
        }
        how = how.with_tls(told);
    }
    let mut client = Client::connect([endpoint], Some(how)).await.map_err(|error| told(&error))?;
    // Answered only by a member that has a leader, and counts the records at the same time.
    let count = GetOptions::new().with_prefix().with_count_only();
    let answer = client.get(&*options.prefix, Some(count)).await.map_err(|error| told(&error))?;
    let cluster_id = answer.header().map_or(0, |header| header.cluster_id());
    let keys = answer.count();
    // Where users are checked, not everybody may ask this.
    let (mut version, mut is_full) = (String::new(), false);
    if let Ok(status) = client.status().await {
        version = format!("{}, {} KiB, ", status.version(), status.db_size() / 1024);
        check_version(status.version())?;
        if status.is_learner() {
            return Err("it is a learner, which serves nobody".into());
        }
        is_full = status.errors().iter().any(|error| error.contains("NOSPACE"));
    }
    let told = format!("{version}cluster {cluster_id:x}, {keys} keys under {}", options.prefix);
    Ok((client, Found { cluster_id, told, is_full }))
}

/// Comparing a range of keys came with 3.3.
fn check_version(version: &str) -> Result<(), String> {
    let mut numbers = version.split('.').map_while(|part| part.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) < (3, 3) => {
            Err(format!("it is etcd {version}; 3.3 or later is needed, or etcd_api = \"v2\""))
        }
        _ => Ok(()),
    }
}
