//! Commands about "this machine", and what keeps them from being about another. A context reaches whichever
//! member of its cluster answers; a tunnel reaches one machine, and a reboot happens on the one that types.

use anyhow::bail;
use api::Endpoint;

use crate::cli::{ClusterCommand, Command, RebootLockCommand};
use crate::connect::Connection;

/// Which machine a command means by "this".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Means {
    /// The one whose daemon is asked.
    Asked,
    /// The one that it is typed on.
    Here,
}

/// Refuses what would be done to another machine than the one that is meant.
pub fn check(command: &Command, connection: &Connection) -> anyhow::Result<()> {
    let Some((name, means)) = means(command) else { return Ok(()) };
    match (means, connection.target()?) {
        (_, Endpoint::Remote(_)) => bail!(
            "`corectl {name}` is about one machine, and a context reaches whichever machine of its cluster \
             answers first: type it on that machine, with --context local"
        ),
        (Means::Here, Endpoint::Tcp(_)) => bail!(elsewhere(name)),
        (Means::Here, Endpoint::Unix(_)) if connection.is_tunnelled() => bail!(elsewhere(name)),
        (Means::Here, Endpoint::Unix(_)) | (Means::Asked, Endpoint::Unix(_) | Endpoint::Tcp(_)) => Ok(()),
    }
}

fn elsewhere(name: &str) -> String {
    format!(
        "`corectl {name}` is about the machine that it is typed on, and what is asked may be another's \
         daemon: type it there, without --tunnel and --endpoint"
    )
}

fn means(command: &Command) -> Option<(&'static str, Means)> {
    match command {
        Command::Cluster(ClusterCommand::Init { .. }) => Some(("cluster init", Means::Asked)),
        Command::Cluster(ClusterCommand::Join(_)) => Some(("cluster join", Means::Asked)),
        Command::Cluster(ClusterCommand::Leave(_)) => Some(("cluster leave", Means::Asked)),
        Command::RebootLock(RebootLockCommand::Take { machine: None, .. }) => {
            Some(("reboot-lock take", Means::Asked))
        }
        Command::RebootLock(RebootLockCommand::Done { .. }) => Some(("reboot-lock done", Means::Asked)),
        Command::RebootLock(RebootLockCommand::Reboot { .. }) => Some(("reboot-lock reboot", Means::Here)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::Cli;

    #[test]
    fn a_reboot_is_of_the_machine_that_types() {
        let check = |words: &str, refused: Option<&str>| {
            let cli = Cli::try_parse_from(format!("corectl {words}").split_whitespace()).unwrap();
            let said = check(&cli.command, &cli.connection).err().map(|error| error.to_string());
            assert_eq!(said.is_some(), refused.is_some(), "{words}: {said:?}");
            let part = refused.unwrap_or_default();
            assert!(said.unwrap_or_default().contains(part), "{words}");
        };
        let here = Some("the machine that it is typed on");
        check("--endpoint unix:///run/coreinit.sock reboot-lock reboot", None);
        check("--context local reboot-lock reboot", None);
        check("--context local --tunnel h2 reboot-lock reboot", here);
        check("--endpoint http://127.0.0.1:80 reboot-lock reboot", here);
        // These are about the machine at the tunnel's end.
        for command in
            ["cluster leave", "cluster init", "cluster join t a", "reboot-lock take", "reboot-lock done"]
        {
            check(&format!("--context local --tunnel h2 {command}"), None);
            check(&format!("--endpoint http://10.0.0.2:80 {command}"), None);
        }
    }
}
