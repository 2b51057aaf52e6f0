//! What commands ask of the cluster: which units, from which files, and when nothing at all.

use std::os::unix::fs::symlink;

use cluster::DesiredState::{Inactive, Launched, Loaded};

use crate::play::{GOOD, Play, name};

#[tokio::test]
async fn files_links_templates_and_pairs_go_as_one_batch() {
    let play = Play::begin().await;
    let before = play.state().revision.0;
    play.file("hello.service", GOOD);
    play.file("web@.service", GOOD);
    symlink("web@.service", play.dir.path().join("web@1.service")).unwrap();
    play.file("s.service", GOOD);
    play.file("s.socket", "[Socket]\nListenStream=1\n");
    let arguments = [
        "start",
        "--no-block",
        "hello.service",
        "web@.service",
        "web@1.service",
        "web@2",
        "s.service",
        "./s.socket",
    ];
    let said = play.run(&arguments).await;
    said.is(
        0,
        "web@.service: submitted; a template is not started, its instances are\n\
         hello.service: will be started\n\
         s.service: will be loaded\ns.socket: will be started\nweb@1.service: will be started\n\
         web@2.service: will be started\n",
        "",
    );
    assert_eq!(play.state().revision.0, before + 1, "one batch");
    let expected = [
        ("hello.service", Launched),
        ("s.service", Loaded),
        ("s.socket", Launched),
        ("web@.service", Inactive),
        ("web@1.service", Launched),
        ("web@2.service", Launched),
    ];
    for (unit, desired) in expected {
        assert_eq!(play.desired(unit), Some(desired), "{unit}");
    }
    assert_eq!(play.state().units[&name("web@2.service")].file.text(), GOOD, "an instance has a full copy");
}

#[tokio::test]
async fn a_template_of_the_cluster_makes_instances() {
    let play = Play::begin().await;
    play.create("web@.service", Inactive).await;
    play.run(&["start", "--no-block", "web@1"]).await.is(0, "web@1.service: will be started\n", "");
    assert_eq!(play.desired("web@1.service"), Some(Launched));
}

#[tokio::test]
async fn every_bad_argument_is_told_and_nothing_is_sent() {
    let play = Play::begin().await;
    let before = play.state().revision;
    play.file("good.service", GOOD);
    play.file("bad.service", "[Service]\nExecStart=/bin/true\nfoo\n");
    play.file("both.service", "[X-Fleet]\nReplaces=b.service\nConflicts=a.service\n");
    play.file("README.md", "# Read me\n\nText.\n");
    std::fs::create_dir(play.dir.path().join("dir")).unwrap();
    let said = play
        .run(&["start", "good.service", "bad.service", "dir", "README.md", "both.service", "none@1", "x y"])
        .await;
    assert_eq!((said.code, said.out.as_str()), (1, ""));
    let lines: Vec<&str> = said.err.lines().collect();
    assert_eq!(lines.len(), 7, "{}", said.err);
    assert!(lines[0].starts_with("corectl: bad.service:3: no \"=\""), "{}", lines[0]);
    assert_eq!(lines[1], "corectl: dir is a directory; name the unit files in it, such as dir/*");
    assert_eq!(
        lines[2],
        "corectl: README.md: this is no unit file, neither by its name nor by what is in it"
    );
    assert_eq!(lines[3], "corectl: \"x y\" is no unit: invalid character ' ' in unit name");
    assert_eq!(lines[4], "corectl: both.service: Conflicts cannot be used with Replaces");
    assert_eq!(lines[5], "corectl: unable to find unit none@1.service in the cluster or on this file system");
    assert_eq!(lines[6], "corectl: nothing was sent to the cluster");
    assert_eq!(play.state().revision, before);
}

#[tokio::test]
async fn another_file_is_refused_unless_it_is_to_replace() {
    let play = Play::begin().await;
    play.running("a.service").await;
    let generation = play.generation("a.service");
    play.file("a.service", "[Service]\nExecStart=/bin/true\n");
    let differs = "corectl: a.service in the cluster differs from a.service; \
                   add --replace to put this in its place\n\
                   corectl: nothing was sent to the cluster\n";
    play.run(&["start", "a.service"]).await.is(1, "", differs);
    let refused = "corectl: a.service is launched; replace it with `corectl start --replace`, \
                   or unload it first\n\
                   corectl: nothing was sent to the cluster\n";
    play.run(&["submit", "--replace", "a.service"]).await.is(1, "", refused);
    play.run(&["load", "--replace", "a.service"]).await.is(1, "", refused);
    assert_eq!(play.generation("a.service"), generation);
    play.run(&["start", "--no-block", "--replace", "a.service"]).await.is(
        0,
        "a.service: will be started\n",
        "",
    );
    assert!(play.generation("a.service") > generation);
    assert_eq!(play.desired("a.service"), Some(Launched));
}

#[tokio::test]
async fn nothing_that_runs_is_stopped_by_submitting_or_loading_it() {
    let play = Play::begin().await;
    play.running("a.service").await;
    play.file("a.service", GOOD);
    let generation = play.generation("a.service");
    play.run(&["submit", "a.service"]).await.is(0, "a.service: launched already\n", "");
    play.run(&["load", "a.service"]).await.is(0, "a.service: launched already\n", "");
    play.run(&["start", "a.service"]).await.is(0, "a.service: active (running) on h1 (10.0.0.1)\n", "");
    assert_eq!(play.generation("a.service"), generation, "nothing was asked of the machine");
    play.file("new.service", GOOD);
    play.run(&["submit", "new.service"]).await.is(0, "new.service: submitted\n", "");
    play.run(&["submit", "new.service"]).await.is(0, "new.service: submitted already\n", "");
    assert_eq!(play.desired("new.service"), Some(Inactive));
}

#[tokio::test]
async fn what_has_failed_or_ended_is_started_again() {
    let play = Play::begin().await;
    for (unit, active) in [("failed.service", "failed"), ("ended.service", "inactive")] {
        play.create(unit, Launched).await;
        play.assign(unit, "m1").await;
        play.report(unit, "m1", active, "dead").await;
        let generation = play.generation(unit);
        play.run(&["start", "--no-block", unit]).await.is(0, &format!("{unit}: will be started\n"), "");
        assert!(play.generation(unit) > generation, "{unit}");
        assert_eq!(play.desired(unit), Some(Launched));
    }
}

#[tokio::test]
async fn unknown_units_do_not_hold_up_the_others() {
    let play = Play::begin().await;
    for unit in ["web@1.service", "web@2.service", "db.service"] {
        play.running(unit).await;
    }
    let said = play.run(&["stop", "--no-block", "web@*.service", "no.service", "no*", "a b"]).await;
    said.is(
        1,
        "web@1.service: will be stopped\nweb@2.service: will be stopped\n",
        "corectl: \"a b\" is no unit: invalid character ' ' in unit name\n\
         corectl: unit no.service is not in the cluster\n\
         corectl: no unit in the cluster matches \"no*\"\n",
    );
    assert_eq!(play.desired("web@2.service"), Some(Loaded));
    assert_eq!(play.desired("db.service"), Some(Launched));
    play.run(&["unload", "--no-block", "db"]).await.is(0, "db.service: will be unloaded\n", "");
    play.run(&["stop", "db"]).await.is(0, "db.service: inactive already\n", "");
    play.run(&["destroy", "--no-block", "db"]).await.is(0, "db.service: will be destroyed\n", "");
    assert_eq!(play.desired("db.service"), None);
}

#[tokio::test]
async fn more_names_than_fit_into_a_request() {
    let play = Play::begin().await;
    let names: Vec<String> = (0..3000).map(|n| format!("a-rather-long-name-of-a-unit-{n}.service")).collect();
    play.file("a.service", GOOD);
    for name in &names {
        symlink("a.service", play.dir.path().join(name)).unwrap();
    }
    let with = |command| [&[command], &*names.iter().map(String::as_str).collect::<Vec<_>>()].concat();
    let said = play.run(&with("submit")).await;
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    let said = play.run(&with("destroy")).await;
    assert_eq!((said.code, said.err.as_str(), said.out.lines().count()), (0, "", 3000));
    assert!(play.state().units.is_empty());
}

#[tokio::test]
async fn instances_are_counted() {
    let play = Play::begin().await;
    play.file("web@.service", GOOD);
    let started = "web@1.service: will be started\nweb@2.service: will be started\n";
    play.run(&["start", "--no-block", "--count", "2", "web@.service"]).await.is(0, started, "");
    play.run(&["start", "--no-block", "--count=3", "web@"]).await.is(
        0,
        &format!("{started}web@3.service: will be started\n"),
        "",
    );
    let fewer = play.run(&["start", "--no-block", "--worker=1", "web@.service"]).await;
    fewer.is(
        0,
        "web@1.service: will be started\n",
        "beyond 1, and left as they are: web@2.service web@3.service; `corectl destroy` takes them away\n",
    );
    assert_eq!(play.desired("web@3.service"), Some(Launched));
    let no_template = play.run(&["start", "--count", "2", "web.service"]).await;
    assert!(no_template.code == 1 && no_template.err.contains("web@.service"), "{}", no_template.err);
}

#[tokio::test]
async fn what_is_required_is_written_into_the_file() {
    let play = Play::begin().await;
    play.file("a.service", GOOD);
    play.run(&["start", "--no-block", "--require", "disk=ssd,zone=a", "a.service"]).await.is(
        0,
        "a.service: will be started\n",
        "",
    );
    let text = play.state().units[&name("a.service")].file.text().to_string();
    assert!(text.ends_with("\n\n[X-Coreinit]\nMachineMetadata=disk=ssd\nMachineMetadata=zone=a\n"), "{text}");
    std::fs::remove_file(play.dir.path().join("a.service")).unwrap();
    let again = play.run(&["start", "--no-block", "--require", "disk=hdd", "a"]).await;
    assert!(again.code == 1 && again.err.contains("asks for disk=ssd itself"), "{}", again.err);
    assert_eq!(play.run(&["start", "--require", "disk", "a"]).await.code, 2);
}
