//! The one client of the daemon's API. Each request has its own connection, so that a client can be kept for
//! as long as one likes, over restarts of the daemon. Everything but the event stream has a time limit.
//!
//! Called by `corectl` and by tests. It never prints and never tries a change twice: whether a repeat is
//! right is for the caller to say.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster::{Revision, UnitName};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::backup::{BACKUP_BYTES_MAX, Backup, BackupError};
use crate::context::{Context, ContextError};
use crate::events::Events;
use crate::fleet::ErrorBody;
use crate::tls::{self, Remote};
use crate::v1::{Batch, BatchDone, ClusterInit, Machines, Status, Unit, Units};

/// Where the daemon listens unless its configuration says otherwise.
pub const SOCKET_PATH: &str = "/run/coreinit.sock";

/// Longer than the daemon's own longest deadline (10 s), so that its answer, which says more, comes first.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// Forming a cluster writes and syncs a new store before it answers.
pub const INIT_TIMEOUT: Duration = Duration::from_secs(60);

/// A large one, from the daemon of a machine that is busy, through a slow tunnel.
pub const BACKUP_TIMEOUT: Duration = Duration::from_secs(120);

/// The largest answer that is read: some ten thousand units, or the largest backup.
const ANSWER_BYTES_MAX: usize = BACKUP_BYTES_MAX;

/// Its two requests say by a header that they are meant.
const FLEET_LOCK: [&str; 2] = ["/v1/pre-reboot", "/v1/steady-state"];

/// An address of 64 KiB is more than HTTP libraries take. With more names than fit, all units are asked for.
const QUERY_BYTES_MAX: usize = 32 << 10;

/// Where a daemon is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A Unix socket of this machine.
    Unix(PathBuf),
    /// `HOST:PORT`, in plain HTTP.
    Tcp(String),
    /// Any machine of a cluster, by TLS with a certificate.
    Remote(Arc<Remote>),
}

/// A connection in both directions.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A daemon to talk to.
#[derive(Clone, Debug)]
pub struct Client {
    endpoint: Endpoint,
    /// For each request, in place of the usual limits.
    limit: Option<Duration>,
    /// Is told of each request and what it was answered.
    trace: Option<fn(&str)>,
}

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("endpoint {0:?} is neither a path, nor unix://PATH, nor http://HOST:PORT")]
    Endpoint(String),
    #[error("there is no socket {}; is coreinitd running? (systemctl status coreinitd)", .path.display())]
    NoSocket { path: PathBuf },
    #[error("nobody answers at {}; is coreinitd running? (systemctl status coreinitd)", .path.display())]
    NobodyAnswers { path: PathBuf },
    #[error("no permission to use {}: be root, or a member of the socket's group", .path.display())]
    Forbidden { path: PathBuf },
    #[error("cannot connect to {endpoint}")]
    Connect { endpoint: Endpoint, source: std::io::Error },
    #[error("no machine of the cluster answers: {tried}")]
    NoMachine { tried: String },
    /// The two sides do not trust each other.
    #[error("{0}")]
    Distrust(String),
    #[error(transparent)]
    Context(#[from] ContextError),
    #[error("the connection to coreinitd broke")]
    Broken(#[source] hyper::Error),
    #[error("coreinitd has closed the stream")]
    Closed,
    #[error("no answer from coreinitd within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The daemon's own words.
    #[error("{message}")]
    Answer { status: u16, message: String },
    #[error("the answer to {request} is longer than {ANSWER_BYTES_MAX} bytes")]
    TooLarge { request: String },
    #[error("cannot read the answer to {request}")]
    Decode { request: String, source: serde_json::Error },
    #[error("the answer to {request} is no whole backup")]
    Backup { request: String, source: BackupError },
}

impl ClientError {
    /// No daemon was reached, or it went away: the same request may do better later.
    pub fn is_unreachable(&self) -> bool {
        match self {
            ClientError::NoSocket { .. }
            | ClientError::NobodyAnswers { .. }
            | ClientError::Connect { .. }
            | ClientError::NoMachine { .. }
            | ClientError::Broken(_)
            | ClientError::Closed
            | ClientError::Timeout(_) => true,
            ClientError::Answer { status, .. } => matches!(status, 503 | 504),
            ClientError::Endpoint(_)
            | ClientError::Forbidden { .. }
            | ClientError::Distrust(_)
            | ClientError::Context(_)
            | ClientError::TooLarge { .. }
            | ClientError::Backup { .. }
            | ClientError::Decode { .. } => false,
        }
    }

    /// The HTTP status, when there was an answer.
    pub fn status(&self) -> Option<u16> {
        match self {
            ClientError::Answer { status, .. } => Some(*status),
            _ => None,
        }
    }
}

impl Endpoint {
    /// The cluster of that context, with its certificate.
    pub fn remote(context: &Context) -> Result<Endpoint, ClientError> {
        Ok(Endpoint::Remote(Arc::new(Remote::new(context)?)))
    }

    /// `/path/of/socket`, `unix:///path/of/socket` or `http://HOST:PORT`.
    pub fn parse(text: &str) -> Result<Endpoint, ClientError> {
        if let Some(rest) = text.strip_prefix("http://") {
            let authority = rest.trim_end_matches('/');
            if authority.is_empty() || authority.contains(['/', '?', '#', '@', ' ']) {
                return Err(ClientError::Endpoint(text.into()));
            }
            // A colon may be part of an IPv6 address, which stands in brackets.
            let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
            let port = if has_port { "" } else { ":80" };
            return Ok(Endpoint::Tcp(format!("{authority}{port}")));
        }
        let path = text.strip_prefix("unix://").unwrap_or(text);
        if !path.starts_with('/') {
            return Err(ClientError::Endpoint(text.into()));
        }
        Ok(Endpoint::Unix(path.into()))
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Endpoint::Unix(path) => write!(f, "{}", path.display()),
            Endpoint::Tcp(authority) => write!(f, "http://{authority}"),
            Endpoint::Remote(remote) => f.write_str(&remote.addresses().join(", ")),
        }
    }
}

impl Default for Endpoint {
    fn default() -> Endpoint {
        Endpoint::Unix(SOCKET_PATH.into())
    }
}

impl Client {
    /// Nothing is connected yet: the first request is the first to know whether somebody is there.
    pub fn new(endpoint: Endpoint) -> Client {
        Client { endpoint, limit: None, trace: None }
    }

    /// Gives every request this time instead of the usual, which outlasts the daemon's own limits.
    pub fn with_limit(mut self, limit: Option<Duration>) -> Client {
        self.limit = limit;
        self
    }

    pub fn with_trace(mut self, trace: Option<fn(&str)>) -> Client {
        self.trace = trace;
        self
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("/v1/status").await
    }

    /// The named units, or all; names that are not in the cluster are left out. A stale read asks this
    /// machine alone.
    pub async fn units(&self, names: &[UnitName], stale: bool) -> Result<Units, ClientError> {
        let mut query = Query::default();
        query.stale(stale);
        let all = query.0.clone();
        query.units(names);
        if query.0.len() <= QUERY_BYTES_MAX {
            return self.get(&format!("/v1/units{}", query.0)).await;
        }
        let wanted: BTreeSet<&UnitName> = names.iter().collect();
        let mut found: Units = self.get(&format!("/v1/units{all}")).await?;
        found.units.retain(|unit| wanted.contains(&unit.name));
        Ok(found)
    }

    /// One unit with its text; `None` when it is not in the cluster.
    pub async fn unit(&self, name: &UnitName, stale: bool) -> Result<Option<Unit>, ClientError> {
        let mut query = Query::default();
        query.stale(stale);
        let found = self.get(&format!("/v1/units/{}{}", escape(name.as_str()), query.0)).await;
        match found {
            Err(ClientError::Answer { status: 404, .. }) => Ok(None),
            found => found.map(Some),
        }
    }

    /// Makes several changes at once. After a timeout or status 504 they may or may not have been made.
    pub async fn batch(&self, batch: &Batch) -> Result<BatchDone, ClientError> {
        self.post("/v1/units", batch, REQUEST_TIMEOUT).await
    }

    pub async fn machines(&self, stale: bool) -> Result<Machines, ClientError> {
        let mut query = Query::default();
        query.stale(stale);
        self.get(&format!("/v1/machines{}", query.0)).await
    }

    /// Makes a new cluster of the daemon's machine alone.
    pub async fn cluster_init(&self, init: &ClusterInit) -> Result<Status, ClientError> {
        self.post("/v1/cluster/init", init, INIT_TIMEOUT).await
    }

    /// The cluster's state as a backup file, whole and checked.
    pub async fn backup(&self) -> Result<(Backup, Bytes), ClientError> {
        let request = "GET /v1/cluster/backup".to_string();
        let bytes = self.exchange(Method::GET, "/v1/cluster/backup", None, BACKUP_TIMEOUT).await?;
        match Backup::from_bytes(&bytes) {
            Ok(backup) => Ok((backup, bytes)),
            Err(source) => Err(ClientError::Backup { request, source }),
        }
    }

    /// What stands and then every change; or, with `after`, only what changed since that revision, if the
    /// daemon still knows. With names, only those units and no machines. It outlives lost connections, see
    /// [`Events`].
    pub fn events(&self, after: Option<Revision>, names: &[UnitName]) -> Events {
        Events::new(self.clone(), names.to_vec(), after)
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, path, None, REQUEST_TIMEOUT).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        limit: Duration,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).expect("the API's types have string keys only");
        self.ask(Method::POST, path, Some(body.into()), limit).await
    }

    /// A change whose good answer says nothing more.
    pub(crate) async fn order(
        &self,
        path: &str,
        body: &impl Serialize,
        limit: Duration,
    ) -> Result<(), ClientError> {
        let body = serde_json::to_vec(body).expect("the API's types have string keys only");
        self.exchange(Method::POST, path, Some(body.into()), limit).await.map(drop)
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        limit: Duration,
    ) -> Result<T, ClientError> {
        let request = format!("{method} {path}");
        let bytes = self.exchange(method, path, body, limit).await?;
        serde_json::from_slice(&bytes).map_err(|source| ClientError::Decode { request, source })
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        limit: Duration,
    ) -> Result<Bytes, ClientError> {
        let name = format!("{method} {path}");
        let limit = self.limit.unwrap_or(limit);
        let exchange = async {
            let mut request = Request::builder().method(method).uri(path).header(header::HOST, self.host());
            if body.is_some() {
                request = request.header(header::CONTENT_TYPE, "application/json");
            }
            if FLEET_LOCK.contains(&path) {
                request = request.header("fleet-lock-protocol", "true");
            }
            let request = request
                .body(Full::new(body.unwrap_or_default()))
                .expect("the paths of this module are well-formed");
            let (response, _connection) = self.send(request).await?;
            collect(response, &name).await
        };
        timeout(limit, exchange).await.map_err(|_| ClientError::Timeout(limit))?
    }

    pub(crate) fn host(&self) -> &str {
        match &self.endpoint {
            Endpoint::Unix(_) | Endpoint::Remote(_) => "localhost",
            Endpoint::Tcp(authority) => authority,
        }
    }

    /// The head of the answer, and what drives the connection for as long as it is kept.
    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, JoinSet<()>), ClientError> {
        let stream: Box<dyn Stream> = match &self.endpoint {
            Endpoint::Unix(path) => {
                Box::new(UnixStream::connect(path).await.map_err(|source| connect_error(path, source))?)
            }
            Endpoint::Tcp(authority) => {
                let connected = TcpStream::connect(authority).await;
                let endpoint = self.endpoint.clone();
                Box::new(connected.map_err(|source| ClientError::Connect { endpoint, source })?)
            }
            Endpoint::Remote(remote) => Box::new(remote.connect().await?),
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // A broken connection is reported by the request that it breaks.
            let _ = connection.await;
        });
        let asked = self.trace.map(|_| format!("{} {}", request.method(), request.uri()));
        let response = sender.send_request(request).await.map_err(broken)?;
        if let (Some(trace), Some(asked)) = (self.trace, asked) {
            trace(&format!("{asked}: {}", response.status()));
        }
        Ok((response, driver))
    }
}

/// In TLS 1.3, a caller whose certificate is not taken hears so in place of the answer.
fn broken(error: hyper::Error) -> ClientError {
    tls::alert(&error).map_or(ClientError::Broken(error), |told| ClientError::Distrust(told.into()))
}

fn connect_error(path: &Path, source: std::io::Error) -> ClientError {
    let path = path.to_owned();
    match source.kind() {
        std::io::ErrorKind::NotFound => ClientError::NoSocket { path },
        std::io::ErrorKind::ConnectionRefused => ClientError::NobodyAnswers { path },
        std::io::ErrorKind::PermissionDenied => ClientError::Forbidden { path },
        _ => ClientError::Connect { endpoint: Endpoint::Unix(path), source },
    }
}

/// The body of a good answer; the daemon's words of a bad one.
pub(crate) async fn collect(response: Response<Incoming>, request: &str) -> Result<Bytes, ClientError> {
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let bytes = match body {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            return Err(match error.downcast::<hyper::Error>() {
                Ok(error) => ClientError::Broken(*error),
                Err(error) => {
                    debug_assert!(error.is::<LengthLimitError>());
                    ClientError::TooLarge { request: request.into() }
                }
            });
        }
    };
    if status.is_success() { Ok(bytes) } else { Err(answer_error(status, &bytes)) }
}

/// FleetLock's errors have a body of their own.
#[derive(serde::Deserialize)]
struct FleetLockError {
    value: String,
}

fn answer_error(status: StatusCode, body: &[u8]) -> ClientError {
    let message = match serde_json::from_slice::<ErrorBody>(body) {
        Ok(body) if !body.error.message.is_empty() => body.error.message,
        _ => match serde_json::from_slice::<FleetLockError>(body) {
            Ok(body) => body.value,
            Err(_) => format!("coreinitd answered {status}"),
        },
    };
    ClientError::Answer { status: status.as_u16(), message }
}

/// The part of a request's path from `?` on.
#[derive(Default)]
pub(crate) struct Query(pub(crate) String);

impl Query {
    pub(crate) fn add(&mut self, key: &str, value: &str) {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(key);
        self.0.push('=');
        self.0.push_str(&escape(value));
    }

    fn stale(&mut self, stale: bool) {
        if stale {
            self.add("stale", "true");
        }
    }

    fn units(&mut self, names: &[UnitName]) {
        for name in names {
            self.add("unit", name.as_str());
        }
    }
}

/// Percent-encodes what RFC 3986 does not call unreserved.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => escaped.push(byte.into()),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_carry_any_unit_name() {
        let mut query = Query::default();
        query.stale(true);
        query.units(&[UnitName::new(r"a\x2d@8000.service").unwrap()]);
        assert_eq!(query.0, "?stale=true&unit=a%5Cx2d%408000.service");
    }

    #[test]
    fn an_endpoint_is_a_path_or_a_host() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(Endpoint::parse(text).ok().map(|e| e.to_string()).as_deref(), expected, "{text}");
        };
        check("/run/coreinit.sock", Some("/run/coreinit.sock"));
        check("unix:///run/x", Some("/run/x"));
        check("coreinit.sock", None);
        check("http://10.0.0.1:7340", Some("http://10.0.0.1:7340"));
        check("http://[::1]:7340/", Some("http://[::1]:7340"));
        check("http://h1", Some("http://h1:80"));
        check("http://", None);
        check("https://h1", None);
        check("http://h1/fleet/v1", None);
    }
}
