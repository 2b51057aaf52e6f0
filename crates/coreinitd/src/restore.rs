//! `corectl cluster restore`: a backup becomes the store of a new cluster's first member, or an etcd's
//! records, while no daemon runs. Nothing is changed before the whole file was read and checked.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use cluster::ClusterState;
use raft::offline::OfflineError;
use raft::renewal::{self, Replace};

use crate::backup;
use crate::by_hand;
use crate::config::{Config, Etcd};
use crate::keys::offline_transport;
use crate::lookup;
use crate::run::kind;

/// `file` is a path, or `-` for standard input. What people are told.
pub async fn restore(config: &Config, file: &Path, replace: bool) -> anyhow::Result<String> {
    let name = if file == Path::new("-") { "standard input".into() } else { file.display().to_string() };
    let bytes = bytes_of(file).with_context(|| format!("cannot read {name}"))?;
    let (head, state) = backup::read(&bytes).with_context(|| format!("cannot restore {name}"))?;
    let next = renewal::renewed(&state)?;
    let what = format!(
        "cluster {} as of {}: {} units, {} machines",
        head.cluster_name,
        head.taken(),
        head.units,
        head.machines
    );
    match &config.etcd {
        Some(etcd) => into_etcd(config, etcd, &next, &what).await,
        None => into_store(config, &next, &what, replace).await,
    }
}

async fn into_store(
    config: &Config,
    state: &ClusterState,
    what: &str,
    replace: bool,
) -> anyhow::Result<String> {
    let transport = offline_transport(config)?;
    if let Some((address, cluster)) = renewal::led(transport, &lookup::known(&config.join).await).await {
        bail!(
            "the machine at {address} is a member of cluster {cluster}, which has a leader: it and the \
             restored one would be two. Stop coreinitd on all of its machines first"
        );
    }
    let (dir, address) = (&config.data_dir, config.peer_address());
    let replace = if replace { Replace::Anything } else { Replace::Nobodys };
    let put = renewal::put(
        dir,
        kind(config.engine),
        (&config.machine, address),
        state,
        (replace, "before-restore"),
    );
    let aside = put.await.map_err(|error| match error {
        OfflineError::Belongs { .. } => {
            anyhow::Error::new(error).context("nothing was changed; --replace moves a store aside")
        }
        error => anyhow::Error::new(error).context("nothing was changed"),
    })?;
    by_hand::keep_secret(config)?;
    let id = state.cluster.as_ref().map(|cluster| cluster.id.as_str()).unwrap_or_default();
    let mut said =
        format!("restored {what}\nit goes on as cluster {id}, with this machine as its first member");
    if let Some(aside) = aside {
        said.push_str(&format!("\nwhat was in {} is in {} now", dir.display(), aside.display()));
    }
    said.push_str(&format!(
        "\nnext: on each other machine, move the store away (mv {dir} {dir}.old) and start coreinitd; then \
         systemctl start coreinitd here. They join when their `join` names {address}",
        dir = dir.display()
    ));
    Ok(said)
}

async fn into_etcd(config: &Config, etcd: &Etcd, state: &ClusterState, what: &str) -> anyhow::Result<String> {
    let mut options = etcd.options(config);
    let aside = config.data_dir.with_extension("restoring");
    options.dir = aside.clone();
    let done = async {
        let kept = etcd_compat::offline::read(&options).await.map_err(anyhow::Error::msg);
        let kept = kept.context("cannot read etcd")?;
        let place = format!("{} of etcd", options.prefix);
        ensure!(
            kept.state.cluster.is_none() && kept.alive.is_empty(),
            "there is a cluster under {place} already, and it is left alone; restore under another \
             etcd_prefix, or delete what is there while no daemon runs"
        );
        let written = etcd_compat::offline::write(&options, state).await.map_err(anyhow::Error::msg);
        written.with_context(|| format!("cannot write to {place}; what is there now is of no use"))?;
        let keys = match state.keys.count() {
            0 => String::new(),
            count => format!("; without the {count} keys of etcd_listen, since that etcd serves keys itself"),
        };
        Ok(format!("restored {what}\ninto {place}{keys}; next: start coreinitd on its machines"))
    };
    let done = done.await;
    if aside.exists() {
        std::fs::remove_dir_all(&aside).with_context(|| format!("cannot remove {}", aside.display()))?;
    }
    done
}

/// No more than a backup can have.
fn bytes_of(file: &Path) -> std::io::Result<Vec<u8>> {
    let limit = api::backup::BACKUP_BYTES_MAX as u64 + 1;
    let mut bytes = Vec::new();
    match file == Path::new("-") {
        true => std::io::stdin().lock().take(limit).read_to_end(&mut bytes)?,
        false => std::fs::File::open(file)?.take(limit).read_to_end(&mut bytes)?,
    };
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use raft::EngineKind;
    use raft::offline::{Upto, survey};

    use super::*;
    use crate::backup::tests::state;
    use crate::config::Flags;
    use crate::recover::recover;

    fn config(dir: &Path) -> Config {
        let path = dir.join("coreinitd.toml");
        std::fs::write(&path, "engine = 'redb'\nlisten = '127.0.0.1:1'\n").unwrap();
        let (config, data_dir) = (Some(path), Some(dir.join("data")));
        let machine_id = Some("m1".into());
        Config::load(&Flags { config, data_dir, machine_id, ..Flags::default() }).unwrap()
    }

    fn files(dir: &Path) -> Vec<PathBuf> {
        let mut all: Vec<PathBuf> =
            std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        all.sort();
        all
    }

    async fn kept(config: &Config) -> ClusterState {
        survey(&config.data_dir, EngineKind::Redb, Upto::Written).await.unwrap().state
    }

    #[tokio::test]
    async fn a_backup_becomes_a_store_and_a_store_its_next_life() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let file = dir.path().join("backup");
        std::fs::write(&file, backup::of(&state(), "0.1.0").unwrap().to_bytes()).unwrap();
        let said = restore(&config, &file, false).await.unwrap();
        assert!(said.contains("restored cluster test") && said.contains("20 units, 1 machines"), "{said}");
        let now = kept(&config).await;
        assert_eq!((&now.units, &now.machines), (&state().units, &state().machines));
        let cluster = now.cluster.clone().unwrap();
        assert_eq!((cluster.name.as_str(), &cluster.former[..]), ("test", &["c1".to_string()][..]));

        let before = files(dir.path());
        let refused = format!("{:#}", restore(&config, &file, false).await.unwrap_err());
        assert!(refused.contains(&cluster.id) && refused.contains("--replace"), "{refused}");
        assert_eq!(files(dir.path()), before);
        let said = restore(&config, &file, true).await.unwrap();
        assert!(said.contains("data.before-restore-1"), "{said}");

        // It is its only voter, so there is nothing to recover.
        let refused = format!("{:#}", recover(&config, true).await.unwrap_err());
        assert!(refused.contains("1 of the cluster's 1 voters are there"), "{refused}");
    }

    #[tokio::test]
    async fn a_bad_file_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let good = backup::of(&state(), "0.1.0").unwrap().to_bytes();
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 1;
        let check = async |bytes: &[u8], expected: &str| {
            let file = dir.path().join("backup");
            std::fs::write(&file, bytes).unwrap();
            let before = files(dir.path());
            let refused = format!("{:#}", restore(&config, &file, true).await.unwrap_err());
            assert!(refused.contains(expected), "{refused}");
            assert_eq!(files(dir.path()), before);
        };
        check(&flipped, "its checksum is wrong").await;
        check(&good[..good.len() - 7], "its checksum is wrong").await;
        check(b"", "it is no backup").await;
        check(b"# a file\n", "it is no backup").await;
        let refused = restore(&config, &dir.path().join("nowhere"), true).await.unwrap_err();
        assert!(format!("{refused:#}").contains("cannot read"), "{refused:#}");
    }
}
