//! The store as a whole: what it remembers, what it refuses, what a cut of the simulated power leaves.

use std::fs;
use std::io;

use cluster::{Command, Revision};
use openraft::EntryPayload;
use openraft::impls::leader_id_std::LeaderId;
use openraft::storage::{
    IOFlushed, RaftLogReader, RaftLogStorage, RaftSnapshotBuilder, RaftStateMachine, StorageHelper,
};
use openraft::type_config::TypeConfigExt;
use openraft::vote::RaftLeaderIdExt;
use raft::disk::{ASIDE_DAMAGED, Disk, DiskError, EngineKind, FlushMode, Founder, Identity, set_aside};
use raft::engine::{Forgetful, Unsynced};
use raft::types::{Entry, LogId, Proposal, TypeConfig, Vote};

fn id(index: u64) -> LogId {
    LogId::new(LeaderId::new_committed(1, 1), index)
}

/// Something else at each index, and two megabytes at index 7.
fn entry(index: u64) -> Entry {
    let name = if index == 7 { "x".repeat(2 << 20) } else { format!("name {index}") };
    let commands = vec![Command::InitCluster { id: "c".into(), name }];
    Entry { log_id: id(index), payload: EntryPayload::Normal(Proposal(commands)) }
}

async fn append(disk: &Disk, indexes: std::ops::Range<u64>) -> io::Result<()> {
    let (sender, receiver) = TypeConfig::oneshot();
    disk.log_store().append(indexes.map(entry), IOFlushed::signal(sender)).await?;
    receiver.await.unwrap()
}

async fn apply(disk: &Disk, indexes: std::ops::Range<u64>) {
    let entries = futures::stream::iter(indexes.map(|index| Ok((entry(index), None))));
    disk.state_machine().apply(entries).await.unwrap();
}

async fn snapshot(disk: &Disk) {
    disk.state_machine().try_create_snapshot_builder(true).await.unwrap().build_snapshot().await.unwrap();
}

async fn indexes(disk: &Disk) -> Vec<u64> {
    let entries = disk.log_store().try_get_log_entries(..).await.unwrap();
    entries.iter().for_each(|found| assert_eq!(*found, entry(found.log_id.index)));
    entries.iter().map(|entry| entry.log_id.index).collect()
}

fn identity() -> Identity {
    let founder = Founder { node: 1, machine: "m1".into(), address: "a:7340".into(), nonce: "n".into() };
    Identity {
        cluster_id: "c1".into(),
        node: 1,
        machine: "m1".into(),
        founders: vec![founder],
        address: None,
    }
}

fn engines() -> [EngineKind; 3] {
    [EngineKind::Sled, EngineKind::Redb, EngineKind::Forgetful(Forgetful::new(1))]
}

#[tokio::test]
async fn all_is_remembered() {
    for kind in engines() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(dir.path(), kind.clone(), FlushMode::Thread).unwrap();
        assert_eq!(disk.identity().unwrap(), None);
        disk.set_identity(&identity()).unwrap();
        let nonce = disk.nonce().unwrap();
        assert_eq!(nonce.len(), 32);
        disk.log_store().save_vote(&Vote::new(3, 1)).await.unwrap();
        append(&disk, 0..20).await.unwrap();
        apply(&disk, 0..10).await;
        snapshot(&disk).await;
        disk.log_store().purge(id(4)).await.unwrap();
        disk.log_store().truncate_after(Some(id(17))).await.unwrap();
        drop(disk);

        let disk = Disk::open(dir.path(), kind.clone(), FlushMode::Thread).unwrap();
        assert_eq!(disk.identity().unwrap(), Some(identity()));
        assert_eq!(disk.nonce().unwrap(), nonce);
        assert_eq!(disk.log_store().read_vote().await.unwrap(), Some(Vote::new(3, 1)));
        assert_eq!(indexes(&disk).await, (5..=17).collect::<Vec<_>>());
        let state = disk.log_store().get_log_state().await.unwrap();
        assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(id(4)), Some(id(17))));
        assert_eq!(disk.state().borrow().revision, Revision(9));
        assert_eq!(disk.failed().borrow().clone(), None);
    }
}

/// Without a quorum nobody says again what was committed.
#[tokio::test]
async fn a_restart_alone_shows_the_last_known_state() {
    for kind in engines() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(dir.path(), kind.clone(), FlushMode::Thread).unwrap();
        append(&disk, 0..20).await.unwrap();
        disk.log_store().save_committed(Some(id(15))).await.unwrap();
        drop(disk);

        let disk = Disk::open(dir.path(), kind, FlushMode::Thread).unwrap();
        let (mut log, mut machine) = (disk.log_store(), disk.state_machine());
        StorageHelper::new(&mut log, &mut machine).with_id(1).get_initial_state().await.unwrap();
        let state = disk.state().borrow().clone();
        assert_eq!(state.revision, Revision(15));
        assert_eq!(state.cluster.as_ref().unwrap().name, "name 0");
    }
}

#[tokio::test]
async fn a_snapshot_takes_the_place_of_the_log() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let leader = Disk::open(dir.path(), EngineKind::Sled, FlushMode::Thread).unwrap();
    apply(&leader, 0..100).await;
    snapshot(&leader).await;
    let sent = leader.state_machine().get_current_snapshot().await.unwrap().unwrap();

    let disk = Disk::open(other.path(), EngineKind::Sled, FlushMode::Thread).unwrap();
    append(&disk, 0..5).await.unwrap();
    disk.state_machine().install_snapshot(&sent.meta, sent.snapshot).await.unwrap();
    assert_eq!(*disk.state().borrow(), *leader.state().borrow());
    disk.log_store().purge(id(99)).await.unwrap();
    append(&disk, 100..103).await.unwrap();
    drop(disk);

    let disk = Disk::open(other.path(), EngineKind::Sled, FlushMode::Thread).unwrap();
    assert_eq!(indexes(&disk).await, [100, 101, 102]);
    assert_eq!(*disk.state().borrow(), *leader.state().borrow());
}

#[tokio::test]
async fn reads_for_replication_are_bounded() {
    let disk =
        Disk::open(std::path::Path::new("/"), EngineKind::Forgetful(Forgetful::new(1)), FlushMode::Inline);
    let mut log = disk.unwrap().log_store();
    let big = |index| {
        let commands = vec![Command::InitCluster { id: "c".into(), name: "x".repeat(3 << 20) }];
        Entry { log_id: id(index), payload: EntryPayload::Normal(Proposal(commands)) }
    };
    log.append((0..5).map(big), IOFlushed::noop()).await.unwrap();
    assert_eq!(log.limited_get_log_entries(1, 5).await.unwrap(), [big(1)]);
    assert_eq!(log.try_get_log_entries(1..5).await.unwrap().len(), 4);
    let all: Vec<_> = futures::StreamExt::collect(log.entries_stream(1..5).await).await;
    assert_eq!(all.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [big(1), big(2), big(3), big(4)]);
}

#[tokio::test]
async fn a_hole_is_refused() {
    let disk =
        Disk::open(std::path::Path::new("/"), EngineKind::Forgetful(Forgetful::new(1)), FlushMode::Inline);
    let disk = disk.unwrap();
    append(&disk, 0..3).await.unwrap();
    assert_eq!(append(&disk, 4..5).await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert_eq!(indexes(&disk).await, [0, 1, 2]);
}

/// The first error is the last thing that was tried, and it is told.
#[tokio::test]
async fn a_failed_disk_acknowledges_nothing() {
    for mode in [FlushMode::Inline, FlushMode::Thread] {
        let memory = Forgetful::new(1);
        let kind = EngineKind::Forgetful(memory.clone());
        let disk = Disk::open(std::path::Path::new("/"), kind, mode).unwrap();
        append(&disk, 0..3).await.unwrap();
        let mut failed = disk.failed();
        memory.fail_syncs();
        append(&disk, 3..4).await.unwrap_err();
        let what = failed.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        assert!(what.starts_with("syncing the log: "), "{what}");
        memory.heal();
        append(&disk, 4..5).await.unwrap_err();
        disk.log_store().save_vote(&Vote::new(9, 1)).await.unwrap_err();
        disk.set_identity(&identity()).unwrap_err();
        assert_eq!(disk.failed().borrow().clone().unwrap(), what);
    }
}

#[tokio::test]
async fn a_cut_of_the_simulated_power_leaves_what_was_synced() {
    for (seed, unsynced) in
        (0..50).map(|seed| (seed, [Unsynced::Lost, Unsynced::ByChance][seed as usize % 2]))
    {
        let memory = Forgetful::new(seed);
        let kind = EngineKind::Forgetful(memory.clone());
        let open = || Disk::open(std::path::Path::new("/"), kind.clone(), FlushMode::Inline).unwrap();
        let disk = open();
        let nonce = disk.nonce().unwrap();
        append(&disk, 0..30).await.unwrap();
        apply(&disk, 0..20).await;
        snapshot(&disk).await;
        disk.log_store().purge(id(10)).await.unwrap();
        disk.log_store().truncate_after(Some(id(25))).await.unwrap();
        memory.power_cut(unsynced);
        append(&disk, 26..27).await.unwrap_err();

        let disk = open();
        assert_eq!(disk.nonce().unwrap(), nonce);
        let found = indexes(&disk).await;
        assert!(found == (11..=25).collect::<Vec<_>>() || found == (11..30).collect::<Vec<_>>(), "{found:?}");
        memory.wipe();
        assert_ne!(open().nonce().unwrap(), nonce);
    }
}

#[test]
fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let first = Disk::open(dir.path(), EngineKind::Sled, FlushMode::Inline).unwrap();
    let second = Disk::open(dir.path(), EngineKind::Sled, FlushMode::Inline);
    assert!(matches!(second, Err(DiskError::Locked { .. })));
    drop(first);
    Disk::open(dir.path(), EngineKind::Sled, FlushMode::Inline).unwrap();
}

#[test]
fn another_engine_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    drop(Disk::open(dir.path(), EngineKind::Sled, FlushMode::Inline).unwrap());
    let Err(error) = Disk::open(dir.path(), EngineKind::Redb, FlushMode::Inline) else {
        panic!("redb was opened")
    };
    assert!(matches!(error, DiskError::Version { .. }), "{error}");
    assert!(
        error.to_string().ends_with("it was made with the engine sled, and redb is configured"),
        "{error}"
    );
}

#[test]
fn a_damaged_store_is_set_aside_whole() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("store");
    for number in 1..=2 {
        let disk = Disk::open(&dir, EngineKind::Sled, FlushMode::Inline).unwrap();
        disk.set_identity(&identity()).unwrap();
        drop(disk);
        fs::remove_file(dir.join("identity.json")).unwrap();
        let refused = Disk::open(&dir, EngineKind::Sled, FlushMode::Inline);
        assert!(matches!(refused, Err(DiskError::Damaged { .. })));
        fs::write(dir.join("kept.json"), "{}").unwrap();
        let place = set_aside(&dir, ASIDE_DAMAGED, &["kept.json"]).unwrap();
        assert_eq!(place, dir.join(format!("damaged-{number}")));
        assert!(place.join("sled/db").exists() && !dir.join("sled").exists());
        assert!(dir.join("kept.json").exists());
    }
}

/// Whatever a crash has left to be moved, the store is refused or is a new one that knows nothing.
#[test]
fn a_store_that_is_half_set_aside_is_never_taken_for_a_whole_one() {
    for steps in 0..=4 {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(dir.path(), EngineKind::Redb, FlushMode::Inline).unwrap();
        disk.set_identity(&identity()).unwrap();
        drop(disk);
        let order = ["identity.json", "snapshots", "witness", "LOCK", "redb"];
        for name in &order[..steps] {
            // There may be no snapshot yet.
            let _ = fs::rename(dir.path().join(name), dir.path().join(format!("{name}.gone")));
        }
        let opened = Disk::open(dir.path(), EngineKind::Redb, FlushMode::Inline);
        match steps {
            0 => assert!(opened.unwrap().identity().unwrap().is_some()),
            _ => assert!(matches!(opened, Err(DiskError::Damaged { .. })), "{steps}"),
        }
    }
}

/// *No Holes*: what is applied and replicated is read while more is appended and the past is purged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_is_read_whole_while_the_log_is_written() {
    for kind in [EngineKind::Sled, EngineKind::Redb] {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(dir.path(), kind, FlushMode::Thread).unwrap();
        let (appended, mut seen) = tokio::sync::watch::channel(8u64);
        append(&disk, 1..8).await.unwrap();
        let mut reader = disk.log_store();
        let done = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
        let read_up_to = done.clone();
        let reading = tokio::spawn(async move {
            let mut next = 1;
            while next < LAST {
                let end = *seen.wait_for(|end| *end > next).await.unwrap();
                use futures::TryStreamExt;
                let read: Vec<Entry> = reader.entries_stream(next..end).await.try_collect().await.unwrap();
                let indexes: Vec<u64> = read.iter().map(|entry| entry.log_id.index).collect();
                assert_eq!(indexes, (next..end).collect::<Vec<_>>());
                next = end;
                read_up_to.store(end - 1, std::sync::atomic::Ordering::Relaxed);
            }
        });
        const LAST: u64 = 4000;
        for begin in (8..LAST).step_by(4) {
            append(&disk, begin..begin + 4).await.unwrap();
            appended.send_replace(begin + 4);
            let read = done.load(std::sync::atomic::Ordering::Relaxed);
            if begin % 400 == 0 && read > 0 {
                disk.log_store().purge(id(read)).await.unwrap();
            }
        }
        reading.await.unwrap();
    }
}

/// After a downgrade: it is no damage, nothing is taken away, and who can read it finds all of it.
#[tokio::test]
async fn what_is_of_later_times_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(dir.path(), EngineKind::Redb, FlushMode::Inline).unwrap();
    disk.set_identity(&Identity { address: Some("a:1".into()), ..identity() }).unwrap();
    append(&disk, 0..5).await.unwrap();
    apply(&disk, 0..5).await;
    snapshot(&disk).await;
    drop(disk);
    let snapshot = fs::read_dir(dir.path().join("snapshots")).unwrap().next().unwrap().unwrap().path();
    let identity = dir.path().join("identity.json");
    let refused = |path: &std::path::Path, later: &[u8]| {
        let now = fs::read(path).unwrap();
        fs::write(path, later).unwrap();
        let opened = Disk::open(dir.path(), EngineKind::Redb, FlushMode::Inline);
        let Err(error) = opened else { panic!("{} was read", path.display()) };
        assert!(matches!(error, DiskError::Version { .. }), "{error}");
        assert!(error.to_string().contains("newer version of coreinit"), "{error}");
        assert_eq!(fs::read(path).unwrap(), later, "it is as it was");
        fs::write(path, now).unwrap();
    };
    let file = fs::read(&snapshot).unwrap();
    let data = 12 + u32::from_le_bytes(file[8..12].try_into().unwrap()) as usize;
    let end = file.len() - 4;
    // The layout, how the head is written, how the state is.
    for (at, byte, record) in [(7, b'2', None), (12, 2, Some(12..data)), (data, 2, Some(data..end))] {
        let mut later = file[..end].to_vec();
        later[at] = byte;
        if let Some(record) = record {
            let checked = [&[byte], &later[record.start + 5..record.end]].concat();
            later[at + 1..at + 5].copy_from_slice(&crc32fast::hash(&checked).to_le_bytes());
        }
        later.extend_from_slice(&crc32fast::hash(&later).to_le_bytes());
        refused(&snapshot, &later);
    }
    let compact = |identity: &str| identity.replace(['\n', ' '], "");
    let file = fs::read_to_string(&identity).unwrap();
    let before = compact(file.split_once("\"identity\":").unwrap().1.rsplit_once(',').unwrap().0);
    let said_otherwise = [
        ("{\"cluster_id\"", "{\"later\":\"a \\\" b\",\"cluster_id\""),
        ("\"nonce\"", "\"later\":1,\"nonce\""),
        ("\"node\":1", "\"node\":[1]"),
    ];
    for (now, then) in said_otherwise {
        assert!(before.contains(now), "{before}");
        let later = before.replacen(now, then, 1);
        let crc32 = crc32fast::hash(later.as_bytes());
        refused(&identity, format!("{{\"identity\": {later}, \"crc32\": {crc32}, \"more\": 1}}").as_bytes());
    }
    // A name that was damaged is none of later times.
    fs::write(&identity, file.replacen("\"address\"", "\"4ddress\"", 1)).unwrap();
    let opened = Disk::open(dir.path(), EngineKind::Redb, FlushMode::Inline);
    assert!(matches!(opened, Err(DiskError::Damaged { .. })), "{:?}", opened.err());
    fs::write(&identity, file).unwrap();
    Disk::open(dir.path(), EngineKind::Redb, FlushMode::Inline).unwrap();
}
