//! What fleet's configuration says of its etcd. It counts once the state is kept in an etcd, where the
//! daemon's own configuration says nothing; until then it is told what it would be.

use std::collections::BTreeMap;
use std::fmt;

/// fleet's options, and what takes their place here.
const OPTIONS: [(&str, &str); 7] = [
    ("etcd_servers", "etcd_endpoints"),
    ("etcd_key_prefix", "etcd_prefix"),
    ("etcd_username", "etcd_user"),
    ("etcd_password", "etcd_password_file"),
    ("etcd_cafile", "etcd_ca_file"),
    ("etcd_certfile", "etcd_cert_file"),
    ("etcd_keyfile", "etcd_key_file"),
];

/// Those that were told, by fleet's names.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct FleetEtcd {
    told: BTreeMap<&'static str, String>,
    /// Where they were told, for the notes.
    pub origin: String,
}

/// A password is among the values.
impl fmt::Debug for FleetEtcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.told.keys()).finish()
    }
}

impl FleetEtcd {
    /// Whether it is an option of this kind.
    pub fn take(&mut self, key: &str, value: &str) -> bool {
        let found = OPTIONS.iter().find(|(fleets, _)| *fleets == key);
        if let (Some((fleets, _)), false) = (found, value.is_empty()) {
            self.told.insert(fleets, value.to_owned());
        }
        found.is_some()
    }

    /// The value of an option, unless the daemon's own configuration says something. Either is noted.
    pub fn value(&self, key: &str, is_told_here: bool, notes: &mut Vec<String>) -> Option<&str> {
        let value = self.told.get(key)?;
        let (origin, ours) = (&self.origin, ours(key));
        if is_told_here {
            notes.push(format!("{origin}{key} is not used: {ours} of coreinit's own stands over it"));
            return None;
        }
        notes.push(format!("{origin}{key} is used as {ours}"));
        Some(value)
    }

    /// What there is to say of them while the daemons keep the state themselves.
    pub fn unused(&self) -> Vec<String> {
        let note = |key: &&str| {
            format!(
                "{}{key} is not used: the daemons keep the cluster's state themselves, see `join` and \
                 `bootstrap_expect`; with backend = \"etcd\" it would be {}",
                self.origin,
                ours(key)
            )
        };
        self.told.keys().map(note).collect()
    }
}

fn ours(key: &str) -> &'static str {
    OPTIONS.iter().find(|(fleets, _)| *fleets == key).map_or("", |(_, ours)| ours)
}

/// As fleet reads it: commas between, with or without brackets and quotes.
pub fn servers(text: &str) -> Vec<String> {
    let bare = |one: &str| one.trim_matches([' ', '[', ']', '"', '\'']).to_owned();
    text.split(',').map(bare).filter(|one| !one.is_empty()).collect()
}

/// Where the state is kept when fleet kept its own there: below it, since fleet's keys are not ours. fleet's
/// usual place is nobody's wish.
pub fn prefix(fleets: &str) -> String {
    match fleets.trim_matches('/') {
        usual if usual == etcd_compat::FLEET_PREFIX.trim_matches('/') => etcd_compat::PREFIX.into(),
        other => format!("/{other}{}", etcd_compat::PREFIX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_fleet_did() {
        for text in ["[\"http://a:1\", \"b\"]", "http://a:1,b", " ['http://a:1','b',]"] {
            assert_eq!(servers(text), ["http://a:1", "b"], "{text}");
        }
        assert!(servers("[]").is_empty());
    }

    #[test]
    fn fleets_own_keys_are_left_alone() {
        assert_eq!(prefix("/_coreos.com/fleet/"), "/coreinit/");
        assert_eq!(prefix("/other/fleet"), "/other/fleet/coreinit/");
    }

    #[test]
    fn a_password_is_not_shown() {
        let mut fleet = FleetEtcd::default();
        assert!(fleet.take("etcd_password", "hunter2") && !fleet.take("verbosity", "1"));
        assert_eq!(format!("{fleet:?}"), "{\"etcd_password\"}");
        assert!(!format!("{:?}", fleet.unused()).contains("hunter2"));
    }
}
