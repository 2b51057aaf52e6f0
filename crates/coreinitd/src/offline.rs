//! What the daemon's program does in place of running: `corectl` calls it for work on the store that needs
//! all of the daemon's knowledge and no daemon.

use anyhow::Context;

use crate::config::{Backend, Config, Flags};
use crate::{migrate, recover, restore};

/// `None`: the daemon is to run. What people are told comes back.
pub fn act(flags: &Flags) -> Option<anyhow::Result<String>> {
    let asked = flags.migrate_to.is_some() || flags.restore.is_some() || flags.recover;
    asked.then(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(acted(flags.clone()))
    })
}

async fn acted(mut flags: Flags) -> anyhow::Result<String> {
    if let Some(to) = flags.migrate_to {
        // Both ends are configured in one file; which of them is in use now does not matter.
        flags.backend = Some(Backend::Etcd);
        let config = Config::load(&flags)?;
        let etcd = config.etcd.clone().context("no etcd is configured")?;
        return migrate::migrate(&config, &etcd, to).await;
    }
    let config = Config::load(&flags)?;
    match &flags.restore {
        Some(file) => restore::restore(&config, file, flags.sure).await,
        None => recover::recover(&config, flags.sure).await,
    }
}
