//! Builds the rooms, hands each what it needs, and waits for all of them to end.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use cluster::{Liveness, MachineInfo};
use etcd_compat::EtcdStore;
use futures::FutureExt;
use futures::future::BoxFuture;
use identity::{Greeted, Keyring, PeopleTls, Tls};
use raft::{Disk, DiskError, EngineKind, FlushMode, Options, RaftStore, Tcp, Timing, Transport};
use sd_notify::NotifyState;
use store::{Role, Store};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::by_hand::{self, Anew, ByHand, Closed};
use crate::config::{Config, Engine, Etcd};
use crate::keys::{KEPT_FILE, Keys};
use crate::lookup::Names;
use crate::others::MachinePort;
use crate::signs::Signs;
use crate::systemd::{DBus, UnitManager};
use crate::{
    agent, capacity, clocks, disk_watch, http, key_door, keys, leader, leave, others, presence, reboot,
    rotation, trust,
};

/// The work of handing over the lead is given so long at a planned stop.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(3);
/// Machines with tokens that wait to be heard; more ask again.
const JOINERS_WAITING: usize = 16;
/// Callers of the API with good certificates that wait to be served; more are let go.
const PEOPLE_WAITING: usize = 64;
/// Rooms that have not ended by then are left to the process's end; units are not touched by either.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// A part of the daemon that has not gone round for so long never will. With systemd's calls at their slowest
/// a round of the agent takes a minute or two.
const STUCK_MAX: Duration = Duration::from_secs(300);

/// How a run of the daemon ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Stopped,
    /// It has another place in the world now, and is to begin anew.
    Anew,
}

/// Runs the daemon until SIGTERM or SIGINT, until its store fails, or until it is to begin anew.
pub async fn run(config: Config) -> anyhow::Result<Ended> {
    let version = env!("CARGO_PKG_VERSION").to_string();
    tracing::info!(version, machine = %config.machine, name = config.machine_name, "coreinitd starts");
    if config.exposed {
        tracing::warn!(
            listen = config.listen,
            "insecure_transport: the port is open to other machines, and nothing on it is encrypted"
        );
    }
    for note in &config.notes {
        tracing::warn!("{note}");
    }
    let (stop, stopping) = watch::channel(false);
    let signs = Arc::new(Signs::new(&config));
    let keys = Keys::open(&config, &signs, &stopping)?;
    // The store outlives the requests that are under way: they would wait for it in vain.
    let (stop_store, store_stopping) = watch::channel(false);
    let backend = match &config.etcd {
        None => on_raft(&config, &version, keys.as_ref(), &stopping, &store_stopping).await?,
        Some(etcd) => {
            let keyring = keys.as_ref().map(|keys| keys.keyring.clone());
            on_etcd(&config, etcd, &version, keyring, &stopping, &store_stopping).await?
        }
    };
    let units = DBus::connect(config.bus.clone(), config.units_dir()).await;
    let units = Arc::new(units.context("cannot reach systemd over D-Bus; is dbus running?")?);
    serve(config, version, backend, keys, units, signs, (stop, stop_store)).await
}

/// Where the cluster's state is kept, and what only that can do.
struct Backend {
    store: Arc<dyn Store>,
    init: http::InitCluster,
    ask: http::AskMachine,
    membership: Option<Arc<dyn http::Membership>>,
    /// Whether this machine was removed.
    expelled: watch::Receiver<bool>,
    /// Somebody has given this machine another place.
    anew: mpsc::Receiver<Anew>,
    /// Callers of the API who came by the machines' port.
    people: Option<mpsc::Receiver<Greeted>>,
    /// Does the store's work.
    driver: BoxFuture<'static, ()>,
    /// Says why the store must not be used further.
    failed: watch::Receiver<Option<String>>,
}

async fn on_raft(
    config: &Config,
    version: &str,
    keys: Option<&Arc<Keys>>,
    stopping: &watch::Receiver<bool>,
    store_stopping: &watch::Receiver<bool>,
) -> anyhow::Result<Backend> {
    let disk = open_disk(config)?;
    let failed = disk.failed();
    let (joiners, joining) = mpsc::channel(JOINERS_WAITING);
    let (people, greeted) = mpsc::channel(PEOPLE_WAITING);
    let transport: Arc<dyn Transport> = match keys {
        Some(keys) => Arc::new(Tls::new(keys.keyring.clone()).with_joiners(joiners).with_people(people)),
        None if config.by_hand => Arc::new(Closed),
        None => Arc::new(Tcp),
    };
    let (store, driver) = RaftStore::start(options(config, version), disk, transport, store_stopping.clone())
        .await
        .with_context(|| format!("cannot listen for other machines on {}", config.listen))?;
    if let Some(keys) = keys {
        let admit = by_hand::admission(store.clone(), keys.clone(), store.address().into());
        tokio::spawn(identity::joining::admit(joining, admit, stopping.clone()));
    }
    if let Some(trust) = &config.trust {
        let dir = config.data_dir.clone();
        tokio::spawn(by_hand::remember(store.clone(), dir, trust.clone(), stopping.clone()));
    }
    let (begin, anew) = mpsc::channel(1);
    let by_hand = ByHand::new(config, keys.cloned(), begin, version);
    let by_hand = Arc::new(by_hand);
    let dir = config.data_dir.display();
    tracing::info!(%dir, "backend = \"raft\": the daemons keep the state themselves");
    Ok(Backend {
        init: match config.by_hand && config.trust.is_none() {
            true => by_hand_init_hook(by_hand.clone()),
            false => init_hook(store.clone()),
        },
        ask: others::ask_hook(others::by_raft(store.clone()), config.machine.clone(), stopping.clone()),
        membership: Some(by_hand),
        expelled: store.expelled(),
        anew,
        people: keys.map(|_| greeted),
        store: Arc::new(store),
        driver: driver.boxed(),
        failed,
    })
}

async fn on_etcd(
    config: &Config,
    etcd: &Etcd,
    version: &str,
    keyring: Option<Arc<Keyring>>,
    stopping: &watch::Receiver<bool>,
    store_stopping: &watch::Receiver<bool>,
) -> anyhow::Result<Backend> {
    let (people, greeted) = mpsc::channel(PEOPLE_WAITING);
    let people_come = keyring.is_some();
    let port = match keyring {
        Some(keyring) => Some(MachinePort::open(config, version, (keyring, people), stopping).await?),
        None => None,
    };
    let mut options = etcd.options(config);
    let unknown = |address: &String| address.starts_with("0.0.0.0:") || address.starts_with("[::]:");
    options.peer = port.as_ref().map(|port| port.address().to_string()).filter(|at| !unknown(at));
    let dir = config.data_dir.display();
    let (store, driver) = EtcdStore::start(options, store_stopping.clone())
        .with_context(|| format!("cannot use the folder {dir}"))?;
    let endpoints = etcd.endpoints.join(", ");
    tracing::info!(endpoints, prefix = etcd.prefix, "backend = \"etcd\": the state is kept there");
    let (_, failed) = watch::channel(None);
    let (_, expelled) = watch::channel(false);
    let (_, anew) = mpsc::channel(1);
    let other = port.map_or_else(others::nobody, |port| port.asks_for(store.clone()));
    Ok(Backend {
        init: etcd_init_hook(),
        ask: others::ask_hook(other, config.machine.clone(), stopping.clone()),
        membership: None,
        expelled,
        anew,
        people: people_come.then_some(greeted),
        store: Arc::new(store),
        driver: driver.boxed(),
        failed,
    })
}

/// Everything but the store's and systemd's beginnings: those differ in tests.
async fn serve(
    config: Config,
    version: String,
    backend: Backend,
    keys: Option<Arc<Keys>>,
    units: Arc<dyn UnitManager>,
    signs: Arc<Signs>,
    (stop, stop_store): (watch::Sender<bool>, watch::Sender<bool>),
) -> anyhow::Result<Ended> {
    let stopping = stop.subscribe();
    let Backend { store: dynamic, init, ask, membership, people, driver, .. } = backend;
    let Backend { mut expelled, mut anew, mut failed, .. } = backend;
    let keyring = keys.as_ref().map(|keys| keys.keyring.clone());
    let mut rooms = JoinSet::new();
    let driver = tokio::spawn(driver);
    rooms.spawn(clocks::run(
        dynamic.clone(),
        config.machine.clone(),
        ask.clone(),
        signs.clone(),
        stopping.clone(),
    ));
    let parts = http::HttpParts {
        store: dynamic.clone(),
        machine: config.machine.clone(),
        version: version.clone(),
        signs: signs.clone(),
        init,
        ask,
        membership,
        access: keys::access(&config, keyring.as_ref()),
    };
    let mut doors = doors(&config, keyring.as_ref()).await?;
    doors.extend(people.map(|people| http::Door::Greeted(people.into())));
    let served = http::run(parts, doors, stopping.clone());
    rooms.spawn(async move {
        if let Err(error) = served.await {
            tracing::error!(%error, "the API has failed");
        }
    });
    if let Some(keys) = keys {
        rooms.spawn(rotation::run(dynamic.clone(), keys, config.machine.clone(), stopping.clone()));
    }
    for room in key_door::rooms(&config, &dynamic, &version, &signs, &stopping).await? {
        rooms.spawn(room);
    }
    rooms.spawn(leader::run(dynamic.clone(), config.machine_lost_after, signs.clone(), stopping.clone()));
    rooms.spawn(reboot::run(dynamic.clone(), stopping.clone()));
    rooms.spawn(disk_watch::run(config.data_dir.clone(), signs.clone(), stopping.clone()));
    let capacity = capacity::read(Path::new("/proc"));
    let info = MachineInfo {
        name: config.machine_name.clone(),
        address: config.address(),
        version,
        metadata: config.metadata.clone(),
        memory_bytes: capacity.memory_bytes,
        cpu_millis: capacity.cpu_millis,
        feature_level: cluster::FEATURE_LEVEL,
    };
    rooms.spawn(presence::run(
        dynamic.clone(),
        config.machine.clone(),
        info,
        signs.clone(),
        stopping.clone(),
    ));
    let marks_dir = config.runtime_dir.join("done");
    let parts = agent::AgentParts {
        machine: config.machine.clone(),
        store: dynamic.clone(),
        units: units.clone(),
        marks_dir: marks_dir.clone(),
        signs: signs.clone(),
    };
    // The agent may have to end before the others.
    let (stop_agent, agent_stopping) = watch::channel(false);
    let mut agent = JoinSet::new();
    agent.spawn(agent::run(parts, agent_stopping));
    rooms.spawn(watchdog(signs, stopping));
    notify(&[NotifyState::Ready]);

    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let ended = tokio::select! {
        // Cancel-safe: all of these only wait, and the daemon stops after the first.
        _ = term.recv() => Ok(None),
        _ = int.recv() => Ok(None),
        Some(why) = anew.recv() => Ok(Some(why)),
        Ok(_) = expelled.wait_for(|expelled| *expelled) => Ok(Some(Anew::Expelled)),
        Ok(reason) = failed.wait_for(Option::is_some) => {
            let reason = reason.clone().unwrap_or_default();
            Err(anyhow::anyhow!("the store failed and must not be used further: {reason}"))
        }
        Some(room) = rooms.join_next() => Err(anyhow::anyhow!("a part of it ended by itself: {room:?}")),
        Some(room) = agent.join_next() => Err(anyhow::anyhow!("a part of it ended by itself: {room:?}")),
    };
    // Whoever has said so and begins anew in the same process is killed by systemd for not ending.
    if !matches!(ended, Ok(Some(_))) || http::is_handed_over() {
        notify(&[NotifyState::Stopping]);
    }
    stop_agent.send_replace(true);
    // Units are stopped when somebody stops the daemon, never because it has failed. Those of a machine that
    // was removed run elsewhere.
    let leaves = matches!(ended, Ok(Some(Anew::Expelled)));
    if leaves || config.stop_units_on_exit && matches!(ended, Ok(None)) {
        let limit = leave::LEAVE_TIMEOUT + HAND_OVER_TIMEOUT + STOP_TIMEOUT;
        notify(&[NotifyState::ExtendTimeoutUsec(limit.as_micros().try_into().unwrap_or(u32::MAX))]);
        while agent.join_next().await.is_some() {}
        leave::leave(&*units, &marks_dir).await;
        tracing::info!("coreinitd stops, and its units have stopped");
    } else {
        tracing::info!("coreinitd stops; units go on");
    }
    dynamic.give_up_lead(HAND_OVER_TIMEOUT).await;
    stop.send_replace(true);
    let all = async {
        while agent.join_next().await.is_some() {}
        while rooms.join_next().await.is_some() {}
        stop_store.send_replace(true);
        let _ = driver.await;
    };
    if tokio::time::timeout(STOP_TIMEOUT, all).await.is_err() {
        tracing::warn!("some parts of the daemon did not end in time");
    }
    match ended? {
        None => Ok(Ended::Stopped),
        Some(why) => {
            if why == Anew::Expelled {
                by_hand::forget(&config.data_dir, &config.machine).context("cannot leave the cluster")?;
            }
            tracing::info!("coreinitd begins anew");
            Ok(Ended::Anew)
        }
    }
}

/// Every socket that the API is served on: those that systemd has handed over, and those of the configuration
/// that are not among them.
async fn doors(config: &Config, keyring: Option<&Arc<Keyring>>) -> anyhow::Result<Vec<http::Door>> {
    let mut doors = http::handed_over()?;
    for path in [&config.socket].into_iter().chain(&config.fleet_socket) {
        if !doors.iter().any(|door| door.is_at(path)) {
            doors.push(http::bind(path).await?.into());
        }
    }
    for address in &config.api_listen {
        let taken = |door: &http::Door| door.tcp_address().is_some_and(|at| at.to_string() == *address);
        if !doors.iter().any(taken) {
            doors.push(http::bind_tcp(address).await?.into());
        }
    }
    ensure!(
        doors.len() <= http::DOORS_MAX,
        "the API is to be served on {} sockets, and {} are the most",
        doors.len(),
        http::DOORS_MAX
    );
    for address in doors.iter().filter_map(http::Door::tcp_address) {
        if !address.ip().to_canonical().is_loopback() {
            ensure!(
                config.insecure_transport,
                "systemd has handed over a socket at {address}, which opens the API to other machines, and \
                 nothing on it is encrypted or checked; if the network is yours alone, say so with \
                 insecure_transport = true"
            );
            tracing::warn!(
                %address,
                "insecure_transport: whoever reaches this address may do all that api_listen_role may"
            );
        }
        tracing::info!(%address, "the API is served over TCP");
    }
    if let (Some(address), Some(keyring)) = (&config.api_tls_listen, keyring) {
        doors.push(http::Door::Tls(http::bind_tcp(address).await?, Arc::new(PeopleTls::new(keyring))));
        tracing::info!(address, "the API is served over TLS, to people with certificates");
    }
    Ok(doors)
}

fn options(config: &Config, version: &str) -> Options {
    Options {
        machine: config.machine.clone(),
        version: version.into(),
        listen: config.listen.clone(),
        advertise: config.advertise.clone(),
        bootstrap_expect: config.bootstrap_expect,
        join: config.join.clone(),
        lookup: Arc::<Names>::default(),
        cluster_name: config.cluster_name.clone(),
        timing: Timing::default(),
        seed: None,
    }
}

pub(crate) fn kind(engine: Engine) -> EngineKind {
    match engine {
        Engine::Sled => EngineKind::Sled,
        Engine::Redb => EngineKind::Redb,
    }
}

/// Only looks at the store in `dir`, for [`raft::probe::probe`]; the answer is this process's exit code.
pub fn check_store(dir: &Path, engine: Engine) -> u8 {
    raft::probe::answer(dir, kind(engine))
}

/// Opens the store. One that is damaged is never served: it is set aside, and the machine comes back as a
/// new member.
fn open_disk(config: &Config) -> anyhow::Result<Disk> {
    let dir = &config.data_dir;
    let engine = kind(config.engine);
    let open = || Disk::open(dir, engine.clone(), FlushMode::Thread);
    // Over damaged files the engine may end its process, so another one looks first.
    match probe(config).and_then(|()| open()) {
        Ok(disk) => Ok(disk),
        Err(damage @ DiskError::Damaged { .. }) => {
            tracing::error!(dir = %dir.display(), "the store will not be used: {damage}");
            if config.join.is_empty() {
                bail!(
                    "{damage}. No other machine holds this state: `join` names none. Put a backup in its \
                     place (corectl cluster restore --replace FILE), or move {} away to begin anew",
                    dir.display()
                );
            }
            let aside = raft::set_aside(dir, raft::ASIDE_DAMAGED, &[trust::FILE, KEPT_FILE]);
            let aside = aside.context("cannot set the damaged store aside")?;
            tracing::error!(
                "the damaged store was set aside as {}; joining as a new member",
                aside.display()
            );
            Ok(open()?)
        }
        Err(error) => Err(error).with_context(|| format!("cannot open the store in {}", dir.display())),
    }
}

fn probe(config: &Config) -> Result<(), DiskError> {
    let dir = &config.data_dir;
    let own = std::env::current_exe();
    let own = own.map_err(|source| DiskError::Io { path: dir.clone(), source })?;
    let engine = format!("--engine={}", config.engine.name());
    let mut look = Command::new(own);
    look.arg(format!("--check-store={}", dir.display())).arg(engine).env_remove("NOTIFY_SOCKET");
    raft::probe::probe(dir, look)
}

/// The answer comes when it is written down; the daemon is the cluster when it has begun anew.
fn by_hand_init_hook(by_hand: Arc<ByHand>) -> http::InitCluster {
    Arc::new(move |wish| {
        let by_hand = by_hand.clone();
        Box::pin(async move { by_hand.init(wish) })
    })
}

fn init_hook(store: RaftStore) -> http::InitCluster {
    Arc::new(move |wish| {
        let store = store.clone();
        Box::pin(async move {
            if wish.advertise.is_some() {
                let reason = "this machine's configuration says where others reach it: set `advertise` there";
                return Err(http::InitError::Failed { reason: reason.into() });
            }
            store.init(wish.name).await.map_err(|error| match error {
                raft::InitError::Exists { id } => http::InitError::Exists { id },
                raft::InitError::Failed { reason } => http::InitError::Failed { reason },
            })?;
            // The answer comes when the machine can be used: it leads and is on the schedule.
            let (mut role, mut state) = (store.role(), store.state());
            let gone = |_| http::InitError::Failed { reason: "the daemon is stopping".into() };
            role.wait_for(|role| matches!(role, Role::Leader { .. })).await.map_err(gone)?;
            let ready = |m: &Arc<cluster::Machine>| m.liveness == Liveness::Ready;
            state.wait_for(|state| state.machines.values().any(ready)).await.map_err(gone)?;
            Ok(())
        })
    })
}

/// A cluster in etcd forms itself: the first daemon that leads writes it down.
fn etcd_init_hook() -> http::InitCluster {
    Arc::new(|_| {
        let reason = "with backend = \"etcd\" a cluster forms by itself, as soon as etcd answers";
        Box::pin(async move { Err(http::InitError::Failed { reason: reason.into() }) })
    })
}

/// Tells systemd's watchdog that the runtime still turns, and every room with it: a daemon of which a part is
/// stuck for good is started anew, which touches no unit.
async fn watchdog(signs: Arc<Signs>, mut stop: watch::Receiver<bool>) {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        let _ = stop.wait_for(|stop| *stop).await;
        return;
    };
    let mut tick = tokio::time::interval(limit / 3);
    loop {
        tokio::select! {
            // Cancel-safe: both only wait.
            _ = tick.tick() => {
                let is_stuck = |(_, silence): &(_, Option<Duration>)| silence.is_some_and(|s| STUCK_MAX < s);
                match signs.rooms().iter().find(|room| is_stuck(room)) {
                    None => notify(&[NotifyState::Watchdog]),
                    Some((room, _)) => tracing::error!(room, "the daemon's {room} is stuck: systemd ends it"),
                }
            }
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd was not told");
    }
}
