//! fleet's own configuration, `fleet.conf`: `key=value` lines, and `FLEET_*` variables over them. What still
//! means something here is taken over; for every other option there is a line that says what became of it.
//! Nothing in it is an error, as with fleet: whoever moves over starts the daemon first and tidies up later.

use std::collections::BTreeMap;
use std::time::Duration;

use super::fleet_etcd::FleetEtcd;

/// The shortest `machine_lost_after`; fleet took any.
const LOST_AFTER_MIN: Duration = Duration::from_secs(2);

/// What of it counts, and what there is to say about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FleetConf {
    /// `verbosity` above 0.
    pub is_verbose: bool,
    pub public_ip: Option<String>,
    pub metadata: BTreeMap<String, String>,
    /// From `agent_ttl`.
    pub machine_lost_after: Option<Duration>,
    /// Counts where the state is kept in an etcd.
    pub etcd: FleetEtcd,
    /// One line for each option that is not used, or not as it was.
    pub notes: Vec<String>,
}

/// Options without a use here, and what is to be known instead.
const GONE: [(&str, &str); 10] = [
    ("etcd_request_timeout", "a member of etcd that does not answer within seconds is left for the next"),
    ("engine_reconcile_interval", "decisions are made when something changes, not every few seconds"),
    ("disable_engine", "any voting machine may lead; one that must not is one that does not vote"),
    ("disable_watches", "changes come with the log; there is nothing to poll"),
    ("enable_grpc", "the daemons talk to each other in their own way, on `listen`"),
    ("units_directory", "unit files are kept in the folder `units` of `runtime_dir`"),
    ("systemd_user", "set `bus` to the address of the systemd that is to be driven"),
    ("token_limit", "pages have 100 entries"),
    ("verify_units", "unit files are not signed; fleet itself had given it up"),
    ("authorized_keys_file", "unit files are not signed; fleet itself had given it up"),
];

/// Reads the file's text and the environment; the environment wins.
pub fn read(text: &str, environment: impl IntoIterator<Item = (String, String)>) -> FleetConf {
    let mut conf = FleetConf::default();
    let mut told: BTreeMap<String, String> = BTreeMap::new();
    let mut section = None;
    for (line, number) in text.lines().map(str::trim).zip(1..) {
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            section = Some(name.trim_end_matches(']').to_owned());
            continue;
        }
        match (line.split_once('='), &section) {
            (Some((key, _)), Some(section)) => {
                let key = key.trim();
                conf.notes.push(format!("{key} is in a section, [{section}]: fleet did not read it there"));
            }
            (Some((key, value)), None) => {
                told.insert(key.trim().to_lowercase(), unquoted(value.trim()).to_owned());
            }
            (None, _) => conf.notes.push(format!("line {number} is no KEY=VALUE and is passed over: {line}")),
        }
    }
    for (name, value) in environment {
        if let Some(key) = name.strip_prefix("FLEET_") {
            told.insert(key.to_lowercase(), unquoted(value.trim()).to_owned());
        }
    }
    for (key, value) in told {
        conf.take(&key, &value);
    }
    conf
}

impl FleetConf {
    /// Options from elsewhere, over those that were read.
    pub fn add(&mut self, options: &BTreeMap<String, String>) {
        for (key, value) in options {
            self.take(key, value);
        }
    }

    fn take(&mut self, key: &str, value: &str) {
        match key {
            "verbosity" => match value.parse::<i64>() {
                Ok(level) => self.is_verbose = level > 0,
                Err(_) => self.notes.push(format!("verbosity = {value:?} is no number and is passed over")),
            },
            "public_ip" => self.public_ip = Some(value.to_owned()).filter(|ip| !ip.is_empty()),
            "metadata" => self.take_metadata(value),
            "agent_ttl" => self.take_ttl(value),
            _ if self.etcd.take(key, value) => {}
            _ => self.notes.push(match GONE.iter().find(|(gone, _)| *gone == key) {
                Some((_, instead)) => format!("{key} is not used any more: {instead}"),
                None => format!("{key} is no option of fleet's and is passed over"),
            }),
        }
    }

    /// `k=v,k=v`; the last of two wins, and a value may hold `=`.
    fn take_metadata(&mut self, text: &str) {
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some((key, value)) if !key.trim().is_empty() => {
                    self.metadata.insert(key.trim().into(), value.trim().into());
                }
                _ => self.notes.push(format!("metadata: {pair:?} is no KEY=VALUE and is passed over")),
            }
        }
    }

    fn take_ttl(&mut self, text: &str) {
        match go_duration(text) {
            None => self.notes.push(format!("agent_ttl = {text:?} is no time span and is passed over")),
            Some(ttl) if ttl < LOST_AFTER_MIN => {
                let least = LOST_AFTER_MIN.as_secs();
                self.notes.push(format!("agent_ttl = {text:?} is too short; {least} s are used"));
                self.machine_lost_after = Some(LOST_AFTER_MIN);
            }
            Some(ttl) => {
                self.notes.push(format!(
                    "agent_ttl = {text:?} is used as machine_lost_after; without it, that would be 6 s"
                ));
                self.machine_lost_after = Some(ttl);
            }
        }
    }
}

/// fleet's own examples have values in quotes.
fn unquoted(value: &str) -> &str {
    let inner = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    inner.unwrap_or(value)
}

/// As Go writes a time span: `30s`, `1m30s`, `1.5h`, `300ms`.
fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (value, after) = rest.split_at(number);
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" | "μs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(value.parse::<f64>().ok()? * seconds).ok()?;
        total = total.checked_add(part)?;
        rest = after;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn none() -> [(String, String); 0] {
        []
    }

    #[test]
    fn what_still_means_something_is_taken() {
        let text = "# fleet.conf\n; old\nverbosity=1\n public_ip = \"192.0.2.7\"\n\
                    metadata=\"region=us-west, az = 1 ,az=2,eq=a=b\"\nagent_ttl=\"1m30s\"\n";
        let conf = read(text, none());
        let pairs = [("az", "2"), ("eq", "a=b"), ("region", "us-west")];
        let metadata = pairs.map(|(key, value)| (key.into(), value.into())).into();
        assert_eq!(conf.metadata, metadata);
        assert_eq!((conf.is_verbose, conf.public_ip.as_deref()), (true, Some("192.0.2.7")));
        assert_eq!(conf.machine_lost_after, Some(Duration::from_secs(90)));
        assert_eq!(conf.notes.len(), 1, "{:?}", conf.notes);
    }

    #[test]
    fn every_option_of_fleets_is_taken_or_told_of() {
        let check = |option: &str, parts: &[&str]| {
            let notes = read(option, none()).notes;
            assert_eq!(notes.len(), usize::from(!parts.is_empty()), "{option}: {notes:?}");
            for part in parts {
                assert!(notes[0].contains(part), "{option}: {part:?} in {notes:?}");
            }
        };
        check("verbosity=0", &[]);
        check("verbosity=loud", &["verbosity", "no number"]);
        check("public_ip=", &[]);
        check("metadata=", &[]);
        check("metadata=a=b,c", &["\"c\"", "no KEY=VALUE"]);
        check("agent_ttl=30s", &["agent_ttl", "machine_lost_after"]);
        check("agent_ttl=100ms", &["too short", "2 s"]);
        check("agent_ttl=soon", &["no time span"]);
        for option in ["etcd_servers=[\"http://127.0.0.1:2379\"]", "etcd_username=u", "etcd_keyfile=/k"] {
            check(option, &[]);
            let conf = read(option, none());
            assert_eq!(conf.etcd.unused().len(), 1, "{option}");
        }
        check("etcd_request_timeout=1.0", &["etcd_request_timeout"]);
        check("engine_reconcile_interval=2.0", &["engine_reconcile_interval"]);
        check("units_directory=/run/fleet/units/", &["units_directory", "runtime_dir"]);
        check("systemd_user=true", &["systemd_user", "bus"]);
        check("token_limit=50", &["token_limit", "100"]);
        check("enable_grpc=true", &["enable_grpc"]);
        check("disable_engine=true", &["disable_engine"]);
        check("disable_watches=true", &["disable_watches"]);
        check("verify_units=true", &["verify_units"]);
        check("authorized_keys_file=/a", &["authorized_keys_file"]);
        check("colour=red", &["colour", "no option"]);
        check("colour", &["line 1", "no KEY=VALUE"]);
        check("[fleet]\npublic_ip=1.2.3.4", &["public_ip", "[fleet]"]);
    }

    #[test]
    fn a_password_is_not_told() {
        let conf = read("etcd_password=hunter2\n", none());
        assert!(!format!("{conf:?} {:?}", conf.etcd.unused()).contains("hunter2"));
    }

    #[test]
    fn the_environment_wins() {
        let env = [("FLEET_PUBLIC_IP".to_owned(), "10.0.0.1".to_owned()), ("HOME".into(), "/root".into())];
        let conf = read("public_ip=10.0.0.2\n", env);
        assert_eq!((conf.public_ip.as_deref(), conf.notes.len()), (Some("10.0.0.1"), 0));
    }

    #[test]
    fn time_spans_are_gos() {
        let check = |text: &str, ms: Option<u64>| {
            assert_eq!(go_duration(text), ms.map(Duration::from_millis), "{text}");
        };
        check("30s", Some(30_000));
        check("1h2m3s4ms", Some(3_723_004));
        check("1.5m", Some(90_000));
        check("", None);
        check("30", None);
        check("s", None);
        check("-3s", None);
        check("1.2.3s", None);
        check("99999999999999999999h", None);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "\\PC*|([a-z_]{0,12}=?[\"\\[\\] a-z0-9.,=]{0,20}\n){0,8}") {
            read(&text, none());
        }

        #[test]
        fn what_is_written_is_read_again(
            metadata in proptest::collection::btree_map("[a-z]{1,8}", "[a-z0-9=._-]{0,8}", 0..5),
            seconds in 2u64..100_000,
            ip in "[0-9a-f.:]{1,15}",
        ) {
            let pairs: Vec<String> = metadata.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let text = format!("metadata=\"{}\"\nagent_ttl={seconds}s\npublic_ip={ip}\n", pairs.join(","));
            let conf = read(&text, none());
            prop_assert_eq!(conf.metadata, metadata);
            prop_assert_eq!(conf.machine_lost_after, Some(Duration::from_secs(seconds)));
            prop_assert_eq!(conf.public_ip, Some(ip));
        }
    }
}
