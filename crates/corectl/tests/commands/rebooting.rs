//! `reboot-lock reboot` and `cluster leave`: when this machine is told to go, and when not.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::play::{Play, Said, end};

const FREE: &str = r#"{"type":"a(ssssuu)","data":[[]]}"#;
const APT: &str = r#"{"type":"a(ssssuu)","data":[[["shutdown","APT","it installs packages","block",0,9]]]}"#;

/// With programs of systemd's that only play their parts.
async fn reboot(play: &Play, locks: &str, arguments: &[&str]) -> (Said, bool) {
    let programs = play.dir.path().join("programs");
    let rebooted = play.dir.path().join("rebooted");
    let _ = fs::remove_file(&rebooted);
    fs::create_dir_all(&programs).unwrap();
    let program = |name: &str, text: String| {
        let path = programs.join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    program("busctl", format!("echo '{locks}'"));
    program("systemctl", format!("test \"$*\" = reboot && : >{}", rebooted.display()));
    let arguments = [&["reboot-lock", "reboot", "--timeout", "100ms"], arguments].concat();
    let child = play.command(&arguments).env("PATH", &programs).spawn().unwrap();
    let said = end(tokio::spawn(async move { child.wait_with_output().await.unwrap() })).await;
    (said, rebooted.exists())
}

#[tokio::test]
async fn only_without_a_daemon_nobody_is_asked() {
    let mut play = Play::begin().await;
    // It stopped, or restarts: its socket is there.
    play.stop_serving().await;
    for strategy in ["best-effort", "etcd-lock"] {
        let (said, rebooted) = reboot(&play, FREE, &["--strategy", strategy]).await;
        assert!(said.code == 1 && !rebooted, "{strategy}: {}", said.err);
        assert!(said.err.contains("not in time: nobody answers"), "{strategy}: {}", said.err);
    }
    let (said, rebooted) = reboot(&play, FREE, &["--strategy", "reboot"]).await;
    assert!(said.code == 0 && rebooted, "{}", said.err);
    // None has run since the boot.
    fs::remove_file(play.socket()).unwrap();
    let (said, rebooted) = reboot(&play, FREE, &["--strategy", "etcd-lock"]).await;
    assert!(said.code == 1 && !rebooted, "{}", said.err);
    let (said, rebooted) = reboot(&play, FREE, &[]).await;
    assert!(said.code == 0 && rebooted, "{}", said.err);
}

/// No slot is taken meanwhile.
#[tokio::test]
async fn a_package_manager_at_work_is_not_interrupted() {
    let play = Play::begin().await;
    for strategy in ["best-effort", "etcd-lock", "reboot"] {
        let (said, rebooted) = reboot(&play, APT, &["--strategy", strategy]).await;
        assert!(said.code == 1 && !rebooted, "{strategy}: {}", said.err);
        assert!(said.err.contains("waiting: APT: it installs packages"), "{strategy}: {}", said.err);
    }
    assert!(play.state().reboot_groups.is_empty(), "{:?}", play.state().reboot_groups);
}

#[tokio::test]
async fn a_machine_that_cannot_leave_is_told_how_it_works_on() {
    let play = Play::begin().await;
    play.running("a.service").await;
    let said = play.run(&["cluster", "leave", "--timeout", "0s"]).await;
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(said.err.contains("`corectl uncordon m1` lets it take units again"), "{}", said.err);
    play.run(&["uncordon", "m1"]).await.is(0, "h1 (10.0.0.1): gets units again\n", "");
}
