//! What user data comes to, and that nothing of it is guessed.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use proptest::prelude::*;

use super::*;

fn addresses() -> Addresses {
    Addresses { private_ipv4: Some("10.0.0.7".into()), public_ipv4: None }
}

fn understand(text: &str) -> anyhow::Result<CloudConfig> {
    understood(&format!("#cloud-config\n{text}"), &addresses)
}

#[track_caller]
fn steps(text: &str) -> Vec<String> {
    let cloud = understand(text).unwrap_or_else(|error| panic!("{text}: {error:#}"));
    cloud.plan.steps.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn refused(text: &str, part: &str) {
    let error = understand(text).map(|cloud| cloud.plan).expect_err(text);
    assert!(format!("{error:#}").contains(part), "{text}: {error:#}");
}

/// The order is coreos-cloudinit's: everything is in its place before the first command.
#[test]
fn units_are_placed_then_commanded() {
    let text = "
coreos:
  update:
    reboot-strategy: etcd-lock
  units:
    - name: a.service
      command: start
      enable: true
      content: |
        [Service]
        ExecStart=/bin/a
      drop-ins:
        - name: 10-more.conf
          content: |
            [Service]
            Environment=A=b
    - name: b.service
      runtime: true
      command: restart
    - name: c.service
      mask: true
      command: stop
    - name: eth.network
      enable: true
      command: start
      content: |
        [Match]
        Name=eth0
write_files:
  - path: /etc/motd
    permissions: 0640
    owner: root:root
    content: |
      hello
";
    assert_eq!(
        steps(text),
        [
            "write /etc/motd (6 bytes, mode 0640, owner root:root)",
            "set REBOOT_STRATEGY=etcd-lock in /etc/coreinit/update.conf",
            "enable coreinit-reboot-done.service",
            "enable coreinit-reboot.path",
            "write /etc/systemd/system/a.service (27 bytes, mode 0644)",
            "write /etc/systemd/system/a.service.d/10-more.conf (26 bytes, mode 0644)",
            "enable a.service",
            "unmask /run/systemd/system/b.service",
            "mask /etc/systemd/system/c.service",
            "write /etc/systemd/network/eth.network (18 bytes, mode 0644)",
            "reload systemd's units",
            "restart systemd-networkd.service",
            "start coreinit-reboot.path",
            "start a.service",
            "restart b.service",
            "stop c.service",
        ]
    );
}

#[test]
fn every_strategy_is_known() {
    let check = |strategy: &str, is_on: bool| {
        let steps = steps(&format!("coreos: {{update: {{reboot-strategy: {strategy}}}}}"));
        let value = strategy.trim_matches(['"', '\'']);
        assert_eq!(steps[0], format!("set REBOOT_STRATEGY={value} in /etc/coreinit/update.conf"));
        let expected: &[&str] = match is_on {
            true => &[
                "enable coreinit-reboot-done.service",
                "enable coreinit-reboot.path",
                "start coreinit-reboot.path",
            ],
            false => &["disable coreinit-reboot.path", "stop coreinit-reboot.path"],
        };
        assert_eq!(steps[1..], *expected, "{strategy}");
    };
    check("best-effort", true);
    check("etcd-lock", true);
    check("reboot", true);
    check("off", false);
    check("\"off\"", false);
    refused("coreos: {update: {reboot-strategy: never}}", "never");
    assert!(steps("coreos: {update: {group: stable}}").is_empty());
}

#[test]
fn contents_come_in_several_encodings() {
    let check = |encoding: &str, content: &str| {
        let text = format!("write_files: [{{path: /f, encoding: '{encoding}', content: '{content}'}}]");
        let cloud = understand(&text).unwrap_or_else(|error| panic!("{text}: {error:#}"));
        let [Step::Write(file)] = &cloud.plan.steps[..] else { panic!("{:?}", cloud.plan) };
        assert_eq!(file.bytes, b"hello\n", "{encoding}");
    };
    check("base64", "aGVsbG8K");
    check("b64", "aGVs bG8K");
    for encoding in ["gz+base64", "gzip+base64", "gz+b64", "gzip+b64"] {
        check(encoding, "H4sIAAAAAAAAA8tIzcnJ5wIAIDA6NgYAAAA=");
    }
    let broken =
        |encoding, content| format!("write_files: [{{path: /f, encoding: {encoding}, content: {content}}}]");
    refused(&broken("base64", "a"), "base64");
    refused(&broken("gz", "a"), "gzip");
    refused(&broken("rot13", "a"), "rot13");
}

#[test]
fn slips_are_refused_and_nothing_is_done() {
    refused("write_files: [{path: etc/motd}]", "not absolute");
    refused("write_files: [{path: /etc/../motd}]", "..");
    refused("write_files: [{path: /}]", "not absolute");
    refused("write_files: [{path: /f, permissions: '0849'}]", "octal");
    refused("write_files: [{path: /f, permissions: '10000'}]", "octal");
    refused("write_files: [{path: /f, contents: a}]", "contents");
    refused("write_files: [{path: /f, append: true}]", "append");
    refused("write_files: {path: /f}", "cannot be understood");
    refused("coreos: {units: [{command: start}]}", "no unit's name");
    refused("coreos: {units: [{name: a, command: start}]}", "no unit's name");
    refused("coreos: {units: [{name: ../a.service}]}", "no unit's name");
    refused("coreos: {units: [{name: a.service, command: begin}]}", "try-restart");
    refused("coreos: {units: [{name: a.service, enabled: true}]}", "enabled");
    refused("coreos: {units: [{name: a.service, drop-ins: [{name: a.txt}]}]}", "*.conf");
    refused("coreos: {units: [{name: a.service, drop-ins: [{name: a/b.conf}]}]}", "*.conf");
    refused("coreos: {units: [{name: a.service, drop-ins: [{name: a.conf}, {name: a.conf}]}]}", "twice");
    refused("a: [", "no YAML");
    refused("- a", "no table");
    refused("a: 1\na: 2", "no YAML");
    let text = "#!/bin/sh\n";
    assert!(understood(text, &addresses).is_err_and(|error| error.to_string().contains("#cloud-config")));
    for nothing in ["", "\n# only words\n", "coreos:\n  units: []\n"] {
        assert!(steps(nothing).is_empty(), "{nothing}");
    }
}

/// Errors go to the journal, and tokens are in user data.
#[test]
fn what_is_near_a_slip_is_not_shown() {
    for slip in ["    owner: [", "    colour: red", " bad", "    append: perhaps", "  - content: {a: 1}"] {
        let text = format!(
            "coreinit:\n  log: hunter2\nwrite_files:\n  - path: /etc/token\n    content: hunter2\n{slip}\n\
             more: hunter2\n"
        );
        let said = format!("{:#}", understand(&text).map(|cloud| cloud.plan).expect_err(slip));
        assert!(!said.contains("hunter2"), "{slip}: {said}");
        assert!(said.contains("line"), "{slip}: {said}");
    }
}

/// Below the root of a test; systemd is nowhere.
async fn carried_out(cloud: &CloudConfig, root: &Path) -> anyhow::Result<Vec<String>> {
    cloud.carry_out(root, || Some("unix:path=/nowhere/bus".into())).await
}

#[tokio::test]
async fn what_fails_is_told_once_a_boot() {
    let root = tempfile::tempdir().unwrap();
    let text = "write_files: [{path: /a, owner: nobody-here}, {path: /b, content: b}]";
    let cloud = understand(text).unwrap();
    let failed = carried_out(&cloud, root.path()).await.unwrap();
    assert!(failed.len() == 1 && failed[0].contains("nobody-here"), "{failed:?}");
    // What was done is not done again, whatever failed beside it.
    std::fs::remove_file(root.path().join("b")).unwrap();
    assert_eq!(carried_out(&cloud, root.path()).await.unwrap(), [""; 0]);
    assert!(!root.path().join("b").exists());
    // Another file is another matter.
    let other = understand("write_files: [{path: /b, content: c}]").unwrap();
    assert_eq!(carried_out(&other, root.path()).await.unwrap(), [""; 0]);
    assert!(root.path().join("b").exists());
}

#[tokio::test]
async fn without_systemd_all_of_it_is_tried_again() {
    let root = tempfile::tempdir().unwrap();
    let text = "write_files: [{path: /b}]\ncoreos: {units: [{name: a.service, command: start}]}";
    let cloud = understand(text).unwrap();
    for _ in 0..2 {
        let error = carried_out(&cloud, root.path()).await.unwrap_err();
        assert!(error.is::<Later>(), "{error:#}");
        std::fs::remove_file(root.path().join("b")).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_address_is_waited_for() {
    let text = "#cloud-config\nwrite_files: [{path: /f, content: $private_ipv4}]";
    let begun = Instant::now();
    let from = |seconds| {
        move || {
            let is_there = Duration::from_secs(seconds) <= begun.elapsed();
            let own = move || if is_there { addresses() } else { Addresses::default() };
            understood(text, &own).context("in a file")
        }
    };
    let cloud = read_with_addresses(&from(7)).await.unwrap();
    assert_eq!((cloud.plan.steps.len(), begun.elapsed().as_secs()), (1, 7));
    let error = read_with_addresses(&from(1000)).await.unwrap_err();
    assert!(error.is::<Later>() && format!("{error:#}").contains("COREOS_PRIVATE_IPV4"), "{error:#}");
    assert_eq!(begun.elapsed().as_secs(), 67);
    // A slip is no better later.
    let error = read_with_addresses(&|| understand("a: [")).await.unwrap_err();
    assert!(!error.is::<Later>() && begun.elapsed().as_secs() == 67, "{error:#}");
}

/// A soft reboot leaves /run, and nothing that was done.
#[test]
fn a_boot_takes_away_what_was_done() {
    let lines = include_str!("../../../../dist/tmpfiles.d/coreinit.conf");
    for path in [DONE, "/run/coreinit/done"] {
        assert!(lines.lines().any(|line| line == format!("R! {path}")), "{path}");
    }
}

#[test]
fn what_is_for_others_is_noted() {
    let text =
        "hostname: a\nusers: []\nwrite-files: []\ncoreos: {etcd2: {name: a}, update: {server: s}, units: []}";
    let notes = understand(text).unwrap().notes.join("\n");
    for key in ["hostname", "users", "coreos.etcd2", "coreos.update.server"] {
        assert!(notes.contains(&format!("{key} is left to other programs")), "{notes}");
    }
    assert_eq!(notes.lines().count(), 4, "{notes}");
}

#[test]
fn options_are_the_daemons_and_fleets() {
    let text = "
coreos:
  fleet:
    public-ip: $private_ipv4
    metadata: region=us-west,disk=ssd
    verbosity: 1
  coreinit:
    public-ip: 192.0.2.9
    join: 10.0.0.1, 10.0.0.2
    metadata: {rack: 7, ssd: true}
coreinit:
  bootstrap-expect: 3
";
    let cloud = understand(text).unwrap();
    let fleet: Vec<(&str, &str)> = cloud.fleet.iter().map(|(key, value)| (&**key, &**value)).collect();
    let told = [("metadata", "region=us-west,disk=ssd"), ("public_ip", "10.0.0.7"), ("verbosity", "1")];
    assert_eq!(fleet, told);
    let options = "bootstrap_expect = 3\njoin = ['10.0.0.1', '10.0.0.2']\npublic_ip = '192.0.2.9'\n\
                   [metadata]\nrack = '7'\nssd = 'true'\n";
    assert_eq!(cloud.options, toml::from_str(options).unwrap());
    let as_text = understand("coreinit: {metadata: 'a=b,c=d=e'}").unwrap().options;
    assert_eq!(as_text, toml::from_str("metadata = {a = 'b', c = 'd=e'}").unwrap());
    refused("coreinit: {metadata: 'a'}", "no KEY=VALUE");
    refused("coreos: {fleet: {metadata: [a]}}", "no single value");
}

/// A configuration with the cloud-config over the file, and the environment of neither.
#[test]
fn the_cloud_config_wins_over_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let (config, cloud) = (dir.path().join("coreinitd.toml"), dir.path().join("user-data"));
    std::fs::write(&config, "machine_name = 'file'\npublic_ip = '1.1.1.1'\n[metadata]\na = 'file'\n")
        .unwrap();
    let text = "#cloud-config\ncoreos: {fleet: {metadata: 'b=fleet,a=fleet'}}\n\
                coreinit: {public-ip: 2.2.2.2, listen: 127.0.0.1}\n";
    std::fs::write(&cloud, text).unwrap();
    let flags = |path: &Path| Flags {
        config: Some(config.clone()),
        cloud_config: Some(path.into()),
        machine_id: Some("m1".into()),
        ..Flags::default()
    };
    let loaded = crate::config::Config::load(&flags(&cloud)).unwrap();
    assert_eq!((loaded.machine_name.as_str(), loaded.public_ip.as_deref()), ("file", Some("2.2.2.2")));
    assert_eq!(loaded.metadata, [("a", "file"), ("b", "fleet")].map(|(k, v)| (k.into(), v.into())).into());
    std::fs::write(&cloud, "#cloud-config\ncoreinit: {colour: red}\n").unwrap();
    let error = crate::config::Config::load(&flags(&cloud)).unwrap_err();
    assert!(format!("{error:#}").contains("colour"), "{error:#}");
}

#[test]
fn addresses_stand_where_their_names_stood() {
    let text = |content: &str| format!("write_files: [{{path: /f, content: '{content}'}}]");
    let check = |content: &str, expected: &str| {
        let cloud = understand(&text(content)).unwrap();
        let [Step::Write(file)] = &cloud.plan.steps[..] else { panic!("{:?}", cloud.plan) };
        assert_eq!(std::str::from_utf8(&file.bytes), Ok(expected));
    };
    check("http://$private_ipv4:80 $HOME $", "http://10.0.0.7:80 $HOME $");
    check("a\\$private_ipv4 $private_ipv4", "a$private_ipv4 10.0.0.7");
    refused(&text("$public_ipv4"), "COREOS_PUBLIC_IPV4");
}

#[test]
fn files_are_there_whole_with_mode_and_owner() {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path.trim_start_matches('/'));
    std::fs::create_dir_all(at("/etc/systemd/system")).unwrap();
    std::fs::write(at("/etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
    std::fs::write(at("/etc/group"), "root:x:0:\n").unwrap();
    std::fs::write(at("/etc/systemd/system/c.service"), "[Service]\n").unwrap();
    std::os::unix::fs::symlink("/dev/null", at("/etc/systemd/system/d.service")).unwrap();
    std::fs::create_dir_all(at("/etc/coreinit")).unwrap();
    std::fs::write(at("/etc/coreinit/update.conf"), "GROUP=stable\nREBOOT_STRATEGY=off\n").unwrap();
    let carry_out = |text: &str| {
        let plan = understand(text).unwrap().plan;
        let mut files = plan.steps.iter().filter(|step| !matches!(step, Step::Host(_)));
        files.try_for_each(|step| files::carry_out(step, root.path()))
    };
    let owner = if rustix_is_root() { "owner: 'root:root'" } else { "owner: ''" };
    let text = format!(
        "write_files: [{{path: /new/folder/f, permissions: '4750', content: a, {owner}}}]\n\
         coreos: {{update: {{reboot-strategy: reboot}}, units: [{{name: c.service, mask: true}}]}}\n"
    );
    for _ in 0..2 {
        carry_out(&text).unwrap();
        assert_eq!(std::fs::read_to_string(at("/new/folder/f")).unwrap(), "a");
        let mode = std::fs::metadata(at("/new/folder/f")).unwrap();
        assert_eq!(mode.permissions().mode() & 0o7777, 0o4750);
        assert_eq!(std::fs::read_link(at("/etc/systemd/system/c.service")).unwrap(), Path::new("/dev/null"));
        let update = std::fs::read_to_string(at("/etc/coreinit/update.conf")).unwrap();
        assert_eq!(update, "GROUP=stable\nREBOOT_STRATEGY=reboot\n");
        assert_eq!(std::fs::read_dir(at("/new/folder")).unwrap().count(), 1, "nothing half is left");
        assert_eq!(mode.uid(), std::fs::metadata(root.path()).unwrap().uid());
    }
    let error = carry_out("write_files: [{path: /g, owner: nobody-here}]").unwrap_err();
    assert!(error.to_string().contains("nobody-here") && !at("/g").exists(), "{error:#}");
    let unmask = Step::Unmask { path: "/etc/systemd/system/d.service".into() };
    files::carry_out(&unmask, root.path()).unwrap();
    files::carry_out(&unmask, root.path()).unwrap();
    assert!(!at("/etc/systemd/system/d.service").exists());
}

fn rustix_is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

proptest! {
    /// Whatever a cloud hands over, it is refused with words or understood.
    #[test]
    fn any_text_is_read(text in "\\PC*|([ a-z-]{0,9}: ?[\"\\[\\]{}&*!|>a-z0-9.,=$]{0,20}\n){0,8}") {
        let _ = understand(&text);
    }

    #[test]
    fn files_keep_their_bytes(content in "\\PC{0,40}", mode in 0u32..0o7777) {
        let content = content.replace("$p", "p");
        let quoted = serde_json::Value::from(content.as_str()).to_string();
        let text = format!("write_files: [{{path: /f, permissions: {mode:o}, content: {quoted}}}]");
        let cloud = understand(&text);
        let cloud = cloud.unwrap();
        let [Step::Write(file)] = &cloud.plan.steps[..] else { panic!("{:?}", cloud.plan) };
        prop_assert_eq!(std::str::from_utf8(&file.bytes), Ok(content.as_str()));
        prop_assert_eq!(file.mode, mode);
    }
}
