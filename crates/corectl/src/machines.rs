//! What machines are called for people.

use std::collections::BTreeMap;

use api::Client;
use api::v1::Machine;
use cluster::MachineId;

/// The machines as they were when they were asked for.
#[derive(Default)]
pub struct Machines(BTreeMap<MachineId, Machine>);

impl Machines {
    /// A stale answer will do: names hardly ever change.
    pub async fn ask(client: &Client) -> anyhow::Result<Machines> {
        Ok(Machines::of(client.machines(true).await?.machines))
    }

    pub fn of(machines: Vec<Machine>) -> Machines {
        Machines(machines.into_iter().map(|machine| (machine.id.clone(), machine)).collect())
    }

    pub fn knows(&self, id: &MachineId) -> bool {
        self.0.contains_key(id)
    }

    /// `h2 (10.77.0.12)`; for a machine that is not known, the beginning of its id.
    pub fn label(&self, id: &MachineId) -> String {
        match self.0.get(id).map(|machine| (machine.name.as_str(), machine.address.as_str())) {
            None | Some(("", "")) => short(id, false),
            Some(("", address)) => address.into(),
            Some((name, "")) => name.into(),
            Some((name, address)) => format!("{name} ({address})"),
        }
    }

    /// As fleet wrote it: `113f16a7.../172.17.8.103`.
    pub fn cell(&self, id: &MachineId, full: bool) -> String {
        match self.0.get(id).map(|machine| machine.address.as_str()) {
            None | Some("") => short(id, full),
            Some(address) => format!("{}/{address}", short(id, full)),
        }
    }
}

/// What a text means among machines.
pub enum Found<'a> {
    One(&'a Machine),
    None,
    Several,
}

/// By name or whole id; else by the beginning of an id.
pub fn find<'a>(machines: &'a [Machine], text: &str) -> Found<'a> {
    // As it stands in our own lists.
    let text = text.strip_suffix("...").unwrap_or(text);
    let exact = machines.iter().filter(|machine| machine.id.as_str() == text || machine.name == text);
    let begun = machines.iter().filter(|machine| machine.id.as_str().starts_with(text));
    let both: [Vec<&Machine>; 2] = [exact.collect(), begun.collect()];
    for matching in both {
        let mut matching = matching.into_iter();
        match (matching.next().filter(|_| !text.is_empty()), matching.next()) {
            (None, _) => {}
            (Some(machine), None) => return Found::One(machine),
            (Some(_), Some(_)) => return Found::Several,
        }
    }
    Found::None
}

/// The id, or its beginning.
pub fn short(id: &MachineId, full: bool) -> String {
    if full || id.short().len() == id.as_str().len() { id.to_string() } else { format!("{}...", id.short()) }
}
