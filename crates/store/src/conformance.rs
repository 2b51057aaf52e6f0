//! What every store promises, as checks that run against any of them. A test of a store makes a fresh cluster
//! of it and hands its machines' stores to [`run`]; what fails panics with the promise's name.
//!
//! Built with the feature `conformance`, for tests alone.

pub mod chance;
mod kept;
mod order;
mod promise;
mod race;
mod seen;

use std::sync::Arc;
use std::time::Duration;

use cluster::{ClusterState, Command, DesiredState, MachineId, MachineInfo, Outcome, UnitFile, UnitName};
use tokio::time::{Instant, timeout};

use crate::{Committed, ProposeError, Role, Store};
pub use kept::{Kept, found, leave};

/// Far longer than anything takes that ends well, on a slow machine too.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// One machine of the cluster under test.
#[derive(Clone)]
pub struct Member {
    pub machine: MachineId,
    pub store: Arc<dyn Store>,
}

/// All machines of a fresh cluster, one or more.
pub struct World {
    pub members: Vec<Member>,
}

/// Runs every check, one after the other, on a cluster that nobody else uses.
pub async fn run(members: Vec<Member>) {
    let world = World { members };
    promise::one_leads(&world).await;
    let watching = seen::Watching::begin(&world);
    promise::machines_are_there(&world).await;
    promise::who_was_never_there_is_silent(&world).await;
    order::outcomes_are_those_of_the_rule(&world).await;
    order::generations_only_grow(&world).await;
    order::a_batch_is_made_in_order(&world).await;
    promise::what_is_acknowledged_is_read_everywhere(&world).await;
    promise::what_is_too_large_is_refused_whole(&world).await;
    promise::what_a_machine_cannot_read_is_refused(&world).await;
    order::repeats_do_no_harm(&world).await;
    race::no_change_is_lost(&world).await;
    race::reads_never_go_back(&world).await;
    race::one_of_many_creates(&world).await;
    race::homes_stay_known(&world).await;
    promise::no_call_waits_beyond_its_deadline(&world).await;
    promise::the_lead_is_handed_over(&world).await;
    watching.end().await;
}

impl World {
    pub fn any(&self, number: usize) -> &Member {
        &self.members[number % self.members.len()]
    }

    /// What all machines hold once they have caught up with everything acknowledged.
    pub async fn states(&self) -> Vec<Arc<ClusterState>> {
        let mut states = Vec::new();
        for member in &self.members {
            states.push(member.read().await);
        }
        states
    }

    /// Every machine holds the same records.
    pub async fn agree(&self, what: &str) -> Arc<ClusterState> {
        let states = self.states().await;
        for state in &states[1..] {
            assert!(same_records(&states[0], state), "{what}: two machines differ");
        }
        states[0].clone()
    }
}

impl Member {
    pub async fn try_propose(&self, commands: Vec<Command>) -> Result<Committed, ProposeError> {
        let limit = Instant::now() + PATIENCE;
        let proposed = timeout(2 * PATIENCE, self.store.propose(commands, limit)).await;
        proposed.expect("a proposal ends with its deadline")
    }

    /// Proposes until it is known what became of it; every command can be proposed again without harm.
    pub async fn propose(&self, commands: Vec<Command>) -> Committed {
        self.try_propose(commands).await.unwrap_or_else(|error| panic!("{}: {error}", self.machine))
    }

    pub async fn one(&self, command: Command) -> Outcome {
        let mut committed = self.propose(vec![command]).await;
        assert_eq!(committed.outcomes.len(), 1, "one outcome for each command");
        committed.outcomes.remove(0)
    }

    pub async fn read(&self) -> Arc<ClusterState> {
        let read = timeout(2 * PATIENCE, self.store.read(Instant::now() + PATIENCE)).await;
        let read = read.expect("a read ends with its deadline");
        read.unwrap_or_else(|error| panic!("{}: {error}", self.machine))
    }

    /// Waits until this machine's state is so.
    pub async fn until(&self, what: &str, holds: impl Fn(&ClusterState) -> bool) -> Arc<ClusterState> {
        let mut state = self.store.state();
        let found = timeout(PATIENCE, state.wait_for(|state| holds(state))).await;
        found.unwrap_or_else(|_| panic!("{}: waited for {what}", self.machine)).expect("it lives").clone()
    }

    pub async fn until_role(&self, what: &str, holds: impl Fn(&Role) -> bool) -> Role {
        let mut role = self.store.role();
        let found = timeout(PATIENCE, role.wait_for(|role| holds(role))).await;
        let found = found.map(|role| role.expect("it lives").clone());
        found.unwrap_or_else(|_| {
            panic!("{}: waited for {what}, is {:?}", self.machine, self.store.role().borrow())
        })
    }
}

pub fn same_records(a: &ClusterState, b: &ClusterState) -> bool {
    let revision = a.revision;
    let b = ClusterState { revision, ..b.clone() };
    *a == b
}

pub fn unit(name: &str) -> UnitName {
    UnitName::new(name).expect("the suite's names are good")
}

pub fn file(text: &str) -> UnitFile {
    let text = format!("[Service]\nExecStart=/bin/echo {text}\n");
    UnitFile::parse(&text).expect("the suite's files are good")
}

pub fn set(name: &UnitName, text: &str, desired: DesiredState) -> Command {
    Command::SetUnit { name: name.clone(), file: Some(file(text)), desired: Some(desired) }
}

pub fn machine(id: &str) -> MachineId {
    MachineId::new(id).expect("the suite's ids are good")
}

pub fn register(id: &MachineId) -> Command {
    Command::RegisterMachine {
        id: id.clone(),
        info: MachineInfo { name: id.to_string(), ..Default::default() },
    }
}
