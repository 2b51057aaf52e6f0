//! Everything that a request can be refused for, and the one place where that becomes an HTTP status.

use std::time::Duration;

use api::fleet::{ErrorBody, ErrorDetail};
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use cluster::{MachineId, PersonName, PersonRole, Rejected};
use store::{ProposeError, ReadError};

use super::InitError;

/// Why a request is not answered with what it asks for. The texts of the first group are fleet's.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("")]
    NoRoute,
    #[error("{0}")]
    Method(&'static str),
    #[error("{0}")]
    ContentType(String),
    #[error("unit does not exist")]
    NoUnit,
    #[error("unit state does not exist")]
    NoUnitState,
    #[error("must provide DesiredState to update existing unit")]
    NothingToUpdate,

    #[error("{0}")]
    Invalid(String),
    #[error("the request is larger than the {max} bytes allowed")]
    BodyTooLarge { max: usize },
    #[error("the request did not come to its end within {} s", super::BODY_TIMEOUT.as_secs())]
    Slow,
    #[error("too many large requests at once; try again")]
    TooManyBodies,
    #[error("too many large answers at once, which were not read yet; try again")]
    TooManyAnswers,
    /// See [`super::roles::admit`].
    #[error("requests of web pages change nothing here; a program sends no Origin")]
    WebPage,
    #[error("{0} event streams are open already, which is the limit")]
    TooManyStreams(usize),
    /// Nothing was changed.
    #[error("the cluster has no leader: {hint}{}", for_how_long(.silent))]
    NoLeader { hint: String, silent: Option<Duration> },
    #[error("{0} journals are open already, which is the limit")]
    TooManyJournals(usize),
    /// The state is larger than any store takes, or is of no cluster.
    #[error("cannot make a backup: {0}")]
    NoBackup(String),
    /// There is no machine to ask.
    #[error("{0}")]
    Nowhere(String),
    /// The machine that was asked did not answer, or said no.
    #[error("{0}")]
    Unanswered(String),
    #[error("this needs the role {need}, and {caller} has the role {role}")]
    Role { need: PersonRole, role: PersonRole, caller: String },
    #[error(
        "{name} is not invited, or no longer; an administrator can make a new certificate with \
         `corectl cluster \
         invite {name} --role {role}`"
    )]
    ShutOut { name: PersonName, role: PersonRole },
    #[error("this certificate of {name}'s was replaced by a newer one; use that (`corectl context add`)")]
    CertificateReplaced { name: PersonName },
    #[error(
        "{name}'s certificate has expired; an administrator can make a new one with `corectl cluster invite \
         {name} --role {role} --replace`"
    )]
    CertificateExpired { name: PersonName, role: PersonRole },
    #[error(
        "the certificate is machine {0}'s, and the API is for people; use one of `corectl cluster invite`"
    )]
    NotForMachines(MachineId),
    #[error("it is not known who calls, so nothing is answered")]
    NobodyKnown,
    #[error("nobody can be invited: {0}")]
    NoInvitations(String),
    #[error(transparent)]
    Rejected(#[from] Rejected),
    #[error(transparent)]
    Propose(#[from] ProposeError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Init(#[from] InitError),
}

impl Refusal {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Refusal::NoRoute | Refusal::NoUnit | Refusal::NoUnitState => StatusCode::NOT_FOUND,
            Refusal::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::ContentType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Refusal::NothingToUpdate => StatusCode::CONFLICT,
            Refusal::Invalid(_) => StatusCode::BAD_REQUEST,
            Refusal::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::Slow => StatusCode::REQUEST_TIMEOUT,
            Refusal::TooManyBodies
            | Refusal::TooManyAnswers
            | Refusal::TooManyStreams(_)
            | Refusal::TooManyJournals(_)
            | Refusal::NoLeader { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::Role { .. }
            | Refusal::WebPage
            | Refusal::ShutOut { .. }
            | Refusal::CertificateReplaced { .. }
            | Refusal::CertificateExpired { .. }
            | Refusal::NotForMachines(_)
            | Refusal::NobodyKnown => StatusCode::FORBIDDEN,
            Refusal::Nowhere(_) | Refusal::NoInvitations(_) => StatusCode::CONFLICT,
            Refusal::NoBackup(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Refusal::Unanswered(_) => StatusCode::BAD_GATEWAY,
            Refusal::Rejected(rejected) => rejected_status(rejected),
            Refusal::Propose(error) => match error {
                ProposeError::Unformed { .. }
                | ProposeError::NoLeader { .. }
                | ProposeError::Unavailable { .. }
                | ProposeError::Stopped { .. } => StatusCode::SERVICE_UNAVAILABLE,
                ProposeError::Unknown => StatusCode::GATEWAY_TIMEOUT,
                ProposeError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
                ProposeError::TooNew(rejected) => rejected_status(rejected),
            },
            Refusal::Read(error) => match error {
                ReadError::Unformed { .. }
                | ReadError::NoLeader { .. }
                | ReadError::Unavailable { .. }
                | ReadError::Timeout
                | ReadError::Stopped { .. } => StatusCode::SERVICE_UNAVAILABLE,
            },
            Refusal::Init(InitError::Exists { .. }) => StatusCode::CONFLICT,
            Refusal::Init(InitError::Failed { .. }) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

fn for_how_long(silent: &Option<Duration>) -> String {
    silent.map(|silent| format!("; there has been none for {} s", silent.as_secs())).unwrap_or_default()
}

fn rejected_status(rejected: &Rejected) -> StatusCode {
    match rejected {
        Rejected::UnitUnknown { .. } | Rejected::TokenUnknown => StatusCode::NOT_FOUND,
        Rejected::TemplateActivated { .. } | Rejected::MachineUnknown { .. } => StatusCode::BAD_REQUEST,
        Rejected::ClusterExists { .. }
        | Rejected::UnitWithoutFile { .. }
        | Rejected::GenerationStale { .. }
        | Rejected::UnitInactive { .. }
        | Rejected::NotAssigned { .. }
        | Rejected::MachineLost { .. }
        | Rejected::MachineNotLost { .. }
        | Rejected::MachineInUse { .. }
        | Rejected::MachineCordoned { .. }
        | Rejected::AlreadyThere { .. }
        | Rejected::TokenExpired
        | Rejected::TokenUsed
        | Rejected::TokenExists
        | Rejected::MachineExpelled { .. }
        | Rejected::PersonInvited { .. }
        | Rejected::PersonUnknown { .. }
        | Rejected::RotationRunning
        | Rejected::RotationNone
        | Rejected::RotationAwaits { .. }
        | Rejected::RotationFar
        | Rejected::MachineTooOld { .. }
        | Rejected::Key(_)
        | Rejected::KeysElsewhere
        | Rejected::UnitsFull { .. }
        | Rejected::LevelNotReached { .. }
        | Rejected::MachineReboots { .. }
        | Rejected::RebootSlotsTaken { .. }
        | Rejected::RebootGroupsFull { .. } => StatusCode::CONFLICT,
    }
}

/// Many refusals name what was given, and a megabyte may have been given.
const MESSAGE_BYTES_MAX: usize = 2000;

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut message = self.to_string();
        if message.len() > MESSAGE_BYTES_MAX {
            message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
            message.push('…');
        }
        let error = ErrorDetail { code: status.as_u16(), message };
        (status, Json(ErrorBody { error })).into_response()
    }
}
