//! The called side: takes peers' connections and passes each request on.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::codec;
use crate::message::{self, Envelope, Hello, Refusal};
use crate::peers::BODY_BYTES_MAX;
use crate::transport::{BoxStream, Listener};

/// Connections held at a time: many more than a cluster has members.
const CONNECTIONS_MAX: usize = 256;
/// After an accept that failed, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who answers.
pub trait Handler: Send + Sync + 'static {
    fn hello(&self) -> Hello;
    fn handle(&self, envelope: Envelope) -> impl Future<Output = Result<message::Response, Refusal>> + Send;
}

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
            Ok(stream) => {
                let Ok(permit) = permits.clone().try_acquire_owned() else {
                    tracing::warn!(
                        limit = CONNECTIONS_MAX,
                        "too many connections from peers; one was closed"
                    );
                    continue;
                };
                let handler = handler.clone();
                connections.spawn(async move {
                    if let Err(error) = connection(stream, handler).await {
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

async fn connection<H: Handler>(stream: BoxStream, handler: Arc<H>) -> io::Result<()> {
    let service = service_fn(move |request| {
        let handler = handler.clone();
        async move { Ok::<_, Infallible>(respond(&*handler, request).await) }
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

async fn respond<H: Handler>(handler: &H, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_string();
    match path.as_str() {
        "/hello" => match serde_json::to_vec(&handler.hello()) {
            Ok(body) => Response::new(Full::new(body.into())),
            Err(_) => status(StatusCode::INTERNAL_SERVER_ERROR),
        },
        "/peer" => {
            let Ok(body) = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await else {
                return status(StatusCode::PAYLOAD_TOO_LARGE);
            };
            let Ok(envelope) = codec::decode::<Envelope>(&body.to_bytes()) else {
                return status(StatusCode::BAD_REQUEST);
            };
            match codec::encode(&handler.handle(envelope).await) {
                Ok(body) => Response::new(Full::new(body.into())),
                Err(_) => status(StatusCode::INTERNAL_SERVER_ERROR),
            }
        }
        _ => status(StatusCode::NOT_FOUND),
    }
}

fn status(code: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = code;
    response
}
