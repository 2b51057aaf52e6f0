//! A change of the secret, with a new start of the daemon after each step.

use std::collections::BTreeSet;

use cluster::Rotation;

use super::*;
use crate::trust::FILE;

const OLD: [u8; 40] = [b'a'; 40];
const NEW: [u8; 40] = [b'b'; 40];

fn secret(bytes: &[u8]) -> Secret {
    Secret::new(bytes).unwrap()
}

fn digest(bytes: &[u8]) -> String {
    Authority::of(&secret(bytes)).unwrap().digest()
}

fn me() -> MachineId {
    MachineId::new("m1").unwrap()
}

/// As the daemon has them after a start.
fn keys(dir: &Path, by_hand: bool) -> Keys {
    let base = match by_hand {
        true => Secret::new(&Trust::read(dir).unwrap().unwrap().secret_bytes().unwrap()).unwrap(),
        false => secret(&OLD),
    };
    let kept = kept(dir).unwrap();
    let keyring = keyring(&Secrets::of(&base, kept.as_ref()).unwrap(), &me()).unwrap();
    Keys { keyring, dir: dir.into(), by_hand, held: Mutex::new(Held { base, kept }) }
}

fn rotating(phase: RotationPhase, step: &RotationStep) -> Cluster {
    let RotationStep::Begin { authority, sealed } = step.clone() else { panic!("{step:?}") };
    let rotation = Rotation { number: 1, phase, authority, sealed, confirmed: BTreeSet::new() };
    Cluster { rotation: Some(rotation), ..Cluster::default() }
}

/// By hand and by a file alike, with a new beginning after each step.
#[test]
fn what_was_followed_outlives_a_crash() {
    for by_hand in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        if by_hand {
            Trust { secret: hex(&OLD), join: vec!["a:1".into()], init: None, advertise: None }
                .write(dir)
                .unwrap();
        }
        let begin = keys(dir, by_hand).rotation(Some(&NEW)).unwrap();
        assert!(keys(dir, by_hand).rotation(Some(&OLD)).is_err(), "it has that one");
        for (phase, shown) in [(RotationPhase::Trust, &OLD), (RotationPhase::Issue, &NEW)] {
            let cluster = rotating(phase, &begin);
            let before = keys(dir, by_hand);
            assert_eq!(before.follow(&cluster, &me()).unwrap(), Some((1, phase)));
            for keys in [before, keys(dir, by_hand)] {
                assert_eq!(keys.keyring.authority().digest(), digest(shown), "{phase:?}");
                let (secret, kept) = keys.admitted().unwrap();
                assert_eq!((secret, kept.unwrap().new), (hex(&OLD), hex(&NEW)));
            }
        }
        let over = Cluster { rotations: 1, authority: Some(digest(&NEW)), ..Cluster::default() };
        assert_eq!(keys(dir, by_hand).follow(&over, &me()).unwrap(), None);
        let after = keys(dir, by_hand);
        assert_eq!(after.keyring.authority().digest(), digest(&NEW));
        assert_eq!(after.admitted().unwrap(), (hex(&NEW), None));
        assert_eq!(after.follow(&over, &me()).unwrap(), None);
        let left: Vec<_> = std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().file_name()).collect();
        // A secret file is not ours to write.
        assert_eq!(left, [if by_hand { FILE } else { KEPT_FILE }]);
        assert_eq!(by_hand, Trust::read(dir).unwrap().is_some_and(|trust| trust.secret == hex(&NEW)));
    }
}

/// A disk that takes nothing for a while does not leave a machine with the old secret.
#[test]
fn an_end_that_could_not_be_written_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let trust = Trust { secret: hex(&OLD), join: vec!["a:1".into()], init: None, advertise: None };
    trust.write(dir).unwrap();
    let keys = keys(dir, true);
    let begin = keys.rotation(Some(&NEW)).unwrap();
    for phase in [RotationPhase::Trust, RotationPhase::Issue] {
        keys.follow(&rotating(phase, &begin), &me()).unwrap();
    }
    let over = Cluster { rotations: 1, authority: Some(digest(&NEW)), ..Cluster::default() };
    let (file, away) = (dir.join(FILE), dir.join("away"));
    std::fs::rename(&file, &away).unwrap();
    std::fs::create_dir(&file).unwrap();
    keys.follow(&over, &me()).unwrap_err();
    assert_eq!(keys.admitted().unwrap().1.unwrap().new, hex(&NEW), "the new one is not forgotten");

    std::fs::remove_dir(&file).unwrap();
    std::fs::rename(&away, &file).unwrap();
    assert_eq!(keys.follow(&over, &me()).unwrap(), None);
    assert_eq!(keys.admitted().unwrap(), (hex(&NEW), None));
}

#[test]
fn a_change_that_was_given_up_leaves_the_old_secret() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keys(dir.path(), false);
    let begin = keys.rotation(Some(&NEW)).unwrap();
    keys.follow(&rotating(RotationPhase::Trust, &begin), &me()).unwrap();
    let given_up = Cluster { rotations: 1, ..Cluster::default() };
    assert_eq!(keys.follow(&given_up, &me()).unwrap(), None);
    assert_eq!(kept(dir.path()).unwrap(), None);
    assert_eq!(keys.admitted().unwrap(), (hex(&OLD), None));
}

#[test]
fn a_secret_that_is_not_ours_to_make_has_to_be_given() {
    let dir = tempfile::tempdir().unwrap();
    let refused = keys(dir.path(), false).rotation(None).unwrap_err().to_string();
    assert!(refused.contains("--secret-file"), "{refused}");
    let short = keys(dir.path(), false).rotation(Some(b"swordfish")).unwrap_err().to_string();
    assert!(short.contains("9 bytes") && !short.contains("swordfish"), "{short}");
}
