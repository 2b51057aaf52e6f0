//! Large answers whose callers have not read them yet: all together they have a limit. A connection that
//! does not read what it asked for holds an answer in memory until it is given up.

use axum::body::{Body, HttpBody};
use axum::response::Response;
use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Of one API. The largest answer is a backup of the largest state, or all keys, most of them escaped.
pub const ANSWERS_BYTES_MAX: usize = 256 << 20;

/// Smaller ones are bounded by the connections that there may be.
const SMALL_BYTES_MAX: u64 = 64 << 10;

/// A permit of the semaphore stands for so many bytes.
const UNIT: u64 = 1 << 10;

/// The large answers of one API.
pub(super) struct Answers(Semaphore);

/// The others that are being read leave no room for this one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoRoom;

/// A text, and its share of the room for as long as any part of the text is held.
struct Held {
    bytes: Bytes,
    _room: SemaphorePermit<'static>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Answers {
    pub(super) const fn new() -> Answers {
        Answers(Semaphore::const_new(ANSWERS_BYTES_MAX / UNIT as usize))
    }

    /// The same response, which holds its room until the last byte of it was sent or given up. Streams pass:
    /// they are bounded in other ways.
    pub(super) async fn hold(&'static self, response: Response) -> Result<Response, NoRoom> {
        let size = response.body().size_hint().exact();
        let Some(size) = size.filter(|size| *size > SMALL_BYTES_MAX) else { return Ok(response) };
        let units = u32::try_from(size.div_ceil(UNIT)).map_err(|_| NoRoom)?;
        let room = self.0.try_acquire_many(units).map_err(|_| NoRoom)?;
        let (parts, body) = response.into_parts();
        // It is there already, in one piece.
        let bytes = body.collect().await.map_err(|_| NoRoom)?.to_bytes();
        let held = Bytes::from_owner(Held { bytes, _room: room });
        Ok(Response::from_parts(parts, Body::from(held)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(bytes: usize) -> Response {
        Response::new(Body::from(vec![b'x'; bytes]))
    }

    async fn sent(answer: Response) -> Bytes {
        answer.into_body().collect().await.unwrap().to_bytes()
    }

    #[tokio::test]
    async fn what_nobody_reads_has_a_limit() {
        static ANSWERS: Answers = Answers::new();
        let large = ANSWERS_BYTES_MAX / 4;
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(ANSWERS.hold(answer(large)).await.unwrap());
        }
        assert_eq!(ANSWERS.hold(answer(100 << 10)).await.unwrap_err(), NoRoom);
        assert_eq!(sent(ANSWERS.hold(answer(1000)).await.unwrap()).await.len(), 1000, "small ones go on");

        // On its way out of the response, and not sent yet.
        let bytes = sent(held.pop().unwrap()).await;
        assert_eq!((bytes.len(), &bytes[..2]), (large, &b"xx"[..]));
        assert_eq!(ANSWERS.hold(answer(large)).await.unwrap_err(), NoRoom);
        drop(bytes);
        assert!(ANSWERS.hold(answer(large)).await.is_ok());
        drop(held.pop());
        assert!(ANSWERS.hold(answer(large)).await.is_ok(), "given up unread");
    }
}
