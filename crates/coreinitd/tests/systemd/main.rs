//! The agent and its D-Bus driver against a real systemd, in a host that `tests/rack/hosts.sh` boots. Needs
//! root and systemd-nspawn; without them it fails and says so. One host for all of it, since a host takes
//! longer than most checks.

mod failing;
mod host;
mod links;

use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::{ClusterState, DesiredState, UnitFile, UnitName};
use coreinitd::systemd::{DBus, JobEnd, UnitManager};
use futures::future::join_all;
use store::Store;

use host::{Host, OneMachine, hosts, name, sleeper};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_systemd_is_driven() {
    let host = Host::boot();
    let units = host.systemd().await;
    as_fast_as_systemctl(&host, &units, 1).await;
    as_fast_as_systemctl(&host, &units, 100).await;

    a_file_in_a_directory_without_new_time_is_found(&host, &units).await;

    let mut cluster = OneMachine::form().await;
    cluster.begin(units);
    many_at_once(&host, &cluster).await;
    a_killed_process_is_seen(&host, &cluster).await;
    failing::a_failure_says_why(&cluster).await;
    a_new_text_runs(&host, &cluster).await;
    the_machines_own_units_are_left_alone(&host, &cluster).await;
    a_socket_comes_before_its_service(&host, &cluster).await;
    what_is_made_again_runs_the_new_text(&host, &cluster).await;
    failing::a_person_may_start_again_and_again(&host, &cluster).await;
    failing::a_unit_that_waits_to_be_tried_again_says_why(&cluster).await;
    links::others_are_told_who_wants_them(&host, &cluster).await;
    links::what_has_lost_its_file_is_ours_still(&host, &cluster).await;
    a_lost_bus_is_found_again(&host, &cluster).await;
    an_agent_that_comes_back_starts_nothing(&host, &mut cluster).await;
}

/// Starts units through the driver, and as many with systemctl, whose files lie in place.
async fn as_fast_as_systemctl(host: &Host, units: &Arc<DBus>, count: usize) {
    let names: Vec<UnitName> = (0..count).map(|i| name(&format!("ours-{count}-{i}.service"))).collect();
    let file = UnitFile::parse(&sleeper("measured")).unwrap();
    let begun = Instant::now();
    for name in &names {
        units.write(name, &file).await.unwrap();
    }
    assert!(units.link(&names).await.unwrap().is_empty());
    let linked = begun.elapsed();
    let ends = join_all(names.iter().map(|name| units.start(name))).await;
    let ours = begun.elapsed();
    assert!(ends.iter().all(|end| *end == JobEnd::Done), "{ends:?}");
    let ends = join_all(names.iter().map(|name| units.stop(name))).await;
    assert!(ends.iter().all(|end| *end == JobEnd::Done), "{ends:?}");
    assert!(units.remove(&names).await.unwrap().is_empty());

    let dir = host.root.join("run/systemd/system");
    for i in 0..count {
        std::fs::write(dir.join(format!("theirs-{count}-{i}.service")), file.text()).unwrap();
    }
    let begun = Instant::now();
    hosts(&["exec", "h1", "true"]);
    let entering = begun.elapsed();
    let begun = Instant::now();
    let start = format!("systemctl start theirs-{count}-{{0..{}}}.service", count - 1);
    let start = if count == 1 { start.replace("{0..0}", "0") } else { start };
    hosts(&["exec", "h1", "bash", "-c", &start]);
    let theirs = begun.elapsed().saturating_sub(entering);
    hosts(&["exec", "h1", "bash", "-c", &start.replace("start", "stop")]);
    for i in 0..count {
        std::fs::remove_file(dir.join(format!("theirs-{count}-{i}.service"))).unwrap();
    }
    eprintln!("{count} units: linked in {linked:?}, running in {ours:?}; systemctl start {theirs:?}");
    // The machine may be busy with something else during one of the two.
    assert!(ours < theirs * 3 + Duration::from_millis(200), "{ours:?} against {theirs:?}");
}

/// As on a kernel whose clock ticks every 4 ms, when two files come within one tick.
async fn a_file_in_a_directory_without_new_time_is_found(host: &Host, units: &Arc<DBus>) {
    let links = std::fs::File::open(host.root.join("run/systemd/system")).unwrap();
    units.observe(&[name("nobody.service")].into()).await.unwrap();
    let time = links.metadata().unwrap().modified().unwrap();
    let unit = name("same-tick.service");
    units.write(&unit, &UnitFile::parse(&sleeper("same tick")).unwrap()).await.unwrap();
    assert!(units.link(std::slice::from_ref(&unit)).await.unwrap().is_empty());
    links.set_modified(time).unwrap();
    assert_eq!(units.start(&unit).await, JobEnd::Done);
    assert_eq!(units.stop(&unit).await, JobEnd::Done);
    assert!(units.remove(&[unit]).await.unwrap().is_empty());
}

async fn many_at_once(host: &Host, cluster: &OneMachine) {
    let names: Vec<String> = (0..300).map(|i| format!("many-{i}.service")).collect();
    let text = sleeper("one of many");
    let all: Vec<_> = names.iter().map(|name| (name.as_str(), &*text, DesiredState::Launched)).collect();
    let begun = Instant::now();
    let before = cluster.store.state().borrow().revision.0;
    cluster.set(&all).await;
    let up = |state: &ClusterState| state.observed.values().filter(|o| &*o.active == "active").count() == 300;
    let after = cluster.wait("300 units are up", up).await;
    let proposals = after.revision.0 - before - 2;
    eprintln!("300 units wanted, started and reported: {:?}, {proposals} proposals", begun.elapsed());
    assert!(proposals <= 60, "{proposals} proposals");
    let active = host.systemctl(&["list-units", "--plain", "--no-legend", "--state=active", "many-*"]);
    assert_eq!(active.lines().count(), 300);
    let begun = Instant::now();
    cluster.destroy(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    eprintln!("300 units destroyed: {:?}", begun.elapsed());
    assert_eq!(host.systemctl(&["list-units", "--all", "--plain", "--no-legend", "many-*"]), "");
    assert_eq!(std::fs::read_dir(host.root.join("run/coreinit/units")).unwrap().count(), 0);
}

async fn a_killed_process_is_seen(host: &Host, cluster: &OneMachine) {
    cluster.start("victim.service", &sleeper("victim")).await;
    assert_eq!(&*cluster.settled("victim.service").await.active, "active");
    host.systemctl(&["kill", "-s", "KILL", "victim.service"]);
    let failed = |state: &ClusterState| {
        state.observed_of(&name("victim.service")).any(|(_, o)| {
            o.failure.as_ref().is_some_and(|f| f.reason == "signal (killed by signal 9)")
                && &*o.active == "failed"
        })
    };
    cluster.wait("the kill is reported with its reason", failed).await;
    cluster.destroy(&["victim.service"]).await;
}

async fn a_new_text_runs(host: &Host, cluster: &OneMachine) {
    for round in 0..3 {
        cluster.start("text.service", &sleeper(&format!("version {round}"))).await;
        assert_eq!(&*cluster.settled("text.service").await.active, "active");
        let shown = host.systemctl(&["show", "-P", "Description", "text.service"]);
        assert_eq!(shown, format!("version {round}"));
        assert_eq!(host.systemctl(&["show", "-P", "NeedDaemonReload", "text.service"]), "no");
    }
    cluster.destroy(&["text.service"]).await;
}

async fn the_machines_own_units_are_left_alone(host: &Host, cluster: &OneMachine) {
    let before = host.systemctl(&["show", "-P", "MainPID,FragmentPath", "dbus.service"]);
    cluster.start("dbus.service", &sleeper("not the bus")).await;
    let observed = cluster.settled("dbus.service").await;
    assert_eq!(&*observed.active, "failed");
    let reason = observed.failure.unwrap().reason;
    assert!(
        reason.contains("/lib/systemd/system/dbus.service") && reason.contains("another name"),
        "{reason}"
    );
    cluster.destroy(&["dbus.service"]).await;
    assert_eq!(host.systemctl(&["show", "-P", "MainPID,FragmentPath", "dbus.service"]), before);
}

async fn a_socket_comes_before_its_service(host: &Host, cluster: &OneMachine) {
    let socket = "[Socket]\nListenStream=127.0.0.1:7999\n";
    let service = "[Service]\nExecStart=/bin/sleep 1000\n";
    let (launched, loaded) = (DesiredState::Launched, DesiredState::Loaded);
    cluster.set(&[("pair.service", service, loaded), ("pair.socket", socket, launched)]).await;
    assert_eq!(&*cluster.settled("pair.socket").await.sub, "listening");
    assert_eq!(&*cluster.settled("pair.service").await.active, "inactive");
    hosts(&["exec", "h1", "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/7999"]);
    let up = |state: &ClusterState| {
        state.observed_of(&name("pair.service")).any(|(_, observed)| &*observed.active == "active")
    };
    cluster.wait("the connection has started the service", up).await;
    cluster.destroy(&["pair.service", "pair.socket"]).await;

    for _ in 0..5 {
        cluster.set(&[("both.service", service, launched), ("both.socket", socket, launched)]).await;
        assert_eq!(&*cluster.settled("both.socket").await.active, "active");
        assert_eq!(&*cluster.settled("both.service").await.active, "active");
        cluster.destroy(&["both.service", "both.socket"]).await;
    }
    assert_eq!(host.systemctl(&["list-units", "--all", "--plain", "--no-legend", "pair*", "both*"]), "");
}

async fn what_is_made_again_runs_the_new_text(host: &Host, cluster: &OneMachine) {
    // The friend's After= keeps systemd from letting go of the unit.
    let friend = sleeper("friend").replace("[Service]", "After=again.service\n[Service]");
    cluster.start("friend.service", &friend).await;
    cluster.settled("friend.service").await;
    for round in 0..4 {
        cluster.start("again.service", &sleeper(&format!("life {round}"))).await;
        assert_eq!(&*cluster.settled("again.service").await.active, "active");
        let shown = host.systemctl(&["show", "-P", "Description", "again.service"]);
        assert_eq!(shown, format!("life {round}"));
        cluster.destroy(&["again.service"]).await;
    }
    cluster.destroy(&["friend.service"]).await;
}

async fn a_lost_bus_is_found_again(host: &Host, cluster: &OneMachine) {
    for (step, loss) in ["daemon-reexec", "restart dbus.service"].into_iter().enumerate() {
        let slow = format!("[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sleep 1.{step}\n");
        let (before, during, after) = (
            format!("before-{step}.service"),
            format!("during-{step}.service"),
            format!("after-{step}.service"),
        );
        cluster.start(&before, &sleeper("before")).await;
        cluster.settled(&before).await;
        cluster.start(&during, &slow).await;
        cluster
            .wait("the slow start is under way", |state| {
                state.observed_of(&name(&during)).any(|(_, observed)| &*observed.active == "activating")
            })
            .await;
        let begun = Instant::now();
        host.systemctl(&loss.split(' ').collect::<Vec<_>>());
        cluster.start(&after, &sleeper("after")).await;
        assert_eq!(&*cluster.settled(&after).await.active, "active");
        eprintln!("{loss}: the next unit ran after {:?}", begun.elapsed());
        assert_eq!(&*cluster.settled(&during).await.active, "active");
        host.systemctl(&["kill", "-s", "KILL", &before]);
        let failed = |state: &ClusterState| {
            state.observed_of(&name(&before)).any(|(_, observed)| &*observed.active == "failed")
        };
        cluster.wait("a kill is seen again", failed).await;
        cluster.destroy(&[&before, &during, &after]).await;
    }
}

async fn an_agent_that_comes_back_starts_nothing(host: &Host, cluster: &mut OneMachine) {
    let once = "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo once >>/run/once'\n";
    cluster.start("once.service", once).await;
    cluster.start("stays.service", &sleeper("stays")).await;
    cluster.settled("once.service").await;
    cluster.settled("stays.service").await;
    let pid = host.systemctl(&["show", "-P", "MainPID", "stays.service"]);
    cluster.end().await;
    assert_eq!(host.systemctl(&["show", "-P", "MainPID", "stays.service"]), pid);
    cluster.begin(host.systemd().await);
    cluster.start("later.service", &sleeper("later")).await;
    cluster.settled("later.service").await;
    assert_eq!(host.systemctl(&["show", "-P", "MainPID", "stays.service"]), pid);
    assert_eq!(std::fs::read_to_string(host.root.join("run/once")).unwrap(), "once\n");
    cluster.destroy(&["once.service", "stays.service", "later.service"]).await;
    cluster.end().await;
}
