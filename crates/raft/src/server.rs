//! The called side: takes peers' connections and passes each request on.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use guests::{Guest, Guests, Limits};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::codec;
use crate::message::{self, Asked, Envelope, Hello, Refusal};
use crate::peers::{BODY_BYTES_MAX, carrying_time};
use crate::question::{Pieces, QUESTION_BYTES_MAX, STREAM_PATH};
use crate::transport::{BoxStream, Caller, Listener};

/// Connections held at a time: many more than a cluster has members. With more, those make room that have
/// asked for nothing yet.
const CONNECTIONS_MAX: usize = 256;
/// A connection without a request by then is no daemon's.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests of one connection at a time; a daemon has one to each other for most of what it asks.
const STREAMS_MAX: u32 = 256;
/// What one request may have on its way: as much as 100 MB/s carry in 5 ms. The slowest network that a
/// cluster can live on needs half a second for it.
const STREAM_WINDOW_BYTES: u32 = 512 << 10;
/// A part of the window: room for more is given when a frame has come whole.
const FRAME_BYTES_MAX: u32 = 64 << 10;
/// Ours have five short headers.
const HEADERS_BYTES_MAX: u32 = 16 << 10;
/// Streams that the other side opened and took back, before the connection is cut (CVE-2023-44487).
const RESETS_MAX: usize = 64;
/// What waits to be sent on one stream.
const SEND_BYTES_MAX: usize = 1 << 20;
/// The largest snapshot is given so long by its sender; nothing else takes longer.
const BODY_TIMEOUT: Duration = Duration::from_secs(60).saturating_add(carrying_time(BODY_BYTES_MAX));
/// Bodies that are being received, all together: two of the largest snapshots.
const BODIES_BYTES_MAX: usize = 256 << 20;
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
    let limits = Limits { inside_max: CONNECTIONS_MAX, from_one_max: CONNECTIONS_MAX, pace: None };
    let (guests, bodies) = (Guests::new(limits), Arc::new(Semaphore::new(BODIES_BYTES_MAX)));
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
                let Some(guest) = guests.admit(None) else {
                    tracing::debug!(limit = CONNECTIONS_MAX, "too many connections of peers; one was closed");
                    continue;
                };
                let served = Served { caller, handler: handler.clone(), guest, bodies: bodies.clone() };
                connections.spawn(async move {
                    if let Err(error) = connection(stream, Arc::new(served)).await {
                        tracing::debug!(%error, "connection from a peer ended");
                    }
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

/// What the requests of one connection share.
struct Served<H> {
    caller: Caller,
    handler: Arc<H>,
    guest: Guest,
    /// Bytes of bodies that may still be taken in, on all connections.
    bodies: Arc<Semaphore>,
}

async fn connection<H: Handler>(stream: BoxStream, served: Arc<Served<H>>) -> io::Result<()> {
    let (said, mut heard) = watch::channel(false);
    let shared = served.clone();
    let service = service_fn(move |request| {
        let served = shared.clone();
        // From now on it is a daemon's, which keeps its connection.
        served.guest.busy();
        said.send_replace(true);
        async move { Ok::<_, Infallible>(respond(&served, request).await) }
    });
    let first_in_time = async {
        // An error means that the connection is over.
        if tokio::time::timeout(FIRST_REQUEST_TIMEOUT, heard.wait_for(|said| *said)).await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(10))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(4 << 20)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADERS_BYTES_MAX)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(RESETS_MAX)
        .max_send_buf_size(SEND_BYTES_MAX)
        // The wall clock has no place here: not in a simulation, and nobody reads it.
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // Not resumed when cancelled: the connection ends with it.
        ended = connection => ended.map_err(io::Error::other),
        // Cancel-safe: both only wait.
        () = first_in_time => Err(io::ErrorKind::TimedOut.into()),
        () = served.guest.asked_to_leave() => Err(io::ErrorKind::ConnectionAborted.into()),
    }
}

/// The whole body, if it is not larger than `max`, comes in time, and there is room for it.
async fn whole_body(body: Incoming, max: usize, bodies: &Semaphore) -> Result<Bytes, StatusCode> {
    let collect = async {
        let (mut body, mut whole, mut room) = (body, BytesMut::new(), None);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| StatusCode::BAD_REQUEST)?;
            let Ok(data) = frame.into_data() else { continue };
            if max < whole.len() + data.len() {
                return Err(StatusCode::PAYLOAD_TOO_LARGE);
            }
            // A frame is small: FRAME_BYTES_MAX.
            let more = bodies.try_acquire_many(u32::try_from(data.len()).unwrap_or(u32::MAX));
            let more = more.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
            match &mut room {
                None => room = Some(more),
                Some(room) => room.merge(more),
            }
            whole.extend_from_slice(&data);
        }
        Ok(whole.freeze())
    };
    tokio::time::timeout(BODY_TIMEOUT, collect).await.unwrap_or(Err(StatusCode::REQUEST_TIMEOUT))
}

async fn respond<H: Handler>(served: &Served<H>, request: Request<Incoming>) -> Response<Body> {
    let Served { caller, handler, bodies, .. } = served;
    let path = request.uri().path().to_string();
    match path.as_str() {
        "/hello" => {
            let body = match whole_body(request.into_body(), HELLO_BYTES_MAX, bodies).await {
                Ok(body) => body,
                Err(code) => return status(code),
            };
            // Another version's may not be understood, and is answered all the same.
            let asker = serde_json::from_slice(&body).ok();
            match serde_json::to_vec(&handler.hello(asker)) {
                Ok(body) => Response::new(whole(body)),
                Err(_) => status(StatusCode::INTERNAL_SERVER_ERROR),
            }
        }
        "/peer" => {
            let body = match whole_body(request.into_body(), BODY_BYTES_MAX, bodies).await {
                Ok(body) => body,
                Err(code) => return status(code),
            };
            let envelope = match codec::decode::<Envelope>(&body) {
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
            let body = match whole_body(request.into_body(), QUESTION_BYTES_MAX, bodies).await {
                Ok(body) => body,
                Err(code) => return status(code),
            };
            let Ok(asked) = codec::decode::<Asked>(&body) else {
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
