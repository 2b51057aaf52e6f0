//! What the key space does with changes, and that it comes back from a snapshot as it was. That it does as
//! etcd does is shown beside a real one, in `coreinitd`'s tests.

use proptest::prelude::*;

use super::*;

fn path(text: &str) -> KeyPath {
    KeyPath::new(text).unwrap()
}

fn value(text: &str) -> Option<Arc<str>> {
    Some(text.into())
}

fn set(key: &str, text: &str) -> KeyChange {
    KeyChange::Set { path: path(key), value: value(text), end: KeyEnd::Never }
}

fn ending(key: &str, text: &str, at: u64) -> KeyChange {
    KeyChange::Set { path: path(key), value: value(text), end: KeyEnd::At(at) }
}

fn made(space: &mut KeySpace, at: u64, change: &KeyChange) -> Arc<KeyEvent> {
    match space.apply(at, change) {
        Ok(Kind::Key(event)) => event,
        other => panic!("{change:?}: {other:?}"),
    }
}

/// All keys in order, each with what it holds.
fn listed(space: &KeySpace) -> Vec<String> {
    let mut all = Vec::new();
    space.root.visit(&KeyPath::root(), &mut |path, node| match node.value() {
        Some(value) => all.push(format!("{path}={value}")),
        None => all.push(format!("{path}/")),
    });
    all.split_off(1)
}

#[test]
fn a_key_brings_its_directories() {
    let mut space = KeySpace::default();
    let event = made(&mut space, 0, &set("/services/web/1", "a"));
    assert!(event.is_created() && event.index() == 1);
    let event = made(&mut space, 0, &set("/services/web/1", "b"));
    let before = event.before.as_ref().map(|before| (before.value.as_deref(), before.modified));
    assert_eq!((event.is_created(), before), (false, Some((Some("a"), 1))));
    assert_eq!(listed(&space), ["/services/", "/services/web/", "/services/web/1=b"]);
    assert_eq!((space.count(), space.index()), (3, 2));
    let refused = space.apply(0, &set("/services/web/1/x", "c")).unwrap_err();
    assert_eq!((refused.fault, refused.cause.as_str()), (KeyFault::NotDirectory, "/services/web/1"));
    assert_eq!(space.apply(0, &set("/services", "c")).unwrap_err().fault, KeyFault::NotFile);
    assert_eq!(space.apply(0, &set("/", "c")).unwrap_err().fault, KeyFault::ReadOnly);
    let missing = space.get(&path("/services/db/1")).unwrap_err();
    assert_eq!((missing.fault, missing.cause.as_str()), (KeyFault::NotFound, "/services/db"));
}

#[test]
fn keys_end_in_their_order() {
    let mut space = KeySpace::default();
    made(&mut space, 0, &ending("/late", "a", 2000));
    made(&mut space, 0, &ending("/soon", "b", 1000));
    let dir = KeyChange::Set { path: path("/dir"), value: None, end: KeyEnd::At(1500) };
    made(&mut space, 0, &dir);
    made(&mut space, 0, &ending("/dir/in", "c", 9000));
    assert_eq!(space.next_end(), Some(1000));
    assert_eq!(space.apply(999, &KeyChange::Expire), Ok(Kind::Unchanged));
    assert_eq!(space.apply(1500, &KeyChange::Expire), Ok(Kind::Updated));
    assert_eq!((listed(&space), space.next_end()), (vec!["/late=a".to_string()], Some(2000)));
    let events: Vec<_> = space.events_since(5).unwrap().map(|event| event.path.as_str()).collect();
    assert_eq!(events, ["/soon", "/dir"]);
    // Prolonged without a word to anybody, and then for ever.
    let refresh = KeyEnd::Refresh(5000);
    let event =
        made(&mut space, 1500, &KeyChange::Update { path: path("/late"), value: "".into(), end: refresh });
    assert_eq!((event.node.value.as_deref(), event.is_refresh), (Some("a"), true));
    assert_eq!(space.event_since(&path("/late"), false, event.index()), Ok(None));
    let forever = KeyChange::Update { path: path("/late"), value: "z".into(), end: KeyEnd::Never };
    made(&mut space, 1600, &forever);
    assert_eq!(space.next_end(), None);
}

#[test]
fn the_history_is_bounded() {
    let mut space = KeySpace::default();
    for number in 0..KEY_EVENTS_MAX + 10 {
        made(&mut space, 0, &set("/a", &number.to_string()));
    }
    let cleared = space.event_since(&path("/a"), false, 10).unwrap_err();
    assert_eq!(cleared.fault, KeyFault::HistoryCleared);
    assert_eq!(cleared.cause, "the requested history has been cleared [11/10]");
    assert_eq!(space.event_since(&path("/a"), false, 11).unwrap().unwrap().index(), 11);
    assert!(space.events_since(10).is_none() && space.events_since(11).is_some());
    let large = "x".repeat(KEY_VALUE_BYTES_MAX);
    for _ in 0..KEY_EVENTS_BYTES_MAX / KEY_VALUE_BYTES_MAX {
        made(&mut space, 0, &set("/a", &large));
    }
    assert!(space.history.events().count() < 20);
    assert_eq!(space.history.last(), Some(space.index()));
}

#[test]
fn the_key_space_is_bounded() {
    let mut space = KeySpace::default();
    let large = "x".repeat(KEY_VALUE_BYTES_MAX);
    let refused = space.apply(0, &set("/a", &format!("{large}x"))).unwrap_err();
    assert_eq!((refused.fault, space.index()), (KeyFault::TooLarge, 0));
    let mut number = 0;
    let refused = loop {
        if let Err(refused) = space.apply(0, &set(&format!("/a/{number}"), &large)) {
            break refused;
        }
        number += 1;
    };
    assert_eq!(refused.fault, KeyFault::Full);
    assert!(space.bytes() <= KEYS_BYTES_MAX && KEYS_BYTES_MAX < space.bytes() + large.len() + 512);
    // What makes room is taken.
    made(&mut space, 0, &set("/a/0", "small"));
    made(&mut space, 0, &set(&format!("/a/{number}"), "fits"));
    let delete = KeyChange::Delete { path: path("/a"), dir: false, recursive: true };
    made(&mut space, 0, &delete);
    assert_eq!((space.count(), space.bytes()), (0, 0));
}

#[test]
fn there_are_only_so_many_keys() {
    let mut space = KeySpace::default();
    for number in 0..KEYS_MAX - 1 {
        made(&mut space, 0, &set(&format!("/a/{number}"), ""));
    }
    let refused = space.apply(0, &set("/b", "")).unwrap_err();
    assert!(refused.fault == KeyFault::Full && refused.cause.contains("100000 keys"), "{refused}");
    made(&mut space, 0, &set("/a/0", "x"));
}

fn change() -> impl Strategy<Value = (u64, KeyChange)> {
    let name = || prop::sample::select(vec!["a", "b", "_h", "a/a", "a/b", "b/a/c", ""]);
    let text = || prop::sample::select(vec!["", "1", "2"]);
    let end = || {
        prop_oneof![
            Just(KeyEnd::Never),
            (0..50_u64).prop_map(KeyEnd::At),
            (0..50_u64).prop_map(KeyEnd::Refresh)
        ]
    };
    let was = (text(), 0..4_u64).prop_map(|(value, index)| KeyWas { value: value.into(), index });
    let change = (0..9, (name(), text(), end()), (was, any::<bool>(), any::<bool>())).prop_map(
        |(kind, (name, text, end), (was, dir, recursive))| {
            let (path, text, value) = (path(name), Arc::from(text), (!dir).then(|| Arc::from(text)));
            let expires = end.expires();
            match kind {
                0 | 1 => KeyChange::Set { path, value, end },
                2 => KeyChange::Create { path, value, expires },
                3 => KeyChange::CreateInOrder { path, value, expires },
                4 => KeyChange::Update { path, value: text, end },
                5 => KeyChange::CompareAndSwap { path, was, value: text, end },
                6 => KeyChange::Delete { path, dir, recursive },
                7 => KeyChange::CompareAndDelete { path, was },
                _ => KeyChange::Expire,
            }
        },
    );
    (0..60_u64, change)
}

proptest! {
    /// *Whole Keys*: what is counted is what is there, the history is without gaps, and a snapshot brings all
    /// of it back. A refused change changes nothing.
    #[test]
    fn it_comes_back_as_it_was(changes in prop::collection::vec(change(), 1..60)) {
        let mut space = KeySpace::default();
        for (at, change) in &changes {
            let before = space.clone();
            match space.apply(*at, change) {
                Ok(Kind::Key(event)) => {
                    prop_assert_eq!(event.index(), before.index + 1);
                    prop_assert_eq!(space.history.last(), Some(space.index));
                }
                Ok(_) => {}
                Err(refused) => {
                    prop_assert_eq!(&space, &before);
                    prop_assert_eq!(refused.index, before.index);
                }
            }
            let stored = Stored::from(space.clone());
            let read = KeySpace::try_from(stored).map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!(&read, &space);
        }
    }
}

#[test]
fn strange_snapshots_are_refused() {
    let mut space = KeySpace::default();
    made(&mut space, 0, &set("/a/b", "1"));
    made(&mut space, 0, &set("/a/c", "1"));
    let good = Stored::from(space.clone());
    assert_eq!(KeySpace::try_from(good.clone()).unwrap(), space);
    for refused in good.damaged() {
        assert!(KeySpace::try_from(refused).is_err());
    }
}
