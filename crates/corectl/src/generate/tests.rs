//! What is written, read by what others have published about it.

use ignition_config::Config;
use serde_json::Value;

use super::*;
use crate::cli::Variant;

const TOKEN: &str = "coreinit-1-0123-4567-89ab";

fn machine(change: impl FnOnce(&mut Wishes)) -> anyhow::Result<NewMachine> {
    let addresses = ["10.0.0.1:7340".to_string(), "[fd00::2]:7340".to_string()];
    let metadata = ["rack=7".to_string(), "disk=s\"s'd: #".to_string()];
    let mut wishes = Wishes {
        token: TOKEN,
        addresses: &addresses,
        metadata: &metadata,
        programs: None,
        reboot_strategy: Some("etcd-lock"),
    };
    change(&mut wishes);
    NewMachine::new(&wishes)
}

/// With everything that can be asked for, and with nothing.
fn machines() -> [NewMachine; 3] {
    let plain = |wishes: &mut Wishes| (wishes.metadata, wishes.reboot_strategy) = (&[], None);
    [
        machine(|_| {}).unwrap(),
        machine(|wishes| wishes.programs = Some("https://example.org/coreinit/")).unwrap(),
        machine(plain).unwrap(),
    ]
}

/// Path to contents, and unit to text: the same in every form.
fn told(machine: &NewMachine) -> Vec<(String, String)> {
    let files = machine.files.iter().map(|file| match &file.contents {
        Contents::Text(text) => (file.path.clone(), text.clone()),
        Contents::From(url) => (file.path.clone(), url.clone()),
    });
    let units = machine.units.iter().map(|unit| (unit.name.into(), unit.text.clone().unwrap_or_default()));
    files.chain(units).collect()
}

use new_machine::Contents;

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_string()
}

fn all(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

#[test]
fn ignition_reads_it_and_knows_every_key() {
    for machine in machines() {
        let written = ignition::write(&machine);
        let (config, warnings) = Config::parse_str(&written).unwrap();
        assert!(matches!(config, Config::V3_3(_)) && warnings.is_empty(), "{warnings:?}");
        let read: Value = serde_json::from_str(&written).unwrap();
        let files = all(&read["storage"]["files"]).iter().map(|file| {
            let source = text(&file["contents"]["source"]);
            (text(&file["path"]), source.strip_prefix("data:,").map_or(source.clone(), unescaped))
        });
        let units = all(&read["systemd"]["units"]).iter().map(|u| (text(&u["name"]), text(&u["contents"])));
        assert_eq!(files.chain(units).collect::<Vec<_>>(), told(&machine));
        assert_eq!(read["storage"]["files"][0]["mode"], 0o600, "the token is for root alone");
    }
}

fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend(before.bytes());
        bytes.push(u8::from_str_radix(&after[..2], 16).unwrap());
        rest = &after[2..];
    }
    bytes.extend(rest.bytes());
    String::from_utf8(bytes).unwrap()
}

/// Butane has no published schema: what it makes of this is Ignition's, whose keys these are.
#[test]
fn butane_says_the_same() {
    for machine in machines() {
        let written = butane::write(&machine, Variant::Flatcar);
        let read: Value = serde_saphyr::from_str(&written).unwrap_or_else(|e| panic!("{written}\n{e}"));
        assert_eq!((text(&read["variant"]), text(&read["version"])), ("flatcar".into(), "1.0.0".into()));
        let files = all(&read["storage"]["files"]).iter().map(|file| {
            let contents = &file["contents"];
            (text(&file["path"]), text(contents.get("inline").unwrap_or(&contents["source"])))
        });
        let units = all(&read["systemd"]["units"]).iter().map(|u| (text(&u["name"]), text(&u["contents"])));
        assert_eq!(files.chain(units).collect::<Vec<_>>(), told(&machine));
        assert!(written.contains("      mode: 0600\n"), "{written}");
    }
    let fcos = butane::write(&machines()[0], Variant::Fcos);
    assert!(fcos.starts_with("variant: fcos\nversion: 1.4.0\n"), "{fcos}");
}

/// Debian's cloud-init 22.4.2 has that schema; tests/schemas/README.md says where it is from.
#[test]
fn cloud_init_reads_it_and_knows_every_key() {
    let schema: Value =
        serde_json::from_str(include_str!("../../tests/schemas/cloud-init-22.4.2.json")).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for machine in machines() {
        let written = cloud_config::for_cloud_init(&machine);
        assert!(written.starts_with("#cloud-config\n"));
        let read: Value = serde_saphyr::from_str(&written).unwrap_or_else(|e| panic!("{written}\n{e}"));
        let errors: Vec<String> = validator.iter_errors(&read).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{written}: {errors:?}");
        let token = &read["write_files"][0];
        assert_eq!(
            (text(&token["content"]), text(&token["permissions"])),
            (format!("{TOKEN}\n"), "0600".into())
        );
        let commands = read["runcmd"].to_string();
        assert!(commands.contains(r#"["systemctl","enable","--now","--no-block","coreinit-join.service"]"#));
        assert_eq!(commands.contains("curl"), machine.files.iter().any(|file| file.path.starts_with("/opt")));
    }
    let wrong = serde_json::json!({ "write_files": [{ "path": "/a", "mode": 7 }] });
    assert!(!validator.is_valid(&wrong), "the schema says no to something");
}

#[test]
fn coreinitd_reads_its_dialect() {
    let [machine, fetching, _] = machines();
    let written = cloud_config::for_coreos(&machine).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("user-data");
    std::fs::write(&path, &written).unwrap();
    let read = coreinitd::cloud_config::read(&path).unwrap_or_else(|error| panic!("{written}\n{error:#}"));
    assert!(read.notes.is_empty(), "{:?}", read.notes);
    let steps: Vec<String> = read.plan.steps.iter().map(ToString::to_string).collect();
    assert!(
        steps[0].starts_with("write /etc/coreinit/join-token") && steps[0].contains("mode 0600"),
        "{steps:?}"
    );
    for step in ["enable coreinit-join.service", "start coreinit-join.service", "start coreinit-reboot.path"]
    {
        assert!(steps.iter().any(|known| known == step), "{steps:?}");
    }
    assert!(cloud_config::for_coreos(&fetching).is_err_and(|error| error.to_string().contains("--programs")));
}

#[test]
fn what_would_be_another_line_is_refused() {
    let check = |change: &dyn Fn(&mut Wishes), part: &str| {
        let refused = machine(|wishes| change(wishes)).map(drop).unwrap_err().to_string();
        assert!(refused.contains(part), "{refused}");
    };
    check(&|wishes| wishes.token = "coreinit-1\nx", "--token");
    check(&|wishes| wishes.token = "hello", "--token");
    for address in ["", "a b", "a\nb", "-x", "a;b"] {
        let addresses = [address.to_string()];
        let refused = machine_at(&addresses).unwrap_err().to_string();
        assert!(refused.contains("--address"), "{refused}");
    }
    let metadata = ["a".to_string()];
    let wishes =
        Wishes { token: TOKEN, addresses: &[], metadata: &metadata, programs: None, reboot_strategy: None };
    assert!(NewMachine::new(&wishes).is_err());
    check(&|wishes| wishes.programs = Some("file:///a"), "--programs");
}

fn machine_at(addresses: &[String]) -> anyhow::Result<()> {
    let wishes = Wishes { token: TOKEN, addresses, metadata: &[], programs: None, reboot_strategy: None };
    NewMachine::new(&wishes).map(drop)
}

#[test]
fn only_addresses_that_others_reach_are_told() {
    for (address, expected) in [
        ("10.0.0.1:7340", true),
        ("h1.example.org:7340", true),
        ("[fd00::1]:7340", true),
        ("0.0.0.0:7340", false),
        ("[::]:7340", false),
        ("127.0.0.1:7340", false),
        ("localhost:7340", false),
    ] {
        assert_eq!(is_reachable(address), expected, "{address}");
    }
}
