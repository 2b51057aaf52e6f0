//! openraft's calls to other nodes, over [`Peers`].

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::network::{RaftNetworkFactory, v2::RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};

use crate::message::{Envelope, Request, Response};
use crate::peers::{CallError, Peers};
use crate::state_machine::{Snapshot, SnapshotData};
use crate::types::{Member, NodeId, TypeConfig, Vote};

/// openraft gives an append no longer than a heartbeat. A disk that is slow for a moment is no reason to
/// send the entries again, which would only make it slower. What has to travel gets its time besides: see
/// [`Peers::carry`].
const APPEND_TIMEOUT_MIN: Duration = Duration::from_millis(500);
/// As an append's.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub struct Network {
    pub peers: Arc<Peers>,
    pub cluster: String,
    pub moved: Moved,
}

/// Nodes that were heard from other addresses than the membership has for them.
pub type Moved = Arc<Mutex<BTreeMap<NodeId, String>>>;

/// One node as a target.
pub struct PeerNode {
    network: Network,
    node: NodeId,
    address: String,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = PeerNode;

    async fn new_client(&mut self, target: NodeId, member: &Member) -> PeerNode {
        PeerNode { network: self.clone(), node: target, address: member.address.clone() }
    }
}

impl PeerNode {
    async fn call(&self, request: Request, timeout: Duration) -> Result<Response, RPCError<TypeConfig>> {
        let (address, envelope) = self.addressed(request);
        self.network.peers.carry(&address, envelope, timeout).await.map_err(failed)
    }

    fn addressed(&self, request: Request) -> (String, Envelope) {
        let moved = self.network.moved.lock().expect("no holder of this lock panics");
        let address = moved.get(&self.node).unwrap_or(&self.address).clone();
        (address, Envelope { cluster: self.network.cluster.clone(), to: Some(self.node), request })
    }
}

fn failed(error: CallError) -> RPCError<TypeConfig> {
    match error {
        CallError::NoAnswer { .. } => RPCError::Network(NetworkError::new(&error)),
        CallError::Unreachable { .. } | CallError::Refused { .. } => {
            RPCError::Unreachable(Unreachable::new(&error))
        }
    }
}

/// A peer that answers another question than was asked is as good as gone.
fn confused<T>() -> Result<T, RPCError<TypeConfig>> {
    let error = std::io::Error::other("the peer's response does not fit the request");
    Err(RPCError::Unreachable(Unreachable::new(&error)))
}

impl RaftNetworkV2<TypeConfig> for PeerNode {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let timeout = option.soft_ttl().max(APPEND_TIMEOUT_MIN);
        match self.call(Request::Append(request), timeout).await? {
            Response::Append(response) => Ok(response),
            _ => confused(),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.call(Request::Vote(request), option.soft_ttl()).await? {
            Response::Vote(response) => Ok(response),
            _ => confused(),
        }
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.call(Request::PreVote(request), option.soft_ttl()).await? {
            Response::Vote(response) => Ok(response),
            _ => confused(),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.call(Request::TransferLeader(request), option.soft_ttl()).await? {
            Response::Transferred(response) => Ok(response),
            _ => confused(),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let request = Request::Snapshot { vote, meta: snapshot.meta, data: snapshot.snapshot };
        let (address, envelope) = self.addressed(request);
        let carried = self.network.peers.carry_alone(&address, &envelope, SNAPSHOT_TIMEOUT);
        tokio::select! {
            // Not resumed when cancelled: the whole snapshot is sent again.
            response = carried => match response.map_err(failed)? {
                Response::Snapshot(response) => Ok(response),
                _ => Ok(confused()?),
            },
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }
}
