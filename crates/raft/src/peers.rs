//! The calling side: one HTTP/2 connection to each peer that calls share, opened when needed and dropped when
//! it does not answer; and one of its own for what is large.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::codec;
use crate::message::{Envelope, Hello, Refusal, Response};
use crate::transport::Transport;
use crate::vitals::CallErrors;

/// The largest body taken from or given to a peer: the largest record, which is a snapshot.
pub const BODY_BYTES_MAX: usize = codec::RECORD_BYTES_MAX;
/// A network that carries less in a second is none that a cluster can live on. An entry that never came
/// through in its time would be sent again for ever, and all that comes after it would wait.
const CARRIED_BYTES_MIN: usize = 1 << 20;
/// A peer that does not take a connection by then is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const PEER_PATH: &str = "/peer";

/// How soon a connection whose other end has vanished is given up, while a call waits on it.
#[derive(Clone, Copy)]
pub(crate) struct KeepAlive {
    interval: Duration,
    timeout: Duration,
}

impl KeepAlive {
    /// What nothing else notices the end of waits for this at most. Longer than a slow network takes for what
    /// others have on their way, which a ping waits behind.
    pub(crate) const PATIENT: KeepAlive =
        KeepAlive { interval: Duration::from_secs(2), timeout: Duration::from_secs(3) };
    /// For what is small, and sent again at no cost.
    const QUICK: KeepAlive =
        KeepAlive { interval: Duration::from_millis(500), timeout: Duration::from_secs(1) };
    const SMALL_BYTES_MAX: usize = 1 << 20;
}

pub(crate) type Sender = SendRequest<Full<Bytes>>;

/// The connection to one peer that calls share, and when it was opened.
type Slot = tokio::sync::Mutex<Option<(Instant, Sender)>>;

/// All peers' connections, by address.
pub struct Peers {
    transport: Arc<dyn Transport>,
    open: Mutex<BTreeMap<String, Arc<Slot>>>,
    /// Those that are reached and not understood, such as machines with another secret, and why.
    strange: Mutex<BTreeMap<String, String>>,
    errors: CallErrors,
    /// Where connections are driven, whoever asks first: callers may live on a runtime that is flooded by
    /// strangers, and Raft's calls share these connections.
    runtime: tokio::runtime::Handle,
}

/// Why a call brought no response.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The request was not sent: nothing can have come of it.
    #[error("cannot reach {address}")]
    Unreachable { address: String, source: io::Error },
    /// The request was sent: it may have been carried out.
    #[error("no answer from {address}")]
    NoAnswer { address: String, source: io::Error },
    #[error("{address} refused")]
    Refused { address: String, source: Refusal },
}

impl Peers {
    /// Inside a runtime, which drives the connections.
    pub fn new(transport: Arc<dyn Transport>) -> Arc<Peers> {
        let runtime = tokio::runtime::Handle::current();
        let (open, strange, errors) = Default::default();
        Arc::new(Peers { transport, open, strange, errors, runtime })
    }

    /// Sends one request and waits for its response, `timeout` in all.
    pub async fn call(
        self: &Arc<Self>,
        address: &str,
        envelope: &Envelope,
        timeout: Duration,
    ) -> Result<Response, CallError> {
        let answer = self.called(address, envelope, |_| timeout).await;
        answer.inspect_err(|error| self.errors.note(error))
    }

    /// [`Peers::call`] for what may be large: it has `timeout`, and the time that a slow network takes. The
    /// call goes on when its caller gives up: only a call that has had its time proves a connection dead, and
    /// a caller that always gives up sooner would wait on that connection for ever.
    pub async fn carry(
        self: &Arc<Self>,
        address: &str,
        envelope: Envelope,
        timeout: Duration,
    ) -> Result<Response, CallError> {
        let (peers, to) = (self.clone(), address.to_string());
        let called = self.runtime.spawn(async move {
            let answer = peers.called(&to, &envelope, |bytes| timeout + carrying_time(bytes)).await;
            answer.inspect_err(|error| peers.errors.note(error))
        });
        called.await.unwrap_or_else(|ended| Err(no_answer(address, io::Error::other(ended))))
    }

    /// [`Peers::carry`] for what may be so large that nothing else should wait behind it: it has a connection
    /// of its own. It ends with its caller.
    pub async fn carry_alone(
        &self,
        address: &str,
        envelope: &Envelope,
        timeout: Duration,
    ) -> Result<Response, CallError> {
        let carried = async {
            let body = codec::encode(envelope).map_err(|source| unreachable_at(address, source))?;
            let deadline = Instant::now() + timeout + carrying_time(body.len());
            let is_small = body.len() <= KeepAlive::SMALL_BYTES_MAX;
            let keep_alive = if is_small { KeepAlive::QUICK } else { KeepAlive::PATIENT };
            let connected = self.connect(address, keep_alive).await;
            let (mut sender, connection) = connected.map_err(|source| unreachable_at(address, source))?;
            let mut driver = JoinSet::new();
            driver.spawn_on(connection, &self.runtime);
            let answer =
                tokio::time::timeout_at(deadline, exchange(&mut sender, PEER_PATH, body.into())).await;
            let answer = answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            answered(address, &answer.map_err(|source| no_answer(address, source))?)
        };
        carried.await.inspect_err(|error| self.errors.note(error))
    }

    async fn called(
        self: &Arc<Self>,
        address: &str,
        envelope: &Envelope,
        timeout: impl Fn(usize) -> Duration,
    ) -> Result<Response, CallError> {
        let body = codec::encode(envelope).map_err(|source| unreachable_at(address, source))?;
        let timeout = timeout(body.len());
        answered(address, &self.post(address, PEER_PATH, body.into(), timeout).await?)
    }

    /// Calls that came to nothing since the start, by kind.
    pub fn errors(&self) -> Vec<(&'static str, u64)> {
        self.errors.counts()
    }

    /// Asks who listens there, and tells it who asks.
    pub async fn hello(
        self: &Arc<Self>,
        address: &str,
        me: Option<&Hello>,
        timeout: Duration,
    ) -> Result<Hello, CallError> {
        let body = me.map_or(Ok(Vec::new()), serde_json::to_vec);
        let body = body.map_err(|source| unreachable_at(address, source.into()))?;
        let bytes = self.post(address, "/hello", body.into(), timeout).await?;
        serde_json::from_slice(&bytes).map_err(|source| no_answer(address, io::Error::other(source)))
    }

    async fn post(
        self: &Arc<Self>,
        address: &str,
        path: &str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, CallError> {
        let deadline = Instant::now() + timeout;
        let slot = self.slot(address);
        let connected = tokio::time::timeout_at(deadline, self.sender(address, slot.clone())).await;
        let (since, mut sender) = connected
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|source| unreachable_at(address, source))?;
        let answer = tokio::time::timeout_at(deadline, exchange(&mut sender, path, body)).await;
        match answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(bytes) => Ok(bytes),
            Err(source) => {
                // Whoever did not answer gets a new connection: the old one may lead to a machine that lost
                // its power. Calls that wait on the old one keep it until their own time is up. Another call
                // may have put a new one there already, or be doing so; one that is just taking the old one
                // will find out itself. And a new one has to have its time too: the call may have had little
                // left for it.
                if let Ok(mut open) = slot.try_lock() {
                    open.take_if(|(opened, _)| *opened == since && timeout <= since.elapsed());
                }
                Err(no_answer(address, source))
            }
        }
    }

    /// A connection of its own, and what drives it.
    pub(crate) async fn connect(
        &self,
        address: &str,
        keep_alive: KeepAlive,
    ) -> io::Result<(Sender, impl Future<Output = hyper::Result<()>> + Send + use<>)> {
        let connect = self.transport.connect(address);
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, connect).await?;
        self.note(address, stream.as_ref().err());
        let stream = stream?;
        hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(keep_alive.interval)
            .keep_alive_timeout(keep_alive.timeout)
            // Or one that was left with a full socket keeps what it was to send until TCP gives up.
            .keep_alive_while_idle(true)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)
    }

    /// Machines that cannot be talked to for a reason that time does not mend, and the reason.
    pub fn strangers(&self) -> Vec<String> {
        let strange = self.strange.lock().expect("no holder of this lock panics");
        strange.values().cloned().collect()
    }

    fn note(&self, address: &str, error: Option<&io::Error>) {
        let mut strange = self.strange.lock().expect("no holder of this lock panics");
        match error {
            Some(error) if error.kind() == io::ErrorKind::InvalidData => {
                let text = error.to_string();
                if strange.get(address) != Some(&text) {
                    tracing::warn!("{text}");
                    strange.insert(address.into(), text);
                }
            }
            // A machine that is down now may still be the stranger that it was.
            Some(_) => {}
            None => drop(strange.remove(address)),
        }
    }

    fn slot(&self, address: &str) -> Arc<Slot> {
        let mut open = self.open.lock().expect("no holder of this lock panics");
        open.entry(address.to_string()).or_default().clone()
    }

    /// A connection that is being opened goes on when its caller gives up: a caller that always gives up
    /// sooner than a peer answers would have none for ever. It lives where all of them do, whoever asked.
    async fn sender(self: &Arc<Self>, address: &str, slot: Arc<Slot>) -> io::Result<(Instant, Sender)> {
        let mut open = slot.lock_owned().await;
        if let Some(shared) = open.as_ref().filter(|(_, sender)| !sender.is_closed()) {
            return Ok(shared.clone());
        }
        let (peers, address) = (self.clone(), address.to_string());
        let opened = self.runtime.spawn(async move {
            let (sender, connection) = peers.connect(&address, KeepAlive::PATIENT).await?;
            // It ends when the last sender of this connection is dropped, or when the peer closes it.
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "connection to a peer ended");
                }
            });
            let shared = (Instant::now(), sender);
            *open = Some(shared.clone());
            Ok(shared)
        });
        opened.await.map_err(io::Error::other)?
    }
}

/// One request and the whole of its response.
async fn exchange(sender: &mut Sender, path: &str, body: Bytes) -> io::Result<Bytes> {
    let request = hyper::Request::post(format!("http://peer{path}")).body(Full::new(body));
    let response = sender.send_request(request.map_err(io::Error::other)?).await.map_err(io::Error::other)?;
    if response.status() != hyper::StatusCode::OK {
        return Err(io::Error::other(format!("status {}", response.status())));
    }
    let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
    Ok(body.map_err(io::Error::other)?.to_bytes())
}

fn answered(address: &str, bytes: &[u8]) -> Result<Response, CallError> {
    let response: Result<Response, Refusal> =
        codec::decode(bytes).map_err(|source| no_answer(address, source))?;
    response.map_err(|source| CallError::Refused { address: address.into(), source })
}

/// What so many bytes may take on their way.
pub(crate) const fn carrying_time(bytes: usize) -> Duration {
    Duration::from_micros((bytes as u64 * 1_000_000) / CARRIED_BYTES_MIN as u64)
}

fn unreachable_at(address: &str, source: io::Error) -> CallError {
    CallError::Unreachable { address: address.into(), source }
}

fn no_answer(address: &str, source: io::Error) -> CallError {
    CallError::NoAnswer { address: address.into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Request;
    use crate::transport::{BoxStream, Listener};

    /// The largest entry comes through a network of 100 Mbit/s, and the largest snapshot too.
    #[test]
    fn what_is_large_has_its_time() {
        let slow = |bytes: usize| Duration::from_secs_f64(bytes as f64 * 8.0 / 100e6);
        for bytes in [0, 100, 8 << 20, 12 << 20, BODY_BYTES_MAX] {
            assert!(slow(bytes) <= carrying_time(bytes), "{bytes}");
        }
        assert_eq!(carrying_time(8 << 20), Duration::from_secs(8));
    }

    /// Takes connections after a while and never says anything, like a machine that loses its power.
    #[derive(Default)]
    struct Hole {
        takes: Duration,
        /// Their other ends.
        begun: Mutex<Vec<tokio::io::DuplexStream>>,
    }

    #[async_trait::async_trait]
    impl Transport for Hole {
        async fn connect(&self, _address: &str) -> io::Result<BoxStream> {
            let (ours, theirs) = tokio::io::duplex(1 << 20);
            self.begun.lock().unwrap().push(theirs);
            tokio::time::sleep(self.takes).await;
            Ok(Box::new(ours))
        }

        async fn listen(&self, _address: &str) -> io::Result<Box<dyn Listener>> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    /// A heartbeat, as openraft sends them: given up before its call has had its time.
    async fn beat(peers: &Arc<Peers>) {
        let envelope = Envelope { cluster: "c".into(), to: Some(1), request: Request::Members };
        let call = peers.carry("m2", envelope, Duration::from_millis(500));
        let given_up = tokio::time::timeout(Duration::from_millis(200), call).await;
        assert!(given_up.is_err(), "nobody answers");
    }

    /// A connection that nobody answers on is replaced when a call has had its time, though each caller gave
    /// up before; and once for all the calls that were waiting on it.
    #[tokio::test(start_paused = true)]
    async fn a_dead_connection_is_replaced_though_callers_give_up_early() {
        let hole = Arc::new(Hole::default());
        let peers = Peers::new(hole.clone());
        let begun = || hole.begun.lock().unwrap().len();
        beat(&peers).await;
        beat(&peers).await;
        assert_eq!(begun(), 1);
        beat(&peers).await;
        beat(&peers).await;
        assert_eq!(begun(), 2);
        // Those that began on the first connection end now, and leave the second one alone.
        beat(&peers).await;
        assert_eq!(begun(), 2);
    }

    /// A peer that takes longer for a connection than callers wait, or calls have, gets one.
    #[tokio::test(start_paused = true)]
    async fn a_slow_connection_comes_about_though_callers_give_up_early() {
        let hole = Arc::new(Hole { takes: Duration::from_millis(700), ..Hole::default() });
        let peers = Peers::new(hole.clone());
        for _ in 0..5 {
            beat(&peers).await;
        }
        assert_eq!(hole.begun.lock().unwrap().len(), 1, "each began anew");
    }
}
