//! What no recorded exchange shows: machines' own words, ssh, the tunnel, variables and flags.

use crate::UNITS;
use crate::exchange::Said;
use crate::world::World;

#[track_caller]
fn is(said: &Said, code: i32, out: &[&str], err: &[&str]) {
    let lines = |lines: &[&str]| lines.iter().map(|line| line.to_string()).collect::<Vec<_>>();
    assert_eq!(*said, Said { code, out: lines(out), err: lines(err) });
}

#[tokio::test]
async fn the_machines_words_come_without_ssh() {
    let world = World::begin(UNITS).await;
    world.run("fleetctl start hello.service pin1.service").await;
    is(&world.run("fleetctl status hello pin1").await, 3, &["○ hello.service on 86162747"], &[]);
    let broke_off = "the journal broke off: its machine, or a daemon on the way, went away";
    is(
        &world.run("fleetctl journal -n 3 -f hello").await,
        1,
        &["hello.service on 86162747: 3 short true"],
        &[broke_off],
    );
    is(
        &world.run("fleetctl journal --output=cat --sudo pin1").await,
        0,
        &["pin1.service on ee34029e: 10 cat false"],
        &[],
    );
    let nothing = std::fs::read_to_string(world.dir.path().join("ssh.log"));
    assert!(nothing.is_err(), "{nothing:?}");
}

#[tokio::test]
async fn ssh_is_called_as_the_flags_say() {
    let world = World::begin(UNITS).await;
    world.run("fleetctl start hello.service").await;
    is(&world.run("fleetctl --ssh-username=me ssh -A hello.service hostname").await, 0, &["n2"], &[]);
    is(&world.run("fleetctl ssh --machine=ee34 -ssh-port 2222 hostname").await, 0, &["n1"], &[]);
    let log = std::fs::read_to_string(world.dir.path().join("ssh.log")).unwrap();
    let known = format!("UserKnownHostsFile={}/.fleetctl/known_hosts", world.dir.path().display());
    let expected = format!(
        "-o ConnectTimeout=10 -o {known} -l me -A -- 10.77.0.12 hostname\n\
         -o ConnectTimeout=10 -o {known} -l core -p 2222 -- 10.77.0.11 hostname\n"
    );
    assert_eq!(log, expected);
    is(&world.run("corectl ssh n2 -- hostname -f").await, 0, &["n2"], &[]);
    is(&world.run("corectl ssh hello exit 7").await, 7, &[], &[]);
    let said = world.run("corectl ssh nothing").await;
    assert_eq!((said.code, said.err.len()), (1, 1), "{:?}", said.err);
}

#[tokio::test]
async fn a_tunnel_carries_the_api() {
    let world = World::begin(UNITS).await;
    let machines = world.run("fleetctl list-machines").await;
    assert_eq!((machines.code, machines.out.len()), (0, 4));
    assert_eq!(world.run("fleetctl --tunnel=10.77.0.12 list-machines").await, machines);
    assert_eq!(
        world.run_with("fleetctl list-machines", &[("FLEETCTL_TUNNEL", "10.77.0.12")]).await,
        machines
    );
    let log = std::fs::read_to_string(world.dir.path().join("ssh.log")).unwrap();
    assert!(
        log.lines().count() == 2 && log.contains("/fleet.sock") && log.contains("-l core -- 10.77.0.12"),
        "{log}"
    );
    let ours = world.run("corectl --tunnel core@10.77.0.12 list-machines --fields=machine").await;
    assert_eq!((ours.code, ours.out.len()), (0, 4));
    let failed = "printf '#!/bin/sh\\nexit 255\\n' >bin/ssh; fleetctl --tunnel=10.77.0.99 list-machines";
    let failed = world.run(failed).await;
    assert_eq!(failed.code, 1);
    assert!(
        failed.err[0].starts_with("Unable to initialize client: failed initializing SSH client: "),
        "{:?}",
        failed.err
    );
}

#[tokio::test]
async fn variables_stand_for_flags() {
    let world = World::begin(UNITS).await;
    is(
        &world.run_with("fleetctl list-machines", &[("FLEETCTL_ENDPOINT", "foo")]).await,
        1,
        &[],
        &["Unable to initialize client: URL scheme undefined"],
    );
    is(
        &world.run_with("fltctl list-machines", &[("FLTCTL_DRIVER", "foo")]).await,
        1,
        &[],
        &["Unable to initialize client: unrecognized driver \"foo\""],
    );
    let debug = world.run_with("fltctl list-machines", &[("FLTCTL_DEBUG", "true")]).await;
    assert_eq!((debug.code, debug.out.len()), (0, 4));
    assert!(debug.err.iter().any(|line| line.ends_with("DEBUG GET /v1/machines: 200 OK")), "{:?}", debug.err);
}
