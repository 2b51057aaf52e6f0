//! A unit's journal and its `systemctl status`, from whichever machine has it. The journal is a stream that
//! ends when either side ends it.

use bytes::Bytes;
use cluster::{MachineId, UnitName};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, header};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client::{Client, ClientError, Query, REQUEST_TIMEOUT, collect, escape};
use crate::v1::SystemdStatus;

/// The output modes of journalctl(1) that may be asked for.
pub const JOURNAL_OUTPUTS: [&str; 14] = [
    "short",
    "short-full",
    "short-iso",
    "short-iso-precise",
    "short-precise",
    "short-monotonic",
    "short-unix",
    "verbose",
    "export",
    "json",
    "json-pretty",
    "json-sse",
    "json-seq",
    "cat",
];

/// Of the past; more than anybody reads, less than would hurt a machine.
pub const JOURNAL_LINES_MAX: u32 = 100_000;

/// What of a unit's journal is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalQuery {
    /// The last so many lines.
    pub lines: u32,
    /// And then what comes, until somebody hangs up.
    pub follow: bool,
    /// One of [`JOURNAL_OUTPUTS`].
    pub output: String,
    /// The machine to ask: its id, the beginning of it, or its name. Without it, the one that the unit is on.
    pub machine: Option<String>,
}

/// A journal as it comes.
#[derive(Debug)]
pub struct Journal {
    body: Incoming,
    /// Ends with the connection.
    _driver: JoinSet<()>,
}

impl Journal {
    /// More of it; `None` at its end. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(ClientError::Broken(error)),
                // What is no data is trailers, and means nothing here.
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

impl Client {
    pub async fn journal(&self, unit: &UnitName, query: &JournalQuery) -> Result<Journal, ClientError> {
        let mut parameters = Query::default();
        parameters.add("lines", &query.lines.to_string());
        parameters.add("output", &query.output);
        if query.follow {
            parameters.add("follow", "true");
        }
        if let Some(machine) = &query.machine {
            parameters.add("machine", machine);
        }
        let path = format!("/v1/units/{}/journal{}", escape(unit.as_str()), parameters.0);
        let request = Request::builder().method(Method::GET).uri(&path).header(header::HOST, self.host());
        let request =
            request.body(Full::default()).expect("the path is well-formed: its parts are percent-encoded");
        let beginning = async {
            let (response, driver) = self.send(request).await?;
            match response.status().is_success() {
                true => Ok(Journal { body: response.into_body(), _driver: driver }),
                false => match collect(response, &path).await {
                    Err(error) => Err(error),
                    Ok(_) => Err(ClientError::Closed),
                },
            }
        };
        timeout(REQUEST_TIMEOUT, beginning).await.map_err(|_| ClientError::Timeout(REQUEST_TIMEOUT))?
    }

    /// What systemd says of the unit on that machine; without one, on the machine that it is on.
    pub async fn systemd_status(
        &self,
        unit: &UnitName,
        machine: Option<&MachineId>,
    ) -> Result<SystemdStatus, ClientError> {
        let mut parameters = Query::default();
        if let Some(machine) = machine {
            parameters.add("machine", machine.as_str());
        }
        self.get(&format!("/v1/units/{}/status{}", escape(unit.as_str()), parameters.0)).await
    }
}
