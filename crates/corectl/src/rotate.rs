//! `cluster rotate-ca`: machines know each other by another authority afterwards, and none was cut off.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use api::Client;
use api::membership::{Rotate, RotationView};
use cluster::RotationPhase;
use tokio::time::{Instant, sleep};

use crate::cli::{Format, RotateCa};
use crate::{Exit, output};

const LOOK_INTERVAL: Duration = Duration::from_millis(300);
/// With all machines there it takes a second or two; who waits longer is told for whom.
const TELL_INTERVAL: Duration = Duration::from_secs(5);
const SECRET_BYTES_MAX: u64 = 4096;

pub async fn run(client: &Client, rotate: &RotateCa, format: Format) -> anyhow::Result<Exit> {
    if rotate.abort {
        client.abort_rotation().await?;
        output::line("the cluster keeps its authority");
        return Ok(Exit::Done);
    }
    let before = client.rotation().await?;
    let now = match rotate.watch {
        true if before.number.is_none() => {
            output::line("no authority is being replaced");
            return Ok(Exit::Done);
        }
        true => before,
        false => {
            let secret = rotate.secret_file.as_deref().map(secret).transpose()?;
            client.begin_rotation(&Rotate { secret }).await?
        }
    };
    let number = now.number.unwrap_or(now.ended);
    let ended = follow(client, now, number).await?;
    if format == Format::Json {
        output::json(&ended)?;
        return Ok(Exit::Done);
    }
    output::line(
        "the cluster's authority was replaced: tokens and people's certificates of the old one are void",
    );
    if rotate.secret_file.is_some() {
        output::line(
            "now put the new secret into cluster_secret_file on every machine; nothing has to be restarted",
        );
    }
    output::line("invite people anew with `corectl cluster invite NAME --role ROLE --replace`");
    Ok(Exit::Done)
}

/// In hexadecimal.
fn secret(path: &Path) -> anyhow::Result<String> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    ensure!(bytes.len() as u64 <= SECRET_BYTES_MAX, "{} is too large for a secret", path.display());
    Ok(bytes.trim_ascii().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Until it is over. It goes on without us, too.
async fn follow(client: &Client, mut now: RotationView, number: u64) -> anyhow::Result<RotationView> {
    let mut told = Instant::now();
    while now.ended < number {
        if told.elapsed() > TELL_INTERVAL && !now.awaited.is_empty() {
            let step = match now.phase {
                Some(RotationPhase::Issue) => "show certificates of the new authority",
                _ => "know the new authority",
            };
            let names = now.awaited.join(", ");
            output::note(&format!(
                "Waiting for {names} to {step}; this goes on by itself when they are there (or `corectl \
                 cluster remove` those that are gone for good)"
            ));
            told = Instant::now();
        }
        sleep(LOOK_INTERVAL).await;
        // The machine that answers may be away for a moment; what was begun is kept by the cluster.
        match client.rotation().await {
            Ok(view) => now = view,
            Err(error) => output::note(&format!("{error}; asking again")),
        }
    }
    Ok(now)
}
