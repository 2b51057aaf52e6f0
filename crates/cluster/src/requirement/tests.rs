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
    words.extend(requirements.replaces.iter().map(|glob| format!("instead of {glob}")));
    words.extend(requirements.roles.iter().map(|role| format!("the only {role}")));
    words.extend(requirements.is_global.then(|| "everywhere".into()));
    words.extend(requirements.preferred.iter().map(|(key, value)| format!("rather {key}={value}")));
    words.extend(requirements.spread.iter().map(|key| format!("spread over {key}")));
    match requirements.need.memory {
        Memory::Bytes(0) => {}
        Memory::Bytes(bytes) => words.push(format!("{bytes} bytes")),
        Memory::Percent(percent) => words.push(format!("{percent}% of memory")),
    }
    words.extend(Some(requirements.need.cpu_millis).filter(|m| *m > 0).map(|m| format!("{m} millis")));
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
    for yes in ["true", "True", "Yes", "On", "1", "t", "T"] {
        check(&format!("Global=no\nGlobal={yes}"), "everywhere");
    }
    check("Replaces=*bar*\nReplaces=\"a b\"", "instead of *bar*, instead of a, instead of b");
    check("Global=true\nConflicts=x\nMachineMetadata=a=b", "a=b, not with x, everywhere");
    check("MachineID=m\nConflicts=%p@*", "on m, not with foo@*");
    check("MachineID=m\nMachineOf=x.service", "on m, with x.service");
}

/// As in the canonical text, which makes the hash: what has one hash means one thing.
#[test]
fn a_section_that_is_begun_twice_is_read_at_once() {
    let check = |text: &str, expected: &str| {
        assert_eq!(asked("a.service", text), expected, "{text}");
        let file = UnitFile::parse(text).expect("a unit file");
        assert_eq!(asked("a.service", &file.canonical()), expected, "{text}");
    };
    check(
        "[X-Fleet]\nA=1\n[X-Flt]\nGlobal=no\n[X-Fleet]\nGlobal=yes\n",
        "unrecognized requirement in \
        [X-Fleet] section: \"A\"",
    );
    check("[X-Flt]\nConflicts=x\n[X-Fleet]\nConflicts=\n[X-Flt]\nConflicts=y\n", "");
    check("[Service]\nMemoryMax=1K\n[Slice]\nMemoryMax=2K\n[Service]\nMemoryMax=3K\n", "2048 bytes");
}

/// What coreinit wrote, before it was fleet, and what fleet dropped.
#[test]
fn reads_what_is_older_or_newer_than_fleet() {
    let check = |lines: &str, expected: &str| {
        let text = format!("[Service]\nMemoryMax=1K\nCPUQuota=10%\n[X-Coreinit]\n{lines}\n");
        assert_eq!(asked("foo@bar.service", &text), expected, "{text}");
    };
    check("X-Coreinit-Peers=a.service, %p.socket", "with a.service, with foo.socket, 1024 bytes, 100 millis");
    check("X-Coreinit-Provides=db,%i", "1024 bytes, 100 millis");
    check(
        "X-Coreinit-Provides=db,%i\nX-Coreinit-MachineSingleton=true",
        "the only bar, the only db, 1024 bytes, 100 millis",
    );
    check("X-Coreinit-Provides=db\nX-Coreinit-MachineSingleton=yes", "1024 bytes, 100 millis");
    check("X-MachineMetadataregion=us", "region=us, 1024 bytes, 100 millis");
    check("X-MemoryReservation=2\nX-CoresReservation=150", "2097152 bytes, 1500 millis");
    check("MemoryReservation=1M\nCPUReservation=0.5", "1048576 bytes, 500 millis");
    check("MemoryReservation=25%\nCPUReservation=50%\nX-CoresReservation=1", "25% of memory, 500 millis");
    check("MemoryReservation=0\nCPUReservation=0", "");
    check(
        "X-DiskReservation=3\nMemoryReservation=0\nCPUReservation=0",
        "X-DiskReservation= in section [X-Coreinit] has no effect: disk space is not counted",
    );
    check(
        "PreferMetadata=\"disk=ssd\" \"a=b\"\nSpread=zone",
        "rather a=b, rather disk=ssd, spread over zone, 1024 bytes, 100 millis",
    );
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
    check("MachineID=m\nGlobal=true", "MachineID cannot be used with Global");
    check("MachineID=m\nReplaces=x", "MachineID cannot be used with Replaces");
    check("Global=T\nMachineOf=x.service", "Global cannot be used with Peers");
    check("Global=on\nReplaces=x", "Global cannot be used with Replaces");
    check("Conflicts=y\nReplaces=x", "Conflicts cannot be used with Replaces");
    check(
        "MemoryReservation=much",
        "MemoryReservation=much in section [X-Fleet]: expected a size such as 512M, or 10%",
    );
    check(
        "CPUReservation=much",
        "CPUReservation=much in section [X-Fleet]: expected processors: 1.5, or 150%",
    );
    check("X-MemoryReservation=1G", "X-MemoryReservation=1G in section [X-Fleet]: expected megabytes");
    check(
        "X-CoresReservation=1.5",
        "X-CoresReservation=1.5 in section [X-Fleet]: expected hundredths of a core",
    );
    check("PreferMetadata=a", "PreferMetadata=a in section [X-Fleet]: expected KEY=VALUE");
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
    check(
        "Spread",
        "spread over x, Spread= in section [X-Flt] has no effect: it spreads the instances of a \
                     template, and this unit is neither",
    );
    assert_eq!(
        asked("a.service", "[X-fleet]\nGlobal=true\n"),
        "section [X-fleet] has no effect; did you mean [X-Fleet]?"
    );
    assert_eq!(
        asked("a.service", "[Unit]\nMachineOf=b.service\nConflicts=c.service\n"),
        "MachineOf= has no effect in section [Unit]; it belongs into [X-Coreinit]"
    );
    assert_eq!(asked("a.service", "[X-Other]\nMachineOf=b.service\n"), "");
}

#[test]
fn leaves_to_the_instance_what_only_the_instance_knows() {
    assert_eq!(
        asked("a@.service", "[X-Fleet]\nMachineOf=%i\nConflicts=%p@*.service\n"),
        "not with a@*.service"
    );
    assert!(asked("a@x.service", "[X-Fleet]\nMachineOf=%i\n").contains("expected the name of a unit"));
    // fleet looked before it filled in, and took this.
    let text = "[X-Fleet]\nMachineOf=x@1.service\nConflicts=x@%i.service\n";
    assert_eq!(asked("n@.service", text), "with x@1.service");
    assert_eq!(asked("n@2.service", text), "with x@1.service, not with x@2.service");
    assert!(asked("n@1.service", text).contains("matches conflict"));
}

#[test]
fn fills_in_four_specifiers() {
    let check = |name: &str, expected: &str| {
        assert_eq!(unit(name).fill_in("%n|%N|%p|%i|%%|%H|%I|%m|%"), format!("{expected}|%%|%H|%I|%m|%"));
    };
    check("test.service", "test.service|test|test|");
    check("ssh@2.service", "ssh@2.service|ssh@2|ssh|2");
    check("foo@bar@baz.service", "foo@bar@baz.service|foo@bar@baz|foo|bar@baz");
    check("foo@.service", "foo@.service|foo@|foo|");
    let file = UnitFile::parse("[Unit]\nDescription=Web %i of %p\nDescription=b\n").expect("a unit file");
    assert_eq!(file.description(&unit("web@3.service")), "Web 3 of web");
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
