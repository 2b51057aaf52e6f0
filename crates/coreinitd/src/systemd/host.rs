//! The machine's own units, as far as a cloud-config is about them: enabled, disabled, started and so on. The
//! cluster's units are none of its business.

use std::time::Duration;

use tokio::time::timeout;
use zbus::connection;
use zbus_systemd::systemd1::ManagerProxy;

use super::UnitError;
use crate::cloud_config::{HostStep, JobVerb};

/// A reload of thousands of units takes seconds.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// systemd on the system bus, or on a bus of the given address.
pub struct Host(ManagerProxy<'static>);

impl Host {
    pub async fn connect(bus: Option<String>) -> Result<Host, UnitError> {
        let builder = match &bus {
            Some(address) => connection::Builder::address(address.as_str()),
            None => connection::Builder::system(),
        };
        let connecting = async {
            let connection = builder.method_timeout(CALL_TIMEOUT).build().await?;
            ManagerProxy::builder(&connection)
                .cache_properties(zbus::proxy::CacheProperties::No)
                .build()
                .await
        };
        match timeout(CALL_TIMEOUT, connecting).await {
            Ok(Ok(manager)) => Ok(Host(manager)),
            Ok(Err(error)) => Err(UnitError::Unreachable { reason: error.to_string() }),
            Err(_) => Err(UnitError::Unreachable { reason: "no answer in time".into() }),
        }
    }

    /// One after another; what failed comes back, one line each. Jobs are asked for and not waited for: one
    /// may be ordered after the daemon that asks.
    pub async fn carry_out(&self, steps: &[HostStep]) -> Vec<String> {
        let mut failed = Vec::new();
        for step in steps {
            if let Err(error) = self.one(step).await {
                failed.push(format!("{step}: {error}"));
            }
        }
        failed
    }

    async fn one(&self, step: &HostStep) -> zbus::Result<()> {
        match step {
            HostStep::Enable { unit, runtime } => {
                self.0.enable_unit_files(vec![unit.clone()], *runtime, true).await.map(drop)
            }
            HostStep::Disable { unit } => {
                self.0.disable_unit_files(vec![unit.clone()], false).await.map(drop)
            }
            HostStep::Reload => self.0.reload().await,
            HostStep::Job { unit, verb } => self.job(unit.clone(), *verb).await,
        }
    }

    async fn job(&self, unit: String, verb: JobVerb) -> zbus::Result<()> {
        let (manager, mode) = (&self.0, "replace".to_string());
        let job = match verb {
            JobVerb::Start => manager.start_unit(unit, mode).await,
            JobVerb::Stop => manager.stop_unit(unit, mode).await,
            JobVerb::Restart => manager.restart_unit(unit, mode).await,
            JobVerb::Reload => manager.reload_unit(unit, mode).await,
            JobVerb::TryRestart => manager.try_restart_unit(unit, mode).await,
            JobVerb::ReloadOrRestart => manager.reload_or_restart_unit(unit, mode).await,
            JobVerb::ReloadOrTryRestart => manager.reload_or_try_restart_unit(unit, mode).await,
        };
        job.map(drop)
    }
}
