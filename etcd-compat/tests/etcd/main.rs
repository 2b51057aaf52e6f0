//! The store on real etcd processes: what every store promises, and what becomes of it when etcd fails.

mod both;
mod certificates;
mod denied;
mod fleet;
mod lead;
mod restored;
mod strangers;
mod v2;
mod v3;
mod wire;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cluster::{Command, DesiredState};
use etcd_compat::{Api, EtcdStore, Options, PREFIX};
use store::conformance::{Member, PATIENCE, machine, set, unit};
use store::{Role, Store};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use etcd_process::Etcd;
use wire::Wire;

/// For whoever asks again and again.
pub const MOMENT: Duration = Duration::from_millis(100);

/// Machines with a store on etcd, in this process.
pub struct Machines {
    pub members: Vec<Member>,
    pub stop: watch::Sender<bool>,
    pub drivers: JoinSet<()>,
}

pub fn options(id: &str, dir: &Path, endpoints: Vec<String>, api: Option<Api>) -> Options {
    Options {
        machine: machine(id),
        endpoints,
        api,
        prefix: PREFIX.into(),
        user: None,
        tls: None,
        cluster_name: "test".into(),
        peer: Some(format!("{id}:7340")),
        dir: dir.join(id),
    }
}

pub fn leads(role: &Role) -> bool {
    matches!(role, Role::Leader { .. })
}

pub fn write(name: &str) -> Command {
    set(&unit(&format!("{name}.service")), name, DesiredState::Inactive)
}

/// Proposes until it is made; what a failing etcd leaves unknown is asked again.
pub async fn written(member: &Member, name: &str) {
    let begin = Instant::now();
    loop {
        match member.try_propose(vec![write(name)]).await {
            Ok(committed) => return assert!(committed.outcomes[0].is_ok()),
            Err(error) => assert!(begin.elapsed() < PATIENCE, "{error}"),
        }
    }
}

/// Waits until the store says what is wrong with etcd.
pub async fn troubled(member: &Member, expected: &str) {
    let begin = Instant::now();
    while !member.store.trouble().is_some_and(|trouble| trouble.contains(expected)) {
        assert!(
            begin.elapsed() < PATIENCE,
            "{}: {expected:?} in {:?}",
            member.machine,
            member.store.trouble()
        );
        // Asking takes a moment, or as long as it may.
        let _ = member.store.read(Instant::now() + MOMENT).await;
        tokio::task::yield_now().await;
    }
}

/// Waits until nothing is wrong with etcd.
pub async fn calm(member: &Member) {
    let begin = Instant::now();
    while let Some(trouble) = member.store.trouble() {
        assert!(begin.elapsed() < PATIENCE, "{}: {trouble}", member.machine);
        let _ = member.store.read(Instant::now() + MOMENT).await;
        tokio::task::yield_now().await;
    }
}

impl Machines {
    pub fn start(etcd: &Etcd, ids: &[&str], api: Option<Api>) -> Machines {
        let (stop, _) = watch::channel(false);
        let mut machines = Machines { members: Vec::new(), stop, drivers: JoinSet::new() };
        for id in ids {
            machines.add(options(id, etcd.dir(), etcd.endpoints(), api));
        }
        machines
    }

    /// One machine, which leads.
    pub async fn led(etcd: &Etcd, api: Option<Api>) -> (Machines, Member) {
        let machines = Machines::start(etcd, &["m1"], api);
        let member = machines.members[0].clone();
        member.until_role("the lead", leads).await;
        (machines, member)
    }

    /// One machine that leads, and another that reaches etcd over a wire.
    pub async fn near_and_far(etcd: &Etcd, api: Option<Api>) -> (Machines, Member, Wire, Member) {
        let (mut machines, near) = Machines::led(etcd, api).await;
        let wire = Wire::to(&etcd.endpoints()[0]).await;
        let far = machines.add(options("m2", etcd.dir(), vec![wire.endpoint.clone()], api));
        (machines, near, wire, far)
    }

    pub fn add(&mut self, options: Options) -> Member {
        let machine = options.machine.clone();
        let (store, driver) = EtcdStore::start(options, self.stop.subscribe()).unwrap();
        self.drivers.spawn(driver);
        let store: Arc<dyn Store> = Arc::new(store);
        let member = Member { machine, store };
        self.members.push(member.clone());
        member
    }

    pub async fn end(self) {
        self.stop.send_replace(true);
        self.drivers.join_all().await;
    }
}
