//! A backup is read as it was written, or not at all.

use cluster::{
    Command, DesiredState, KeyChange, KeyEnd, KeyPath, MachineId, MachineInfo, Revision, UnitFile, UnitName,
};
use proptest::prelude::*;

use super::*;

pub(crate) fn state() -> ClusterState {
    let mut state = ClusterState::default();
    let (id, info) = (MachineId::new("m1").unwrap(), MachineInfo::default());
    let init = Command::InitCluster { id: "c1".into(), name: "test".into() };
    state.apply_all(Revision(1), &[init, Command::RegisterMachine { id, info }]);
    for number in 0..20 {
        let name = UnitName::new(&format!("unit-{number}.service")).unwrap();
        let file = Some(UnitFile::parse(&format!("[Service]\nExecStart=/bin/echo {number}\n")).unwrap());
        let desired = Some(DesiredState::Launched);
        state.apply_all(Revision(2 + number), &[Command::SetUnit { name, file, desired }]);
    }
    let at = 1_700_000_000_000;
    let path = KeyPath::new("/services/web").unwrap();
    let set = KeyChange::Set { path, value: Some("10.0.0.1:80".into()), end: KeyEnd::At(at + 1000) };
    state.apply_all(Revision(21), &[Command::Keys { at, change: set }]);
    state
}

#[test]
fn a_state_comes_back_as_it_was() {
    let bytes = of(&state(), "0.1.0").unwrap().to_bytes();
    let (head, read) = read(&bytes).unwrap();
    assert_eq!(read, state());
    assert_eq!((read.keys.count(), read.keys.index()), (2, 1));
    assert_eq!((head.units, head.machines, head.revision), (20, 1, 21));
}

#[test]
fn a_state_without_a_cluster_has_no_backup() {
    assert!(of(&ClusterState::default(), "0.1.0").is_err());
}

#[test]
fn what_is_whole_and_wrong_is_refused() {
    let good = of(&state(), "0.1.0").unwrap();
    let refused = |backup: Backup| read(&backup.to_bytes()).unwrap_err().to_string();
    let newer = Head { feature_level: FEATURE_LEVEL + 1, version: "7.0".into(), ..good.head.clone() };
    assert!(refused(Backup { head: newer, ..good.clone() }).contains("coreinit 7.0, which knows more"));
    let other = Head { cluster_id: "c2".into(), ..good.head.clone() };
    assert!(refused(Backup { head: other, ..good.clone() }).contains("of another state"));
    let empty = codec::encode(&ClusterState::default()).unwrap();
    assert!(refused(Backup { record: empty, ..good.clone() }).contains("no cluster"));
    let later = codec::sealed(&[9; 40]);
    assert!(refused(Backup { record: later, ..good.clone() }).contains("which knows more"));
    let mut cut = good.record.clone();
    cut.truncate(40);
    assert!(refused(Backup { record: cut, ..good }).contains("damaged inside"));
}

/// Every bit, one by one: what is in the file is small enough for that.
#[test]
fn every_flipped_bit_is_refused() {
    let good = of(&state(), "0.1.0").unwrap().to_bytes();
    for at in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[at / 8] ^= 1 << (at % 8);
        assert!(read(&bytes).is_err(), "bit {at} was flipped unseen");
    }
}

proptest! {
    #[test]
    fn damage_of_any_kind_is_refused(
        at in 0usize..3000, length in 1usize..600, fill in any::<u8>(), kind in 0..3,
    ) {
        let good = of(&state(), "0.1.0").unwrap().to_bytes();
        let at = at % good.len();
        let end = (at + length).min(good.len());
        let bytes: Vec<u8> = match kind {
            0 => [&good[..at], &vec![fill; end - at], &good[end..]].concat(),
            1 => [&good[..at], &good[end..]].concat(),
            _ => [&good[..end], &good[at..]].concat(),
        };
        prop_assert!(bytes == good || read(&bytes).is_err());
    }

    #[test]
    fn foreign_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(read(&bytes).is_err());
        let named = [b"corebkp1".as_slice(), &bytes].concat();
        prop_assert!(read(&named).is_err());
    }
}
