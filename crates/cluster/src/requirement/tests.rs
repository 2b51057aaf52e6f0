//! Tables of cases for what unit files ask.

use super::*;

fn unit(name: &str) -> UnitName {
    UnitName::new(name).expect("a unit name")
}

/// What is asked, as one line; or the error; then the warnings.
fn asked(name: &str, text: &str) -> String {
    let file = UnitFile::parse(text).expect("a unit file");
    let requirements = match Requirements::of(&unit(name), &file) {
        Ok(requirements) => requirements,
        Err(error) => return error.to_string(),
    };
    let mut words = Vec::new();
    words.extend(requirements.machine.map(|id| format!("on {id}")));
    words.extend(requirements.peers.iter().map(|peer| format!("with {peer}")));
    for (key, values) in &requirements.metadata {
        words.push(format!("{key}={}", values.iter().cloned().collect::<Vec<_>>().join("|")));
    }
    words.extend(requirements.conflicts.iter().map(|glob| format!("not with {glob}")));
    let warnings = validate(&unit(name), &file).expect("Requirements::of took it");
    words.extend(warnings.iter().map(|warning| warning.to_string()));
    words.join(", ")
}

#[test]
fn reads_what_fleet_read() {
    let check = |lines: &str, expected: &str| {
        for section in OUR_SECTIONS {
            let text = format!("[Service]\nExecStart=/x\n[{section}]\n{lines}\n");
            assert_eq!(asked("foo@bar.service", &text), expected, "{text}");
        }
    };
    check("", "");
    check("MachineID=a\nMachineID=b", "on a");
    check("X-ConditionMachineBootID=a\nX-ConditionMachineID=b\nMachineID=c", "on c");
    check("X-ConditionMachineBootID=a\nX-ConditionMachineID=b", "on b");
    check("MachineID=", "");
    check("MachineOf=\"lol.service\"", "with lol.service");
    check(
        "MachineOf=\"a.service\" \"b.service\"\nX-ConditionMachineOf=c.service",
        "with a.service, with b.service, with c.service",
    );
    check("MachineOf=a.service\nMachineOf=\nMachineOf=b.service", "with b.service");
    check(
        "MachineOf=%p@%i.socket\nConflicts=%p@*.service %N.timer",
        "with foo@bar.socket, not with foo@*.service, not with foo@bar.timer",
    );
    check(
        "MachineMetadata=region=eu\nX-ConditionMachineMetadata=region=us\nMachineMetadata=\"d=s\" \"a=b c\"",
        "a=b c, d=s, region=eu|us",
    );
    check("Conflicts=*bar* *foo*\nX-Conflicts=x", "not with *bar*, not with *foo*, not with x");
    check("Conflicts=a* \\\n# and\n  b*", "not with a*, not with b*");
    check("Global=false\nReplaces=", "");
    check("Global=12", "");
    check("Global=yes\nGlobal=no", "");
}

#[test]
fn refuses_what_cannot_be_met() {
    let check = |lines: &str, expected: &str| {
        assert_eq!(asked("a.service", &format!("[X-Fleet]\n{lines}\n")), expected, "{lines}");
    };
    check(
        "MachineOf=x.service\nConflicts=x.*",
        "unresolvable requirements: peer \"x.service\" matches conflict \"x.*\"",
    );
    check(
        "MachineOf=x.service\nReplaces=x.service",
        "unresolvable requirements: peer \"x.service\" matches replace \"x.service\"",
    );
    check("MachineID=m\nMachineOf=x.service", "MachineID cannot be used with Peers");
    check("MachineID=m\nConflicts=x", "MachineID cannot be used with Conflicts");
    check("MachineID=m\nGlobal=true", "MachineID cannot be used with Global");
    check("MachineID=m\nReplaces=x", "MachineID cannot be used with Replaces");
    check("Global=T\nMachineOf=x.service", "Global cannot be used with Peers");
    check("Global=on\nReplaces=x", "Global cannot be used with Replaces");
    check("Conflicts=y\nReplaces=x", "Conflicts cannot be used with Replaces");
    check(
        "Global=Yes",
        "Global units are not supported yet; start an instance for each machine, with Conflicts= between \
         them",
    );
    check(
        "Replaces=x.service",
        "Replaces= is not supported yet; use Conflicts=, or destroy the unit that is to be replaced",
    );
    check(
        "MachineOf=x",
        "MachineOf=x in section [X-Fleet]: expected the name of a unit: unit name must contain \".\"",
    );
    check("MachineOf=a.service", "MachineOf=a.service in section [X-Fleet]: a unit cannot name itself");
    for pair in ["foo=", "=asdf", "foo=a=b", "foo"] {
        check(
            &format!("MachineMetadata={pair}"),
            &format!("MachineMetadata={pair} in section [X-Fleet]: expected KEY=VALUE"),
        );
    }
    check("Conflicts=[", "Conflicts=[ in section [X-Fleet]: expected unit names with *, ? or [abc] in them");
}

#[test]
fn warns_of_what_has_no_effect() {
    let check = |key: &str, expected: &str| {
        assert_eq!(asked("a.service", &format!("[X-Flt]\n{key}=x\n")), expected);
    };
    check("Foo", "unrecognized requirement in [X-Flt] section: \"Foo\"");
    for key in ["MachineId", "X-ConditionMachineId"] {
        check(
            key,
            &format!("unrecognized requirement in [X-Flt] section: {key:?}; did you mean \"MachineID\"?"),
        );
    }
    for key in ["X-ConditionConflicts", "X-Peers", "Machineof", "X-Global", "global", "X-MachineMetadata"] {
        assert!(asked("a.service", &format!("[X-Flt]\n{key}=x\n")).contains("did you mean"), "{key}");
    }
    check("X-ConditionMetadata", "unrecognized requirement in [X-Flt] section: \"X-ConditionMetadata\"");
}

#[test]
fn leaves_to_the_instance_what_only_the_instance_knows() {
    assert_eq!(
        asked("a@.service", "[X-Fleet]\nMachineOf=%i\nConflicts=%p@*.service\n"),
        "not with a@*.service"
    );
    assert!(asked("a@x.service", "[X-Fleet]\nMachineOf=%i\n").contains("expected the name of a unit"));
}

#[test]
fn splits_as_fleet_did() {
    let check = |line: &str, expected: &[&str]| assert_eq!(split(line), expected, "{line}");
    check(r#""bar" "ping" "pong""#, &["bar", "ping", "pong"]);
    check(r#""bar""#, &["bar"]);
    check("", &[""]);
    check(r#""""#, &[""]);
    check(r#"""#, &["\""]);
    check(r#""bar"#, &["\"bar"]);
    check(r#"bar""#, &["bar\""]);
    check(r#"foo\"bar"#, &["foo\\\"bar"]);
    check(r#""bar" ""#, &["bar", ""]);
    check(r#""foo\"bar""#, &["foo\\bar"]);
}

#[test]
fn loads_a_service_that_its_socket_starts() {
    let names = ["a.service", "a.socket", "b.service"].map(unit).into();
    let states: Vec<_> =
        launch_states(&names).into_iter().map(|(name, state)| format!("{name} {state}")).collect();
    assert_eq!(states, ["a.service loaded", "a.socket launched", "b.service launched"]);
}
