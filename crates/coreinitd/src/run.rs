//! Builds the rooms, hands each what it needs, and waits for all of them to end.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use cluster::{Liveness, MachineId, MachineInfo};
use etcd_compat::EtcdStore;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use identity::{Authority, Keyring, PeopleTls, Secret, Tls};
use raft::{Disk, DiskError, EngineKind, FlushMode, Options, RaftStore, Tcp, Timing, Transport};
use sd_notify::NotifyState;
use store::{Role, Store};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::{Config, Engine, Etcd};
use crate::systemd::{DBus, UnitManager};
use crate::{agent, asking, capacity, http, leader, leave, presence};

/// The work of handing over the lead is given so long at a planned stop.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(3);
/// Rooms that have not ended by then are left to the process's end; units are not touched by either.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs the daemon until SIGTERM or SIGINT, or until its store fails.
pub async fn run(config: Config) -> anyhow::Result<()> {
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
    let keyring = keyring(&config, &stopping)?;
    let backend = match &config.etcd {
        None => on_raft(&config, &version, keyring.as_ref(), &stopping).await?,
        Some(etcd) => on_etcd(&config, etcd, &stopping)?,
    };
    let units = DBus::connect(config.bus.clone(), config.units_dir()).await;
    let units = Arc::new(units.context("cannot reach systemd over D-Bus; is dbus running?")?);
    serve(config, version, backend, keyring, units, stop).await
}

/// Where the cluster's state is kept, and what only that can do.
struct Backend {
    store: Arc<dyn Store>,
    init: http::InitCluster,
    ask: http::AskMachine,
    /// Does the store's work.
    driver: BoxFuture<'static, ()>,
    /// Says why the store must not be used further.
    failed: watch::Receiver<Option<String>>,
}

async fn on_raft(
    config: &Config,
    version: &str,
    keyring: Option<&Arc<Keyring>>,
    stopping: &watch::Receiver<bool>,
) -> anyhow::Result<Backend> {
    let disk = open_disk(config)?;
    let failed = disk.failed();
    let transport: Arc<dyn Transport> = match keyring {
        Some(keyring) => Arc::new(Tls::new(keyring.clone())),
        None => Arc::new(Tcp),
    };
    let (store, driver) = RaftStore::start(options(config, version), disk, transport, stopping.clone())
        .await
        .with_context(|| format!("cannot listen for other machines on {}", config.listen))?;
    let dir = config.data_dir.display();
    tracing::info!(%dir, "backend = \"raft\": the daemons keep the state themselves");
    Ok(Backend {
        init: init_hook(store.clone()),
        ask: ask_hook(store.clone(), config.machine.clone(), stopping.clone()),
        store: Arc::new(store),
        driver: driver.boxed(),
        failed,
    })
}

fn on_etcd(config: &Config, etcd: &Etcd, stopping: &watch::Receiver<bool>) -> anyhow::Result<Backend> {
    let dir = config.data_dir.display();
    let (store, driver) = EtcdStore::start(etcd.options(config), stopping.clone())
        .with_context(|| format!("cannot use the folder {dir}"))?;
    let endpoints = etcd.endpoints.join(", ");
    tracing::info!(endpoints, prefix = etcd.prefix, "backend = \"etcd\": the state is kept there");
    let (_, failed) = watch::channel(None);
    Ok(Backend {
        init: etcd_init_hook(),
        ask: etcd_ask_hook(config.machine.clone(), stopping.clone()),
        store: Arc::new(store),
        driver: driver.boxed(),
        failed,
    })
}

/// With the cluster's secret, what machines and people know this one by.
fn keyring(config: &Config, stopping: &watch::Receiver<bool>) -> anyhow::Result<Option<Arc<Keyring>>> {
    let Some(path) = &config.cluster_secret_file else { return Ok(None) };
    let secret = Secret::read(path).context("cannot use cluster_secret_file")?;
    let keyring = Keyring::new(Authority::of(&secret)?, config.machine.clone())?;
    let (fresh, mut stopping) = (keyring.clone(), stopping.clone());
    tokio::spawn(async move {
        tokio::select! {
            // Cancel-safe: it only waits, or has renewed.
            () = fresh.keep_fresh() => {}
            _ = stopping.wait_for(|stop| *stop) => {}
        }
    });
    Ok(Some(keyring))
}

/// What callers may do, and how people are invited.
fn access(config: &Config, keyring: Option<&Arc<Keyring>>) -> http::Access {
    let (socket_role, tcp_role) = (config.socket_role, config.api_listen_role);
    let Some(keyring) = keyring.cloned() else {
        return http::Access { socket_role, tcp_role, ..http::Access::default() };
    };
    let authority = keyring.authority().certificate_pem();
    let port = config.api_tls_listen.as_ref().and_then(|at| at.rsplit_once(':')?.1.parse().ok());
    let issue: http::IssuePerson = Arc::new(move |name, role, lifetime| {
        let lifetime = lifetime.try_into().map_err(|error| format!("cannot count so far: {error}"))?;
        let issued = keyring.authority().issue_person(name, role, lifetime);
        issued.map_err(|error| format!("{:#}", anyhow::Error::new(error)))
    });
    http::Access { socket_role, tcp_role, invite: Ok(http::Inviting { issue, authority, port }) }
}

/// Everything but the store's and systemd's beginnings: those differ in tests.
async fn serve(
    config: Config,
    version: String,
    backend: Backend,
    keyring: Option<Arc<Keyring>>,
    units: Arc<dyn UnitManager>,
    stop: watch::Sender<bool>,
) -> anyhow::Result<()> {
    let stopping = stop.subscribe();
    let Backend { store: dynamic, init, ask, driver, mut failed } = backend;
    let mut rooms = JoinSet::new();
    let driver = tokio::spawn(driver);
    let parts = http::HttpParts {
        store: dynamic.clone(),
        machine: config.machine.clone(),
        version: version.clone(),
        init,
        ask,
        access: access(&config, keyring.as_ref()),
    };
    let served = http::run(parts, doors(&config, keyring.as_ref()).await?, stopping.clone());
    rooms.spawn(async move {
        if let Err(error) = served.await {
            tracing::error!(%error, "the API has failed");
        }
    });
    rooms.spawn(leader::run(dynamic.clone(), config.machine_lost_after, stopping.clone()));
    let capacity = capacity::read(Path::new("/proc"));
    let info = MachineInfo {
        name: config.machine_name.clone(),
        address: config.address(),
        version,
        metadata: config.metadata.clone(),
        memory_bytes: capacity.memory_bytes,
        cpu_millis: capacity.cpu_millis,
    };
    rooms.spawn(presence::run(dynamic.clone(), config.machine.clone(), info, stopping.clone()));
    let marks_dir = config.runtime_dir.join("done");
    let parts = agent::AgentParts {
        machine: config.machine.clone(),
        store: dynamic.clone(),
        units: units.clone(),
        marks_dir: marks_dir.clone(),
    };
    // The agent may have to end before the others.
    let (stop_agent, agent_stopping) = watch::channel(false);
    let mut agent = JoinSet::new();
    agent.spawn(agent::run(parts, agent_stopping));
    rooms.spawn(watchdog(stopping));
    notify(&[NotifyState::Ready]);

    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let ended = tokio::select! {
        // Cancel-safe: all of these only wait, and the daemon stops after the first.
        _ = term.recv() => Ok(()),
        _ = int.recv() => Ok(()),
        Ok(reason) = failed.wait_for(Option::is_some) => {
            let reason = reason.clone().unwrap_or_default();
            Err(anyhow::anyhow!("the store failed and must not be used further: {reason}"))
        }
        Some(room) = rooms.join_next() => Err(anyhow::anyhow!("a part of it ended by itself: {room:?}")),
        Some(room) = agent.join_next() => Err(anyhow::anyhow!("a part of it ended by itself: {room:?}")),
    };
    notify(&[NotifyState::Stopping]);
    stop_agent.send_replace(true);
    // Units are stopped when somebody stops the daemon, never because it has failed.
    if config.stop_units_on_exit && ended.is_ok() {
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
        let _ = driver.await;
    };
    if tokio::time::timeout(STOP_TIMEOUT, all).await.is_err() {
        tracing::warn!("some parts of the daemon did not end in time");
    }
    ended
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
                    "{damage}. No other machine holds this state: `join` names none. Put a backup in the \
                     place of {} (`corectl cluster restore`), or move it away to begin anew",
                    dir.display()
                );
            }
            let aside = raft::set_aside(dir).context("cannot set the damaged store aside")?;
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

fn init_hook(store: RaftStore) -> http::InitCluster {
    Arc::new(move |name| {
        let store = store.clone();
        Box::pin(async move {
            store.init(name).await.map_err(|error| match error {
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

/// What a machine's own programs say of a unit: asked for here, or of the daemon there. Streams end when this
/// daemon stops.
fn ask_hook(store: RaftStore, own: MachineId, stopping: watch::Receiver<bool>) -> http::AskMachine {
    store.answer_with(Arc::new(|question| Box::pin(asking::answer(question))));
    Arc::new(move |machine, question| {
        let (store, is_own, mut stopping) = (store.clone(), machine == own, stopping.clone());
        Box::pin(async move {
            let words = match is_own {
                true => asking::here(&question).await?,
                false => {
                    let asked = store.ask(&machine, asking::encode(&question)).await;
                    asked.map_err(|error| format!("{:#}", anyhow::Error::new(error)))?
                }
            };
            let stopped = async move { drop(stopping.wait_for(|stop| *stop).await) };
            Ok(words.take_until(stopped.boxed()).boxed())
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

/// In etcd mode the daemons have no port for each other: each answers for its own machine.
fn etcd_ask_hook(own: MachineId, stopping: watch::Receiver<bool>) -> http::AskMachine {
    Arc::new(move |machine, question| {
        let (is_own, mut stopping) = (machine == own, stopping.clone());
        Box::pin(async move {
            if !is_own {
                return Err(format!(
                    "with backend = \"etcd\" a daemon tells only of its own machine; ask the one of machine \
                     {machine}, such as by `corectl --tunnel` or `corectl ssh`"
                ));
            }
            let words = asking::here(&question).await?;
            let stopped = async move { drop(stopping.wait_for(|stop| *stop).await) };
            Ok(words.take_until(stopped.boxed()).boxed())
        })
    })
}

/// Tells systemd's watchdog that the runtime still turns.
async fn watchdog(mut stop: watch::Receiver<bool>) {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        let _ = stop.wait_for(|stop| *stop).await;
        return;
    };
    let mut tick = tokio::time::interval(limit / 3);
    loop {
        tokio::select! {
            // Cancel-safe: both only wait.
            _ = tick.tick() => notify(&[NotifyState::Watchdog]),
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd was not told");
    }
}
