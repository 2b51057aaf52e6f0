//! A second machine with the id of one that lives is kept out, and harms nothing.

use std::fs;
use std::path::Path;

use store::{Role, Store};
use tokio::time::Instant;

use crate::{LIMIT, Machine, follows, leads, submit};

/// A machine that leads, and one that follows it.
async fn two(first: &Path, second: &Path) -> (Machine, Machine) {
    let one = Machine::start("m1", first, &[]).await;
    one.store.init(None).await.unwrap();
    one.becomes(leads).await;
    let other = Machine::start("m2", second, &[one.store.address()]).await;
    other.becomes(follows).await;
    (one, other)
}

/// It is told that a machine at that address has its id.
async fn is_refused(twin: &Machine, address: &str) {
    let text = format!("the machine at {address} has the same machine id");
    let told = twin.becomes(|role| matches!(role, Role::Unformed { hint } if hint.starts_with(&text))).await;
    let Role::Unformed { hint } = told else { unreachable!("just looked at") };
    assert!(hint.contains("systemd-machine-id-setup"), "{hint}");
}

async fn works(machine: &Machine, name: &str) {
    machine.store.propose(submit(name), Instant::now() + LIMIT).await.unwrap();
}

fn copy_all(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => {
                fs::create_dir(&target).unwrap();
                copy_all(&entry.path(), &target);
            }
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_machine_with_one_id_is_kept_out_until_the_first_has_gone() {
    let dirs: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    let (one, other) = two(dirs[0].path(), dirs[1].path()).await;
    let leaders_twin = Machine::start("m1", dirs[2].path(), &[one.store.address()]).await;
    let followers_twin = Machine::start("m2", dirs[3].path(), &[one.store.address()]).await;
    is_refused(&leaders_twin, one.store.address()).await;
    is_refused(&followers_twin, other.store.address()).await;
    works(&other, "a.service").await;
    works(&one, "b.service").await;
    assert_eq!(one.store.voting().unwrap().voters, other.store.voting().unwrap().voters);

    other.stop().await;
    followers_twin.becomes(follows).await;
    works(&followers_twin, "c.service").await;
    for machine in [one, leaders_twin, followers_twin] {
        machine.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_machine_with_its_store_does_not_start() {
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let (one, other) = two(dirs[0].path(), dirs[1].path()).await;
    let join = one.store.address().to_string();
    // Of files that are not being written, which they are no more once the membership has settled.
    works(&other, "before.service").await;
    copy_all(dirs[1].path(), dirs[2].path());
    let copy = Machine::start("m2", dirs[2].path(), &[&join]).await;
    is_refused(&copy, other.store.address()).await;
    works(&other, "a.service").await;
    for machine in [one, other, copy] {
        machine.stop().await;
    }
}
