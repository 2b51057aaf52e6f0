//! Questions from daemon to daemon that have nothing to do with the store: bytes there, a stream of bytes
//! back, over the peers' port. What they mean is for the daemon to say.
//!
//! Each question has a connection of its own, so that a slow reader of an answer holds up nothing of Raft's:
//! streams of one HTTP/2 connection share its window. Dropping a stream closes its connection, and the other
//! side drops what fed it.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use http_body_util::{BodyExt, Full, Limited};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::codec;
use crate::message::Asked;
use crate::peers::{KeepAlive, Peers};

pub const STREAM_PATH: &str = "/stream";
/// A question is a few names and numbers.
pub const QUESTION_BYTES_MAX: usize = 64 << 10;
/// Questions of other machines that are answered at a time: people who read, not programs that poll.
const ANSWERS_MAX: usize = 64;
/// Until an answer begins. Its maker limits itself to less, and says why.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(15);
/// The words of an error.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// An answer as it comes.
pub type Pieces = BoxStream<'static, io::Result<Bytes>>;

/// Answers a question; the text of an error is for people.
pub type Answerer = Arc<dyn Fn(Vec<u8>) -> BoxFuture<'static, Result<Pieces, String>> + Send + Sync>;

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("that machine is not a member of this machine's cluster")]
    NotMember,
    #[error("cannot reach {address}")]
    Unreachable { address: String, source: io::Error },
    #[error("no answer from {address}")]
    NoAnswer { address: String, source: io::Error },
    /// In the other daemon's words.
    #[error("{0}")]
    Refused(String),
}

/// The answering side.
pub struct Questions {
    answerer: OnceLock<Answerer>,
    open: Arc<Semaphore>,
}

impl Default for Questions {
    fn default() -> Questions {
        Questions { answerer: OnceLock::new(), open: Arc::new(Semaphore::new(ANSWERS_MAX)) }
    }
}

impl Questions {
    pub fn answer_with(&self, answerer: Answerer) {
        let _ = self.answerer.set(answerer);
    }

    pub async fn answer(&self, question: Vec<u8>) -> Result<Pieces, String> {
        let Some(answerer) = self.answerer.get() else { return Err("this daemon is just starting".into()) };
        let permit = self.open.clone().try_acquire_owned();
        let permit =
            permit.map_err(|_| format!("{ANSWERS_MAX} questions are being answered there already"))?;
        let pieces = answerer(question).await?;
        Ok(pieces
            .map(move |piece| {
                let _held = &permit;
                piece
            })
            .boxed())
    }
}

/// Asks, and gives the answer as it comes.
pub async fn ask(peers: &Peers, address: &str, asked: &Asked) -> Result<Pieces, AskError> {
    let unreachable = |source| AskError::Unreachable { address: address.into(), source };
    let no_answer = |source| AskError::NoAnswer { address: address.into(), source };
    let body = codec::encode(asked).map_err(unreachable)?;
    let (mut sender, connection) = peers.connect(address, KeepAlive::PATIENT).await.map_err(unreachable)?;
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the connection of a question ended");
        }
    });
    let request = hyper::Request::post(format!("http://peer{STREAM_PATH}"))
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| unreachable(io::Error::other(error)))?;
    let begun = tokio::time::timeout(BEGIN_TIMEOUT, sender.send_request(request)).await;
    let response = match begun {
        Ok(response) => response.map_err(|error| no_answer(io::Error::other(error)))?,
        Err(_) => return Err(no_answer(io::ErrorKind::TimedOut.into())),
    };
    match response.status() {
        hyper::StatusCode::OK => {
            let body = response.into_body().into_data_stream();
            // The connection lives for as long as its answer.
            let kept = (sender, driver);
            Ok(pieces(body, kept).boxed())
        }
        hyper::StatusCode::CONFLICT => {
            let words = Limited::new(response.into_body(), ERROR_BYTES_MAX).collect();
            let words = tokio::time::timeout(BEGIN_TIMEOUT, words).await;
            let words = words.map_err(|_| no_answer(io::ErrorKind::TimedOut.into()))?;
            let words = words.map_err(|error| no_answer(io::Error::other(error)))?.to_bytes();
            Err(AskError::Refused(String::from_utf8_lossy(&words).into_owned()))
        }
        // An older version, or not a daemon at all.
        status => Err(no_answer(io::Error::other(format!("status {status}")))),
    }
}

fn pieces<K: Send + 'static>(
    body: impl Stream<Item = Result<Bytes, hyper::Error>> + Send + 'static,
    kept: K,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    body.map(move |piece| {
        let _kept = &kept;
        piece.map_err(io::Error::other)
    })
}
