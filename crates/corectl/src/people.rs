//! `cluster invite`, `cluster uninvite`, `cluster people`: who may use the cluster from afar.

use std::path::Path;

use anyhow::Context as _;
use api::Client;
use api::v1::{self, Person};

use crate::cli::{Format, Invite};
use crate::contexts::write_private;
use crate::date::date;
use crate::{Exit, output};

/// The key comes only once, so the file is made before it is asked for.
pub async fn invite(client: &Client, invite: &Invite) -> anyhow::Result<Exit> {
    let ask = v1::Invite {
        name: invite.name.clone(),
        role: invite.role,
        ttl: invite.ttl.as_secs(),
        addresses: invite.addresses.clone(),
        replace: invite.replace,
    };
    if let Some(path) = &invite.file {
        write_private(path, "").with_context(|| format!("cannot make {}", path.display()))?;
    }
    let told = async {
        let context = client.invite(&ask).await?;
        let text = serde_json::to_string_pretty(&context)?;
        anyhow::Ok((context, text))
    };
    let (context, text) = match (told.await, &invite.file) {
        (Err(error), Some(path)) => {
            let _ = std::fs::remove_file(path);
            return Err(error);
        }
        (told, _) => told?,
    };
    match &invite.file {
        Some(path) => put(path, &text)?,
        None => output::line(&text),
    }
    let (name, role, until) = (&context.person, context.role, date(context.expires));
    let from = invite.file.as_ref().map_or("-".into(), |path| path.display().to_string());
    output::note(&format!(
        "{name} may use the cluster as {role} until {until}: hand over all of it, in secret, for \
         `corectl context \
         add NAME {from}` there"
    ));
    Ok(Exit::Done)
}

/// Into the file that was made for it.
fn put(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, format!("{text}\n")).with_context(|| format!("cannot write {}", path.display()))
}

pub async fn uninvite(client: &Client, name: &cluster::PersonName) -> anyhow::Result<Exit> {
    client.uninvite(name).await?;
    output::line(&format!("{name}: shut out"));
    Ok(Exit::Done)
}

pub async fn list(client: &Client, format: Format) -> anyhow::Result<Exit> {
    let people = client.people().await?;
    if format == Format::Json {
        output::json(&people)?;
        return Ok(Exit::Done);
    }
    let row = |person: &Person| {
        let by = output::or_dash(&person.invited_by);
        vec![person.name.to_string(), person.role.to_string(), date(person.expires), by]
    };
    let rows: Vec<Vec<String>> = people.people.iter().map(row).collect();
    let header = output::header(&["name", "role", "expires", "invited by"]);
    output::text(&output::table(Some(header), &rows));
    Ok(Exit::Done)
}
