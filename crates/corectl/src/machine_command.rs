//! `cordon` and `uncordon`: whether machines get new units.

use anyhow::bail;
use api::Client;
use api::v1::Machine;

use crate::machines::{self, Found, Machines};
use crate::{Exit, output};

pub async fn run(client: &Client, names: &[String], schedulable: bool) -> anyhow::Result<Exit> {
    let all = client.machines(false).await?.machines;
    let chosen = names.iter().map(|name| one(&all, name)).collect::<anyhow::Result<Vec<Machine>>>()?;
    let labels = Machines::of(all);
    for machine in chosen {
        client.set_schedulable(&machine.id, schedulable).await?;
        let said = if schedulable { "gets units again" } else { "gets no new units" };
        output::line(&format!("{}: {said}", labels.label(&machine.id)));
    }
    Ok(Exit::Done)
}

/// The machine that a text means.
pub fn one(machines: &[Machine], text: &str) -> anyhow::Result<Machine> {
    match machines::find(machines, text) {
        Found::One(machine) => Ok(machine.clone()),
        Found::None => bail!("no machine is called {text:?}"),
        Found::Several => bail!("several machines are called {text:?}; name one by its whole id"),
    }
}
