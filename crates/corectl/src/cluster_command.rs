//! `cluster init` and `cluster status`; the rest of `cluster` is told where it is.

use api::Client;
use api::membership::TokenWish;
use api::v1::{ClusterInit, Role, Status};

use crate::cli::{ClusterCommand, Format};
use crate::{Exit, backup, membership, output, people, rotate, token};

/// The token that comes with a new cluster.
const INVITATION_SECONDS: u64 = 24 * 3600;

pub async fn run(client: &Client, command: &ClusterCommand, format: Format) -> anyhow::Result<Exit> {
    let status = match command {
        ClusterCommand::Init { name, advertise } => {
            let wish = ClusterInit { name: name.clone(), advertise: advertise.clone() };
            return init(client, &wish, format).await;
        }
        ClusterCommand::Join(join) => membership::join(client, join, format).await?,
        ClusterCommand::Leave(leave) => return membership::leave(client, leave).await,
        ClusterCommand::Remove(remove) => return membership::remove(client, remove).await,
        ClusterCommand::Readmit { machine } => return membership::readmit(client, machine).await,
        ClusterCommand::Members => return membership::members(client, format).await,
        ClusterCommand::RotateCa(rotate) => return rotate::run(client, rotate, format).await,
        ClusterCommand::Invite(invite) => return people::invite(client, invite).await,
        ClusterCommand::Uninvite { name } => return people::uninvite(client, name).await,
        ClusterCommand::People => return people::list(client, format).await,
        ClusterCommand::Backup(taken) => return backup::run(client, taken, format).await,
        // They need no daemon, and were done before one was asked.
        ClusterCommand::Migrate(_) | ClusterCommand::Restore(_) | ClusterCommand::Recover(_) => {
            return Ok(Exit::Done);
        }
        ClusterCommand::Status => client.status().await?,
    };
    show(&status, format)?;
    Ok(Exit::Done)
}

/// With the command that lets the next machine in, where machines know each other by more than an address.
async fn init(client: &Client, wish: &ClusterInit, format: Format) -> anyhow::Result<Exit> {
    let status = client.cluster_init(wish).await?;
    if status.role != Role::Unformed {
        show(&status, format)?;
        return Ok(Exit::Done);
    }
    let status = membership::settled(client, "the cluster to be formed").await?;
    show(&status, format)?;
    if format != Format::Json {
        output::line("");
        token::create(client, &TokenWish { ttl: Some(INVITATION_SECONDS), uses: None }, format).await?;
    }
    Ok(Exit::Done)
}

fn show(status: &Status, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Json => output::json(status),
        _ => {
            output::text(&render(status));
            Ok(())
        }
    }
}

fn render(status: &Status) -> String {
    let role = match status.role {
        Role::Unformed => "not part of a cluster",
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Leaderless => "without a leader",
    };
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    let mut rows = vec![
        ("Cluster:", or_dash(status.cluster_name.clone())),
        ("Id:", or_dash(status.cluster_id.clone())),
        ("Machine:", status.machine.to_string()),
        ("Role:", role.into()),
        ("Leader:", or_dash(status.leader.as_ref().map(|leader| leader.to_string()))),
        ("Voters:", or_dash(status.voters.map(|voters| voters.to_string()))),
        ("Revision:", status.revision.to_string()),
        ("Version:", status.version.clone()),
    ];
    if let Some(trouble) = &status.trouble {
        let since =
            status.leaderless_seconds.map(|seconds| format!(" (for {seconds} s)")).unwrap_or_default();
        rows.push(("Trouble:", format!("{trouble}{since}")));
    }
    let labels = std::iter::once("Attention:").chain(std::iter::repeat(""));
    rows.extend(labels.zip(&status.concerns).map(|(label, concern)| (label, concern.clone())));
    if status.trouble.is_none() && status.concerns.is_empty() {
        rows.push(("Health:", "good".into()));
    }
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(name, value)| vec![name.into(), value]).collect();
    output::table(None, &rows)
}
