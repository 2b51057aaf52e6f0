//! `journal`: a unit's journal from whichever machine it is on; of a global unit, from all of them.

use anyhow::{Context, bail};
use api::v1::Unit;
use api::{Client, ClientError, Journal, JournalQuery};
use cluster::{MachineId, UnitName};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::cli::{self, Format};
use crate::machines::Machines;
use crate::names::unit_name;
use crate::{Exit, output};

/// Pieces of several journals that wait to be printed: enough for smoothness.
const PIECES_MAX: usize = 16;

/// What follows a journal ends only so.
const BROKE_OFF: &str = "the journal broke off: its machine, or a daemon on the way, went away";

pub async fn run(client: &Client, journal: &cli::Journal, format: Format) -> anyhow::Result<Exit> {
    let name = unit_name(&journal.unit)?;
    let query = JournalQuery {
        lines: journal.lines,
        follow: journal.follow,
        output: mode(format).into(),
        machine: journal.machine.clone(),
    };
    let Some(unit) = client.unit(&name, true).await? else {
        bail!("unit {name} is not in the cluster");
    };
    print(client, &unit, &query).await
}

/// Prints it, to its end or for ever.
pub async fn print(client: &Client, unit: &Unit, query: &JournalQuery) -> anyhow::Result<Exit> {
    let holders: Vec<MachineId> =
        unit.states.iter().filter(|state| !state.stale).map(|state| state.machine.clone()).collect();
    if query.machine.is_some() || !unit.global {
        let mut journal = client.journal(&unit.name, query).await?;
        while let Some(piece) = journal.next().await.context(BROKE_OFF)? {
            output::bytes(&piece);
        }
        if query.follow {
            bail!("{BROKE_OFF}");
        }
        return Ok(Exit::Done);
    }
    let mut journals = Vec::new();
    for machine in holders {
        let query = JournalQuery { machine: Some(machine.to_string()), ..query.clone() };
        journals.push((machine, client.journal(&unit.name, &query).await));
    }
    if journals.is_empty() {
        bail!("unit {} is on no machine", unit.name);
    }
    let machines = Machines::ask(client).await?;
    if query.follow {
        return follow(&unit.name, journals, &machines).await;
    }
    let mut exit = Exit::Done;
    for (machine, journal) in journals {
        let printed = async {
            let mut journal = journal?;
            while let Some(piece) = journal.next().await? {
                output::bytes(&piece);
            }
            Ok::<(), ClientError>(())
        };
        if let Err(error) = printed.await {
            output::problem(&format!("{}: {:#}", machines.label(&machine), anyhow::Error::new(error)));
            exit = Exit::Failed;
        }
    }
    Ok(exit)
}

/// Several at once, whole lines as they come.
async fn follow(
    unit: &UnitName,
    journals: Vec<(MachineId, Result<Journal, ClientError>)>,
    machines: &Machines,
) -> anyhow::Result<Exit> {
    let (pieces, mut printing) = mpsc::channel::<Vec<u8>>(PIECES_MAX);
    let mut readers = JoinSet::new();
    for (machine, journal) in journals {
        let pieces = pieces.clone();
        readers.spawn(async move { (machine, lines(journal, pieces).await) });
    }
    drop(pieces);
    let mut ended = Vec::new();
    loop {
        tokio::select! {
            // Both are cancel-safe.
            piece = printing.recv() => match piece {
                Some(piece) => output::bytes(&piece),
                None => break,
            },
            Some(reader) = readers.join_next() => ended.push(reader.context("a reader of a journal failed")?),
        }
    }
    ended.extend(readers.join_all().await);
    for (machine, end) in ended {
        let why = end.map_or_else(|error| format!("{:#}", anyhow::Error::new(error)), |()| BROKE_OFF.into());
        output::problem(&format!("{unit} on {}: {why}", machines.label(&machine)));
    }
    Ok(Exit::Failed)
}

async fn lines(
    journal: Result<Journal, ClientError>,
    pieces: mpsc::Sender<Vec<u8>>,
) -> Result<(), ClientError> {
    let (mut journal, mut pending) = (journal?, Vec::new());
    while let Some(piece) = journal.next().await? {
        pending.extend_from_slice(&piece);
        if let Some(end) = pending.iter().rposition(|byte| *byte == b'\n') {
            let rest = pending.split_off(end + 1);
            // Nobody prints any more: the command ends.
            if pieces.send(std::mem::replace(&mut pending, rest)).await.is_err() {
                return Ok(());
            }
        }
    }
    let _ = pieces.send(pending).await;
    Ok(())
}

/// journalctl's name for it.
fn mode(format: Format) -> &'static str {
    match format {
        Format::Plain | Format::Short => "short",
        Format::Json => "json",
        Format::Cat => "cat",
        Format::ShortFull => "short-full",
        Format::ShortIso => "short-iso",
        Format::ShortIsoPrecise => "short-iso-precise",
        Format::ShortPrecise => "short-precise",
        Format::ShortMonotonic => "short-monotonic",
        Format::ShortUnix => "short-unix",
        Format::Verbose => "verbose",
        Format::Export => "export",
        Format::JsonPretty => "json-pretty",
        Format::JsonSse => "json-sse",
        Format::JsonSeq => "json-seq",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn every_mode_is_one_that_the_daemon_takes() {
        for format in Format::value_variants() {
            assert!(api::JOURNAL_OUTPUTS.contains(&mode(*format)), "{format:?}");
        }
    }
}
