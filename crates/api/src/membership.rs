//! Who belongs to the cluster: its members, tokens that let machines in, and the way in and out.

use std::time::Duration;

use cluster::{MachineId, RotationPhase};
use serde::{Deserialize, Serialize};

use crate::client::{Client, ClientError, INIT_TIMEOUT, REQUEST_TIMEOUT, escape};
use crate::v1::Status;

/// `POST /v1/cluster/join`: this daemon's machine is to become a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterJoin {
    pub token: String,
    /// Members, as `HOST` or `HOST:PORT`; the first that answers is asked.
    pub addresses: Vec<String>,
    /// Where the other machines reach this one, as `HOST` or `HOST:PORT`; without it, the daemon finds out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
}

/// `POST /v1/cluster/tokens`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenWish {
    /// Seconds; without it, the token never ends.
    pub ttl: Option<u64>,
    /// How many machines it lets in; without it, any number.
    pub uses: Option<u32>,
}

/// A token that was made; its text is told this once and kept nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewToken {
    pub token: String,
    pub name: String,
    /// Where the daemon that made it lets machines in.
    pub address: String,
    /// Seconds since 1970.
    pub expires_at: Option<u64>,
    pub uses: Option<u32>,
}

/// `GET /v1/cluster/tokens`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    pub tokens: Vec<TokenView>,
}

/// All that is kept of a token, without what lets anybody in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenView {
    pub name: String,
    /// Seconds since 1970.
    pub created_at: u64,
    pub expires_at: Option<u64>,
    pub uses_left: Option<u32>,
    pub used_by: Vec<MachineId>,
}

/// `GET /v1/cluster/members`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    pub members: Vec<MemberView>,
}

/// One member, as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberView {
    pub machine: MachineId,
    /// The host name; empty while the machine has not said it.
    pub name: String,
    /// Where the other daemons reach it.
    pub address: String,
    pub version: String,
    pub part: Part,
    /// Log entries that it has yet to get; `None` when that is not known.
    pub lag: Option<u64>,
    /// Milliseconds since the leader heard it.
    pub silent_ms: u64,
}

/// What a member is to the cluster's decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    Leader,
    Voter,
    /// Holds the state, and does not vote.
    Learner,
}

/// `POST /v1/cluster/rotation`: the cluster's authority is to be replaced.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rotate {
    /// The secret that the new authority follows from, each byte as two hexadecimal digits; without it, one
    /// is made where machines do not have theirs from a file.
    pub secret: Option<String>,
}

/// `GET /v1/cluster/rotation`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RotationView {
    /// Of the change that is under way; `None`: there is none.
    pub number: Option<u64>,
    pub phase: Option<RotationPhase>,
    /// The names of the machines that it waits for.
    pub awaited: Vec<String>,
    /// The digest of the authority that the last change led to.
    pub authority: Option<String>,
    /// The number of the last change that is over.
    pub ended: u64,
}

/// `POST /v1/machines/ID/remove`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Removal {
    /// Although the machine is alive, or units can go nowhere else.
    #[serde(default)]
    pub force: bool,
}

impl Client {
    /// Answers when the token was good; the daemon begins anew then, as a machine that joins.
    pub async fn cluster_join(&self, join: &ClusterJoin) -> Result<Status, ClientError> {
        self.post("/v1/cluster/join", join, INIT_TIMEOUT).await
    }

    pub async fn members(&self) -> Result<Members, ClientError> {
        self.get("/v1/cluster/members").await
    }

    pub async fn create_token(&self, wish: &TokenWish) -> Result<NewToken, ClientError> {
        self.post("/v1/cluster/tokens", wish, REQUEST_TIMEOUT).await
    }

    pub async fn tokens(&self) -> Result<Tokens, ClientError> {
        self.get("/v1/cluster/tokens").await
    }

    pub async fn revoke_token(&self, name: &str) -> Result<(), ClientError> {
        let path = format!("/v1/cluster/tokens/{}/revoke", escape(name));
        self.order(&path, &serde_json::json!({}), REQUEST_TIMEOUT).await
    }

    /// Begins to replace the cluster's authority. It goes on by itself.
    pub async fn begin_rotation(&self, wish: &Rotate) -> Result<RotationView, ClientError> {
        self.post("/v1/cluster/rotation", wish, REQUEST_TIMEOUT).await
    }

    pub async fn rotation(&self) -> Result<RotationView, ClientError> {
        self.get("/v1/cluster/rotation").await
    }

    pub async fn abort_rotation(&self) -> Result<RotationView, ClientError> {
        self.post("/v1/cluster/rotation/abort", &serde_json::json!({}), REQUEST_TIMEOUT).await
    }

    /// Takes a machine out of the cluster for good.
    pub async fn remove_machine(&self, machine: &MachineId, removal: &Removal) -> Result<(), ClientError> {
        let path = format!("/v1/machines/{}/remove", escape(machine.as_str()));
        self.order(&path, removal, REQUEST_TIMEOUT + Duration::from_secs(5)).await
    }

    /// Lets a machine that was removed come back.
    pub async fn readmit_machine(&self, machine: &MachineId) -> Result<(), ClientError> {
        let path = format!("/v1/machines/{}/readmit", escape(machine.as_str()));
        self.order(&path, &serde_json::json!({}), REQUEST_TIMEOUT).await
    }
}
