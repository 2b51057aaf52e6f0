//! A question from one daemon to another: the answer comes as it is made, and ends on both sides when either
//! ends it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cluster::MachineId;
use futures::{FutureExt, StreamExt};
use raft::{AskError, ClusterId, Disk, EngineKind, FlushMode, Options, Port, RaftStore, Tcp, Timing};
use store::{Role, Store};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(30);

struct Daemon {
    store: RaftStore,
    stop: watch::Sender<bool>,
    driving: JoinSet<()>,
    _dir: tempfile::TempDir,
}

async fn daemon(machine: &str, join: Vec<String>) -> Daemon {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(dir.path(), EngineKind::Redb, FlushMode::Inline).unwrap();
    let (stop, stopping) = watch::channel(false);
    let options = Options {
        machine: MachineId::new(machine).unwrap(),
        version: "1".into(),
        listen: "127.0.0.1:0".into(),
        advertise: None,
        bootstrap_expect: 0,
        join,
        lookup: std::sync::Arc::new(raft::AsWritten),
        cluster_name: "test".into(),
        timing: Timing::default(),
        seed: None,
    };
    let (store, driver) = RaftStore::start(options, disk, Arc::new(Tcp), stopping).await.unwrap();
    let mut driving = JoinSet::new();
    driving.spawn(driver);
    Daemon { store, stop, driving, _dir: dir }
}

async fn belongs(store: &RaftStore) {
    let mut role = store.role();
    let belongs = role.wait_for(|role| matches!(role, Role::Leader { .. } | Role::Follower { .. }));
    drop(timeout(SOON, belongs).await.expect("it belongs to the cluster").unwrap());
}

/// Counts the streams that are open.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn until_zero(open: &AtomicUsize) {
    let zero = async {
        while open.load(Ordering::SeqCst) != 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, zero).await.expect("the answer ends where it is made");
}

#[tokio::test]
async fn an_answer_streams_until_either_side_ends_it() {
    let mut first = daemon("m1", Vec::new()).await;
    first.store.init(None).await.unwrap();
    belongs(&first.store).await;
    let second = daemon("m2", vec![first.store.address().into()]).await;
    belongs(&second.store).await;
    let (m1, m2) = (MachineId::new("m1").unwrap(), MachineId::new("m2").unwrap());

    let early = second.store.ask(&m1, b"hello".to_vec()).await.err().unwrap();
    assert_eq!(early.to_string(), "this daemon is just starting");
    let open = Arc::new(AtomicUsize::new(0));
    let counted = open.clone();
    first.store.answer_with(Arc::new(move |question| {
        let open = counted.clone();
        async move {
            if question == b"no" {
                return Err("there is nothing to say".to_string());
            }
            open.fetch_add(1, Ordering::SeqCst);
            let open = Open(open);
            let echo = futures::stream::iter([Ok(Bytes::from(question))]);
            let ever = futures::stream::pending();
            Ok(echo.chain(ever).map(move |piece| (&open, piece).1).boxed())
        }
        .boxed()
    }));

    let mut answer = second.store.ask(&m1, b"hello".to_vec()).await.unwrap();
    let piece = timeout(SOON, answer.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(&piece[..], b"hello");
    assert_eq!(open.load(Ordering::SeqCst), 1);
    drop(answer);
    until_zero(&open).await;

    let refused = second.store.ask(&m1, b"no".to_vec()).await.err().unwrap();
    assert!(matches!(&refused, AskError::Refused(why) if why == "there is nothing to say"), "{refused}");
    let stranger = second.store.ask(&MachineId::new("m9").unwrap(), Vec::new()).await.err().unwrap();
    assert!(matches!(stranger, AskError::NotMember), "{stranger}");
    let nobody = first.store.ask(&m2, Vec::new()).await.err().unwrap();
    assert!(matches!(nobody, AskError::Refused(_)), "{nobody}");

    let mut answer = second.store.ask(&m1, b"again".to_vec()).await.unwrap();
    timeout(SOON, answer.next()).await.unwrap().unwrap().unwrap();
    first.stop.send_replace(true);
    let end = timeout(SOON, answer.next()).await.expect("the stream ends with the other daemon");
    assert!(end.is_none_or(|piece| piece.is_err()));
    timeout(SOON, first.driving.join_next()).await.unwrap().unwrap().unwrap();
    until_zero(&open).await;
    drop(second.stop);
}

/// Where the state is kept elsewhere, questions are asked and answered all the same, and nothing else is.
#[tokio::test]
async fn a_port_without_raft_answers_questions_of_its_cluster_only() {
    let (stop, stopping) = watch::channel(false);
    let open = async |machine: &str, cluster: Option<&'static str>| {
        let id = (MachineId::new(machine).unwrap(), "1".to_string());
        let cluster: ClusterId = Arc::new(move || cluster.map(String::from));
        let echo: raft::Answerer = Arc::new(|question: Vec<u8>| {
            async move { Ok(futures::stream::iter([Ok(Bytes::from(question))]).boxed()) }.boxed()
        });
        let stopping = stopping.clone();
        Port::open(id, ("127.0.0.1:0", None), Arc::new(Tcp), cluster, echo, stopping).await.unwrap()
    };
    let mut driving = JoinSet::new();
    let (one, driver) = open("m1", Some("c")).await;
    driving.spawn(driver);
    let (two, driver) = open("m2", Some("c")).await;
    driving.spawn(driver);
    let (other, driver) = open("m3", Some("d")).await;
    driving.spawn(driver);
    let (early, driver) = open("m4", None).await;
    driving.spawn(driver);

    let mut answer = two.ask(one.address(), b"hello".to_vec()).await.unwrap();
    assert_eq!(&answer.next().await.unwrap().unwrap()[..], b"hello");
    let refused = other.ask(one.address(), b"hello".to_vec()).await.err().unwrap();
    assert_eq!(refused.to_string(), "this daemon is not a member of that cluster");
    let refused = one.ask(early.address(), b"hello".to_vec()).await.err().unwrap();
    assert_eq!(refused.to_string(), "this daemon is not a member of that cluster");
    assert!(matches!(early.ask(one.address(), Vec::new()).await.err().unwrap(), AskError::NotMember));
    // A machine whose state is in its own store takes it for no member of anything.
    let raft = daemon("m5", vec![one.address().into()]).await;
    let mut role = raft.store.role();
    let unformed = role.wait_for(|role| matches!(role, Role::Unformed { hint } if hint != "it is starting"));
    drop(timeout(SOON, unformed).await.expect("it waits for a cluster").unwrap());
    stop.send_replace(true);
    timeout(SOON, driving.join_all()).await.expect("ports close");
    timeout(SOON, async {
        raft.stop.send_replace(true);
        let mut driving = raft.driving;
        while driving.join_next().await.is_some() {}
    })
    .await
    .expect("it ends");
}
