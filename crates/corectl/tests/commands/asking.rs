//! What commands tell of the cluster, and of what is wrong with it.

use cluster::DesiredState::{Inactive, Launched};

use crate::play::{GOOD, Play};

#[tokio::test]
async fn lists_and_status() {
    let play = Play::begin().await;
    play.running("a.service").await;
    play.create("b.service", Inactive).await;
    play.create("c.service", Launched).await;
    play.assign("c.service", "m2").await;
    play.report_failure(
        "c.service",
        "m2",
        "failed",
        "failed",
        Some("start job failed: exit-code (status 3)"),
    )
    .await;
    play.run(&["list-units"]).await.is(
        0,
        "UNIT       LOAD    ACTIVE  SUB      DESC   MACHINE\n\
         a.service  loaded  active  running  Sleep  m1/10.0.0.1\n\
         c.service  loaded  failed  failed   Sleep  m2/10.0.0.2\n",
        "",
    );
    let files = play.run(&["list-unit-files", "--no-legend", "?.service"]).await;
    let hash: String = play.state().units.values().next().unwrap().file.hash().to_string();
    let hash = &hash[..7];
    files.is(
        0,
        &format!(
            "a.service  {hash}  launched  launched  m1/10.0.0.1\nb.service  {hash}  inactive  inactive  -\n\
             c.service  {hash}  launched  launched  m2/10.0.0.2\n"
        ),
        "",
    );
    play.run(&["list-machines"]).await.is(
        0,
        "MACHINE  NAME  IP        STATE  UNITS  METADATA\n\
         m1       h1    10.0.0.1  ready  1      -\n\
         m2       h2    10.0.0.2  ready  1      -\n",
        "",
    );
    play.run(&["cat", "a"]).await.is(0, GOOD, "");
    let generation = play.generation("a.service");
    play.run(&["status", "a"]).await.is(
        0,
        &format!(
            "● a.service - Sleep\n     Loaded: loaded (hash {hash})\n     Active: active (running)\n    \
             Machine: h1 (10.0.0.1), fewest units (0)\n    Desired: launched (generation {generation})\n\n\
             h1 (10.0.0.1):\n● a.service on m1\n"
        ),
        "",
    );
    let brief = play.run(&["status", "--brief", "a"]).await;
    assert!(brief.code == 0 && !brief.out.contains("on m1"), "{}", brief.out);
    // Its machine does not answer; what the cluster knows is told all the same.
    let failed = play.run(&["status", "c"]).await;
    assert_eq!(failed.code, 3);
    assert_eq!(failed.err, "corectl: h2 (10.0.0.2): cannot reach 10.0.0.2:7340: connection refused\n");
    let end = "    Failure: start job failed: exit-code (status 3)\n\nlast words\n";
    assert!(failed.out.starts_with("× c.service - Sleep\n") && failed.out.ends_with(end), "{}", failed.out);
    let unknown = play.run(&["status", "a", "x"]).await;
    assert_eq!((unknown.code, &*unknown.err), (4, "corectl: unit x.service is not in the cluster\n"));
    assert_eq!(play.run(&["status", "b"]).await.code, 3);
    let json: api::v1::Units =
        serde_json::from_str(&play.run(&["list-units", "-o", "json"]).await.out).unwrap();
    assert_eq!(json.units.len(), 3);
    let status = play.run(&["cluster", "status"]).await;
    assert!(
        status.code == 0 && status.out.contains("leader") && status.out.contains("test"),
        "{}",
        status.out
    );
}

#[tokio::test]
async fn errors_are_the_daemons_own() {
    let mut play = Play::begin().await;
    play.lead(false);
    let no_leader = "corectl: the cluster has no leader: none was elected; there has been none for 2 s\n";
    play.run(&["list-units"]).await.is(1, "", no_leader);
    play.run(&["start", "a"]).await.is(1, "", no_leader);
    play.run(&["list-machines", "--stale", "--no-legend"]).await.is(
        0,
        "m1  h1  10.0.0.1  ready  0  -\nm2  h2  10.0.0.2  ready  0  -\n",
        "",
    );
    play.lead(true);
    play.run(&["cluster", "init"]).await.is(
        1,
        "",
        "corectl: this machine is part of a cluster already: c1\n",
    );
    play.run(&["cat", "no"]).await.is(1, "", "corectl: unit no.service is not in the cluster\n");
    play.stop_serving().await;
    let gone = play.run(&["list-units"]).await;
    assert_eq!(gone.code, 1);
    let socket = play.socket().display().to_string();
    assert!(gone.err.contains(&socket) && gone.err.contains("is coreinitd running?"), "{}", gone.err);
    play.run(&["--endpoint", "https://x", "list-units"]).await.is(
        1,
        "",
        "corectl: endpoint \"https://x\" is neither a path, nor unix://PATH, nor http://HOST:PORT\n",
    );
    let refused = play.run(&["--endpoint", "http://127.0.0.1:1", "list-units"]).await;
    assert!(refused.err.starts_with("corectl: cannot connect to http://127.0.0.1:1: "), "{}", refused.err);
    play.run(&["--driver", "etcd", "list-units"]).await.is(
        1,
        "",
        "corectl: there is no driver \"etcd\": the daemons keep the state themselves, so API is all\n",
    );
    assert_eq!(play.run(&["verify", "a.service"]).await.code, 2);
    assert_eq!(play.run(&["help", "start"]).await.code, 0);
    assert_eq!(play.run(&["start"]).await.code, 2);
    assert_eq!(play.run(&["bogus"]).await.code, 2);
    play.run(&["--version"]).await.is(0, &format!("corectl {}\n", env!("CARGO_PKG_VERSION")), "");
}

/// `corectl list-units | head -1`: as if nothing had happened.
#[tokio::test]
async fn a_reader_may_go_away() {
    let play = Play::begin().await;
    for n in 0..2000 {
        play.create(&format!("a-unit-with-a-rather-long-name-{n}.service"), Inactive).await;
    }
    let script = format!("set -o pipefail; {} list-unit-files | head -n 1", env!("CARGO_BIN_EXE_corectl"));
    let mut command = tokio::process::Command::new("bash");
    command.args(["-c", &script]).env("COREINIT_ENDPOINT", play.socket());
    let output = command.output().await.unwrap();
    assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]));
    assert!(output.stdout.starts_with(b"UNIT"));
}

#[tokio::test]
async fn a_journal_comes_from_the_units_machine() {
    let play = Play::begin().await;
    play.running("a.service").await;
    play.create("b.service", Launched).await;
    let followed = play.run(&["journal", "-n", "3", "-f", "-o", "cat", "a"]).await;
    let broke_off = "corectl: the journal broke off: its machine, or a daemon on the way, went away\n";
    followed.is(1, "a.service on m1: 3 lines, cat, followed\n", broke_off);
    play.run(&["journal", "a.service", "--machine", "h1"]).await.is(
        0,
        "a.service on m1: 10 lines, short\n",
        "",
    );
    play.run(&["journal", "a", "-m", "m2"]).await.is(
        1,
        "",
        "corectl: cannot reach 10.0.0.2:7340: connection refused\n",
    );
    play.run(&["journal", "a", "-m", "h9"]).await.is(1, "", "corectl: no machine is called \"h9\"\n");
    play.run(&["journal", "b"]).await.is(1, "", "corectl: unit b.service is on no machine\n");
    play.run(&["journal", "c"]).await.is(1, "", "corectl: unit c.service is not in the cluster\n");
    let too_many = play.run(&["journal", "a", "-n", "1000000"]).await;
    assert!(too_many.code == 1 && too_many.err.contains("lines must be 0 to 100000"), "{}", too_many.err);
}

#[tokio::test]
async fn lists_have_the_columns_that_are_asked_for() {
    let play = Play::begin().await;
    play.running("a.service").await;
    let hash: String = play.state().units.values().next().unwrap().file.hash().to_string();
    let units = play.run(&["list-units", "--fields", "hash,unit", "-l"]).await;
    units.is(0, &format!("{:<40}  UNIT\n{hash}  a.service\n", "HASH"), "");
    play.run(&["list-unit-files", "--no-legend", "--fields=unit,desc,global"]).await.is(
        0,
        "a.service  Sleep  false\n",
        "",
    );
    play.run(&["list-machines", "--fields=ip"]).await.is(0, "IP\n10.0.0.1\n10.0.0.2\n", "");
    assert_eq!(play.run(&["list-units", "--fields=bogus"]).await.code, 2);
}

/// The shell's question is answered with what the cluster has, and nothing when nobody answers.
#[tokio::test]
async fn units_and_machines_are_completed() {
    let mut play = Play::begin().await;
    play.running("web@1.service").await;
    play.file("web.socket", "[Socket]\nListenStream=1\n");
    let check = async |play: &Play, words: &[&str], expected: &str| {
        let mut shell = play.command(&[&["--", "corectl"], words].concat());
        shell.env("COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", words.len().to_string());
        shell.env("_CLAP_IFS", "\n");
        let output = shell.output().await.unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected, "{words:?}");
    };
    check(&play, &["stop", "we"], "web@1.service\nweb.socket").await;
    check(&play, &["drain", "h"], "h1\nh2").await;
    play.stop_serving().await;
    check(&play, &["journal", "we"], "web.socket").await;
    for shell in ["bash", "zsh", "fish"] {
        let script = play.run(&["completion", shell]).await;
        assert!(script.code == 0 && script.out.contains("COMPLETE"), "{shell}");
    }
    play.run(&["man", "pages"]).await.is(0, "", "");
    let page = std::fs::read_to_string(play.dir.path().join("pages/corectl-start.1")).unwrap();
    assert!(page.contains("all\\-machines") || page.contains("all-machines"), "{page}");
}
