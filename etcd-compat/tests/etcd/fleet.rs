//! A fleet cluster's keys, written with etcdctl as fleet writes them, and what is read of them.

use cluster::{DesiredState, UnitFile};
use etcd_compat::{FLEET_PREFIX, read_fleet};

use etcd_process::Etcd;

/// As fleet stores a unit.
async fn submit(etcd: &Etcd, name: &str, text: &str, state: Option<&str>) {
    let hash = UnitFile::parse(text).unwrap().hash();
    let bytes: Vec<String> = hash.0.iter().map(u8::to_string).collect();
    let hex: String = hash.0.iter().map(|byte| format!("{byte:02x}")).collect();
    let object = format!("{{\"Name\":\"{name}\",\"UnitHash\":[{}]}}", bytes.join(","));
    let set = async |key: &str, value: &str| {
        etcd.ctl_at("2", &["set", "--", &format!("/_coreos.com/fleet/{key}"), value]).await;
    };
    set(&format!("unit/{hex}"), &format!("{{\"Raw\":{text:?}}}")).await;
    set(&format!("job/{name}/object"), &object).await;
    if let Some(state) = state {
        set(&format!("job/{name}/target-state"), state).await;
    }
}

#[tokio::test]
async fn a_fleet_is_read_as_it_is() {
    let etcd = Etcd::start(1, &[]).await;
    let endpoint = &etcd.endpoints()[0];
    let none = read_fleet(endpoint, FLEET_PREFIX, None, None).await;
    assert!(none.unwrap_err().contains("no fleet under /_coreos.com/fleet"));

    let web = "[Service]\nExecStart=/bin/echo \"%i\"\n\n[X-Fleet]\nConflicts=web@*.service\n";
    submit(&etcd, "web@.service", web, None).await;
    submit(&etcd, "web@1.service", web, Some("launched")).await;
    submit(&etcd, "hello.service", "[Service]\nExecStart=/bin/sleep 1\n", Some("loaded")).await;
    let set = async |key: &str, value: &str| {
        etcd.ctl_at("2", &["set", "--", &format!("/_coreos.com/fleet/{key}"), value]).await;
    };
    // What is around units: machines, states, the engine, a job that was destroyed while its machine spoke.
    set("machines/0a1b/object", "{\"ID\":\"0a1b\",\"PublicIP\":\"192.0.2.1\",\"Metadata\":{}}").await;
    set("states/web@1.service/0a1b", "{\"loadState\":\"loaded\",\"activeState\":\"active\"}").await;
    set("job/web@1.service/target", "0a1b").await;
    set("job/phantom.service/job-state", "0a1b").await;
    set("engine/version", "1").await;
    set("job/lost.service/object", "{\"Name\":\"lost.service\",\"UnitHash\":[1,2,3]}").await;
    let found = read_fleet(endpoint, FLEET_PREFIX, None, None).await.unwrap();
    let units: Vec<_> = found.units.iter().map(|u| (u.name.as_str(), u.desired, u.file.text())).collect();
    let hello = "[Service]\nExecStart=/bin/sleep 1\n";
    assert_eq!(
        units,
        [
            ("hello.service", DesiredState::Loaded, hello),
            ("web@.service", DesiredState::Inactive, web),
            ("web@1.service", DesiredState::Launched, web),
        ]
    );
    let problems = [("lost.service".to_string(), "its file, 010203, is not there".to_string())];
    assert_eq!(found.problems, problems);
}
