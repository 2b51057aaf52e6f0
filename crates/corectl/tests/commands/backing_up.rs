//! `corectl cluster backup`: a file that is whole, or none.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use cluster::DesiredState::{Inactive, Launched};
use store::Role;

use crate::play::Play;

#[tokio::test]
async fn a_backup_holds_the_state_as_it_is() {
    let play = Play::begin().await;
    play.create("a.service", Launched).await;
    play.create("b.service", Inactive).await;
    play.file("b", "an older one");
    let said = play.run(&["cluster", "backup", "b"]).await;
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    assert!(said.out.starts_with("b: cluster test at revision "), "{}", said.out);
    assert!(said.out.contains(": 2 units, 2 machines, "), "{}", said.out);
    let folder = play.socket().parent().unwrap().to_path_buf();
    let bytes = fs::read(folder.join("b")).unwrap();
    assert_eq!(coreinitd::backup::read(&bytes).unwrap().1, *play.state());
    assert_eq!(fs::metadata(folder.join("b")).unwrap().permissions().mode() & 0o777, 0o600);

    let piped = play.command(&["cluster", "backup", "-"]).output().await.unwrap();
    assert_eq!(coreinitd::backup::read(&piped.stdout).unwrap().1, *play.state());
    assert!(String::from_utf8_lossy(&piped.stderr).starts_with("cluster test at revision "));

    let said = play.run(&["-o", "json", "cluster", "backup", "c"]).await;
    assert!(said.out.contains(r#""clusterId": "c1""#), "{}", said.out);
}

#[tokio::test]
async fn without_a_leader_there_is_no_file() {
    let play = Play::begin().await;
    play.store.set_role(Role::Leaderless);
    let said = play.run(&["cluster", "backup", "b"]).await;
    assert!(said.code == 1 && said.err.contains("has no leader"), "{} {}", said.code, said.err);
    let folder = play.socket().parent().unwrap().to_path_buf();
    let names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["coreinit.sock"]);
    play.store.set_role(Role::Leader { term: 2 });
    let said = play.run(&["cluster", "backup", "nowhere/b"]).await;
    assert!(said.code == 1 && said.err.contains("cannot write nowhere/b"), "{}", said.err);
}
