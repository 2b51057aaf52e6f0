//! What a configuration comes to.

use super::*;

fn check(file: &str, expected: Result<fn(&Config) -> bool, &str>) {
    // No machine has been made a member there.
    let data_dir = Some("/nonexistent".into());
    let flags = Flags { machine_id: Some("m1".into()), data_dir, ..Flags::default() };
    let file = toml::from_str::<File>(file).map_err(anyhow::Error::from);
    let merged = file.and_then(|file| Config::merge(&flags, file, FleetConf::default()));
    match (merged, expected) {
        (Ok(config), Ok(holds)) => assert!(holds(&config), "{config:?}"),
        (Err(error), Err(text)) => assert!(format!("{error:#}").contains(text), "{error:#}"),
        (got, _) => panic!("unexpected: {got:?}"),
    }
}

#[test]
fn an_empty_file_is_a_machine_that_joins_by_hand() {
    check("", Ok(|c| c.by_hand && c.listen == "0.0.0.0:7340" && !c.exposed && c.join.is_empty()));
    check("listen = '127.0.0.1'", Ok(|c| !c.by_hand && c.listen == "127.0.0.1:7340" && !c.exposed));
    check("insecure_transport = true", Ok(|c| !c.by_hand && c.listen == "127.0.0.1:7340"));
}

#[test]
fn the_port_opens_only_when_told_twice() {
    check("join = ['10.1.2.4']", Err("set cluster_secret_file"));
    check("listen = '10.1.2.3'", Ok(|c| c.by_hand && !c.exposed));
    check(
        "listen = '10.1.2.3'\ncluster_secret_file = '/etc/coreinit/secret'",
        Ok(|c| !c.exposed && !c.by_hand && c.advertise.as_deref() == Some("10.1.2.3:7340")),
    );
    check(
        "listen = '10.1.2.3'\ninsecure_transport = true",
        Ok(|c| c.exposed && c.advertise.as_deref() == Some("10.1.2.3:7340") && c.address() == "10.1.2.3"),
    );
}

#[test]
fn the_api_opens_beyond_loopback_only_when_told_twice() {
    check("api_listen = ['127.0.0.1:49153', '[::1]:1']", Ok(|c| c.api_listen.len() == 2 && !c.exposed));
    check("api_listen = ['0.0.0.0:49153']", Err("insecure_transport = true"));
    check("api_listen = ['[::]:49153']", Err("insecure_transport = true"));
    check("api_listen = ['example.org:49153']", Err("insecure_transport = true"));
    check("api_listen = ['127.0.0.1']", Err("has no port"));
    check(
        "api_listen = ['10.0.0.1:1']\ninsecure_transport = true\nfleet_socket = '/run/fleet.sock'",
        Ok(|c| !c.exposed && c.fleet_socket.as_deref() == Some(std::path::Path::new("/run/fleet.sock"))),
    );
}

#[test]
fn people_are_served_by_their_certificates() {
    check("api_tls_listen = '0.0.0.0'\nlisten = '127.0.0.1'", Err("set cluster_secret_file"));
    check(
        "api_tls_listen = '0.0.0.0'\ncluster_secret_file = '/s'\nsocket_role = 'viewer'",
        Ok(|c| {
            c.api_tls_listen.as_deref() == Some("0.0.0.0:7421")
                && (c.socket_role, c.api_listen_role) == (PersonRole::Viewer, PersonRole::Operator)
        }),
    );
    check("api_listen_role = 'root'", Err("api_listen_role"));
}

#[test]
fn fleets_file_is_under_our_own() {
    let flags = Flags { machine_id: Some("m".into()), ..Flags::default() };
    let text = "verbosity=1\npublic_ip=192.0.2.1\nmetadata=a=fleet,b=fleet\nagent_ttl=30s\n";
    let fleet = fleet_conf::read(text, []);
    let merge = |file: &str| Config::merge(&flags, toml::from_str(file).unwrap(), fleet.clone()).unwrap();
    let config = merge("");
    assert_eq!((config.address(), config.log.as_str()), ("192.0.2.1".into(), LOG_VERBOSE));
    assert_eq!(config.machine_lost_after, Duration::from_secs(30));
    let config =
        merge("machine_lost_after = '9s'\npublic_ip = '192.0.2.2'\nlog = 'warn'\n[metadata]\na = 'ours'\n");
    assert_eq!((config.address(), config.log.as_str()), ("192.0.2.2".into(), "warn"));
    assert_eq!(config.machine_lost_after, Duration::from_secs(9));
    assert_eq!((&*config.metadata["a"], &*config.metadata["b"]), ("ours", "fleet"));
}

/// The daemon's own configuration stands over fleet's, option by option.
#[test]
fn fleets_etcd_is_used_once_the_state_is_kept_in_one() {
    let flags = Flags { machine_id: Some("m".into()), ..Flags::default() };
    let text = "etcd_servers=[\"http://a:4001\",\"http://b\"]\netcd_key_prefix=/x/fleet\netcd_username=u\n\
                etcd_password=hunter2\netcd_cafile=/nonexistent\n";
    let mut fleet = fleet_conf::read(text, []);
    fleet.etcd.origin = "fleet.conf: ".into();
    let merge = |file: &str| Config::merge(&flags, toml::from_str(file).unwrap(), fleet.clone()).unwrap();
    let config = merge("listen = '127.0.0.1'");
    let said = config.notes.join("\n");
    assert!(config.etcd.is_none() && config.notes.len() == 5, "{said}");
    assert!(
        said.contains("fleet.conf: etcd_servers is not used") && said.contains("it would be etcd_endpoints")
    );

    let config = merge("backend = 'etcd'");
    let said = config.notes.join("\n");
    let etcd = config.etcd.unwrap();
    assert_eq!(etcd.endpoints, ["http://a:4001", "http://b:2379"]);
    assert_eq!(etcd.prefix, "/x/fleet/coreinit/");
    assert_eq!(etcd.user.map(|user| (user.name, user.password)), Some(("u".into(), "hunter2".into())));
    // There is nothing to encrypt.
    assert!(etcd.tls.is_none() && said.contains("etcd_cafile is not used"), "{said}");
    assert!(said.contains("etcd_servers is used as etcd_endpoints") && !said.contains("hunter2"), "{said}");

    let config = merge("backend = 'etcd'\netcd_endpoints = ['c']\netcd_prefix = '/y/'");
    let said = config.notes.join("\n");
    let etcd = config.etcd.unwrap();
    assert_eq!((etcd.endpoints, etcd.prefix), (vec!["http://c:2379".into()], "/y/".into()));
    assert!(
        said.contains("etcd_servers is not used: etcd_endpoints of coreinit's own stands over it"),
        "{said}"
    );
}

#[test]
fn with_etcd_the_port_opens_for_machines_that_know_each_other() {
    check("backend = 'etcd'", Ok(|c| c.listen == "127.0.0.1:7340" && !c.exposed));
    check(
        "backend = 'etcd'\nlisten = '10.1.2.3:7'\ncluster_secret_file = '/s'",
        Ok(|c| c.peer_address() == "10.1.2.3:7" && !c.exposed && !c.by_hand),
    );
}

#[test]
fn slips_are_named() {
    check("bootstrap_expects = 3", Err("bootstrap_expects"));
    check("bootstrap_expect = 3", Err("`join` names no machines"));
    check("machine_lost_after = 'soon'", Err("is no time span"));
    check("machine_lost_after = '1s'", Err("too short"));
    check("machine_id = 'a b'", Ok(|c| c.machine.as_str() == "m1"));
}

#[test]
fn three_equal_lines() {
    check(
        "bootstrap_expect = 3\njoin = ['a', 'b:1', 'c']\nlisten = '127.0.0.1'",
        Ok(|c| c.bootstrap_expect == 3 && c.join == ["a:7340", "b:1", "c:7340"]),
    );
}

#[test]
fn flags_win_over_the_file() {
    let flags = Flags { machine_id: Some("m".into()), socket: Some("/s".into()), ..Flags::default() };
    let file = toml::from_str("socket = '/other'\ndata_dir = '/d'").unwrap();
    let config = Config::merge(&flags, file, FleetConf::default()).unwrap();
    assert_eq!((config.socket, config.data_dir), ("/s".into(), "/d".into()));
}

/// It goes to the journal, and somebody may have put a password where none belongs.
#[test]
fn a_slip_is_told_without_its_line() {
    let check = |text: &str, expected: &str| {
        let said = with_options(text, &CloudConfig::default()).map(drop).unwrap_err().to_string();
        assert!(said.starts_with(expected) && !said.contains("hunter2"), "{said}");
    };
    check("log = 'info'\netcd_password = 'hunter2'\n", "line 2: unknown field `etcd_password`");
    check("etcd_password = hunter2\n", "line 1: ");
}
