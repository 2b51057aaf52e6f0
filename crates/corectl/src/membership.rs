//! `cluster join`, `leave`, `remove`, `readmit` and `members`: who belongs to the cluster.

use std::io::Read;
use std::time::Duration;

use anyhow::{Context, bail};
use api::membership::{ClusterJoin, MemberView, Part, Removal};
use api::v1::{Role, Status};
use api::{Client, ClientError};
use cluster::MachineId;
use tokio::time::{Instant, sleep};

use crate::cli::{Drain, Format, Join, Leave, Remove};
use crate::machine_command::one;
use crate::machines::short;
use crate::{Exit, drain, output};

/// A daemon that begins anew, forms or joins a cluster and is told of by its leader: some seconds.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Nobody types more than a token.
const TOKEN_BYTES_MAX: u64 = 4096;
const COLUMNS: [&str; 7] = ["machine", "name", "address", "part", "behind", "heard", "version"];

/// Waits until this machine is a member, and says what it is.
pub async fn join(client: &Client, join: &Join, format: Format) -> anyhow::Result<Status> {
    if join.unless_member {
        let status = client.status().await?;
        if status.role != Role::Unformed || status.cluster_id.is_some() {
            return Ok(status);
        }
    }
    let token = match join.token.as_str() {
        "-" => {
            let mut token = String::new();
            let read = std::io::stdin().take(TOKEN_BYTES_MAX).read_to_string(&mut token);
            read.context("cannot read the token from standard input")?;
            token
        }
        token => token.into(),
    };
    let (addresses, advertise) = (join.addresses.clone(), join.advertise.clone());
    client.cluster_join(&ClusterJoin { token, addresses, advertise }).await?;
    if format != Format::Json {
        output::note("The token is good; waiting for the cluster to take this machine in");
    }
    settled(client, "this machine to be a member").await
}

/// Waits until the daemon has begun anew and its machine is on the schedule.
pub async fn settled(client: &Client, what: &str) -> anyhow::Result<Status> {
    until(client, what, |status, machines| {
        matches!(status.role, Role::Leader | Role::Follower) && machines.contains(&status.machine)
    })
    .await
}

/// Looks again and again, over a daemon that is away for a moment.
async fn until(
    client: &Client,
    what: &str,
    is_so: impl Fn(&Status, &[MachineId]) -> bool,
) -> anyhow::Result<Status> {
    let deadline = Instant::now() + SETTLE_LIMIT;
    let mut last = String::from("the daemon does not answer");
    while Instant::now() < deadline {
        match look(client).await {
            Ok((status, machines)) if is_so(&status, &machines) => return Ok(status),
            Ok((status, _)) => last = status.trouble.unwrap_or(last),
            Err(error) => last = error.to_string(),
        }
        sleep(LOOK_INTERVAL).await;
    }
    bail!("waited {} s for {what}: {last}; `corectl cluster status` tells more", SETTLE_LIMIT.as_secs())
}

async fn look(client: &Client) -> Result<(Status, Vec<MachineId>), ClientError> {
    let status = client.status().await?;
    let machines = client.machines(true).await?.machines;
    Ok((status, machines.into_iter().map(|machine| machine.id).collect()))
}

/// First its units leave, each when the one before is well elsewhere.
pub async fn leave(client: &Client, leave: &Leave) -> anyhow::Result<Exit> {
    let own = client.status().await?.machine;
    if !leave.no_drain {
        let drained = Drain { machine: own.to_string(), timeout: leave.timeout };
        let drained = drain::run(client, &drained).await;
        if !matches!(drained, Ok(Exit::Done)) {
            output::problem(
                "the machine stays a member: some of its units could not move; with --no-drain they stop \
                 here, and wait for a machine that suits them",
            );
            stays_cordoned(&own);
            return drained;
        }
    }
    if let Err(error) = client.remove_machine(&own, &Removal { force: true }).await {
        if !leave.no_drain {
            stays_cordoned(&own);
        }
        return Err(error.into());
    }
    until(client, "this machine to have left", |status, _| {
        status.role == Role::Unformed && status.cluster_id.is_none()
    })
    .await?;
    output::line("this machine has left the cluster");
    Ok(Exit::Done)
}

/// A drain is not taken back by what comes after it.
fn stays_cordoned(own: &MachineId) {
    let own = own.short();
    output::problem(&format!("it gets no new units: `corectl uncordon {own}` lets it take units again"));
}

pub async fn remove(client: &Client, remove: &Remove) -> anyhow::Result<Exit> {
    let all = client.machines(false).await?.machines;
    let machine = one(&all, &remove.machine)?;
    client.remove_machine(&machine.id, &Removal { force: remove.force }).await?;
    output::line(&format!(
        "{} ({}): removed; it comes back by `corectl cluster join` with a token only, or after `corectl \
         cluster readmit {}`",
        machine.name,
        short(&machine.id, false),
        machine.id
    ));
    Ok(Exit::Done)
}

pub async fn readmit(client: &Client, machine: &str) -> anyhow::Result<Exit> {
    let machine = MachineId::new(machine).context("a machine that was removed is named by its whole id")?;
    client.readmit_machine(&machine).await?;
    output::line(&format!("{machine}: may come back"));
    Ok(Exit::Done)
}

pub async fn members(client: &Client, format: Format) -> anyhow::Result<Exit> {
    let members = client.members().await?;
    if format == Format::Json {
        output::json(&members)?;
        return Ok(Exit::Done);
    }
    let rows: Vec<Vec<String>> = members.members.iter().map(row).collect();
    output::text(&output::table(Some(output::header(&COLUMNS)), &rows));
    Ok(Exit::Done)
}

fn row(member: &MemberView) -> Vec<String> {
    let part = match member.part {
        Part::Leader => "leader",
        Part::Voter => "voter",
        Part::Learner => "learner",
    };
    let heard = match (member.part, member.silent_ms) {
        (Part::Leader, _) => "now".into(),
        // The leader has never heard it.
        (_, silent) if silent > 1_000_000_000 => "never".into(),
        (_, silent) => format!("{}.{} s ago", silent / 1000, silent % 1000 / 100),
    };
    let behind = match (member.part, member.lag) {
        (Part::Leader, _) => "0".into(),
        (_, lag) => lag.map_or_else(|| "?".into(), |lag| lag.to_string()),
    };
    vec![
        short(&member.machine, false),
        output::or_dash(&member.name),
        member.address.clone(),
        part.into(),
        behind,
        heard,
        output::or_dash(&member.version),
    ]
}
