//! `cluster init` and `cluster status`.

use api::Client;
use api::v1::{ClusterInit, Role, Status};

use crate::cli::{ClusterCommand, Format};
use crate::{Exit, backup, output};

pub async fn run(client: &Client, command: &ClusterCommand, format: Format) -> anyhow::Result<Exit> {
    let status = match command {
        ClusterCommand::Init { name } => client.cluster_init(&ClusterInit { name: name.clone() }).await?,
        ClusterCommand::Backup(taken) => return backup::run(client, taken, format).await,
        // They need no daemon, and were done before one was asked.
        ClusterCommand::Migrate(_) | ClusterCommand::Restore(_) | ClusterCommand::Recover(_) => {
            return Ok(Exit::Done);
        }
        ClusterCommand::Status => client.status().await?,
    };
    match format {
        Format::Json => output::json(&status)?,
        _ => output::text(&render(&status)),
    }
    Ok(Exit::Done)
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
        ("Revision:", status.revision.to_string()),
        ("Version:", status.version.clone()),
    ];
    if let Some(trouble) = &status.trouble {
        let since =
            status.leaderless_seconds.map(|seconds| format!(" (for {seconds} s)")).unwrap_or_default();
        rows.push(("Trouble:", format!("{trouble}{since}")));
    }
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(name, value)| vec![name.into(), value]).collect();
    output::table(None, &rows)
}
