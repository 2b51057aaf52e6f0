//! `machines`: who is there, and metadata that is set from outside.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::fleet::{Machine, MachinePage};
use axum::Json;
use axum::extract::State;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cluster::{Command, Liveness, MachineId, Rejected};
use serde::Deserialize;

use super::super::Room;
use super::super::error::Refusal;
use super::super::page_token::PageNumber;
use super::super::request::{Parameters, Payload};
use super::lenient::decode;

pub(super) async fn machines(
    State(room): State<Arc<Room>>,
    method: Method,
    query: Parameters,
    payload: Payload,
) -> Result<Response, Refusal> {
    match method {
        Method::GET => Ok(Json(list_machines(&room, &query).await?).into_response()),
        Method::PATCH => {
            patch_machines(&room, &payload).await?;
            // fleet's empty answer had this type, and only this one.
            Ok((StatusCode::NO_CONTENT, [(header::CONTENT_TYPE, "application/json")]).into_response())
        }
        _ => Err(Refusal::Method("only GET and PATCH supported against this resource")),
    }
}

async fn list_machines(room: &Room, query: &Parameters) -> Result<MachinePage, Refusal> {
    let page = PageNumber::asked_for(query)?;
    let state = room.read(query.stale()?).await?;
    let ready = state.machines.iter().filter(|(_, machine)| machine.liveness == Liveness::Ready);
    let (found, next_page_token) = page.of(ready)?;
    let machines = found.into_iter().map(|(id, machine)| Machine {
        id: id.to_string(),
        metadata: machine.metadata(),
        primary_ip: machine.info.address.clone(),
    });
    Ok(MachinePage { machines: machines.collect(), next_page_token })
}

/// One of PATCH's operations, in the manner of RFC 6902.
#[derive(Deserialize)]
struct MetadataOperation {
    #[serde(default)]
    op: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    value: Option<MetadataValue>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum MetadataValue {
    Plain(String),
    Wrapped {
        #[serde(default)]
        value: String,
    },
}

async fn patch_machines(room: &Room, Payload(body): &Payload) -> Result<(), Refusal> {
    // The request's type was never looked at.
    let operations: Vec<MetadataOperation> = decode(body, b'[').map_err(Refusal::Invalid)?;
    let commands = operations.into_iter().map(metadata_command).collect::<Result<Vec<_>, _>>()?;
    if commands.is_empty() {
        return Ok(());
    }
    // Nothing must be half done because of a wrong id further down.
    let state = room.read(false).await?;
    for command in &commands {
        if let Command::SetMachineMetadata { id, .. } = command
            && !state.machines.contains_key(id)
        {
            return Err(Rejected::MachineUnknown { machine: id.clone() }.into());
        }
    }
    for outcome in room.propose(commands).await?.outcomes {
        outcome?;
    }
    Ok(())
}

fn metadata_command(operation: MetadataOperation) -> Result<Command, Refusal> {
    let invalid = |text: &str| Refusal::Invalid(text.into());
    let remove = match operation.op.as_str() {
        "add" | "replace" => false,
        "remove" => true,
        _ => return Err(invalid("invalid op: expect add, remove, or replace")),
    };
    let parts = operation.path.strip_prefix('/').and_then(|path| path.split_once("/metadata/"));
    let good = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let (machine, key) = parts
        .filter(|(machine, key)| {
            !machine.is_empty() && !machine.contains('/') && !key.is_empty() && key.chars().all(good)
        })
        .ok_or_else(|| invalid("machine metadata path invalid"))?;
    let value = match operation.value {
        Some(MetadataValue::Plain(value) | MetadataValue::Wrapped { value }) => value,
        None => String::new(),
    };
    let value = match (remove, value.is_empty()) {
        (true, _) => None,
        (false, false) => Some(value),
        (false, true) => return Err(invalid("invalid value: add and replace require a value")),
    };
    let id = MachineId::new(machine).map_err(|error| Refusal::Invalid(error.to_string()))?;
    Ok(Command::SetMachineMetadata { id, set: BTreeMap::from([(key.to_owned(), value)]) })
}
