//! The client's end of `/v1/events`: server-sent events (WHATWG HTML, section 9.2) over connections that may
//! break.
//!
//! When a connection is lost, the next one goes on after the last revision that was told in full; when the
//! daemon does not remember that far back, it says [`Event::Reset`] and begins anew.

use std::time::Duration;

use bytes::Bytes;
use cluster::{Revision, UnitName};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode, header};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::client::{Client, ClientError, collect};
use crate::v1::{Event, EventFilter, Told};

const PATH: &str = "/v1/events";

/// The daemon says something every 5 s, if only a comment; after three such silences it counts as gone.
pub const SILENCE_MAX: Duration = Duration::from_secs(15);

/// Between two attempts to connect: short, because a daemon that restarts is back within a second.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// The longest line that is taken; a unit's view is some kilobytes.
const LINE_BYTES_MAX: usize = 4 << 20;

/// A stream of what stands and what changes. [`Events::next`] may be dropped while it waits: nothing is lost.
pub struct Events {
    client: Client,
    names: Vec<UnitName>,
    /// Everything up to here was told.
    after: Option<Revision>,
    patience: Option<Duration>,
    connection: Option<Connection>,
    /// Since when there is no connection.
    alone_since: Option<Instant>,
}

struct Connection {
    body: Incoming,
    lines: Lines,
    /// Ends with the connection.
    _driver: JoinSet<()>,
}

impl Events {
    pub(crate) fn new(client: Client, names: Vec<UnitName>, after: Option<Revision>) -> Events {
        Events { client, names, after, patience: Some(Duration::ZERO), connection: None, alone_since: None }
    }

    /// For how long, each time anew, a lost connection is sought again before [`Events::next`] fails; `None`
    /// is for ever. At first it is zero: the first lost connection is an error, and the next call tries
    /// again.
    pub fn with_patience(mut self, patience: Option<Duration>) -> Events {
        self.patience = patience;
        self
    }

    /// Everything up to this revision was told, which is where another stream could go on.
    pub fn told_up_to(&self) -> Option<Revision> {
        self.after
    }

    /// The next event, and the revision at which the daemon saw it.
    pub async fn next(&mut self) -> Result<(Revision, Event), ClientError> {
        loop {
            let error = match self.next_of_connection().await {
                Ok(told) => {
                    self.alone_since = None;
                    return Ok((told.revision, told.event));
                }
                Err(error) => error,
            };
            self.connection = None;
            let since = *self.alone_since.get_or_insert_with(Instant::now);
            let patient = self.patience.is_none_or(|patience| since.elapsed() + RETRY_PAUSE <= patience);
            if !error.is_unreachable() || !patient {
                self.alone_since = None;
                return Err(error);
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    async fn next_of_connection(&mut self) -> Result<Told, ClientError> {
        if self.connection.is_none() {
            let connected = timeout(SILENCE_MAX, self.connect()).await;
            self.connection = Some(connected.map_err(|_| ClientError::Timeout(SILENCE_MAX))??);
        }
        let Some(connection) = &mut self.connection else { return Err(ClientError::Closed) };
        loop {
            while let Some(message) = connection.lines.next_message() {
                // The id is taken over only with a message that is taken over too.
                if let Some(data) = message.data {
                    let told = serde_json::from_slice(&data)
                        .map_err(|source| ClientError::Decode { request: PATH.into(), source })?;
                    self.after = message.id.or(self.after);
                    return Ok(told);
                }
                self.after = message.id.or(self.after);
            }
            if connection.lines.pending.len() > LINE_BYTES_MAX {
                return Err(ClientError::TooLarge { request: PATH.into() });
            }
            let frame = timeout(SILENCE_MAX, connection.body.frame()).await;
            let frame = frame.map_err(|_| ClientError::Timeout(SILENCE_MAX))?.ok_or(ClientError::Closed)?;
            if let Ok(data) = frame.map_err(ClientError::Broken)?.into_data() {
                connection.lines.push(&data);
            }
        }
    }

    async fn connect(&self) -> Result<Connection, ClientError> {
        let mut request = Request::builder()
            .uri(PATH)
            .header(header::HOST, self.client.host())
            .header(header::ACCEPT, "text/event-stream");
        if let Some(after) = self.after {
            request = request.header("last-event-id", after.0);
        }
        let mut body = Bytes::new();
        if !self.names.is_empty() {
            let filter = EventFilter { units: self.names.clone() };
            body = serde_json::to_vec(&filter).expect("the API's types have string keys only").into();
            request = request.method(Method::POST).header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(body)).expect("the path is a constant, the rest well-formed");
        let (response, driver) = self.client.send(request).await?;
        if response.status() != StatusCode::OK {
            let status = response.status();
            collect(response, PATH).await?;
            let message = format!("coreinitd answered {status} where a stream was expected");
            return Err(ClientError::Answer { status: status.as_u16(), message });
        }
        Ok(Connection { body: response.into_body(), lines: Lines::default(), _driver: driver })
    }
}

/// Puts the bytes of the stream together to messages.
#[derive(Default)]
struct Lines {
    pending: Vec<u8>,
    /// Up to here, `pending` holds no end of a message.
    searched: usize,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Message {
    id: Option<Revision>,
    data: Option<Vec<u8>>,
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next message that is there as a whole, that is, up to an empty line.
    fn next_message(&mut self) -> Option<Message> {
        let found = self.pending[self.searched..].windows(2).position(|pair| pair == b"\n\n");
        let Some(found) = found else {
            self.searched = self.pending.len().saturating_sub(1);
            return None;
        };
        let end = self.searched + found + 2;
        let message = parse_message(&self.pending[..end]);
        self.pending.drain(..end);
        self.searched = 0;
        Some(message)
    }
}

/// The fields that our daemon sends. Unknown fields and comments are passed over, as the standard wants.
fn parse_message(bytes: &[u8]) -> Message {
    let mut message = Message::default();
    for line in bytes.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (field, value) = (&line[..colon], &line[colon + 1..]);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"id" => {
                let id = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                message.id = id.map(Revision);
            }
            b"data" => match &mut message.data {
                None => message.data = Some(value.to_vec()),
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
            },
            _ => {}
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(chunks: &[&str]) -> Vec<Message> {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for chunk in chunks {
            lines.push(chunk.as_bytes());
            while let Some(message) = lines.next_message() {
                found.push(message);
            }
        }
        found
    }

    #[test]
    fn messages_are_found_wherever_the_bytes_are_cut() {
        let text = ": hello\n\nid: 7\ndata: {}\n\nid: 8\n\nevent: x\ndata: a\ndata:b\n\nid: 9\ndata: cut";
        let message = |id: Option<u64>, data: Option<&str>| Message {
            id: id.map(Revision),
            data: data.map(Into::into),
        };
        let expected = vec![
            message(None, None),
            message(Some(7), Some("{}")),
            message(Some(8), None),
            message(None, Some("a\nb")),
        ];
        assert_eq!(messages(&[text]), expected);
        for cut in 0..text.len() {
            assert_eq!(messages(&[&text[..cut], &text[cut..]]), expected, "cut at {cut}");
        }
        let bytes: Vec<String> = text.chars().map(String::from).collect();
        assert_eq!(messages(&bytes.iter().map(String::as_str).collect::<Vec<_>>()), expected);
    }
}
