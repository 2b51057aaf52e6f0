//! What daemons say to each other, as bytes that were sent once: `tests/golden/wire-*.hex`, of the same kind
//! as those of `tests/golden.rs`, whose head says how one is added. Two versions in one cluster understand
//! each other only when these are read, and written, as ever.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use cluster::{Command, Kind, MachineId, MachineInfo, Rejected};
use openraft::impls::leader_id_std::LeaderId;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, VoteRequest,
    VoteResponse,
};
use openraft::vote::RaftLeaderIdExt;
use openraft::{EntryPayload, Membership};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec;
use crate::disk::Founder;
use crate::message::{Asked, Envelope, Formed, Hello, Refusal, Request, Response};
use crate::types::{Entry, LogId, Member, Proposal, SnapshotMeta, StoredMembership, Vote};

fn kept(name: &str, bytes: &[u8]) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/wire-{name}.hex"));
    if !path.exists() && std::env::var_os("COREINIT_ADD_GOLDEN").is_some() {
        let mut hex = String::new();
        for line in bytes.chunks(32) {
            line.iter().for_each(|byte| write!(hex, "{byte:02x}").unwrap());
            hex.push('\n');
        }
        std::fs::write(&path, hex).unwrap();
    }
    let hex = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn check<T: Serialize + DeserializeOwned>(name: &str, value: &T) {
    let bytes = codec::encode(value).unwrap();
    let kept = kept(name, &bytes);
    let read: T = codec::decode(&kept).unwrap_or_else(|error| panic!("{name} is not understood: {error}"));
    assert_eq!(codec::encode(&read).unwrap(), kept, "{name} is understood as something else");
    assert_eq!(bytes, kept, "{name} is said otherwise now: daemons of the last version do not understand it");
}

fn id(index: u64) -> LogId {
    LogId::new(LeaderId::new_committed(3, 1), index)
}

fn member() -> Member {
    Member { machine: "m1".into(), address: "192.0.2.1:7340".into(), nonce: "n1".into() }
}

fn meta() -> SnapshotMeta {
    let membership = Membership::new(vec![[1].into()], BTreeMap::from([(1, member())])).unwrap();
    SnapshotMeta { last_log_id: Some(id(7)), last_membership: StoredMembership::new(Some(id(2)), membership) }
}

fn requests() -> Vec<(&'static str, Request)> {
    let (vote, machine) = (Vote::new_committed(3, 1), "m1".to_string());
    let command = Command::MarkLost { machine: MachineId::new("m2").unwrap() };
    let info = MachineInfo { name: "h1".into(), feature_level: 2, ..MachineInfo::default() };
    let register = Command::RegisterMachine { id: MachineId::new("m1").unwrap(), info };
    let entry = Entry { log_id: id(8), payload: EntryPayload::Normal(Proposal(vec![command.clone()])) };
    let append = AppendEntriesRequest {
        vote,
        prev_log_id: Some(id(7)),
        entries: vec![entry],
        leader_commit: Some(id(6)),
    };
    let address = "192.0.2.1:7340".to_string();
    let here = Request::Here { machine: machine.clone(), node: 300, address: address.clone() };
    let asked = || VoteRequest::new(Vote::new(4, 2), Some(id(7)));
    vec![
        ("request-append", Request::Append(append)),
        ("request-vote", Request::Vote(asked())),
        ("request-pre-vote", Request::PreVote(asked())),
        ("request-snapshot", Request::Snapshot { vote, meta: meta(), data: vec![1, 2, 3] }),
        ("request-transfer", Request::TransferLeader(TransferLeaderRequest::new(vote, 2, Some(id(7))))),
        ("request-propose", Request::Propose { commands: vec![command, register] }),
        ("request-read-index", Request::ReadIndex),
        ("request-here", here),
        ("request-members", Request::Members),
        ("request-join", Request::Join { machine, address, nonce: "n1".into() }),
    ]
}

#[test]
fn requests_are_understood_as_ever() {
    for (name, request) in requests() {
        let to = (name != "request-join").then_some(300);
        check(name, &Envelope { cluster: "c1".into(), to, request });
    }
}

#[test]
fn responses_are_understood_as_ever() {
    let vote = Vote::new_committed(3, 1);
    let outcomes = vec![Ok(Kind::Created), Err(Rejected::ClusterExists { id: "c1".into() })];
    let seen = store::Member {
        machine: MachineId::new("m1").unwrap(),
        address: "192.0.2.1:7340".into(),
        votes: true,
        leads: false,
        lag: Some(3),
        silence: std::time::Duration::from_millis(1500),
    };
    let responses: Vec<(&str, Result<Response, Refusal>)> = vec![
        ("response-append", Ok(Response::Append(AppendEntriesResponse::Success))),
        ("response-append-conflict", Ok(Response::Append(AppendEntriesResponse::Conflict))),
        ("response-append-partly", Ok(Response::Append(AppendEntriesResponse::PartialSuccess(Some(id(7)))))),
        ("response-append-higher", Ok(Response::Append(AppendEntriesResponse::HigherVote(vote)))),
        ("response-vote", Ok(Response::Vote(VoteResponse::new(vote, Some(id(7)), true)))),
        ("response-snapshot", Ok(Response::Snapshot(SnapshotResponse::new(vote)))),
        ("response-transferred", Ok(Response::Transferred(Ok(())))),
        ("response-proposed", Ok(Response::Proposed { revision: 9, outcomes })),
        ("response-read-index", Ok(Response::ReadIndex { index: 9 })),
        ("response-here", Ok(Response::Here)),
        ("response-joined", Ok(Response::Joined { node: 300 })),
        ("response-members", Ok(Response::Members { members: vec![seen] })),
        ("refusal-expelled", Err(Refusal::Expelled)),
        ("refusal-stranger", Err(Refusal::Stranger)),
        ("refusal-not-leader", Err(Refusal::NotLeader { leader: Some("192.0.2.1:7340".into()) })),
        ("refusal-twin", Err(Refusal::Twin { address: "192.0.2.1:7340".into() })),
        ("refusal-impostor", Err(Refusal::Impostor { caller: "m1".into(), claimed: "m2".into() })),
        ("refusal-unknown", Err(Refusal::Unknown)),
        ("refusal-failed", Err(Refusal::Failed("no".into()))),
    ];
    for (name, response) in responses {
        check(name, &response);
    }
    check("asked", &Asked { cluster: "c1".into(), question: vec![1, 2] });
}

/// JSON, and never without a field that older ones look for: what is new is left out by them, and missed by
/// nobody.
#[test]
fn the_first_word_is_understood_by_older_and_newer() {
    let founder = Founder { node: 1, machine: "m1".into(), address: "a:1".into(), nonce: "n1".into() };
    let hello = Hello {
        machine: "m1".into(),
        address: "a:1".into(),
        nonce: "n1".into(),
        version: "0.1.0".into(),
        expects: 3,
        formed: Some(Formed {
            cluster: "c1".into(),
            founders: vec![founder],
            leader: None,
            former: Vec::new(),
            feature_level: 0,
        }),
    };
    let older = r#"{"machine":"m1","address":"a:1","nonce":"n1","version":"0.1.0","expects":3,
        "formed":{"cluster":"c1","founders":[{"node":1,"machine":"m1","address":"a:1","nonce":"n1"}],
        "leader":null}}"#;
    assert_eq!(serde_json::from_str::<Hello>(older).unwrap(), hello);
    let newer = older.replace(r#""leader":null"#, r#""leader":null,"later":[1]"#);
    assert_eq!(serde_json::from_str::<Hello>(&newer).unwrap(), hello);
    let written = serde_json::to_value(&hello).unwrap();
    let first: serde_json::Value = serde_json::from_str(older).unwrap();
    for (field, value) in first.as_object().unwrap().iter().filter(|(field, _)| *field != "formed") {
        assert_eq!(written.get(field), Some(value), "{field}");
    }
    for (field, value) in first["formed"].as_object().unwrap() {
        assert_eq!(written["formed"].get(field), Some(value), "{field}");
    }
}
