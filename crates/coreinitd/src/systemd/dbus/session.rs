//! The two connections: made, watched, and made again.

use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::task::JoinSet;
use zbus::fdo::DBusProxy;
use zbus::message::{Message, Type};
use zbus::names::UniqueName;
use zbus::{Connection, MatchRule, MessageStream, ObjectPath, connection};
use zbus_systemd::systemd1::ManagerProxy;

use super::{Link, Shared};

/// systemd answers slowly while it reads thousands of units again.
const CALL_TIMEOUT: Duration = Duration::from_secs(25);
/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(200);
/// Signals of one stream that wait for its task; a start of many units brings thousands in a second.
const SIGNALS_MAX: NonZero<usize> = NonZero::new(4096).expect("it is not zero");

/// Both connections, subscribed, and the streams of the first.
pub struct Session {
    link: Link,
    jobs: MessageStream,
    hints: [MessageStream; 2],
    /// Ends when systemd has left the bus, or has come anew.
    owner: MessageStream,
    /// Kept: its streams end with it.
    _signals: Connection,
}

/// Keeps a session open, whatever happens to the bus and to systemd.
pub async fn keep(shared: Arc<Shared>, first: Session) {
    let mut session = first;
    loop {
        serve(&shared, session).await;
        shared.link.send_replace(None);
        // Nobody hears of ends while there is no session.
        shared.jobs.missed_some();
        tracing::warn!("the connection to systemd is lost");
        session = loop {
            match open(&shared).await {
                Ok(session) => break session,
                Err(error) => tracing::debug!(%error, "systemd cannot be reached yet"),
            }
            tokio::time::sleep(PAUSE).await;
        };
        tracing::info!("the connection to systemd is back");
        shared.jobs.missed_some();
    }
}

/// Connects twice and subscribes. systemd says nothing of what happened before, so everything is to be looked
/// at again.
pub async fn open(shared: &Shared) -> zbus::Result<Session> {
    let connecting = async {
        let signals = connect(shared).await?;
        let bus = DBusProxy::new(&signals).await?;
        let owner_rule = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender("org.freedesktop.DBus")
            .interface("org.freedesktop.DBus")
            .member("NameOwnerChanged")
            .add_arg("org.freedesktop.systemd1")
            .build()?;
        let owner = MessageStream::for_match_rule(owner_rule, &signals, Some(SIGNALS_MAX)).await?;
        let systemd = bus.get_name_owner("org.freedesktop.systemd1".try_into()?).await?;
        let jobs = manager_signal(&signals, &systemd, "JobRemoved").await?;
        let reloads = manager_signal(&signals, &systemd, "Reloading").await?;
        let properties = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender(systemd.inner().clone())
            .interface("org.freedesktop.DBus.Properties")
            .member("PropertiesChanged")
            .path_namespace("/org/freedesktop/systemd1/unit")
            // ActiveState is a property of every unit; what changes of a service beside it is of no interest.
            .add_arg("org.freedesktop.systemd1.Unit")
            .build()?;
        let properties = MessageStream::for_match_rule(properties, &signals, Some(SIGNALS_MAX)).await?;
        ManagerProxy::new(&signals).await?.subscribe().await?;
        let connection = connect(shared).await?;
        let manager = ManagerProxy::builder(&connection)
            .cache_properties(zbus::proxy::CacheProperties::No)
            .build()
            .await?;
        let link = Link { connection, manager };
        Ok(Session { link, jobs, hints: [reloads, properties], owner, _signals: signals })
    };
    match tokio::time::timeout(CALL_TIMEOUT, connecting).await {
        Ok(session) => session,
        Err(_) => Err(zbus::Error::Failure("no answer in time".into())),
    }
}

async fn connect(shared: &Shared) -> zbus::Result<Connection> {
    let builder = match &shared.bus {
        Some(address) => connection::Builder::address(address.as_str()),
        None => connection::Builder::system(),
    };
    builder.method_timeout(CALL_TIMEOUT).build().await
}

async fn manager_signal(
    connection: &Connection,
    systemd: &UniqueName<'_>,
    member: &'static str,
) -> zbus::Result<MessageStream> {
    let rule = MatchRule::builder()
        .msg_type(Type::Signal)
        .sender(systemd.clone())
        .interface("org.freedesktop.systemd1.Manager")
        .member(member)
        .build()?;
    MessageStream::for_match_rule(rule, connection, Some(SIGNALS_MAX)).await
}

/// Passes on what the streams bring, each in a task of its own, until the first of them ends.
async fn serve(shared: &Arc<Shared>, session: Session) {
    let Session { link, jobs, hints, mut owner, _signals } = session;
    let mut tasks = JoinSet::new();
    let to_jobs = shared.clone();
    tasks.spawn(drain(jobs, move |message| {
        let body = message.body();
        if let Ok((_, job, _, result)) = body.deserialize::<(u32, ObjectPath, &str, &str)>() {
            to_jobs.jobs.ended(job.as_str(), result);
        }
        to_jobs.hint();
    }));
    for stream in hints {
        let shared = shared.clone();
        tasks.spawn(drain(stream, move |_| shared.hint()));
    }
    tasks.spawn(async move {
        // Any change of owner, and the stream's end alike.
        owner.next().await;
    });
    shared.link.send_replace(Some(link));
    shared.hint();
    tasks.join_next().await;
}

async fn drain<S>(mut stream: S, mut each: impl FnMut(&Message))
where
    S: Stream<Item = zbus::Result<Message>> + Unpin,
{
    while let Some(message) = stream.next().await {
        if let Ok(message) = message {
            each(&message);
        }
    }
}
