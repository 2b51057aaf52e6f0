//! `corectl context`: the clusters that a user talks to from afar.

use anyhow::ensure;
use api::{Context, Endpoint};
use serde_json::json;

use crate::cli::{ContextCommand, Format};
use crate::contexts::{Contexts, LOCAL, read_one};
use crate::date::{date, is_past};
use crate::{Exit, output};

pub fn run(command: &ContextCommand, format: Format) -> anyhow::Result<Exit> {
    let mut kept = Contexts::load()?;
    match command {
        ContextCommand::Add { name, file, replace } => {
            Contexts::check_name(name)?;
            ensure!(
                *replace || !kept.contexts.contains_key(name),
                "there is a context {name:?} already; take another name, or put this one in its place with \
                 --replace"
            );
            let context = read_one(file)?;
            // Keys and certificates are looked at now, and not when they are needed.
            Endpoint::remote(&context)?;
            let told = in_words(&context);
            let first = kept.contexts.is_empty() && kept.current.is_none();
            kept.contexts.insert(name.clone(), context);
            kept.save()?;
            output::line(&format!("{name}: {told}"));
            if first {
                output::note(&format!(
                    "`corectl context use {name}` makes it the one that is used when none is named"
                ));
            }
        }
        ContextCommand::Use { name } => {
            if name == LOCAL {
                kept.current = None;
                kept.save()?;
                output::line("the daemon of this machine is used when no context is named");
            } else {
                let told = in_words(kept.get(name)?);
                kept.current = Some(name.clone());
                kept.save()?;
                output::line(&format!("{name} is used when no context is named: {told}"));
            }
        }
        ContextCommand::Remove { name } => {
            kept.get(name)?;
            kept.contexts.remove(name);
            if kept.current.as_ref() == Some(name) {
                kept.current = None;
                output::note("the daemon of this machine is used from now on");
            }
            kept.save()?;
        }
        ContextCommand::List => list(&kept, format)?,
        ContextCommand::Show { name } => match name.as_ref().or(kept.current.as_ref()) {
            Some(name) if name != LOCAL => show(name, kept.get(name)?, format)?,
            _ => output::line(&format!("{LOCAL}: the daemon of this machine")),
        },
    }
    Ok(Exit::Done)
}

fn in_words(context: &Context) -> String {
    let Context { person, cluster, role, .. } = context;
    format!("{person} of cluster {cluster}, as {role}, until {}", date(context.expires))
}

/// Without certificates, of which the key is one part.
fn told(name: &str, context: &Context, is_current: bool) -> serde_json::Value {
    json!({
        "name": name,
        "current": is_current,
        "cluster": context.cluster,
        "clusterId": context.cluster_id,
        "person": context.person,
        "role": context.role,
        "expires": context.expires,
        "addresses": context.addresses,
    })
}

fn list(kept: &Contexts, format: Format) -> anyhow::Result<()> {
    let is_current = |name: &String| kept.current.as_ref() == Some(name);
    if format == Format::Json {
        let all: Vec<_> = kept.contexts.iter().map(|(name, c)| told(name, c, is_current(name))).collect();
        return output::json(&all);
    }
    let mark = |current: bool| if current { "*" } else { "" }.to_string();
    let local =
        vec![mark(kept.current.is_none()), LOCAL.into(), "-".into(), "-".into(), "-".into(), "-".into()];
    let others = kept.contexts.iter().map(|(name, context)| {
        vec![
            mark(is_current(name)),
            name.clone(),
            context.cluster.clone(),
            context.person.to_string(),
            context.role.to_string(),
            date(context.expires),
        ]
    });
    let rows: Vec<Vec<String>> = [local].into_iter().chain(others).collect();
    let header = output::header(&["", "name", "cluster", "person", "role", "expires"]);
    output::text(&output::table(Some(header), &rows));
    Ok(())
}

fn show(name: &str, context: &Context, format: Format) -> anyhow::Result<()> {
    if format == Format::Json {
        return output::json(&told(name, context, false));
    }
    let ended = if is_past(context.expires) { " (over)" } else { "" };
    let rows = [
        ("Name:", name.to_string()),
        ("Cluster:", format!("{} ({})", context.cluster, context.cluster_id)),
        ("Person:", context.person.to_string()),
        ("Role:", context.role.to_string()),
        ("Expires:", format!("{}{ended}", date(context.expires))),
        ("Addresses:", context.addresses.join(", ")),
    ];
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(name, value)| vec![name.into(), value]).collect();
    output::text(&output::table(None, &rows));
    Ok(())
}
