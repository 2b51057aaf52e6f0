//! The parts of a request: query, unit name in the path, JSON body; each with fleet's words for what is wrong
//! with it.

use api::v1;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use bytes::BytesMut;
use cluster::{ClusterState, DesiredState, UnitFile, UnitName, validate};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::connection::Place;
use super::error::Refusal;
use super::{BODIES_BYTES_MAX, BODY_BYTES_MAX, BODY_TIMEOUT};

/// The query's parameters in order. Whoever reads them passes over those that it does not know, as fleet did.
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    pub(super) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// The first of that name, as Go's `Query().Get`; an empty one counts as none.
    pub(super) fn first<'a>(&'a self, key: &'a str) -> Option<&'a str> {
        self.all(key).next().filter(|value| !value.is_empty())
    }

    pub(super) fn stale(&self) -> Result<bool, Refusal> {
        match self.all("stale").next() {
            None | Some("false") => Ok(false),
            Some("true" | "") => Ok(true),
            Some(other) => Err(Refusal::Invalid(format!("stale must be true or false, not {other:?}"))),
        }
    }

    /// The names given as `unit=`; empty when there are none.
    pub(super) fn units(&self) -> Result<Vec<UnitName>, Refusal> {
        self.all("unit").map(unit_name).collect()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Parameters, Refusal> {
        let query = Query::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        query.map(|query| Parameters(query.0)).map_err(|error| Refusal::Invalid(error.body_text()))
    }
}

/// The last segment of the path, decoded.
pub(super) struct Name(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Name, Refusal> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|path| Name(path.0)).map_err(|error| Refusal::Invalid(error.body_text()))
    }
}

/// The body, whole.
pub(super) struct Payload(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for Payload {
    type Rejection = Refusal;
    async fn from_request(request: Request<Body>, _state: &S) -> Result<Payload, Refusal> {
        receive(request, BODY_BYTES_MAX).await.map(Payload)
    }
}

/// The body of a request, of at most `max` bytes.
pub(super) async fn receive(request: Request<Body>, max: usize) -> Result<Bytes, Refusal> {
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if length.and_then(|text| text.parse().ok()).is_some_and(|bytes: u64| bytes > max as u64) {
        return Err(Refusal::BodyTooLarge { max });
    }
    // A client that is slow here may lose its place to another.
    let place = request.extensions().get::<Place>().cloned();
    if let Some(Place(guest)) = &place {
        guest.idle();
    }
    let body = timeout(BODY_TIMEOUT, whole(request.into_body(), max)).await.unwrap_or(Err(Refusal::Slow));
    if let Some(Place(guest)) = &place {
        guest.busy();
    }
    body
}

/// What may still be received, on all connections.
static BODIES: Semaphore = Semaphore::const_new(BODIES_BYTES_MAX);

async fn whole(mut body: Body, max: usize) -> Result<Bytes, Refusal> {
    let (mut whole, mut room) = (BytesMut::new(), None::<SemaphorePermit<'_>>);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Refusal::Invalid(format!("unable to read body: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if max < whole.len() + data.len() {
            return Err(Refusal::BodyTooLarge { max });
        }
        // It fits: the length is below the limit above.
        let more = BODIES.try_acquire_many(u32::try_from(data.len()).unwrap_or(u32::MAX));
        let more = more.map_err(|_| Refusal::TooManyBodies)?;
        match &mut room {
            None => room = Some(more),
            Some(room) => room.merge(more),
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

/// fleet's rule: exactly one `Content-Type`, and it is JSON, whatever follows a semicolon.
pub(super) fn expect_json(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    match (types.next(), types.count()) {
        (Some(only), 0) => {
            let media = only.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
            if media.trim_ascii().eq_ignore_ascii_case(b"application/json") {
                return Ok(());
            }
            Err(Refusal::ContentType("only acceptable Content-Type is application/json".into()))
        }
        (first, more) => {
            let count = usize::from(first.is_some()) + more;
            Err(Refusal::ContentType(format!("expected 1 Content-Type, got {count}")))
        }
    }
}

/// A JSON object or array; fleet's words for a text that ends too early, serde's for the rest.
pub(super) fn decode<T: DeserializeOwned>(body: &[u8], opening: u8) -> Result<T, String> {
    match body.trim_ascii_start().first() {
        None => return Err("EOF".into()),
        Some(first) if *first != opening => {
            return Err(format!("expected '{}' at the beginning", char::from(opening)));
        }
        Some(_) => {}
    }
    serde_json::from_slice(body)
        .map_err(|error| if error.is_eof() { "unexpected EOF".into() } else { error.to_string() })
}

pub(super) fn decode_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    decode(body, b'{').map_err(|error| Refusal::Invalid(format!("unable to decode body: {error}")))
}

pub(super) fn unit_name(text: &str) -> Result<UnitName, Refusal> {
    UnitName::new(text).map_err(|error| Refusal::Invalid(error.to_string()))
}

/// A file that may be stored under that name.
pub(super) fn checked(
    name: &UnitName,
    file: Result<UnitFile, cluster::UnitFileError>,
) -> Result<UnitFile, Refusal> {
    let file = file.map_err(|error| Refusal::Invalid(error.to_string()))?;
    validate(name, &file).map_err(|error| Refusal::Invalid(error.to_string()))?;
    Ok(file)
}

/// Templates are for making instances of; the state would refuse it too, but only after the commit.
pub(super) fn check_template(name: &UnitName, desired: Option<DesiredState>) -> Result<(), Refusal> {
    match desired {
        Some(DesiredState::Loaded | DesiredState::Launched) if name.is_template() => {
            Err(cluster::Rejected::TemplateActivated { name: name.clone() }.into())
        }
        _ => Ok(()),
    }
}

/// The file for an instance that is not stored yet: its stored template's, when what it asks for makes sense
/// under the instance's name. `None`: there is no such template, or the name is no instance's.
pub(super) fn file_of_instance(state: &ClusterState, name: &UnitName) -> Result<Option<UnitFile>, Refusal> {
    let template = name.template().and_then(|template| state.units.get(&template));
    template.map(|template| checked(name, Ok(template.file.clone()))).transpose()
}

pub(super) fn desired(state: v1::State) -> DesiredState {
    state.into()
}
