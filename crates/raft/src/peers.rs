//! The calling side: one HTTP/2 connection to each peer, opened when needed and dropped when it does not
//! answer.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

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
/// How soon a connection whose other end has vanished is given up, while a call waits on it.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);

pub(crate) type Sender = SendRequest<Full<Bytes>>;

/// All peers' connections, by address.
pub struct Peers {
    transport: Arc<dyn Transport>,
    open: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<Option<Sender>>>>>,
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
    pub fn new(transport: Arc<dyn Transport>) -> Peers {
        let runtime = tokio::runtime::Handle::current();
        let (open, strange, errors) = Default::default();
        Peers { transport, open, strange, errors, runtime }
    }

    /// Sends one request and waits for its response, `timeout` in all.
    pub async fn call(
        &self,
        address: &str,
        envelope: &Envelope,
        timeout: Duration,
    ) -> Result<Response, CallError> {
        let answer = self.called(address, envelope, |_| timeout).await;
        answer.inspect_err(|error| self.errors.note(error))
    }

    /// [`Peers::call`] for what may be large: it has `timeout`, and the time that a slow network takes.
    pub async fn carry(
        &self,
        address: &str,
        envelope: &Envelope,
        timeout: Duration,
    ) -> Result<Response, CallError> {
        let answer = self.called(address, envelope, |bytes| timeout + carrying_time(bytes)).await;
        answer.inspect_err(|error| self.errors.note(error))
    }

    async fn called(
        &self,
        address: &str,
        envelope: &Envelope,
        timeout: impl Fn(usize) -> Duration,
    ) -> Result<Response, CallError> {
        let body = codec::encode(envelope).map_err(|source| unreachable_at(address, source))?;
        let timeout = timeout(body.len());
        let bytes = self.post(address, "/peer", body.into(), timeout).await?;
        let response: Result<Response, Refusal> =
            codec::decode(&bytes).map_err(|source| no_answer(address, source))?;
        response.map_err(|source| CallError::Refused { address: address.into(), source })
    }

    /// Calls that came to nothing since the start, by kind.
    pub fn errors(&self) -> Vec<(&'static str, u64)> {
        self.errors.counts()
    }

    /// Asks who listens there, and tells it who asks.
    pub async fn hello(
        &self,
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
        &self,
        address: &str,
        path: &str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, CallError> {
        let deadline = tokio::time::Instant::now() + timeout;
        let slot = self.slot(address);
        let connected = tokio::time::timeout_at(deadline, self.sender(address, &slot)).await;
        let mut sender = connected
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|source| unreachable_at(address, source))?;
        let request = hyper::Request::post(format!("http://peer{path}"))
            .body(Full::new(body))
            .map_err(|source| unreachable_at(address, io::Error::other(source)))?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(io::Error::other)?;
            if response.status() != hyper::StatusCode::OK {
                return Err(io::Error::other(format!("status {}", response.status())));
            }
            let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
            Ok(body.map_err(io::Error::other)?.to_bytes())
        };
        let answer = tokio::time::timeout_at(deadline, exchange).await;
        match answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(bytes) => Ok(bytes),
            Err(source) => {
                // Whoever did not answer gets a new connection: the old one may lead to a machine that lost
                // its power. Calls that wait on the old one keep it until their own time is up.
                if let Ok(mut open) = slot.try_lock() {
                    *open = None;
                }
                Err(no_answer(address, source))
            }
        }
    }

    /// A connection of its own, and what drives it.
    pub(crate) async fn connect(
        &self,
        address: &str,
    ) -> io::Result<(Sender, impl Future<Output = hyper::Result<()>> + Send + use<>)> {
        let connect = self.transport.connect(address);
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, connect).await?;
        self.note(address, stream.as_ref().err());
        let stream = stream?;
        hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
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

    fn slot(&self, address: &str) -> Arc<tokio::sync::Mutex<Option<Sender>>> {
        let mut open = self.open.lock().expect("no holder of this lock panics");
        open.entry(address.to_string()).or_default().clone()
    }

    async fn sender(&self, address: &str, slot: &tokio::sync::Mutex<Option<Sender>>) -> io::Result<Sender> {
        let mut open = slot.lock().await;
        if let Some(sender) = open.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let (sender, connection) = self.connect(address).await?;
        // It ends when the last sender of this connection is dropped, or when the peer closes it.
        self.runtime.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to a peer ended");
            }
        });
        *open = Some(sender.clone());
        Ok(sender)
    }
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

    /// The largest entry comes through a network of 100 Mbit/s, and the largest snapshot too.
    #[test]
    fn what_is_large_has_its_time() {
        let slow = |bytes: usize| Duration::from_secs_f64(bytes as f64 * 8.0 / 100e6);
        for bytes in [0, 100, 8 << 20, 12 << 20, BODY_BYTES_MAX] {
            assert!(slow(bytes) <= carrying_time(bytes), "{bytes}");
        }
        assert_eq!(carrying_time(8 << 20), Duration::from_secs(8));
    }
}
