//! Machines that are told by user data what they are: what `corectl generate` writes, and `coreinitd` reads.

use std::time::Duration;

use tests::deploy::{Cluster, DATA_DIR};
use tests::wait::eventually;

const LIMIT: Duration = Duration::from_secs(60);
const CONFIGURED: &str = "/etc/coreinit/coreinitd.toml";

/// A machine without a configuration joins by its user data alone, with the metadata that is in it; and its
/// own units are as the user data says, once a boot.
pub fn a_machine_joins_by_its_user_data(cluster: &Cluster) {
    let rack = &cluster.rack;
    cluster.stop_daemon("h3");
    rack.shell("h3", &format!("mv {CONFIGURED} /root/ && rm -rf /var/lib/coreinit {DATA_DIR}"));
    let generate = "generate cloud-config --for coreos --uses 1 --metadata booted=yes";
    let joining =
        cluster.types("h1", generate).is(0, &["#cloud-config", "coreinit-join.service"]).out.clone();
    let own = "\
#cloud-config
write_files:
  - path: /etc/rack/greeting
    permissions: '0640'
    content: hello
coreos:
  units:
    - name: probe-own.service
      enable: true
      command: start
      content: |
        [Service]
        ExecStart=/bin/sleep infinity
        [Install]
        WantedBy=multi-user.target
      drop-ins:
        - name: 10-who.conf
          content: |
            [Service]
            Environment=WHO=drop-in
";
    let apply = |name: &str, text: &str| {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join(name), text).expect("it can be written");
        rack.put("h3", &dir.path().join(name), &format!("/root/{name}"));
        rack.exec("h3", &["coreinitd", "--cloud-config", &format!("/root/{name}"), "--cloud-config-only"])
    };
    apply("own", own);
    let says = |command: &str| rack.shell("h3", command).trim().to_string();
    assert_eq!(says("stat -c %a /etc/rack/greeting; cat /etc/rack/greeting"), "640\nhello");
    eventually(LIMIT, "the machine's own unit", || {
        let state =
            says("systemctl is-active probe-own.service || true; systemctl is-enabled probe-own.service");
        if state == "active\nenabled" { Ok(()) } else { Err(state) }
    });
    assert!(says("systemctl show -p Environment probe-own.service").contains("WHO=drop-in"));
    // Once a boot: what was stopped since stays so.
    rack.exec("h3", &["systemctl", "stop", "probe-own.service"]);
    rack.exec("h3", &["coreinitd", "--cloud-config", "/root/own", "--cloud-config-only"]);
    assert_eq!(says("systemctl is-active probe-own.service || true"), "inactive");

    apply("joining", &joining);
    eventually(LIMIT, "the machine to be a member", || {
        let machines = cluster.machines("h1")?.machines;
        let own = cluster.status("h3")?;
        let known = machines.iter().find(|one| one.id == own.machine).ok_or("it is not known")?;
        match known.metadata.get("booted").map(String::as_str) {
            Some("yes") if own.leader.is_some() => Ok(()),
            other => Err(format!("{other:?}, {own:?}")),
        }
    });
    eventually(LIMIT, "the token to be gone", || {
        let left = says("ls /etc/coreinit/join-token 2>/dev/null || true");
        if left.is_empty() { Ok(()) } else { Err(left) }
    });

    rack.shell(
        "h3",
        &format!(
            "systemctl stop coreinitd; systemctl disable --now coreinit-join.service probe-own.service
             rm -rf /etc/systemd/system/probe-own.service* /etc/systemd/system/coreinit-join.service /etc/rack
             systemctl daemon-reload; mv /root/coreinitd.toml {CONFIGURED}
             rm -rf /var/lib/coreinit {DATA_DIR}"
        ),
    );
    cluster.start_daemon("h3");
    cluster.formed();
}
