//! What is not a unit, not a name, not JSON: a clear error, and nothing is stored.

use tests::deploy::Cluster;

const GOOD: &str = "[Service]\\nExecStart=/bin/true\\n";

pub fn bad_input_is_refused_and_nothing_is_stored(cluster: &Cluster) {
    let one = |name: &str, text: &str| {
        format!(
            "{{\"operations\":[{{\"op\":\"set\",\"name\":\"{name}\",\"text\":\"{text}\",\
             \"desiredState\":\"launched\"}}]}}"
        )
    };
    let long = "a".repeat(300);
    let huge = format!("[Service]\\nExecStart=/bin/true\\n# {}\\n", "x".repeat(10 << 20));
    let cases: Vec<(&str, String)> = vec![
        ("no JSON", "hello".into()),
        ("half a JSON", "{\"operations\":[".into()),
        ("another JSON", "[1, 2]".into()),
        ("nothing", String::new()),
        ("no name", one("", GOOD)),
        ("a way out", one("../../etc/passwd.service", GOOD)),
        ("a way down", one("a/b.service", GOOD)),
        ("no type", one("a", GOOD)),
        ("an unknown type", one("a.conf", GOOD)),
        ("a long name", one(&format!("{long}.service"), GOOD)),
        ("a name with a line end", one("a\\nb.service", GOOD)),
        ("no section's end", one("probe-bad.service", "[Service\\nExecStart=/bin/true\\n")),
        ("no option", one("probe-bad.service", "[Service]\\nfoo\\n")),
        ("10 MiB", one("probe-bad.service", &huge)),
        ("one good, one bad", {
            let good = one("probe-good.service", GOOD);
            let bad = "{\"op\":\"set\",\"name\":\"../x.service\",\"text\":\"\"}";
            good.replace("}]}", &format!("}},{bad}]}}"))
        }),
    ];
    for (what, body) in &cases {
        let answer = cluster
            .call("h1", "POST", "/v1/units", body.as_bytes())
            .unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!((400..500).contains(&answer.status), "{what}: {} {}", answer.status, answer.text());
        let error: Result<api::fleet::ErrorBody, _> = serde_json::from_slice(&answer.body);
        let message = error.unwrap_or_else(|e| panic!("{what}: {e} in {}", answer.text())).error.message;
        assert!(!message.trim().is_empty() && message.len() < 1000, "{what}: {message}");
    }
    let paths = [
        ("PUT", "/fleet/v1/units/..%2F..%2Fetc%2Fpasswd.service", GOOD),
        ("PUT", "/fleet/v1/units/probe-bad.service", "hello"),
        ("GET", "/v1/units/probe-unknown.service", ""),
        ("GET", "/v2/nothing", ""),
        ("DELETE", "/v1/machines", ""),
    ];
    for (method, path, body) in paths {
        let answer = cluster.call("h2", method, path, body.as_bytes()).expect("an answer");
        assert!((400..500).contains(&answer.status), "{method} {path}: {} {}", answer.status, answer.text());
    }
    for host in cluster.rack.hosts() {
        assert_eq!(cluster.units(host), Ok(vec![]), "nothing is stored");
    }
    assert_eq!(cluster.running(&["probe-*"]).len(), 0);
}

pub fn corectl_names_what_is_wrong(cluster: &Cluster) {
    cluster.rack.shell(
        "h1",
        "mkdir -p /tmp/bad; printf '[Service]\\nExecStart=/bin/true\\nfoo\\n' >/tmp/bad/probe-bad.service",
    );
    cluster.rack.shell("h1", "head -c 10485760 /dev/zero | tr '\\0' x >/tmp/bad/probe-huge.service");
    let cases = [
        ("/tmp/bad/probe-bad.service", "probe-bad.service"),
        ("/tmp/bad/probe-huge.service", "probe-huge.service"),
        ("/tmp/bad/probe-missing.service", "probe-missing.service"),
        ("/bin/true", "true"),
    ];
    for (file, named) in cases {
        let output = cluster.corectl("h1", &["start", file]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{file}: {said}");
        assert!(said.contains(named) && !said.contains("panicked"), "{file}: {said}");
    }
    let said = tests::rack::said(&cluster.corectl("h1", &["start", "/tmp/bad/probe-bad.service"]));
    assert!(said.contains('3'), "the line is named: {said}");
    assert_eq!(cluster.units("h1"), Ok(vec![]), "nothing is stored");
}
