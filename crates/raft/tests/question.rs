//! A question from one daemon to another: the answer comes as it is made, and ends on both sides when either
//! ends it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cluster::MachineId;
use futures::{FutureExt, StreamExt};
use raft::{AskError, Disk, EngineKind, FlushMode, Options, RaftStore, Tcp, Timing};
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
