//! The called side: takes peers' connections and passes each request on.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::codec;
use crate::message::{self, Asked, Envelope, Hello, Refusal};
use crate::peers::BODY_BYTES_MAX;
use crate::question::{Pieces, QUESTION_BYTES_MAX, STREAM_PATH};
use crate::transport::{BoxStream, Caller, Listener};

/// Connections held at a time: many more than a cluster has members.
const CONNECTIONS_MAX: usize = 256;
/// A cluster with many founders.
const HELLO_BYTES_MAX: usize = 64 << 10;
/// After an accept that failed, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who answers.
pub trait Handler: Send + Sync + 'static {
    /// Who listens here. Whoever asks may have said who it is.
    fn hello(&self, asker: Option<Hello>) -> Hello;
    fn handle(
        &self,
        caller: &Caller,
        envelope: Envelope,
    ) -> impl Future<Output = Result<message::Response, Refusal>> + Send;
    /// A question to the daemon around the store, answered with a stream; the text of an error goes back.
    fn answer(&self, asked: Asked) -> impl Future<Output = Result<Pieces, String>> + Send;
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Serves until `stop` says so, then ends every connection.
pub async fn serve<H: Handler>(
    mut listener: Box<dyn Listener>,
    handler: Arc<H>,
    mut stop: watch::Receiver<bool>,
) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            // Cancel-safe: an accept that is cancelled loses no connection.
            accepted = listener.accept() => accepted,
            // Cancel-safe: only collects what has ended.
            Some(_) = connections.join_next() => continue,
            // Cancel-safe: looks at a value.
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((stream, caller)) => {
                let Ok(permit) = permits.clone().try_acquire_owned() else {
                    tracing::warn!(
                        limit = CONNECTIONS_MAX,
                        "too many connections from peers; one was closed"
                    );
                    continue;
                };
                let handler = handler.clone();
                connections.spawn(async move {
                    if let Err(error) = connection(stream, caller, handler).await {
                        tracing::debug!(%error, "connection from a peer ended");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection from a peer");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    connections.shutdown().await;
}

async fn connection<H: Handler>(stream: BoxStream, caller: Caller, handler: Arc<H>) -> io::Result<()> {
    let service = service_fn(move |request| {
        let (handler, caller) = (handler.clone(), caller.clone());
        async move { Ok::<_, Infallible>(respond(&*handler, &caller, request).await) }
    });
    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(10))
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .max_frame_size(1 << 20)
        // The wall clock has no place here: not in a simulation, and nobody reads it.
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
        .map_err(io::Error::other)
}

async fn respond<H: Handler>(handler: &H, caller: &Caller, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_string();
    match path.as_str() {
        "/hello" => {
            let Ok(body) = Limited::new(request.into_body(), HELLO_BYTES_MAX).collect().await else {
                return status(StatusCode::PAYLOAD_TOO_LARGE);
            };
            // Another version's may not be understood, and is answered all the same.
            let asker = serde_json::from_slice(&body.to_bytes()).ok();
            match serde_json::to_vec(&handler.hello(asker)) {
                Ok(body) => Response::new(whole(body)),
                Err(_) => status(StatusCode::INTERNAL_SERVER_ERROR),
            }
        }
        "/peer" => {
            let Ok(body) = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await else {
                return status(StatusCode::PAYLOAD_TOO_LARGE);
            };
            let envelope = match codec::decode::<Envelope>(&body.to_bytes()) {
                Ok(envelope) => envelope,
                // It is whole: its sender is newer, and knows by the status that this one is older.
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                    tracing::warn!(%error, "a peer said what is not understood here; upgrade coreinit here");
                    return status(StatusCode::NOT_IMPLEMENTED);
                }
                Err(_) => return status(StatusCode::BAD_REQUEST),
            };
            match codec::encode(&handler.handle(caller, envelope).await) {
                Ok(body) => Response::new(whole(body)),
                Err(_) => status(StatusCode::INTERNAL_SERVER_ERROR),
            }
        }
        STREAM_PATH => {
            let Ok(body) = Limited::new(request.into_body(), QUESTION_BYTES_MAX).collect().await else {
                return status(StatusCode::PAYLOAD_TOO_LARGE);
            };
            let Ok(asked) = codec::decode::<Asked>(&body.to_bytes()) else {
                return status(StatusCode::BAD_REQUEST);
            };
            match handler.answer(asked).await {
                Ok(pieces) => {
                    Response::new(StreamBody::new(pieces.map_ok(hyper::body::Frame::data)).boxed_unsync())
                }
                Err(why) => {
                    let mut response = Response::new(whole(why.into_bytes()));
                    *response.status_mut() = StatusCode::CONFLICT;
                    response
                }
            }
        }
        _ => status(StatusCode::NOT_FOUND),
    }
}

fn whole(bytes: Vec<u8>) -> Body {
    Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed_unsync()
}

fn status(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(whole(Vec::new()));
    *response.status_mut() = code;
    response
}
