//! One connection to the API: HTTP/1.1 with a limit on everything that a client may be slow at or large in.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::Request;
use guests::Guest;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};
use tower::Service;

use super::caller::Caller;

/// For a client that connects and then says nothing, does not come to the end of its headers, or keeps a
/// connection that it does not use.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Request line and headers. Names in the query make it long; more than 64 KiB of address is refused.
const HEAD_BYTES_MAX: usize = 128 << 10;
/// Of one request.
const HEADERS_MAX: usize = 100;
/// A client that takes nothing for so long is gone. Whoever reads a journal may stop to think.
const STALL_MAX: Duration = Duration::from_secs(15 * 60);

/// A connection, of whichever kind.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Handlers that wait for more of a request find it among the extensions: for so long its connection may be
/// taken for another's.
#[derive(Clone)]
pub(super) struct Place(pub(super) Arc<Guest>);

/// Serves until the client goes, `stopping` says so, or the place is needed for another.
pub(super) async fn serve(
    stream: Box<dyn Stream>,
    caller: Caller,
    router: Router,
    guest: Guest,
    mut stopping: watch::Receiver<bool>,
) {
    let guest = Arc::new(guest);
    let place = Place(guest.clone());
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        place.0.busy();
        let served = Busy(place.0.clone());
        request.extensions_mut().insert(place.clone());
        request.extensions_mut().insert(caller.clone());
        let response = router.clone().call(request);
        async move {
            Ok::<_, std::convert::Infallible>(response.await?.map(|body| Kept { body, _served: served }))
        }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .title_case_headers(true)
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(HEAD_BYTES_MAX)
            .max_headers(HEADERS_MAX)
            .serve_connection(TokioIo::new(Taken::new(stream)), service)
    );
    let stopped = async move { drop(stopping.wait_for(|stop| *stop).await) };
    let ended = tokio::select! {
        ended = &mut connection => ended,
        // Not resumed when cancelled: the connection ends with it.
        () = guest.asked_to_leave() => return,
        () = stopped => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // The other side went away, or spoke no HTTP: its own affair.
        tracing::debug!(%error, "a connection to the API ended early");
    }
}

/// For as long as a request is answered its connection keeps its place.
struct Busy(Arc<Guest>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.idle();
    }
}

/// The body of an answer, and what is kept until it has been sent.
struct Kept {
    body: Body,
    _served: Busy,
}

impl HttpBody for Kept {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream that is over when its other end has taken nothing for too long.
struct Taken {
    stream: Box<dyn Stream>,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Taken {
    fn new(stream: Box<dyn Stream>) -> Taken {
        Taken { stream, stalled: None }
    }

    /// `done` as it is, unless nothing has been done for too long.
    fn in_time<T>(&mut self, context: &mut Context<'_>, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if done.is_ready() {
            self.stalled = None;
            return done;
        }
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + STALL_MAX)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Taken {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Taken {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.in_time(context, done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.in_time(context, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_gone_in_the_end() {
        let (near, mut far) = tokio::io::duplex(16);
        let mut taken = Taken::new(Box::new(near));
        let begun = Instant::now();
        let error = taken.write_all(&[1; 17]).await.unwrap_err();
        assert_eq!((error.kind(), begun.elapsed().as_secs()), (io::ErrorKind::TimedOut, STALL_MAX.as_secs()));
        // Whoever takes a little now and then is still there.
        tokio::io::AsyncReadExt::read_exact(&mut far, &mut [0; 16]).await.unwrap();
        taken.write_all(&[1; 16]).await.unwrap();
    }
}
