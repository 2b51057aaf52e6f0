//! The client's requests about who may use the cluster from afar.

use cluster::PersonName;

use crate::client::{Client, ClientError, REQUEST_TIMEOUT};
use crate::context::Context;
use crate::v1::{Invite, People, Uninvite};

impl Client {
    /// What the person needs, key and all. After a timeout it may have been made, and is lost: it is made
    /// again with `replace`.
    pub async fn invite(&self, invite: &Invite) -> Result<Context, ClientError> {
        self.post("/v1/cluster/invite", invite, REQUEST_TIMEOUT).await
    }

    pub async fn uninvite(&self, name: &PersonName) -> Result<(), ClientError> {
        self.order("/v1/cluster/uninvite", &Uninvite { name: name.clone() }, REQUEST_TIMEOUT).await
    }

    pub async fn people(&self) -> Result<People, ClientError> {
        self.get("/v1/cluster/people").await
    }
}
